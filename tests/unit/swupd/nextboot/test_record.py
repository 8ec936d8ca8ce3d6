"""What is remembered about deployments."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swupd.formats.bootentry import is_deployment_name
from swupd.fs import Directory
from swupd.nextboot import record
from swupd.nextboot.record import MAX_FAILURES, TEXT_LIMIT, Failure, Record
from tests.unit.swupd.nextboot.disk import recorded

NAMES = st.from_regex(r"[1-9][0-9]{0,5}(\.[1-9][0-9]?)?", fullmatch=True)
FAILURES = st.builds(
    Failure, NAMES, st.integers(0, (1 << 40) - 1), st.text(st.characters(categories=("L", "N")), max_size=30)
)
RECORDS = st.builds(
    Record,
    st.lists(FAILURES, max_size=5, unique_by=lambda failure: failure.name).map(tuple),
    st.frozensets(NAMES, max_size=4),
)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("boot")


@settings(max_examples=25)
@given(RECORDS)
def test_what_was_written_is_read(directory: Path, known: Record) -> None:
    with Directory.open(directory) as boot:
        record.write(boot, known)
        assert record.read(boot) == known


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["failures", "pinned", "name", "when", "why"]), inner)
    ),
)


@given(JSON | st.fixed_dictionaries({"failures": JSON, "pinned": JSON}) | st.binary(max_size=50))
def test_whatever_is_in_the_file_only_sound_things_come_out(directory: Path, content: object) -> None:
    data = content if isinstance(content, bytes) else json.dumps(content).encode()
    (directory / record.FILE).write_bytes(data)
    known = recorded(directory)
    assert all(is_deployment_name(name) for name in known.pinned)
    assert all(is_deployment_name(f.name) and f.why.isprintable() and f.sentence for f in known.failures)


@pytest.mark.parametrize("when", [-1, 1 << 40, 10**30, 1.5, True, "1"])
def test_a_time_that_is_none_makes_no_failure(tmp_path: Path, when: object) -> None:
    raw = {"failures": [{"name": "20", "when": when, "why": ""}, {"name": "30", "when": 1, "why": "a\x1bb"}]}
    (tmp_path / record.FILE).write_text(json.dumps(raw))
    assert recorded(tmp_path).failures == (Failure("30", 1, "a?b"),)


def test_a_missing_record_is_an_empty_one(tmp_path: Path) -> None:
    assert recorded(tmp_path) == Record()


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_text('{"pinned": ["20"]}')
    (tmp_path / record.FILE).symlink_to("elsewhere")
    assert recorded(tmp_path) == Record()


def test_a_later_failure_of_a_deployment_replaces_the_earlier_one() -> None:
    known = Record().with_failure(Failure("20", 1, "a")).with_failure(Failure("30", 2, "b"))
    known = known.with_failure(Failure("20", 3, "c"))
    assert known.failures == (Failure("30", 2, "b"), Failure("20", 3, "c"))


def test_the_last_failure_of_a_version_counts() -> None:
    known = Record((Failure("20", 1, "a"), Failure("20.1", 2, "b"), Failure("30", 3, "c")))
    assert known.failed_version(20) == Failure("20.1", 2, "b")
    assert known.failed_version(10) is None
    assert known.without_failures(20).failures == (Failure("30", 3, "c"),)
    assert known.without_failure("20").failures == (Failure("20.1", 2, "b"), Failure("30", 3, "c"))


def test_the_oldest_failures_are_forgotten() -> None:
    known = Record()
    for number in range(1, MAX_FAILURES + 3):
        known = known.with_failure(Failure(str(number), number, ""))
    assert len(known.failures) == MAX_FAILURES
    assert known.failures[0].name == "3"


def test_the_longest_record_that_is_written_is_read(directory: Path) -> None:
    why = "\N{PEDESTRIAN}" * TEXT_LIMIT
    known = Record(tuple(Failure(str(number), 1, why) for number in range(1, MAX_FAILURES + 1)))
    with Directory.open(directory) as boot:
        record.write(boot, known)
        assert record.read(boot) == known


def test_why_a_version_is_not_offered_is_a_sentence() -> None:
    assert Failure("20.1", 1_700_000_000, "no network").sentence.startswith("version 20 is held back since 2023-11-1")
