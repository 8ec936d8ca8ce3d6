from __future__ import annotations

import errno
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from swupd.changes import Action, Change, Commit, beside
from swupd.fs import Directory


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "root/d/sub").mkdir(parents=True)
    (tmp_path / "root/d/sub/f").write_text("old")
    (tmp_path / "root/file").write_text("old")
    return tmp_path / "root"


def commit(root: Path, changes: Iterable[Change]) -> Commit:
    with Directory.open(root) as directory:
        done = Commit(directory)
        done.run(changes)
        done.sync([""])
        done.close()
    return done


def place(base: str, *clear: str) -> Change:
    return Change(Action.PLACE, "", base, f".update.{base}", clear)


def remove(directory: str, base: str) -> Change:
    return Change(Action.REMOVE, directory, base)


def test_a_new_file_takes_the_place_of_the_old_one(root: Path) -> None:
    (root / ".update.file").write_text("new")
    assert commit(root, [place("file")]).failures == []
    assert (root / "file").read_text() == "new"
    assert sorted(os.listdir(root)) == ["d", "file"]


def test_a_directory_takes_the_place_of_a_file_with_all_its_content(root: Path) -> None:
    (root / ".update.file/sub").mkdir(parents=True)
    assert commit(root, [place("file")]).failures == []
    assert (root / "file/sub").is_dir()


def test_a_link_takes_the_place_of_a_directory_and_the_old_content_goes_by_name(root: Path) -> None:
    (root / ".update.d").symlink_to("elsewhere")
    done = commit(root, [place("d", "sub/f", "sub")])
    assert done.failures == []
    assert done.removed == ["/d/sub/f", "/d/sub"]
    assert (root / "d").is_symlink()
    assert sorted(os.listdir(root)) == ["d", "file"]


def test_what_came_into_a_directory_meanwhile_is_kept_and_named(root: Path) -> None:
    (root / ".update.d").symlink_to("elsewhere")
    (root / "d/mine").write_text("precious")
    done = commit(root, [place("d", "sub/f", "sub")])
    assert [path for path, _ in done.failures] == ["/d"]
    assert "/.deleted.d" in done.failures[0].reason
    assert (root / ".deleted.d/mine").read_text() == "precious"


def test_a_directory_stays_if_what_replaces_it_cannot_be_put_in_place(root: Path, monkeypatch: Any) -> None:
    (root / ".update.d").symlink_to("elsewhere")
    original = Directory.rename

    def refuse(self: Directory, old: str, new: str, **options: Any) -> None:
        if old == ".update.d":
            raise OSError(errno.EIO, "Input/output error")
        original(self, old, new, **options)

    monkeypatch.setattr(Directory, "rename", refuse)
    done = commit(root, [place("d", "sub/f", "sub")])
    assert done.failures == [("/d", "Input/output error")]
    assert (root / "d/sub/f").read_text() == "old"
    assert sorted(os.listdir(root)) == ["d", "file"]


def test_a_change_that_fails_does_not_stop_the_others(root: Path) -> None:
    done = commit(root, [place("missing"), Change(Action.ATTRIBUTES, "/no", "dir"), remove("", "file")])
    assert [path for path, _ in done.failures] == ["/missing", "/no/dir"]
    assert done.removed == ["/file"]


def test_attributes_of_a_directory_are_set(root: Path) -> None:
    commit(root, [Change(Action.ATTRIBUTES, "", "d", attributes=(0o1751, os.getuid(), os.getgid()))])
    assert (root / "d").stat().st_mode & 0o7777 == 0o1751


def test_what_is_gone_already_is_removed(root: Path) -> None:
    (root / "link").symlink_to("d")
    done = commit(root, [remove("", "no"), remove("/no", "no"), remove("/file", "no"), remove("/link/sub", "f")])
    assert (done.failures, done.removed, done.kept) == ([], [], [])
    assert (root / "d/sub/f").exists()


def test_a_directory_that_is_not_empty_is_kept(root: Path) -> None:
    done = commit(root, [remove("", "d")])
    assert (done.failures, done.removed, done.kept) == ([], [], ["/d"])


def test_names_beside_others_fit_into_a_file_system() -> None:
    assert beside(".update.", "file") == ".update.file"
    longest = "\u00e4" * 127
    assert len(os.fsencode(beside(".update.", longest))) <= 255
    assert beside(".update.", longest) != beside(".update.", longest[:-1])
    assert beside(".update.", "a", short=True).startswith(".update.")
