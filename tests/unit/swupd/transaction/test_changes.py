from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from swupd.fs import Directory
from swupd.transaction.changes import Commit, Ground, Impossible, Return, withdraw
from swupd.transaction.journal import Action, Change, Kind, Old, old_of
from swupd.transaction.kept import Kept


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "root/d/sub").mkdir(parents=True)
    (tmp_path / "root/d/sub/f").write_text("old")
    (tmp_path / "root/file").write_text("old")
    return tmp_path / "root"


@pytest.fixture
def ground(root: Path) -> Iterator[Ground]:
    with Directory.open(root) as directory, Ground(directory) as ground:
        yield ground


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[Kept]:
    (tmp_path / "data").mkdir()
    with Directory.open(tmp_path / "data") as data, Kept.make(data, 1) as kept:
        yield kept


def commit(ground: Ground, changes: Sequence[Change], *, resumed: bool = False, tolerant: bool = False) -> Commit:
    done = Commit(ground, tolerant=tolerant, resumed=resumed)
    done.run(changes)
    return done


def undo(ground: Ground, kept: Kept, changes: Sequence[Change], *, finished: bool = False) -> Return:
    back = Return(ground, kept, finished=finished)
    back.run(changes[::-1])
    return back


def place(base: str, old: Old | None = None, kind: Kind = Kind.FILE) -> Change:
    return Change(Action.PLACE, "", base, kind, f".update.{base}", f".deleted.{base}", old)


def remove(path: Path, root: Path, old: Old | None = None) -> Change:
    status = path.lstat()
    kind = Kind.DIRECTORY if stat.S_ISDIR(status.st_mode) else Kind.FILE
    directory = str(path.parent)[len(str(root)) :]
    return Change(Action.REMOVE, directory, path.name, kind, old=old or old_of(status))


def file_in_place_of_d(root: Path) -> list[Change]:
    """The directory d, with all that is in it, becomes a link."""
    (root / ".update.d").symlink_to("elsewhere")
    return [
        Change(Action.SWAP, "", "d", Kind.LINK, ".update.d", ".deleted.d"),
        Change(Action.REMOVE, "/.deleted.d/sub", "f", old=Old(Kind.FILE, number=1), was="/d/sub/f"),
        Change(Action.REMOVE, "/.deleted.d", "sub", Kind.DIRECTORY, old=old_of((root / "d/sub").stat()), was="/d/sub"),
        Change(Action.REMOVE, "", ".deleted.d", Kind.DIRECTORY, old=old_of((root / "d").stat()), was="/d"),
    ]


def directory_in_place_of_file(root: Path) -> list[Change]:
    (root / ".update.file/sub").mkdir(parents=True)
    return [
        Change(Action.MADE, "", "file", Kind.DIRECTORY, ".update.file", ".deleted.file", Old(Kind.FILE, number=1)),
        Change(Action.MADE, "/file", "sub", Kind.DIRECTORY),
        place("file", kind=Kind.DIRECTORY),
    ]


def refuse(monkeypatch: pytest.MonkeyPatch, method: str, number: int, *names: str) -> None:
    original = getattr(Directory, method)

    def call(self: Directory, name: str, *rest: Any, **options: Any) -> Any:
        if not names or name in names:
            raise OSError(number, os.strerror(number))
        return original(self, name, *rest, **options)

    monkeypatch.setattr(Directory, method, call)


# -- forwards ----------------------------------------------------------------------------------------------------------


def test_a_new_file_takes_the_place_of_the_old_one(root: Path, ground: Ground) -> None:
    (root / ".update.file").write_text("new")
    commit(ground, [place("file")])
    assert (root / "file").read_text() == "new"
    assert sorted(os.listdir(root)) == ["d", "file"]


@pytest.mark.parametrize("exchange", [True, False])
def test_a_directory_takes_the_place_of_a_file_with_all_its_content(
    root: Path, ground: Ground, exchange: bool, monkeypatch: Any
) -> None:
    if not exchange:
        refuse(monkeypatch, "exchange", errno.EINVAL)
    commit(ground, directory_in_place_of_file(root))
    assert (root / "file/sub").is_dir()
    assert sorted(os.listdir(root)) == ["d", "file"]


@pytest.mark.parametrize("exchange", [True, False])
def test_a_link_takes_the_place_of_a_directory_and_the_old_content_goes_by_name(
    root: Path, ground: Ground, exchange: bool, monkeypatch: Any
) -> None:
    if not exchange:
        refuse(monkeypatch, "exchange", errno.EINVAL)
    done = commit(ground, file_in_place_of_d(root))
    assert done.removed == ["/d/sub/f", "/d/sub", "/d"]
    assert (root / "d").is_symlink()
    assert sorted(os.listdir(root)) == ["d", "file"]


