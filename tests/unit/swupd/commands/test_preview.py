"""What will happen is told, asked about and checked for room before anything is done."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from swupd.commands.preview import listed
from swupd.errors import ExitCode
from swupd.formats import layout, updateindex
from swupd.formats.updateindex import BundleCost, Update, UpdateIndex
from swupd.system import System

Bundle = Any
Bundles = dict[str, Any]
Machine = Any
Publisher = Any
Mount = Callable[[Path, int], None]

MB = 1 << 20
OLD_KERNEL, NEW_KERNEL = (f"/usr/lib/kernel/org.example.native.6.{n}" for n in (1, 2))


@pytest.fixture
def mount() -> Iterator[Mount]:
    """Mounts small file systems, until the test is over."""
    with ExitStack() as mounted:

        def make(place: Path, size: int) -> None:
            place.mkdir(parents=True, exist_ok=True)
            if subprocess.run(
                ["mount", "-t", "tmpfs", "-o", f"size={size},mode=755", "tmpfs", place], check=False
            ).returncode:
                pytest.skip("file systems cannot be mounted here")
            mounted.callback(subprocess.run, ["umount", place], check=True)

        yield make


@pytest.fixture
def twenty(published: Publisher, ten: Bundles, bundle: Bundle) -> Publisher:
    """Version 20: a changed, a new and a removed file, a new bundle, and configuration that stays as it is."""
    ten["editors"].files |= {"/usr/bin/edit": "new", "/usr/share/added": "added", "/etc/edit": "other"}
    ten["editors"].includes = ["os-core", "libs", "spelling"]
    ten["spelling"] = bundle({"/usr/bin/spell": "spell"}, ["os-core"])
    del ten["libs"].files["/usr/lib/lib.so"]
    published.publish(20, ten)
    return published


def staged(machine: Machine) -> list[Path]:
    return list(machine.state.glob("cache/*/staged/*"))


def line(machine: Machine, word: str) -> str:
    """The line of the preview that begins with a word."""
    (found,) = [text for text in machine.out.splitlines() if text.startswith(f"  {word}: ")]
    return str(found)


# -- dry runs ----------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("twenty")
def test_a_dry_run_tells_what_would_happen_and_changes_nothing(
    machine: Machine, snapshot: Callable[[Path], dict[str, str]]
) -> None:
    before = snapshot(machine.root)
    machine.run("update", "--dry-run")
    assert "from version 10 to 20" in machine.out
    assert line(machine, "bundles").endswith("3 changed (editors, libs, os-core); 1 added (spelling); 0 removed")
    # os-release changes as well, and a new bundle has a marker.
    assert line(machine, "files").endswith(
        "3 files added; 2 files changed; 1 link removed; 1 left to the administrator"
    )
    assert "about " in line(machine, "download")
    assert " needed, " in line(machine, "disk")
    assert line(machine, "time").endswith("about 1 s")
    assert "reboot" not in machine.out
    assert snapshot(machine.root) == before
    assert staged(machine) == []


def test_a_dry_run_without_anything_to_do_is_a_success(machine: Machine) -> None:
    machine.run("update", "--dry-run")
    assert "the server has nothing newer" in machine.out


@pytest.mark.usefixtures("twenty")
def test_a_dry_run_for_scripts_is_the_version_alone(machine: Machine) -> None:
    machine.run("update", "--dry-run", "--quiet")
    assert machine.out == "20\n"


@pytest.mark.usefixtures("twenty")
def test_a_dry_run_is_json_as_well(machine: Machine) -> None:
    machine.run("update", "--dry-run", "--json-output")
    messages = [record["msg"] for record in json.loads(machine.out) if record["type"] == "info"]
    assert any("1 link removed" in message for message in messages)


def test_what_the_publisher_says_is_told_exactly(machine: Machine, twenty: Publisher) -> None:
    costs = {name: BundleCost(10, size, 1_000_000) for name, size in (("editors", 4000), ("libs", 3000))}
    index = UpdateIndex(20, (Update(10, None, costs | {"os-core": BundleCost(10, None, 500)}),))
    (twenty.directory / layout.update_index(20)).write_bytes(updateindex.serialise(index))
    machine.run("bundle-remove", "editors", "--no-scripts")
    machine.run("update", "--dry-run")
    assert line(machine, "download").endswith("download: 500 bytes for 1 object")


@pytest.mark.usefixtures("twenty")
def test_what_is_downloaded_already_costs_nothing(machine: Machine) -> None:
    machine.run("update", "--download")
    machine.run("update", "--dry-run")
    assert "0 bytes for 0 objects" in line(machine, "download")


def test_a_reboot_that_will_be_needed_is_announced_and_remembered(
    machine: Machine, published: Publisher, ten: Bundles, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    ten["os-core"].files[NEW_KERNEL] = "kernel"
    published.publish(20, ten)
    monkeypatch.setattr(System, "is_host", True)
    monkeypatch.setattr("swupd.reboot.RUN", tmp_path)
    machine.run("update", "--dry-run", "--no-scripts")
    assert "A reboot is needed to use the new kernel" in line(machine, "reboot")
    machine.run("update", "--no-scripts")
    assert machine.out.splitlines()[-1] == "A reboot is needed to use the new kernel"
    machine.run("info")
    assert machine.out.splitlines()[-1] == "A reboot is needed to use the new kernel"


@pytest.mark.parametrize(
    ("names", "text"),
    [([], ""), (["b", "a"], " (a, b)"), ("abcdefghi", " (a, b, c, d, e, f and 3 more)")],
)
def test_lists_of_bundles_are_short(names: list[str], text: str) -> None:
    assert listed(names) == text


# -- room --------------------------------------------------------------------------------------------------------------


def test_a_cache_without_room_is_told_before_anything_is_fetched(
    machine: Machine, published: Publisher, ten: Bundles, tmp_path: Path, mount: Mount
) -> None:
    ten["editors"].files["/usr/share/big"] = "x" * (2 * MB)
    published.publish(20, ten)
    machine.run("update", "--no-scripts")
    ten["editors"].files["/usr/share/big"] = "y" * (2 * MB)
    published.publish(30, ten)
    mount(tmp_path / "small", MB)
    machine.run(*("update", "--no-scripts", "--cachedir", str(tmp_path / "small")), status=ExitCode.DISK_SPACE)
    assert machine.errors[0].startswith(f"Error: the file system of {tmp_path}/small/cache/")
    assert "(cache) has too little room" in machine.errors[0]
    assert not list((tmp_path / "small").glob("cache/*/staged/*"))
    assert "VERSION_ID=20" in machine.read("/usr/lib/os-release")


@pytest.fixture
def tiny(bare: Machine, mount: Mount) -> Machine:
    """A machine whose root is a file system of 3 MB, its state on another one."""
    mount(bare.root, 3 * MB)
    bare.run("os-install", "--version", "10", "--no-scripts", "--bundles", "editors")
    return bare


def test_a_system_without_room_is_told_before_anything_is_fetched(
    tiny: Machine, published: Publisher, ten: Bundles
) -> None:
    ten["editors"].files["/usr/share/big"] = "x" * (2 * MB)
    published.publish(20, ten)
    tiny.run("update", "--no-scripts")
    ten["editors"].files["/usr/share/big"] = "y" * (2 * MB)
    published.publish(30, ten)
    tiny.run("update", "--no-scripts", status=ExitCode.DISK_SPACE)
    assert f"Error: the file system of {tiny.root} (system) has too little room" in tiny.err
    assert staged(tiny) == []
    tiny.run("update", "--dry-run")
    assert "TOO LITTLE" in tiny.out


def test_what_turned_out_to_be_too_large_is_told_before_anything_is_changed(
    tiny: Machine, published: Publisher, ten: Bundles
) -> None:
    """Nothing says beforehand that a file has grown from four bytes to megabytes."""
    ten["editors"].files["/usr/bin/edit"] = "x" * (4 * MB)
    published.publish(20, ten)
    tiny.run("update", "--no-scripts", status=ExitCode.DISK_SPACE)
    assert "(system) has too little room" in tiny.err
    assert tiny.read("/usr/bin/edit") == "edit"
    assert staged(tiny), "what was downloaded is kept"


def test_a_boot_partition_without_room_is_told_unless_nobody_wants_to_know(
    machine: Machine, published: Publisher, ten: Bundles, mount: Mount
) -> None:
    ten["os-core"].files[OLD_KERNEL] = "x" * MB
    published.publish(20, ten)
    machine.run("update", "--no-scripts")
    del ten["os-core"].files[OLD_KERNEL]
    ten["os-core"].files[NEW_KERNEL] = "y" * MB
    published.publish(30, ten)
    mount(machine.root / "boot", MB // 2)
    machine.run("update", "--no-scripts", status=ExitCode.DISK_SPACE)
    assert f"Error: the file system of {machine.root}/boot (boot partition) has too little room" in machine.err
    assert not machine.has(NEW_KERNEL)
    machine.run("update", "--no-scripts", "--skip-diskspace-check")
    assert machine.has(NEW_KERNEL)


def test_a_bundle_that_does_not_fit_is_not_installed(tiny: Machine, published: Publisher, ten: Bundles) -> None:
    ten["games"].files["/usr/share/level"] = "x" * (8 * MB)
    published.publish(20, ten)
    tiny.run("update", "--no-scripts")
    tiny.run("bundle-add", "games", "--no-scripts", status=ExitCode.DISK_SPACE)
    assert "games" not in tiny.bundles()
    assert staged(tiny) == []


def test_a_system_that_does_not_fit_is_not_installed(
    bare: Machine, published: Publisher, ten: Bundles, mount: Mount
) -> None:
    ten["os-core"].files["/usr/share/big"] = "x" * (4 * MB)
    published.publish(20, ten)
    mount(bare.root, MB)
    bare.run("os-install", "--no-scripts", status=ExitCode.DISK_SPACE)
    assert not bare.has("/usr/bin/core")


# -- being asked -------------------------------------------------------------------------------------------------------


def at_a_terminal(machine: Machine, answer: str) -> tuple[int, str]:
    """Run an update at a terminal: exit status and what the screen shows."""
    master, slave = pty.openpty()
    os.write(master, answer.encode())
    process = subprocess.Popen(
        [sys.executable, "-m", "swupd.cli", *machine.argv("update", "--no-scripts")],
        stdin=slave,
        stdout=slave,
        stderr=slave,
        env=os.environ | {"SWUPD_CONFIG_PATH": "", "TERM": "dumb"},
        start_new_session=True,
    )
    os.close(slave)
    screen = b""
    try:
        while piece := os.read(master, 1 << 16):
            screen += piece
    except OSError:
        pass  # a terminal without a process
    os.close(master)
    return process.wait(), screen.decode()


@pytest.mark.usefixtures("twenty")
def test_at_a_terminal_somebody_sees_the_plan_and_can_say_no(machine: Machine) -> None:
    status, screen = at_a_terminal(machine, "n\n")
    assert status == ExitCode.NO
    assert "1 added (spelling)" in screen
    assert "Install? [Y/n]" in screen
    assert machine.read("/usr/bin/edit") == "edit"
    assert staged(machine) == []


@pytest.mark.usefixtures("twenty")
def test_at_a_terminal_the_return_key_is_enough(machine: Machine) -> None:
    status, screen = at_a_terminal(machine, "\n")
    assert status == ExitCode.OK, screen
    assert machine.read("/usr/bin/edit") == "new"


@pytest.mark.usefixtures("twenty")
def test_the_answer_can_be_given_beforehand(machine: Machine) -> None:
    machine.run("update", "--assume=no", "--no-scripts", status=ExitCode.NO)
    assert machine.read("/usr/bin/edit") == "edit"
    machine.run("update", "--yes", "--no-scripts")
    assert machine.read("/usr/bin/edit") == "new"
