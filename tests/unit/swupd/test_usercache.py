from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from swupd.errors import StateDirectoryError
from swupd.usercache import is_ours, make, place


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"XDG_CACHE_HOME": "/cache", "HOME": "/home/me"}, "/cache/swupd"),
        ({"XDG_CACHE_HOME": "relative", "HOME": "/home/me"}, "/home/me/.cache/swupd"),
        ({"HOME": "/home/me"}, "/home/me/.cache/swupd"),
    ],
)
def test_the_cache_is_where_caches_of_users_are(environ: dict[str, str], expected: str) -> None:
    assert place(environ) == Path(expected)


@pytest.mark.parametrize("environ", [{}, {"HOME": ""}, {"HOME": "relative"}])
def test_without_a_home_there_is_no_place(environ: dict[str, str]) -> None:
    with pytest.raises(StateDirectoryError) as caught:
        place(environ)
    assert "--statedir" in caught.value.hint


def test_what_is_missing_is_made_for_us_alone(tmp_path: Path) -> None:
    make(tmp_path / ".cache/swupd")
    for path in (tmp_path / ".cache", tmp_path / ".cache/swupd"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700


def test_what_is_there_is_kept(tmp_path: Path) -> None:
    (tmp_path / "swupd").mkdir(mode=0o755)
    (tmp_path / "swupd/file").touch()
    make(tmp_path / "swupd")
    assert (tmp_path / "swupd/file").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give directories away")
def test_nothing_is_made_in_the_directory_of_somebody_else(tmp_path: Path) -> None:
    os.chown(tmp_path, 65534, 65534)
    with pytest.raises(StateDirectoryError, match="directory of another user"):
        make(tmp_path / ".cache/swupd")
    assert list(tmp_path.iterdir()) == []


def test_a_file_in_the_way_is_told(tmp_path: Path) -> None:
    (tmp_path / ".cache").touch()
    with pytest.raises(StateDirectoryError, match="Not a directory"):
        make(tmp_path / ".cache/swupd")


def test_a_directory_is_ours_if_we_own_it_or_could_make_it(tmp_path: Path) -> None:
    assert is_ours(tmp_path)
    assert is_ours(tmp_path / "not/yet/there")
    (tmp_path / "file").touch()
    assert not is_ours(tmp_path / "file/below")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give directories away")
def test_a_directory_of_somebody_else_is_not_ours(tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir()
    os.chown(tmp_path / "theirs", 65534, 65534)
    assert not is_ours(tmp_path / "theirs")
