"""What is told about deployments."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from swupd.formats.bootentry import BootEntry
from swupd.nextboot import overview, record
from swupd.nextboot.deployments import Deployment, assign_roles
from swupd.nextboot.health import Health, Outcome, Result
from swupd.nextboot.overview import Overview
from swupd.nextboot.place import Located
from swupd.nextboot.record import Failure


def deployment(name: str, sequence: int, left: int | None = None, done: int = 0, **more: bool) -> Deployment:
    entry = BootEntry(name, "Test", sequence, "vmlinuz-" + "0" * 16, "initrd-" + "0" * 16, "quiet", left, done)
    return Deployment(name, entry, **more)


SEEN = Overview(
    running="20",
    current="20",
    is_on_trial=True,
    health=Health("20", 1_700_000_000, (Result("dns", Outcome.FAILED, "no answer"), Result("x", Outcome.PASSED))),
    failures=(Failure("30", 1_700_000_000, "no init"), Failure("25", 1_700_000_000, record.SET_ASIDE)),
    pinned=("10",),
    deployments=assign_roles(
        [
            deployment("10", 1, is_pinned=True),
            deployment("20", 2, 1, 2, is_running=True, is_current=True),
            deployment("40", 4, 3),
            deployment("25", 3, 0),
        ]
    ),
)
HIDDEN = replace(SEEN, deployments=(), obstacle="only root can look at the boot entries")


@pytest.mark.parametrize(
    ("left", "done", "words"),
    [
        (None, 0, "good"),
        (1, 2, "on trial, 1 try left"),
        (2, 0, "on trial, 2 tries left"),
        (0, 1, "failed after 1 try"),
        (0, 3, "failed after 3 tries"),
        (0, 0, "set aside"),
    ],
)
def test_the_state_of_an_entry_has_words(left: int | None, done: int, words: str) -> None:
    assert overview.state(deployment("10", 1, left, done).entry) == words


def test_the_story_is_told_line_by_line() -> None:
    lines = overview.lines(SEEN)
    assert lines[0].startswith("Running:   20 (on trial, 1 try left; degraded, checked 2023-11-1")
    assert lines[1:5] == [
        "Next boot: 40 (on trial, 3 tries left)",
        "Previous:  10",
        "Set aside: 25",
        "Pinned:    10",
    ]
    assert lines[5].startswith("Failed:    30 (2023-11-1")
    assert lines[6:] == ["Unhealthy: dns: no answer"]


def test_who_cannot_see_the_entries_is_told_so_and_the_rest() -> None:
    lines = overview.lines(HIDDEN)
    assert lines[0].startswith("Running:   20 (on trial; degraded")
    assert lines[1:4] == [
        "Next boot: not known: only root can look at the boot entries",
        "Set aside: 25",
        "Pinned:    10",
    ]


def test_after_a_live_update_it_is_told_what_is_in_use() -> None:
    assert "In use:    40 (its /usr, since an update of the running system)" in overview.lines(
        replace(SEEN, current="40")
    )


def test_programs_get_all_of_it() -> None:
    found = json.loads(json.dumps(overview.as_json(SEEN)))
    assert (found["running"], found["version"], found["next"], found["previous"]) == ("20", 20, "40", "10")
    assert (found["on_trial"], found["tries_left"], found["healthy"]) == (True, 1, False)
    assert [(d["name"], d["role"], d["state"]) for d in found["deployments"]] == [
        ("40", "next", "on trial, 3 tries left"),
        ("20", "running", "on trial, 1 try left"),
        ("10", "previous", "good"),
        ("25", "set aside", "set aside"),
    ]
    assert found["failed"] == [{"name": "30", "when": 1_700_000_000, "why": "no init"}]
    assert found["set_aside"] == ["25"]


def test_programs_get_null_for_what_is_not_known() -> None:
    found = overview.as_json(HIDDEN)
    assert (found["next"], found["deployments"], found["tries_left"]) == (None, None, None)
    assert ([failure["name"] for failure in found["failed"]], found["set_aside"]) == (["30"], ["25"])


def test_a_table_has_a_row_for_each() -> None:
    found = [*SEEN.deployments, Deployment("50.part"), deployment("60", 6, is_current=True)]
    lines = overview.table([(one, 0) for one in found])
    assert lines[0].split() == ["name", "version", "role", "boot", "entry", "pinned", "made"]
    assert lines[3].split() == ["10", "10", "previous", "good", "yes"]
    assert lines[5].split() == ["50.part", "50", "kept", "no", "boot", "entry"]
    assert lines[6].split() == ["60", "60", "kept,", "in", "use", "good"]


def test_what_cannot_be_looked_at_is_an_obstacle(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("neither a state nor a place for mounts")
    seen = overview.look(Located(tmp_path, "/dev/none", "20", "20"))
    assert (seen.running, seen.failures, seen.health) == ("20", (), None)
    assert seen.obstacle
