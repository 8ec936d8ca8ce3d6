from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from swupd.fs import Directory
from swupd.transaction import journal
from swupd.transaction.journal import (
    Action,
    Change,
    Header,
    Journal,
    JournalError,
    Kind,
    Old,
    Purpose,
    State,
    decode,
    encode,
)

PURPOSE = Purpose("bundle-add editors", 10, 10, track=("editors",), untrack=("games",), boot=True)
HEADER = Header("/mnt/root", (2, 64513, 1 << 63), ("", "ab" * 32), 3, tolerant=False, purpose=PURPOSE)
CHANGES = [
    Change(Action.MADE, "", "d", Kind.DIRECTORY, ".update.d", ".deleted.d", Old(Kind.LINK, 0o777, 1, 2, "../x")),
    Change(Action.MADE, "/d", "f\udcff\n"),
    Change(Action.PLACE, "", "d", Kind.DIRECTORY, ".update.d", ".deleted.d"),
    Change(Action.PLACE, "/usr", "f", Kind.FILE, ".update.f", ".deleted.f", Old(Kind.FILE, 0o4755, 0, 0, "", 1)),
    Change(Action.SWAP, "/usr", "x", Kind.LINK, ".update.x", ".deleted.x"),
    Change(Action.REMOVE, "/usr/.deleted.x", "y", old=Old(Kind.FILE, number=2), was="/usr/x/y"),
    Change(Action.ATTRIBUTES, "/usr", "lib", Kind.DIRECTORY, old=Old(Kind.DIRECTORY, 0o755), attributes=(0o700, 5, 6)),
    Change(Action.SYNC),
]
NAMES = st.text(
    st.characters(exclude_characters="/\0", exclude_categories=("Cs",))
    | st.characters(min_codepoint=0xDC80, max_codepoint=0xDCFF),
    min_size=1,
    max_size=20,
).filter(lambda name: name not in (".", ".."))
PATHS = st.lists(NAMES, max_size=4).map(lambda names: "".join(f"/{name}" for name in names))
NUMBERS = st.integers(0, (1 << 64) - 1)
OLDS = st.builds(Old, st.sampled_from(Kind), NUMBERS, NUMBERS, NUMBERS, NAMES | st.just(""), NUMBERS)
NO_ATTRIBUTES = st.just((0, 0, 0))
ATTRIBUTES = st.tuples(NUMBERS, NUMBERS, NUMBERS)
KINDS = st.sampled_from(Kind)
MOVING = st.sampled_from([Action.MADE, Action.PLACE, Action.SWAP, Action.REMOVE])
STEPS = st.one_of(
    st.just(Change(Action.SYNC)),
    st.builds(Change, MOVING, PATHS, NAMES, KINDS, NAMES, NAMES | st.just(""), st.none() | OLDS, PATHS, NO_ATTRIBUTES),
    st.builds(
        *(Change, st.just(Action.ATTRIBUTES), PATHS, NAMES, KINDS),
        *(st.just(""), st.just(""), OLDS, st.just(""), ATTRIBUTES),
    ),
)


@pytest.fixture
def data(tmp_path: Path) -> Iterator[Directory]:
    with Directory.open(tmp_path) as directory:
        yield directory


def test_a_journal_is_read_as_it_was_written_in_both_directions(data: Directory) -> None:
    Journal.write(data, HEADER, CHANGES)
    found = Journal.open(data, State.PREPARING)
    assert found is not None
    assert found.header == HEADER
    assert list(found.forwards()) == CHANGES
    assert list(found.backwards()) == CHANGES[::-1]


@given(STEPS)
def test_every_change_survives_its_line(change: Change) -> None:
    line = encode(change)
    assert line.endswith(b"\n")
    assert line.isascii()
    assert decode(line) == change


@given(st.lists(STEPS, max_size=8))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_any_changes_come_back_in_the_opposite_order(tmp_path: Path, changes: list[Change]) -> None:
    with Directory.open(tmp_path) as data:
        written = Journal.write(data, HEADER, changes)
        assert list(written.backwards()) == changes[::-1]
        written.remove()


def test_many_changes_are_read_backwards_in_blocks(data: Directory) -> None:
    changes = [Change(Action.MADE, "/usr/share/doc", f"{number:0{number % 200}}") for number in range(1, 5000)]
    written = Journal.write(data, HEADER, changes)
    assert list(written.backwards()) == changes[::-1]


def test_it_is_nobodys_business(data: Directory, tmp_path: Path) -> None:
    Journal.write(data, HEADER, CHANGES)
    assert (tmp_path / "journal.preparing").stat().st_mode & 0o777 == 0o600


