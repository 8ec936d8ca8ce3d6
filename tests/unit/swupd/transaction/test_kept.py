from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from swupd.fs import Directory
from swupd.transaction import kept
from swupd.transaction.journal import Change, Header, Journal, Purpose, State
from swupd.transaction.kept import Kept


@pytest.fixture
def data(tmp_path: Path) -> Iterator[Directory]:
    (tmp_path / "data").mkdir()
    with Directory.open(tmp_path / "data") as directory:
        yield directory


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Directory]:
    (tmp_path / "root").mkdir()
    (tmp_path / "root/f").write_text("old")
    with Directory.open(tmp_path / "root") as directory:
        yield directory


def header(number: int, *, update: bool = False, keep: bool = True) -> Header:
    purpose = Purpose("update", 10, 20, record_version=update, keep=keep)
    return Header("/root", (1, 2, 3), ("", ""), number, tolerant=False, purpose=purpose)


def finish(data: Directory, number: int, *, keep: bool = True) -> None:
    """An installation that changes nothing."""
    Kept.make(data, number).close()
    journal = Journal.write(data, header(number, keep=keep), list[Change]())
    journal.become(State.INSTALLED)
    assert kept.file_installed(data) == number


def numbers(tmp_path: Path) -> list[str]:
    return sorted(os.listdir(tmp_path / "data/kept"))


def test_a_kept_file_is_the_same_file_and_nobody_elses(data: Directory, root: Directory, tmp_path: Path) -> None:
    with Kept.make(data, 1) as keeping:
        keeping.keep(root, "f", 5)
    assert (tmp_path / "data/kept/1/5").samefile(tmp_path / "root/f")
    for name in ("kept", "kept/1"):
        assert stat.S_IMODE((tmp_path / "data" / name).stat().st_mode) == 0o700


def test_a_file_that_was_put_back_is_not_kept_any_more(data: Directory, root: Directory, tmp_path: Path) -> None:
    with Kept.make(data, 1) as keeping:
        keeping.keep(root, "f", 5)
        (tmp_path / "root/f").unlink()
        for _ in range(2):
            keeping.put_back(5, root, "f", ".deleted.f")
    assert (tmp_path / "root/f").read_text() == "old"
    assert os.listdir(tmp_path / "data/kept/1") == []


@pytest.mark.parametrize("aside", [".deleted.f", ""])
def test_a_copy_is_put_back_where_renames_are_impossible(
    data: Directory, root: Directory, tmp_path: Path, aside: str, monkeypatch: Any
) -> None:
    with Kept.make(data, 1) as keeping:
        keeping.keep(root, "f", 5)
        root.write_file("new", [b"new"])
        root.rename("new", "f")
        (tmp_path / "root/.deleted.f").write_text("what a killed attempt left")
        original = Directory.rename

        def rename(self: Directory, old: str, new: str, *, to: Directory | None = None) -> None:
            if to is not None:
                raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
            original(self, old, new)

        monkeypatch.setattr(Directory, "rename", rename)
        keeping.put_back(5, root, "f", aside)
    assert (tmp_path / "root/f").read_text() == "old"
    assert (tmp_path / "root/.deleted.f").exists() == (aside == "")


def test_what_nobody_kept_cannot_be_put_back_and_that_is_no_error(data: Directory, root: Directory) -> None:
    with Kept.open(data, 7) as keeping:
        keeping.put_back(1, root, "f", "")
    assert root.names() == ["f"]


def test_finished_installations_are_a_stack(data: Directory, tmp_path: Path) -> None:
    assert kept.next_number(data) == 1
    for number in (1, 2, 10):
        finish(data, number)
    assert kept.next_number(data) == 11
    assert [finished.number for finished in kept.finished(data)] == [10, 2, 1]
    kept.drop_before(data, 10)
    assert numbers(tmp_path) == ["10"]


def test_an_installation_that_keeps_nothing_leaves_nothing(data: Directory, tmp_path: Path) -> None:
    finish(data, 1, keep=False)
    assert numbers(tmp_path) == []
    assert os.listdir(tmp_path / "data") == ["kept"]


def test_what_is_half_there_cannot_be_rolled_back(data: Directory, tmp_path: Path) -> None:
    for number in (1, 2, 3):
        finish(data, number)
    (tmp_path / "data/kept/3/journal").unlink()
    (tmp_path / "data/kept/2/journal").write_bytes(b"damaged")
    (tmp_path / "data/kept/strange").touch()
    assert [finished.number for finished in kept.finished(data)] == [1]


def test_all_of_it_can_be_dropped(data: Directory, tmp_path: Path) -> None:
    kept.drop(tmp_path / "data")
    finish(data, 1)
    kept.drop(tmp_path / "data")
    assert kept.finished(data) == []
    assert numbers(tmp_path) == []


def test_the_journal_goes_first(data: Directory, root: Directory, tmp_path: Path, monkeypatch: Any) -> None:
    with Kept.make(data, 1) as keeping:
        keeping.keep(root, "f", 5)
        journal = Journal.write(data, header(1), list[Change]())
        journal.become(State.INSTALLED)
    kept.file_installed(data)

    def killed(self: Directory, name: str) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(Directory, "remove_tree", killed)
    with pytest.raises(OSError, match="Input/output"):
        kept.drop(tmp_path / "data")
    assert os.listdir(tmp_path / "data/kept/1") == ["5"]
    assert kept.finished(data) == []


def test_a_journal_ends_even_if_somebody_has_removed_what_was_kept(data: Directory, tmp_path: Path) -> None:
    journal = Journal.write(data, header(1), list[Change]())
    journal.become(State.INSTALLED)
    assert kept.file_installed(data) == 1
    assert os.listdir(tmp_path / "data") == []


def test_a_journal_that_a_power_cut_left_under_two_names_is_filed(data: Directory, tmp_path: Path) -> None:
    with Kept.make(data, 1):
        Journal.write(data, header(1), list[Change]()).become(State.INSTALLED)
    os.link(tmp_path / "data/journal.installed", tmp_path / "data/kept/1/journal")
    assert kept.file_installed(data) == 1
    assert os.listdir(tmp_path / "data") == ["kept"]
    assert [finished.number for finished in kept.finished(data)] == [1]


def test_a_journal_that_cannot_be_filed_stays_where_it_is(data: Directory, tmp_path: Path, monkeypatch: Any) -> None:
    with Kept.make(data, 1):
        Journal.write(data, header(1), list[Change]()).become(State.INSTALLED)

    def refuse(self: Directory) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(Directory, "sync_names", refuse)
    with pytest.raises(OSError, match="Input/output"):
        kept.file_installed(data)
    assert (tmp_path / "data/journal.installed").exists()
    assert os.listdir(tmp_path / "data/kept/1") == []
