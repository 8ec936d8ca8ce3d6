"""The mirror files of a system."""

from __future__ import annotations

from pathlib import Path

import pytest

from swupd.errors import StateDirectoryError, UsageError
from swupd.mirrorconfig import checked, remove, write
from swupd.settings import MAX_MIRRORS, mirror_list

URLS = ("https://a.example.org", "https://b.example.org/x")


def test_what_was_written_is_what_is_read(tmp_path: Path) -> None:
    write(tmp_path, URLS, URLS[1:])
    assert mirror_list(tmp_path / "etc/swupd/mirror_versionurl") == URLS
    assert mirror_list(tmp_path / "etc/swupd/mirror_contenturl") == URLS[1:]
    assert sorted(path.name for path in (tmp_path / "etc/swupd").iterdir()) == [
        "mirror_contenturl",
        "mirror_versionurl",
    ]


def test_an_empty_list_leaves_its_file_alone(tmp_path: Path) -> None:
    write(tmp_path, URLS, URLS)
    write(tmp_path, (), URLS[1:])
    assert mirror_list(tmp_path / "etc/swupd/mirror_versionurl") == URLS
    assert mirror_list(tmp_path / "etc/swupd/mirror_contenturl") == URLS[1:]


def test_removing_what_is_not_there_is_fine(tmp_path: Path) -> None:
    remove(tmp_path)
    write(tmp_path, URLS, ())
    remove(tmp_path)
    assert list((tmp_path / "etc/swupd").iterdir()) == []


def test_a_file_in_the_place_of_the_directory_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/swupd").write_text("")
    for change in (lambda: write(tmp_path, URLS, URLS), lambda: remove(tmp_path)):
        with pytest.raises(StateDirectoryError, match="etc/swupd"):
            change()


def test_mirrors_count_once_and_lose_their_slashes() -> None:
    assert checked([f"{URLS[0]}/", *URLS], "--set", allow_http=False) == URLS


def test_too_many_mirrors_are_refused() -> None:
    with pytest.raises(UsageError, match=f"more than {MAX_MIRRORS}"):
        checked([f"https://m{n}.example.org" for n in range(MAX_MIRRORS + 1)], "--set", allow_http=False)
