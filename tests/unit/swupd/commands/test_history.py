from __future__ import annotations

import json
import os
import tempfile
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from swupd.cli import main
from swupd.history import Event, append

Machine = Any

UPDATE = Event(1_700_000_000, "update", "done", 10, 20, 3, 5, 1, 25_000_000, 3.84)


@pytest.fixture
def past(bare: Machine) -> Machine:
    """A machine that was changed three times."""
    bare.root.mkdir()
    bare.state.mkdir()
    append(bare.state, UPDATE)
    append(bare.state, replace(UPDATE, command="bundle-add editors", from_version=20))
    append(bare.state, replace(UPDATE, command="repair", outcome="failed", detail="the disk is full"))
    return bare


def test_the_newest_event_comes_first_with_the_reason_of_a_failure(past: Machine) -> None:
    past.run("history")
    headings, repair, reason, add, update = past.out.splitlines()
    assert headings.split() == ["when", "what", "version", "result", "files", "downloaded", "seconds"]
    assert repair.split()[2:] == ["repair", "10", "->", "20", "failed", "+3", "~5", "-1", "25.0", "MB", "3.8"]
    assert reason.strip() == "the disk is full"
    assert "bundle-add editors  20  " in add
    assert "update" in update


def test_only_so_many_events_are_shown(past: Machine) -> None:
    past.run("history", "-l", "1")
    assert "repair" in past.out
    assert "update" not in past.out


def test_a_script_reads_one_event_a_line(past: Machine) -> None:
    past.run("history", "--quiet", "--lines", "3")
    assert past.out.splitlines()[2].split("\t") == (
        ["1700000000", "update", "done", "10", "20", "3", "5", "1", "25000000", "3.84", ""]
    )


def test_a_program_reads_json(past: Machine) -> None:
    past.run("history", "--json-output")
    events = [json.loads(record["msg"]) for record in json.loads(past.out) if record["type"] == "info"]
    assert [event["command"] for event in events] == ["repair", "bundle-add editors", "update"]
    assert events[2] == asdict(UPDATE)


def test_a_new_system_has_no_history(bare: Machine) -> None:
    bare.run("history")
    assert bare.out == "Nothing has been done to this system yet\n"


@pytest.mark.parametrize("lines", ["0", "-1", "all"])
def test_a_number_of_lines_is_needed(past: Machine, lines: str) -> None:
    past.run("history", "--lines", lines, status=15)


def test_an_ordinary_user_may_look(capsys: pytest.CaptureFixture[str]) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can become somebody else")
    with tempfile.TemporaryDirectory() as directory:
        os.chmod(directory, 0o755)
        append(Path(directory), UPDATE)
        os.seteuid(65534)
        try:
            status = main(["history", "--quiet", "--statedir", directory])
        finally:
            os.seteuid(0)
    assert (status, capsys.readouterr().out.split("\t")[1]) == (0, "update")
