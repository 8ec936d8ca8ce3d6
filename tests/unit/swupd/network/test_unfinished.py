"""What an unfinished download leaves on the disk."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from swupd.errors import DiskSpaceError
from swupd.fs import Directory
from swupd.network.unfinished import CHECKED_BYTES, TAG_LIMIT, check_space, discard, finish, resumable, write_note

LIMIT = 1000


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[Directory]:
    with Directory.open(tmp_path) as directory:
        yield directory


def begin(directory: Directory, note: bytes | None = b'"one"', size: int = 10) -> None:
    discard(directory, "f")
    directory.write_file("f.part", [b"x" * size])
    if note is not None:
        directory.write_file("f.part.etag", [note])


def test_a_beginning_with_its_note_can_be_continued(directory: Directory) -> None:
    begin(directory)
    assert resumable(directory, "f", LIMIT) == (10, '"one"')


def test_without_a_note_or_a_beginning_nothing_can_be_continued(directory: Directory) -> None:
    begin(directory, None)
    assert resumable(directory, "f", LIMIT) == (0, "")
    begin(directory)
    directory.unlink("f.part")
    assert resumable(directory, "f", LIMIT) == (0, "")


@pytest.mark.parametrize("size", [0, LIMIT + 1])
def test_a_beginning_that_is_empty_or_too_large_is_none(directory: Directory, size: int) -> None:
    begin(directory, size=size)
    assert resumable(directory, "f", LIMIT) == (0, "")


def test_a_note_survives_as_it_was(directory: Directory) -> None:
    write_note(directory, "f", '"a b;c"')
    directory.write_file("f.part", [b"x"])
    assert resumable(directory, "f", LIMIT) == (1, '"a b;c"')


def test_a_note_that_is_too_long_is_not_written(directory: Directory) -> None:
    write_note(directory, "f", "x" * (TAG_LIMIT + 1))
    assert directory.names() == []


@given(note=st.binary(max_size=60))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_a_note_contains_it_is_a_header_of_one_line_or_nothing(directory: Directory, note: bytes) -> None:
    begin(directory, note)
    offset, validator = resumable(directory, "f", LIMIT)
    assert (offset, validator) == (0, "") or (offset == 10 and validator.isprintable())


def test_what_is_finished_leaves_nothing_else(directory: Directory) -> None:
    begin(directory)
    finish(directory, "f")
    assert directory.names() == ["f"]


def test_only_large_downloads_look_at_the_free_space(directory: Directory) -> None:
    check_space(directory, CHECKED_BYTES)
    with pytest.raises(DiskSpaceError, match="only"):
        check_space(directory, 1 << 62)
