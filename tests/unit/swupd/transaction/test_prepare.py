from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from swupd.errors import DiskSpaceError, InstallError
from swupd.fs import Directory
from swupd.plan import FileList
from swupd.transaction.changes import Ground
from swupd.transaction.journal import Action, Change, Kind, Old
from swupd.transaction.kept import Kept
from swupd.transaction.prepare import Preparation

TREE = [
    Change(Action.MADE, "", "d", Kind.DIRECTORY, ".update.d", ".deleted.d"),
    Change(Action.MADE, "/d", "file"),
    Change(Action.MADE, "/d", "link", Kind.LINK),
    Change(Action.PLACE, "", "d", Kind.DIRECTORY, ".update.d", ".deleted.d"),
]
SAME = Change(Action.PLACE, "", "same", Kind.FILE, ".update.same", ".deleted.same")


@pytest.fixture
def files(tmp_path: Path, publisher: Any, machine: Any) -> FileList:
    """Staged: a directory with a file and a link, and a file of the same content."""
    tree = tmp_path / "v10"
    (tree / "d").mkdir(parents=True, mode=0o750)
    (tree / "d/file").write_text("content")
    (tree / "d/link").symlink_to("file")
    (tree / "same").write_text("content")
    files: FileList = publisher.publish(tree, 10)
    machine.stage(files.values())
    return files


@contextmanager
def preparing(machine: Any, wanted: FileList, *names: str, tolerant: bool = False) -> Iterator[Preparation]:
    with (
        Directory.open(machine.root) as root,
        Directory.open(machine.statedir.staged) as staged,
        Directory.open(machine.statedir.data_dir) as data,
        Ground(root) as ground,
        Kept.make(data, 1) as kept,
    ):
        entries = [wanted[name] for name in names]
        yield Preparation(ground, staged, kept, entries, wanted, tolerant=tolerant)


def kept_files(machine: Any) -> Path:
    path: Path = machine.statedir.data_dir / "kept/1"
    return path


def test_a_new_directory_is_one_sibling_with_all_its_content(machine: Any, files: FileList) -> None:
    with preparing(machine, files, "/d", "/d/file", "/d/link") as preparation:
        for change in TREE:
            preparation.make(change)
    assert os.listdir(machine.root) == [".update.d"]
    assert (machine.root / ".update.d/file").read_text() == "content"
    assert os.readlink(machine.root / ".update.d/link") == "file"
    assert stat.S_IMODE((machine.root / ".update.d").stat().st_mode) == 0o750


def test_a_parent_that_is_not_staged_is_an_ordinary_directory(machine: Any, files: FileList) -> None:
    (machine.statedir.staged / files["/d"].hash).rmdir()
    with preparing(machine, files, "/d/file") as preparation:
        for change in TREE[:2]:
            preparation.make(change)
    assert stat.S_IMODE((machine.root / ".update.d").stat().st_mode) == 0o755


def test_a_directory_that_is_to_be_written_must_be_staged(machine: Any, files: FileList) -> None:
    (machine.statedir.staged / files["/d"].hash).rmdir()
    with preparing(machine, files, "/d") as preparation, pytest.raises(InstallError, match="is not staged"):
        preparation.make(TREE[0])


def test_the_first_use_of_an_object_is_a_link_and_the_second_a_copy(machine: Any, files: FileList) -> None:
    with preparing(machine, files, "/d", "/d/file", "/same") as preparation:
        for change in (*TREE[:2], SAME):
            preparation.make(change)
    staged = (machine.statedir.staged / files["/same"].hash).stat()
    assert (machine.root / ".update.d/file").stat().st_ino == staged.st_ino
    assert (machine.root / ".update.same").stat().st_ino != staged.st_ino


def test_what_will_be_replaced_gets_a_second_name_and_stays(machine: Any, files: FileList) -> None:
    (machine.root / "same").write_text("old")
    with preparing(machine, files, "/same") as preparation:
        preparation.make(SAME._replace(old=Old(Kind.FILE, number=4)))
    assert (kept_files(machine) / "4").stat().st_ino == (machine.root / "same").stat().st_ino
    assert (machine.root / "same").read_text() == "old"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
def test_a_copy_is_kept_with_all_attributes_where_links_are_impossible(
    machine: Any, files: FileList, monkeypatch: Any
) -> None:
    old = machine.root / "same"
    old.write_text("old")
    os.chown(old, 12, 34)
    old.chmod(0o4751)
    os.utime(old, ns=(1, 123456789))
    os.setxattr(old, "user.mark", b"x")

    def refuse(*args: Any) -> None:
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

    monkeypatch.setattr(Directory, "hard_link", refuse)
    with preparing(machine, files) as preparation:
        preparation.make(Change(Action.REMOVE, "", "same", old=Old(Kind.FILE, number=1)))
    copy = kept_files(machine) / "1"
    status = copy.stat()
    assert status.st_ino != old.stat().st_ino
    assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (12, 34, 0o4751)
    assert (status.st_mtime_ns, os.getxattr(copy, "user.mark")) == (123456789, b"x")


def test_no_space_to_keep_something_is_told_as_such(machine: Any, files: FileList, monkeypatch: Any) -> None:
    (machine.root / "same").write_text("old")

    def refuse(*args: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Directory, "hard_link", refuse)
    with preparing(machine, files) as preparation, pytest.raises(DiskSpaceError, match=r"to keep .*/same"):
        preparation.make(Change(Action.REMOVE, "", "same", old=Old(Kind.FILE, number=1)))


def test_a_repair_goes_on_without_what_is_too_damaged_to_be_kept(
    machine: Any, files: FileList, monkeypatch: Any
) -> None:
    (machine.root / "same").write_text("old")
    change = Change(Action.REMOVE, "", "same", old=Old(Kind.FILE, number=1))

    def refuse(*args: Any) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(Directory, "hard_link", refuse)
    with preparing(machine, files) as preparation, pytest.raises(OSError, match="Input/output"):
        preparation.make(change)
    with preparing(machine, files, tolerant=True) as preparation:
        preparation.make(change)
        assert preparation.not_kept == [("/same", "Input/output error")]