def test_a_path_whose_type_changes_is_missing_at_no_time(root: Path, ground: Ground, monkeypatch: Any) -> None:
    changes = [*file_in_place_of_d(root), *directory_in_place_of_file(root)]
    for method in ("rename", "exchange", "unlink", "remove_directory"):
        original = getattr(Directory, method)

        def call(self: Directory, *args: Any, _original: Any = original, **options: Any) -> Any:
            _original(self, *args, **options)
            assert {"d", "file"} <= set(os.listdir(root))

        monkeypatch.setattr(Directory, method, call)
    commit(ground, changes)


def test_what_came_into_a_directory_meanwhile_makes_the_change_impossible(root: Path, ground: Ground) -> None:
    changes = file_in_place_of_d(root)
    (root / "d/mine").write_text("precious")
    with pytest.raises(Impossible, match=r"/d: .*in /\.deleted\.d now"):
        commit(ground, changes)
    assert (root / ".deleted.d/mine").read_text() == "precious"


def test_a_directory_that_is_none_any_more_makes_the_change_impossible(root: Path, ground: Ground) -> None:
    changes = file_in_place_of_d(root)
    (root / "d").rename(root / "moved")
    (root / "d").write_text("a user's")
    with pytest.raises(Impossible, match="no directory any more"):
        commit(ground, changes)
    assert (root / "d").read_text() == "a user's"


def test_the_first_impossible_change_stops_the_others(root: Path, ground: Ground) -> None:
    with pytest.raises(Impossible, match="/missing: No such file"):
        commit(ground, [place("missing"), remove(root / "file", root)])
    assert (root / "file").exists()


def test_a_tolerant_commit_notes_it_and_goes_on(root: Path, ground: Ground) -> None:
    done = commit(
        ground,
        [place("missing"), Change(Action.ATTRIBUTES, "/no", "dir"), remove(root / "file", root)],
        tolerant=True,
    )
    assert [path for path, _ in done.failures] == ["/missing", "/no/dir"]
    assert done.removed == ["/file"]


@pytest.mark.parametrize("make", [file_in_place_of_d, directory_in_place_of_file])
def test_what_is_done_already_is_done_again_without_harm(root: Path, ground: Ground, make: Any) -> None:
    changes = make(root)
    commit(ground, changes)
    before = sorted(path.name for path in root.rglob("*"))
    commit(ground, changes, resumed=True)
    assert sorted(path.name for path in root.rglob("*")) == before


def test_attributes_of_a_directory_are_set(root: Path, ground: Ground) -> None:
    commit(ground, [Change(Action.ATTRIBUTES, "", "d", attributes=(0o1751, os.getuid(), os.getgid()))])
    assert (root / "d").stat().st_mode & 0o7777 == 0o1751


def test_what_is_gone_already_is_removed(root: Path, ground: Ground) -> None:
    (root / "link").symlink_to("d")
    gone = [("", "no"), ("/no", "no"), ("/file", "no"), ("/link/sub", "f")]
    done = commit(ground, [Change(Action.REMOVE, directory, base) for directory, base in gone])
    assert (done.failures, done.removed, done.kept) == ([], [], [])
    assert (root / "d/sub/f").exists()


def test_a_directory_that_is_not_empty_is_kept(root: Path, ground: Ground) -> None:
    done = commit(ground, [remove(root / "d", root)])
    assert (done.failures, done.removed, done.kept) == ([], [], ["/d"])


# -- backwards ---------------------------------------------------------------------------------------------------------


def keep(kept: Kept, root: Path, path: str, number: int) -> None:
    with Directory.open((root / path).parent) as directory:
        kept.keep(directory, Path(path).name, number)


@pytest.mark.parametrize(("make", "path"), [(file_in_place_of_d, "d/sub/f"), (directory_in_place_of_file, "file")])
@pytest.mark.parametrize("done", [True, False])
def test_a_change_of_type_is_undone_whether_it_was_done_or_not(
    *, root: Path, ground: Ground, kept: Kept, snapshot: Any, make: Any, path: str, done: bool
) -> None:
    before = snapshot(root)
    keep(kept, root, path, 1)
    changes = make(root)
    if done:
        commit(ground, changes)
    for _ in range(2):
        back = undo(ground, kept, changes)
        assert (back.failures, back.conflicts) == ([], [])
        assert snapshot(root) == before


