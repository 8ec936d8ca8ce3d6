"""Every command on a small disk that is full, or becomes full on the way: below the state directory or the root."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from swupd.cli import COMMANDS, GROUP_COMMANDS
from swupd.errors import ExitCode
from tests.transaction import playground
from tests.transaction.playground import Outcome, Picture, Playground, difference
from tests.transaction.proof import Points

FILLER = "filler"
DISK_BYTES = 10_000_000
LEFT = {"nothing is left": 0, "a little is left": 60_000, "some is left": 700_000}
"""Bytes that are free when the command begins; the whole work needs more."""
ARGUMENTS: dict[str, tuple[str, ...]] = {
    "autoupdate": ("--disable",),
    "bundle-add": ("extra",),
    "boot": ("check",),
    "bundle-info": ("base",),
    "bundle-remove": ("optional",),
    "hashdump": ("/bin/sh",),
    "mirror": ("--set",),
    "os-install": ("--version", "10", "--bundles", "base"),
    "search-file": ("core",),
    "snapshots": ("list",),
    "3rd-party add": ("first", "URL"),
    "3rd-party bundle-add": ("extra",),
    "3rd-party bundle-info": ("base", "--repo", "first"),
    "3rd-party bundle-remove": ("optional",),
    "3rd-party remove": ("first",),
}
"""What a command needs; a new one that needs something has to be told here. URL is another publisher's."""
OF_STATELESS_ROOTS = frozenset({"etc", "reset"})
"""These refuse the machines of this test; tests/unit/swupd/nextboot has others for them."""
SETUPS = {"os-install": "nothing", "repair": "damaged", "autoupdate": "with units", "3rd-party add": "ten"}
"""The machine that a command finds, unless it is one with version 10."""
FIRST = {"rollback": "update"}
"""What is run on the disk before it becomes full: the root has to be the same one."""
FINISHING = "bundle-list"
WITHOUT_GLOBAL_OPTIONS = frozenset({"hashdump", "search"})
_STATUSES = frozenset(ExitCode) - {ExitCode.UNEXPECTED, ExitCode.INVALID_OPTION}

Setup = Callable[[Playground, str], str]


@contextmanager
def small_disk(place: Path) -> Iterator[None]:
    """What is in `place` lies on a disk of its own."""
    with playground.in_memory() as directory:
        image, copy = directory / "image", directory / "copy"
        playground.make_file_system(image, DISK_BYTES, "ext4")
        playground.command("cp", "-a", str(place), str(copy))
        with playground.mounted(image, place):
            (place / "lost+found").rmdir()
            playground.command("cp", "-a", f"{copy}/.", str(place))
            yield


def fill(file: Path, left: int) -> None:
    """Write until the disk is full, then give `left` bytes back."""
    with file.open("wb", buffering=0) as filler:
        for size in (1 << 16, 1 << 10):
            try:
                while True:
                    filler.write(bytes(size))
            except OSError:
                os.fsync(filler.fileno())
        filler.truncate(max(0, filler.tell() - left))
        os.fsync(filler.fileno())


def run(ground: Playground, command: str, other_url: str) -> Outcome:
    arguments = [other_url if argument == "URL" else argument for argument in ARGUMENTS.get(command, ())]
    if command in WITHOUT_GLOBAL_OPTIONS:
        return playground.in_child([command, *arguments], str(ground.root))
    return ground.swupd(*command.split(), *arguments)


@pytest.mark.parametrize("place", ["root", "state"])
@pytest.mark.parametrize("command", [name for name in (*COMMANDS, *GROUP_COMMANDS) if name not in OF_STATELESS_ROOTS])
def test_a_command_on_a_full_disk(
    ground: Playground, setup: Setup, other_url: str, points: Points, *, command: str, place: str
) -> None:
    """It ends with one line and a documented status and changes nothing, or succeeds; with room it succeeds."""
    group = "with a repository" if command in GROUP_COMMANDS else "ten"
    state = setup(ground, SETUPS.get(command, group))
    ground.restore(state)
    begin(ground, command)
    old = ground.look().root
    usual = run(ground, command, other_url)
    assert usual.status in _STATUSES, usual
    new = ground.look().root
    directory = ground.root if place == "root" else ground.state
    for what, left in LEFT.items():
        ground.restore(state)
        with small_disk(directory):
            begin(ground, command)
            fill(directory / FILLER, left)
            found = run(ground, command, other_url)
            complaint = judge(found, usual, look(ground), old, new)
            (directory / FILLER).unlink(missing_ok=True)
            if not complaint and found.status != usual.status:
                # It may have failed when the files were in place; then it is finished by whoever comes next.
                last = FINISHING if look(ground) == new != old else command
                complaint = judge_with_room(run(ground, last, other_url), usual, look(ground), new)
                complaint = complaint or ("" if ground.is_settled() else "with room there is still a journal")
        points.add("full disk", complaint and f"{what}: {complaint}")
    points.judge()


def begin(ground: Playground, command: str) -> None:
    if command in FIRST:
        done = ground.swupd(FIRST[command])
        assert done.status == 0, done


def judge(found: Outcome, usual: Outcome, root: Picture, old: Picture, new: Picture) -> str:
    """What is wrong with a command that had no room."""
    if found.status == usual.status:
        return difference(root, new) if root != new else ""
    if found.status not in _STATUSES:
        return f"undocumented {found}"
    if sum(line.startswith("Error: ") for line in found.output.splitlines()) != 1:
        return f"not one line about an error: {found}"
    if root not in (old, new):
        return f"it fails and leaves something between: {difference(root, old)}: {found}"
    return ""


def judge_with_room(found: Outcome, usual: Outcome, root: Picture, new: Picture) -> str:
    if found.status != usual.status:
        return f"with room it does not succeed: {found}"
    return f"with room, {difference(root, new)}" if root != new else ""


def look(ground: Playground) -> Picture:
    picture = ground.look().root
    picture.pop(f"/{FILLER}", None)
    return picture
