"""The history keeps whole events, loses no old ones to damage, and never stands in the way of a change."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from swupd.history import EVENTS, FILE, FILE_LIMIT, TEXT_LIMIT, Event, append, parse, read

UPDATE = Event(1_700_000_000, "update", "done", 10, 20, 3, 5, 1, 25_000_000, 3.8)

TEXTS = st.text(st.characters(exclude_categories=["C", "Z"]), max_size=TEXT_LIMIT)
NUMBERS = st.integers(0, 1 << 53)
EVENTS_OF_ANY_KIND = st.builds(
    Event,
    NUMBERS,
    TEXTS,
    st.sampled_from(["done", "failed", "undone", "finished later", "rolled back"]),
    *[NUMBERS] * 6,
    st.floats(0, 1e9),
    TEXTS,
)


def test_events_come_back_in_their_order(tmp_path: Path) -> None:
    later = Event(1_700_000_100, "bundle-add editors", "failed", detail="the server is not there")
    append(tmp_path, UPDATE)
    append(tmp_path, later)
    assert read(tmp_path) == [UPDATE, later]


def test_everybody_may_read_it_and_only_the_owner_write(tmp_path: Path) -> None:
    append(tmp_path, UPDATE)
    assert stat.S_IMODE((tmp_path / FILE).stat().st_mode) == 0o644


def test_a_system_without_history_has_none(tmp_path: Path) -> None:
    assert read(tmp_path) == []
    assert read(tmp_path / "nowhere") == []


def test_the_oldest_events_make_room(tmp_path: Path) -> None:
    line = json.dumps({"when": 1, "command": "update", "outcome": "done"})
    (tmp_path / FILE).write_text(f"{line}\n" * EVENTS)
    append(tmp_path, UPDATE)
    found = read(tmp_path)
    assert (len(found), found[-1]) == (EVENTS, UPDATE)


def test_damaged_lines_are_skipped(tmp_path: Path) -> None:
    append(tmp_path, UPDATE)
    with (tmp_path / FILE).open("ab") as file:
        file.write(b'\xff\x00{"when": 1\n[]\n{"when": 1, "command": "update"}\n')
    append(tmp_path, UPDATE)
    assert read(tmp_path) == [UPDATE, UPDATE]


def test_of_an_endless_file_only_the_end_is_read(tmp_path: Path) -> None:
    append(tmp_path, UPDATE)
    line = (tmp_path / FILE).read_bytes()
    with (tmp_path / FILE).open("wb") as file:
        file.truncate(FILE_LIMIT * 3)
        file.seek(0, os.SEEK_END)
        file.write(b"\n" + line)
    assert read(tmp_path) == [UPDATE]


@pytest.mark.parametrize("made", [Path.mkdir, lambda path: path.symlink_to("/etc/passwd")])
def test_what_cannot_be_written_is_no_error(tmp_path: Path, made: object) -> None:
    made(tmp_path / FILE)  # type: ignore[operator]
    append(tmp_path, UPDATE)
    append(tmp_path / "nowhere", UPDATE)
    assert read(tmp_path) == []


def test_a_text_that_would_disturb_a_terminal_is_made_harmless(tmp_path: Path) -> None:
    append(tmp_path, Event(1, "update", "failed", detail="\x1b[2Jcannot read a\udcffb\nand more" + "x" * TEXT_LIMIT))
    (event,) = read(tmp_path)
    assert event.detail.startswith("?[2Jcannot read a?b?and more")
    assert len(event.detail) == TEXT_LIMIT


@pytest.mark.parametrize(
    "change",
    [{"when": "now"}, {"when": -1}, {"when": True}, {"seconds": float("nan")}, {"received": 1e300}, {"command": None}],
)
def test_a_value_that_is_none_of_its_field_makes_no_event(change: dict[str, object]) -> None:
    assert parse(json.dumps({"when": 1, "command": "x", "outcome": "done"} | change).encode()) is None


def test_fields_that_a_later_version_adds_are_skipped() -> None:
    line = b'{"when": 1, "command": "x", "outcome": "done", "mood": "good"}'
    assert parse(line) == Event(1, "x", "done")


@settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(event=EVENTS_OF_ANY_KIND)
def test_any_event_survives(tmp_path: Path, event: Event) -> None:
    append(tmp_path, event)
    assert read(tmp_path)[-1] == event


@given(line=st.binary())
def test_any_bytes_are_an_event_or_none(line: bytes) -> None:
    assert parse(line) is None or isinstance(parse(line), Event)