def test_a_file_that_was_replaced_comes_back_with_its_inode(root: Path, ground: Ground, kept: Kept) -> None:
    inode = (root / "file").stat().st_ino
    keep(kept, root, "file", 7)
    (root / ".update.file").write_text("new")
    changes = [place("file", Old(Kind.FILE, number=7))]
    commit(ground, changes)
    assert undo(ground, kept, changes).failures == []
    assert (root / "file").stat().st_ino == inode


def test_a_link_and_a_directory_come_back_as_they_were(root: Path, ground: Ground, kept: Kept, snapshot: Any) -> None:
    (root / "link").symlink_to("d")
    (root / "empty").mkdir(mode=0o700)
    before = snapshot(root)
    changes = [
        Change(Action.REMOVE, "", "link", Kind.LINK, old=old_of((root / "link").lstat(), target="d")),
        remove(root / "empty", root),
    ]
    commit(ground, changes)
    undo(ground, kept, changes)
    assert snapshot(root) == before


def test_half_of_a_directory_that_came_back_is_made_right(root: Path, ground: Ground, kept: Kept) -> None:
    """Somebody was killed between making it and giving it its mode."""
    change = remove(root / "d/sub", root, Old(Kind.DIRECTORY, 0o751, os.getuid(), os.getgid()))
    undo(ground, kept, [change])
    assert (root / "d/sub").stat().st_mode & 0o7777 == 0o751


def test_a_new_directory_goes_but_not_what_is_not_ours_in_it(root: Path, ground: Ground, kept: Kept) -> None:
    changes = [
        Change(Action.MADE, "", "new", Kind.DIRECTORY, ".update.new", ".deleted.new"),
        Change(Action.MADE, "/new", "ours", Kind.FILE),
        place("new", kind=Kind.DIRECTORY),
    ]
    (root / ".update.new").mkdir()
    (root / ".update.new/ours").write_text("new")
    commit(ground, changes)
    (root / "new/mine").write_text("precious")
    back = undo(ground, kept, changes, finished=True)
    assert [path for path, _ in back.conflicts] == ["/new"]
    assert os.listdir(root / "new") == ["mine"]


def test_a_directory_waits_aside_for_what_could_not_be_put_back_into_it(
    root: Path, ground: Ground, kept: Kept, snapshot: Any, monkeypatch: Any
) -> None:
    before = snapshot(root)
    keep(kept, root, "d/sub/f", 1)
    changes = file_in_place_of_d(root)
    commit(ground, changes)
    with monkeypatch.context() as patch:
        refuse(patch, "rename", errno.EIO, "1")
        assert [path for path, _ in undo(ground, kept, changes).failures] == ["/d/sub/f"]
        assert (root / "d").is_symlink()
    assert undo(ground, kept, changes).failures == []
    assert snapshot(root) == before


def test_undoing_goes_on_after_an_error(root: Path, ground: Ground, kept: Kept, monkeypatch: Any) -> None:
    changes = []
    for number, base in enumerate(("file", "other"), start=1):
        (root / base).write_text("old")
        keep(kept, root, base, number)
        (root / f".update.{base}").write_text("new")
        changes.append(place(base, Old(Kind.FILE, number=number)))
    commit(ground, changes)
    refuse(monkeypatch, "rename", errno.EIO, "2")
    back = undo(ground, kept, changes)
    assert back.failures == [("/other", "Input/output error")]
    assert (root / "file").read_text() == "old"


def test_nothing_is_put_back_through_a_link(root: Path, ground: Ground, kept: Kept, tmp_path: Path) -> None:
    change = remove(root / "d/sub/f", root, Old(Kind.FILE, number=1))
    keep(kept, root, "d/sub/f", 1)
    commit(ground, [change])
    (root / "d/sub").rmdir()
    (tmp_path / "elsewhere").mkdir()
    (root / "d/sub").symlink_to(tmp_path / "elsewhere")
    with Directory.open(root) as directory, Ground(directory) as fresh:
        back = undo(fresh, kept, [change])
    assert [path for path, _ in back.conflicts] == ["/d/sub/f"]
    assert os.listdir(tmp_path / "elsewhere") == []


def test_siblings_are_withdrawn_and_nothing_else(root: Path, ground: Ground) -> None:
    changes = [*file_in_place_of_d(root), *directory_in_place_of_file(root)]
    (root / ".update.mine").write_text("precious")
    assert withdraw(ground, changes) == []
    assert sorted(os.listdir(root)) == [".update.mine", "d", "file"]
