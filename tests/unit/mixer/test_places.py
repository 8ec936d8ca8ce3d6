"""A local directory as the place of a tree: what appears, in which order, and what a crash leaves."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from mixer import places
from mixer.errors import BuildError
from mixer.places import LocalDirectory, files_below


@pytest.fixture
def place(tmp_path: Path) -> LocalDirectory:
    (tmp_path / "www/10").mkdir(parents=True)
    (tmp_path / "www/10/Manifest.MoM").write_bytes(b"MoM")
    return LocalDirectory(tmp_path / "www")


def names(place: LocalDirectory) -> list[str]:
    return sorted(files_below(place.path))


def test_additions_appear_in_the_order_given(place: LocalDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    rename = os.rename
    seen: list[str] = []

    def record(old: Path, new: Path) -> None:
        seen.append(os.path.relpath(new, place.path))
        rename(old, new)

    monkeypatch.setattr(os, "rename", record)
    place.add(10, [("z", b"1"), ("a/b/c", b"2"), ("m", b"3")])

    assert seen == ["10/z", "10/a/b/c", "10/m"]
    assert {name: (place.path / name).read_bytes() for name in seen} == {"10/z": b"1", "10/a/b/c": b"2", "10/m": b"3"}


def test_an_addition_that_cannot_be_prepared_lets_none_appear(place: LocalDirectory, tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="cannot add to version 10"):
        place.add(10, [("first", b""), ("second", tmp_path / "missing")])

    assert names(place) == ["10/Manifest.MoM"]
    assert os.listdir(place.path) == ["10"]


def test_an_addition_replaces_what_has_its_name(place: LocalDirectory) -> None:
    for data in (b"one", b"two", b"two"):
        place.add(10, [("index", data)])

    assert (place.path / "10/index").read_bytes() == b"two"
    assert names(place) == ["10/Manifest.MoM", "10/index"]


def test_additions_can_be_read_by_everybody(place: LocalDirectory) -> None:
    former = os.umask(0o077)
    try:
        place.add(10, [("delta/x", b"")])
    finally:
        os.umask(former)

    assert (place.path / "10/delta").stat().st_mode & 0o777 == 0o755
    assert (place.path / "10/delta/x").stat().st_mode & 0o777 == 0o644


def test_what_an_interrupted_addition_left_is_removed_by_the_next_draft(place: LocalDirectory) -> None:
    (place.path / ".10.add").mkdir()
    (place.path / ".10.add/0").write_bytes(b"half")

    with place.draft(20) as draft:
        assert sorted(os.listdir(place.path)) == [draft.name, "10"]


def test_a_full_disk_is_one_line_with_what_to_do(place: LocalDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(places, "link_or_copy", full)

    with pytest.raises(BuildError, match=r"cannot add to version 10 in .*: \[Errno 28\]") as caught:
        place.add(10, [("pack", place.path / "10/Manifest.MoM")])

    assert "free some space" in caught.value.hint


def test_links_are_no_files_of_a_tree(place: LocalDirectory) -> None:
    (place.path / "10/link").symlink_to("/etc/passwd")
    (place.path / "10/directory").symlink_to("/etc")

    assert place.names("10") == {"10/Manifest.MoM": 3}
