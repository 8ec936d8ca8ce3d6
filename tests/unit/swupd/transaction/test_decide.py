from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from swupd.errors import UnsafePathError
from swupd.formats.manifest import Entry
from swupd.fs import Directory
from swupd.plan import FileList
from swupd.transaction.decide import Decisions
from swupd.transaction.journal import Action, Change, Kind


@pytest.fixture
def files(tmp_path: Path, publisher: Any, machine: Any) -> FileList:
    """Staged: a directory with a file and a link, and a file of the same content."""
    tree = tmp_path / "v10"
    (tree / "d").mkdir(parents=True)
    (tree / "d/file").write_text("content")
    (tree / "d/link").symlink_to("file")
    (tree / "same").write_text("content")
    (tree / "usr/lib").mkdir(parents=True)
    (tree / "usr/lib/os-release").write_text("VERSION_ID=10\n")
    (tree / "usr/z").write_text("z")
    files: FileList = publisher.publish(tree, 10)
    machine.stage(files.values())
    return files


def decide(
    machine: Any, wanted: FileList, names: Sequence[str], *removals: str, tolerant: bool = False
) -> tuple[list[Change], Decisions]:
    entries: list[Entry] = [wanted[name] for name in names]
    with Directory.open(machine.root) as root, Directory.open(machine.statedir.staged) as staged:
        decisions = Decisions(root, staged, wanted, entries, removals, tolerant=tolerant)
        return list(decisions.changes()), decisions


def test_deciding_changes_nothing(machine: Any, files: FileList, snapshot: Any) -> None:
    (machine.root / "d").mkdir()
    before = snapshot(machine.root)
    decide(machine, files, ["/d/file", "/d/link", "/same"], "/d/gone")
    assert snapshot(machine.root) == before


def test_a_new_directory_is_one_change_after_all_that_is_made_in_it(machine: Any, files: FileList) -> None:
    changes, decisions = decide(machine, files, ["/d", "/d/file", "/d/link", "/same"])
    assert [(change.action, change.path, change.sibling) for change in changes] == [
        (Action.MADE, "/d", ".update.d"),
        (Action.MADE, "/d/file", ""),
        (Action.MADE, "/d/link", ""),
        (Action.PLACE, "/d", ".update.d"),
        (Action.PLACE, "/same", ".update.same"),
    ]
    assert decisions.installed == {"/d": 3, "/same": 1}


def test_what_is_there_is_told_so_that_it_can_be_put_back(machine: Any, files: FileList) -> None:
    (machine.root / "d").mkdir(mode=0o700)
    (machine.root / "d/file").symlink_to("target")
    (machine.root / "d/link").write_text("a file")
    (machine.root / "same").write_text("old")
    changes, _ = decide(machine, files, ["/d", "/d/file", "/d/link", "/same"])
    olds = {change.path: change.old for change in changes}
    assert olds["/d"] is not None
    assert olds["/d"].mode == 0o700
    assert olds["/d/file"] is not None
    assert olds["/d/file"].target == "target"
    assert [olds[name].number for name in ("/d/link", "/same")] == [1, 2]  # type: ignore[union-attr]


def test_what_brings_os_release_comes_after_all_others_and_a_barrier(machine: Any, files: FileList) -> None:
    (machine.root / "old").touch()
    (machine.root / "usr/lib").mkdir(parents=True)
    changes, _ = decide(machine, files, ["/usr/lib/os-release", "/usr/z", "/same"], "/old")
    assert [change.path for change in changes] == ["/usr/z", "/same", "/old", "/", "/usr/lib/os-release"]
    assert changes[3].action is Action.SYNC


def test_a_new_directory_with_os_release_comes_last_as_a_whole(machine: Any, files: FileList) -> None:
    changes, _ = decide(machine, files, ["/usr", "/usr/lib", "/usr/lib/os-release", "/same"])
    placed = [change.path for change in changes if change.action is Action.PLACE]
    assert placed == ["/same", "/usr"]


def test_a_directory_that_is_as_it_should_be_needs_no_change(machine: Any, files: FileList) -> None:
    (machine.root / "d").mkdir(mode=0o755)
    changes, decisions = decide(machine, files, ["/d"])
    assert (changes, decisions.replaced) == ([], [])


def test_a_removal_of_what_is_not_there_is_no_change(machine: Any, files: FileList) -> None:
    (machine.root / "link").symlink_to("d")
    changes, _ = decide(machine, files, [], "/no", "/no/no", "/link/file")
    assert changes == []


def test_a_directory_that_gives_way_is_put_aside_and_emptied_by_name(
    machine: Any, tmp_path: Path, files: FileList
) -> None:
    (machine.root / "same/sub").mkdir(parents=True)
    (machine.root / "same/sub/f").write_text("old")
    changes, _ = decide(machine, files, ["/same"], "/same/sub/f", "/same/sub")
    assert [(change.action, change.path, change.was) for change in changes] == [
        (Action.SWAP, "/same", ""),
        (Action.REMOVE, "/.deleted.same/sub/f", "/same/sub/f"),
        (Action.REMOVE, "/.deleted.same/sub", "/same/sub"),
        (Action.REMOVE, "/.deleted.same", "/same"),
    ]


def test_a_directory_with_something_that_is_not_ours_gives_no_way(machine: Any, files: FileList) -> None:
    (machine.root / "same").mkdir()
    (machine.root / "same/mine").touch()
    changes, decisions = decide(machine, files, ["/same"], "/same/f")
    assert changes == []
    assert decisions.failures == [("/same", "cannot become a file while /same/mine is in there")]


def test_a_name_that_is_taken_is_not_used(machine: Any, files: FileList) -> None:
    digest = hashlib.sha256(b"same").hexdigest()
    for name in (".update.same", f".deleted.{digest}"):
        (machine.root / name).write_text("a user's")
    changes, _ = decide(machine, files, ["/same"])
    assert (changes[0].sibling, changes[0].aside) == (f".update.{digest}.1", f".deleted.{digest}.1")


def test_names_beside_others_fit_into_a_file_system(machine: Any, tmp_path: Path, publisher: Any) -> None:
    longest = "ä" * 127
    (tmp_path / "v20").mkdir()
    (tmp_path / "v20" / longest).touch()
    wanted = publisher.publish(tmp_path / "v20", 20)
    changes, _ = decide(machine, wanted, [f"/{longest}"])
    assert len(os.fsencode(changes[0].sibling)) <= 255


def test_a_link_above_stops_everything_or_only_what_is_below_it(machine: Any, files: FileList) -> None:
    (machine.root / "d").symlink_to("elsewhere")
    with pytest.raises(UnsafePathError, match="/d is a symbolic link where a directory is expected"):
        decide(machine, files, ["/d/file", "/same"])
    changes, decisions = decide(machine, files, ["/d/file", "/same"], tolerant=True)
    assert [change.path for change in changes] == ["/same"]
    assert [path for path, _ in decisions.failures] == ["/d/file"]


def test_devices_are_kept_like_files(machine: Any, files: FileList) -> None:
    os.mkfifo(machine.root / "same")
    changes, _ = decide(machine, files, ["/same"])
    assert changes[0].old is not None
    assert (changes[0].old.kind, changes[0].old.number) == (Kind.FILE, 1)
