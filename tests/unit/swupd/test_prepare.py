from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from swupd.changes import Action
from swupd.fs import Directory
from swupd.plan import FileList
from swupd.prepare import Preparation


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
    files = publisher.publish(tree, 10)
    machine.stage(files.values())
    return files


@contextmanager
def preparing(machine: Any, wanted: FileList, *removals: str) -> Iterator[Preparation]:
    with Directory.open(machine.root) as root, Directory.open(machine.statedir.staged) as staged:
        preparation = Preparation(root, staged, wanted, removals)
        preparation.start()
        yield preparation
        preparation.close()


def test_a_new_directory_is_one_sibling_with_all_its_content(machine: Any, files: FileList) -> None:
    with preparing(machine, files) as preparation:
        for name in ("/d", "/d/file", "/d/link"):
            preparation.add(files[name])
        changes, _ = preparation.changes()
    assert [(change.action, change.path, change.sibling) for change in changes] == [(Action.PLACE, "/d", ".update.d")]
    assert os.listdir(machine.root) == [".update.d"]
    assert (machine.root / ".update.d/file").read_text() == "content"
    assert preparation.installed == {"/d": 3}


def test_only_siblings_appear_and_undo_removes_them(machine: Any, files: FileList) -> None:
    (machine.root / "d").mkdir()
    (machine.root / "d/file").write_text("old")
    with preparing(machine, files, "/d/gone") as preparation:
        for name in ("/d", "/d/file", "/d/link", "/same"):
            preparation.add(files[name])
        assert sorted(os.listdir(machine.root)) == [".update.same", "d"]
        assert sorted(os.listdir(machine.root / "d")) == [".update.file", ".update.link", "file"]
        preparation.undo()
    assert os.listdir(machine.root) == ["d"]
    assert os.listdir(machine.root / "d") == ["file"]
    assert (machine.root / "d/file").read_text() == "old"


def test_the_first_use_of_an_object_is_a_link_and_the_second_a_copy(machine: Any, files: FileList) -> None:
    with preparing(machine, files) as preparation:
        for name in ("/d", "/d/file", "/same"):
            preparation.add(files[name])
        staged = (machine.statedir.staged / files["/same"].hash).stat()
        assert (machine.root / ".update.d/file").stat().st_ino == staged.st_ino
        assert (machine.root / ".update.same").stat().st_ino != staged.st_ino


def test_what_brings_os_release_comes_after_all_other_changes(machine: Any, files: FileList) -> None:
    with preparing(machine, files, "/old") as preparation:
        for name in ("/d", "/usr", "/usr/lib", "/usr/lib/os-release"):
            preparation.add(files[name])
        before, last = preparation.changes()
    assert [change.path for change in before] == ["/d", "/old"]
    assert [change.path for change in last] == ["/usr"]


def test_a_directory_that_is_as_it_should_be_needs_no_change(machine: Any, files: FileList) -> None:
    (machine.root / "d").mkdir(mode=0o755)
    with preparing(machine, files) as preparation:
        preparation.add(files["/d"])
        assert preparation.changes() == ([], [])
    assert not preparation.replaced


def test_each_file_system_is_noted_once(machine: Any, files: FileList) -> None:
    (machine.root / "d").mkdir()
    with preparing(machine, files) as preparation:
        preparation.add(files["/d/file"])
        assert list(preparation.devices.values()) == [""]