def test_its_name_says_how_far_it_is(data: Directory, tmp_path: Path) -> None:
    found = Journal.write(data, HEADER, CHANGES)
    assert journal.exists(tmp_path)
    found.become(State.COMMITTED)
    found.become(State.INSTALLED)
    assert os.listdir(tmp_path) == ["journal.installed"]
    assert Journal.open(data, State.COMMITTED) is None
    found.remove()
    assert not journal.exists(tmp_path)
    assert not journal.exists(tmp_path / "missing")


def test_nothing_is_left_of_one_that_cannot_be_written(data: Directory, tmp_path: Path) -> None:
    def changes() -> Iterator[Change]:
        yield CHANGES[0]
        raise OSError("the plan failed")

    with pytest.raises(OSError, match="the plan failed"):
        Journal.write(data, HEADER, changes())
    assert os.listdir(tmp_path) == []


@given(st.data())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_a_journal_that_is_damaged_anywhere_is_none(tmp_path: Path, data: st.DataObject) -> None:
    with Directory.open(tmp_path) as directory:
        whole = b""
        written = Journal.write(directory, HEADER, CHANGES)
        whole = (tmp_path / "journal.preparing").read_bytes()
        position = data.draw(st.integers(0, len(whole) - 1))
        kind = data.draw(st.sampled_from(["cut", "changed", "inserted"]))
        byte = data.draw(st.binary(min_size=1, max_size=1).filter(lambda byte: byte != whole[position : position + 1]))
        damaged = (
            whole[:position]
            + {"cut": b"", "changed": byte + whole[position + 1 :], "inserted": byte + whole[position:]}[kind]
        )
        if damaged != whole:
            (tmp_path / "journal.preparing").write_bytes(damaged)
            with pytest.raises(JournalError):
                Journal.open(directory, State.PREPARING)
        written.remove()


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"[]",
        b"{}",
        b'["nothing","","f","f"]',
        b'["place","/a/../b","f","f"]',
        b'["place","a","f","f"]',
        b'["place","/a/","f","f"]',
        b'["place","/a","..","f"]',
        b'["place","/a","","f"]',
        b'["place","/a","b/c","f"]',
        b'["place","/a","b\\u0000","f"]',
        b'["place","/a","\\ud800","f"]',
        b'["place","/a","b","x"]',
        b'["place","/a","b","f",".."," ",null,"",0,0,0]',
        b'["place","/a","b","f","s","a",["f",-1,0,0,"",0],"",0,0,0]',
        b'["place","/a","b","f","s","a",["f",1.5,0,0,"",0],"",0,0,0]',
        b'["place","/a","b","f","s","a",["f",true,0,0,"",0],"",0,0,0]',
        b'["place","/a","b","f","s","a",["f",0,0,0],"",0,0,0]',
        b'["place","/a","b","f","s","a",null,"x",0,0,0]',
        b'["attributes","/a","b","f","","",null,"",1,2]',
        b'["place","/a","b","f","s","a",null,"",1,2,3,4]',
        b'["place","/a","b","f","s","a",null,1,0,0,0]',
        b'["place","/a","b","f","s",1,null,"",0,0,0]',
        b'["place","/a","b",{},"s","a",null,"",0,0,0]',
        b'["place","/a","b","f","s","a",5,"",0,0,0]',
        b'["attributes","/a","b","f","","",null,"",1,2,' + b"9" * 30 + b"]",
        b"[" * 100_000,
    ],
)
def test_lines_that_lead_astray_are_refused(line: bytes) -> None:
    with pytest.raises(JournalError):
        decode(line)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("format", 2),
        ("root", "relative"),
        ("number", -1),
        ("tolerant", 1),
        ("identity", [1, 2]),
        ("release", [1, 2]),
        ("purpose", None),
        ("purpose", {"command": "update"}),
        ("purpose", {**vars(PURPOSE), "track": ["../evil"]}),
        ("purpose", {**vars(PURPOSE), "to_version": 1 << 40}),
        ("purpose", {**vars(PURPOSE), "boot": "yes"}),
    ],
)
def test_headers_that_lead_astray_are_refused(data: Directory, tmp_path: Path, key: str, value: object) -> None:
    Journal.write(data, HEADER, [])
    path = tmp_path / "journal.preparing"
    header, _ = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(json.dumps({**json.loads(header), key: value}).encode() + b"\n")
    with pytest.raises(JournalError):
        Journal.open(data, State.PREPARING)


def test_something_that_is_no_file_is_no_journal(data: Directory, tmp_path: Path) -> None:
    (tmp_path / "journal").mkdir()
    (tmp_path / "journal.undo").symlink_to("/etc/passwd")
    for state in (State.COMMITTED, State.UNDOING):
        with pytest.raises(JournalError):
            Journal.open(data, state)


def test_its_title_has_the_versions_if_there_are_two() -> None:
    assert PURPOSE.title == "bundle-add editors"
    assert replace(PURPOSE, command="update", to_version=20).title == "update from 10 to 20"
