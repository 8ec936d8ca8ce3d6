from __future__ import annotations

import os
from pathlib import Path

import pytest

from mixer import cache
from mixer.cache import Cache

KEYS = ["aa01", "aa02", "bb01"]


@pytest.fixture
def files(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


def test_what_was_put_is_there_and_nothing_else(files: Cache, tmp_path: Path) -> None:
    assert files.missing(KEYS) == set(KEYS)

    with files.filling() as filler:
        for key in KEYS[:2]:
            filler.put(key, key.encode())

    assert files.missing(KEYS) == {"bb01"}
    assert files.path("aa01").read_bytes() == b"aa01"
    assert sorted(os.listdir(tmp_path / "cache")) == ["aa"]


def test_files_can_be_read_by_everybody_whatever_the_umask_is(files: Cache) -> None:
    former = os.umask(0o077)
    try:
        with files.filling() as filler:
            filler.put("aa01", b"x")
    finally:
        os.umask(former)

    assert files.path("aa01").stat().st_mode & 0o777 == 0o644


def test_nothing_is_visible_before_it_is_committed(files: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "COMMIT_BYTES", 10)
    monkeypatch.setattr(cache, "COMMIT_SECONDS", 1e9)
    with files.filling() as filler:
        filler.put("aa01", b"12345")
        assert files.missing(KEYS) == set(KEYS)
        filler.put("aa02", b"67890")
        assert files.missing(KEYS) == {"bb01"}


def test_what_is_finished_is_visible_after_a_while(files: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "COMMIT_SECONDS", 1e9)
    with files.filling() as filler:
        filler.put("aa01", b"x")
        assert files.missing(KEYS) == set(KEYS)
        monkeypatch.setattr(cache, "COMMIT_SECONDS", 0.0)
        filler.put("aa02", b"y")
        assert files.missing(KEYS) == {"bb01"}


def test_an_error_keeps_what_is_complete_and_leaves_nothing_else(files: Cache, tmp_path: Path) -> None:
    def fill() -> None:
        with files.filling() as filler:
            filler.put("aa01", b"complete")
            filler.place("bb01").write_bytes(b"half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fill()

    assert files.missing(KEYS) == {"aa02", "bb01"}
    assert not (tmp_path / "cache" / ".new").exists()


def test_left_overs_of_a_killed_process_are_removed(files: Cache, tmp_path: Path) -> None:
    (tmp_path / "cache" / ".new").mkdir(parents=True)
    (tmp_path / "cache" / ".new" / "aa01").write_bytes(b"half")

    with files.filling() as filler:
        filler.put("aa01", b"whole")

    assert files.path("aa01").read_bytes() == b"whole"
