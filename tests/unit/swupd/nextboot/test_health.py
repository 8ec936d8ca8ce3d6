"""Health checks, carried out with real programs."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swupd.fs import Directory
from swupd.nextboot import health
from swupd.nextboot.health import MAX_CHECKS, NO_FAILED_UNIT, Check, Health, Outcome, Result

VENDOR, ADMINISTRATOR = health.DIRECTORIES


def write_program(path: Path, script: str, *, interpreter: str = "/bin/sh", mode: int = 0o755) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!{interpreter}\n{script}\n")
    path.chmod(mode)
    return path


def result_of(tmp_path: Path, script: str, *, seconds: float = 30, **how: str | int) -> Result:
    """What comes of a check with this script."""
    path = write_program(tmp_path / VENDOR / "check", script, **how)  # type: ignore[arg-type]
    (result,) = health.perform(tmp_path, [Check("check", path)], seconds=seconds)
    return result


def failed_units(tmp_path: Path, script: str) -> Result:
    """What comes of the built-in check where systemctl is this script."""
    (tmp_path / "run/systemd/system").mkdir(parents=True)
    write_program(tmp_path / "usr/bin/systemctl", script)
    (result,) = health.perform(tmp_path, [Check(NO_FAILED_UNIT, None)])
    return result


def test_a_check_that_ends_with_status_0_has_passed(tmp_path: Path) -> None:
    result = result_of(tmp_path, "echo all is well")
    assert (result.outcome, result.reason) == (Outcome.PASSED, "")


def test_a_check_that_is_not_reached_in_time_has_failed(tmp_path: Path) -> None:
    slow = Check("slow", write_program(tmp_path / "slow", "sleep 1000"))
    never = Check("never", write_program(tmp_path / "never", f"touch {tmp_path}/run"))
    found = list(health.perform(tmp_path, [slow, never], seconds=30, total_seconds=0.3))
    assert [(result.name, result.outcome) for result in found] == [("slow", Outcome.FAILED), ("never", Outcome.FAILED)]
    assert found[0].reason.startswith("it took longer than 0.")
    assert found[1].reason == "it was not run: the time for all checks was over"
    assert not (tmp_path / "run").exists()


def test_the_last_line_of_a_failed_check_is_its_reason(tmp_path: Path) -> None:
    result = result_of(tmp_path, "echo begin; echo no route >&2; echo; exit 3")
    assert (result.outcome, result.reason) == (Outcome.FAILED, "no route")


@pytest.mark.parametrize(
    ("script", "reason"),
    [("exit 7", "it ended with status 7 and printed nothing"), ("kill -SEGV $$", "it was ended by SIGSEGV")],
)
def test_a_silent_check_has_its_end_as_the_reason(tmp_path: Path, script: str, reason: str) -> None:
    assert result_of(tmp_path, script).reason == reason


def test_a_check_that_hangs_has_failed_in_time(tmp_path: Path) -> None:
    begun = time.monotonic()
    result = result_of(tmp_path, "echo waiting for the disk; sleep 1000", seconds=0.3)
    assert time.monotonic() - begun < 20
    assert (result.outcome, result.reason) == (Outcome.FAILED, "it took longer than 0.3 s: waiting for the disk")
    assert result.seconds > 0.2


def test_a_check_without_its_interpreter_has_failed(tmp_path: Path) -> None:
    result = result_of(tmp_path, "", interpreter="/no/such/interpreter")
    assert (result.outcome, result.reason) == (Outcome.FAILED, "it cannot be run: it, or its interpreter, is missing")


def test_a_file_that_is_not_executable_is_skipped_and_told(tmp_path: Path) -> None:
    result = result_of(tmp_path, "exit 1", mode=0o644)
    assert (result.outcome, result.reason) == (Outcome.SKIPPED, "it is no executable file")


def test_a_link_that_leads_nowhere_has_failed(tmp_path: Path) -> None:
    path = tmp_path / "check"
    path.symlink_to("gone")
    (result,) = health.perform(tmp_path, [Check("check", path)])
    assert result.outcome is Outcome.FAILED


def test_of_endless_output_only_a_short_reason_is_kept(tmp_path: Path) -> None:
    result = result_of(tmp_path, "head -c 3000000 /dev/zero | tr '\\0' x; exit 1")
    assert result.outcome is Outcome.FAILED
    assert result.reason == "x" * health.REASON_LIMIT


def test_a_reason_can_be_shown_on_any_terminal(tmp_path: Path) -> None:
    assert result_of(tmp_path, "printf 'red \\033[31m \\377 end\\n'; exit 1").reason == "red ?[31m � end"


def test_a_check_sees_nothing_of_our_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "1")
    assert result_of(tmp_path, 'echo "${SECRET-none} $LC_ALL $(pwd)"; exit 1').reason == f"none C.UTF-8 {tmp_path}"


def test_checks_are_found_in_both_directories_by_name(tmp_path: Path) -> None:
    for name in (f"{VENDOR}/20-b", f"{ADMINISTRATOR}/10-a", f"{VENDOR}/.hidden", f"{ADMINISTRATOR}/10-a~"):
        write_program(tmp_path / name, "")
    assert health.find_checks(tmp_path) == [
        Check("10-a", tmp_path / ADMINISTRATOR / "10-a"),
        Check("20-b", tmp_path / VENDOR / "20-b"),
        Check(NO_FAILED_UNIT, None),
    ]


def test_the_administrator_replaces_a_check_of_the_vendor_and_the_built_in_one(tmp_path: Path) -> None:
    for name in (f"{VENDOR}/dns", f"{ADMINISTRATOR}/dns", f"{ADMINISTRATOR}/{NO_FAILED_UNIT}"):
        write_program(tmp_path / name, "")
    assert [check.path for check in health.find_checks(tmp_path)] == [
        tmp_path / ADMINISTRATOR / "dns",
        tmp_path / ADMINISTRATOR / NO_FAILED_UNIT,
    ]


def test_a_link_to_dev_null_switches_a_check_off(tmp_path: Path) -> None:
    write_program(tmp_path / VENDOR / "dns", "exit 1")
    (tmp_path / ADMINISTRATOR).mkdir(parents=True)
    for name in ("dns", NO_FAILED_UNIT):
        (tmp_path / ADMINISTRATOR / name).symlink_to("/dev/null")
    assert health.find_checks(tmp_path) == []


def test_without_any_directory_there_is_the_built_in_check(tmp_path: Path) -> None:
    assert health.find_checks(tmp_path) == [Check(NO_FAILED_UNIT, None)]


def test_the_number_of_checks_is_limited(tmp_path: Path) -> None:
    for number in range(MAX_CHECKS + 5):
        write_program(tmp_path / VENDOR / f"{number:04}", "")
    assert len(health.find_checks(tmp_path)) == MAX_CHECKS


def test_where_systemd_does_not_run_the_units_are_skipped(tmp_path: Path) -> None:
    (result,) = health.perform(tmp_path, [Check(NO_FAILED_UNIT, None)])
    assert (result.outcome, result.reason) == (Outcome.SKIPPED, "systemd does not run here")


def test_no_failed_unit_is_well_and_systemctl_is_asked_for_just_that(tmp_path: Path) -> None:
    result = failed_units(tmp_path, f'echo "$@" > {tmp_path}/asked')
    assert result.outcome is Outcome.PASSED
    assert (tmp_path / "asked").read_text() == "list-units --state=failed --plain --no-legend --no-pager --full\n"


def test_failed_units_are_named(tmp_path: Path) -> None:
    result = failed_units(
        tmp_path, "echo 'ssh.service loaded failed failed The server'; echo 'srv.mount loaded failed failed /srv'"
    )
    assert (result.outcome, result.reason) == (Outcome.FAILED, "failed: ssh.service, srv.mount")


def test_a_systemctl_that_fails_is_no_health(tmp_path: Path) -> None:
    result = failed_units(tmp_path, "echo Failed to connect to bus >&2; exit 1")
    assert (result.outcome, result.reason) == (Outcome.FAILED, "systemctl: Failed to connect to bus")


# -- the report that stays

RESULTS = st.builds(
    Result,
    st.from_regex(r"[a-z][a-z0-9-]{0,20}", fullmatch=True),
    st.sampled_from(Outcome),
    st.text(st.characters(categories=("L", "N", "P")), max_size=40),
    st.floats(0, 1000),
)
REPORTS = st.builds(
    Health,
    st.from_regex(r"[1-9][0-9]{0,5}(\.[1-9][0-9]?)?", fullmatch=True),
    st.integers(0, (1 << 40) - 1),
    st.lists(RESULTS, max_size=4).map(tuple),
)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("boot")


@settings(max_examples=25)
@given(st.lists(REPORTS, max_size=health.MAX_REPORTS, unique_by=lambda report: report.deployment))
def test_what_was_written_is_read(directory: Path, reports: list[Health]) -> None:
    by_name = {report.deployment: report for report in reports}
    with Directory.open(directory) as boot:
        health.write(boot, by_name)
        assert health.read(boot) == by_name


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["reports", "deployment", "when", "checks", "name", "outcome"]), inner)
    ),
)


@given(JSON | st.fixed_dictionaries({"reports": JSON}) | st.binary(max_size=50))
def test_whatever_is_in_the_file_only_sound_reports_come_out(directory: Path, content: object) -> None:
    data = content if isinstance(content, bytes) else json.dumps(content).encode()
    (directory / health.FILE).write_bytes(data)
    with Directory.open(directory) as boot:
        for name, report in health.read(boot).items():
            assert report.deployment == name
            assert 0 <= report.when < 1 << 40


@pytest.mark.parametrize(
    "check",
    [
        {"name": "a\n", "outcome": "failed", "reason": "", "seconds": 0},
        {"name": "a", "outcome": ["failed"], "reason": "", "seconds": 0},
        {"name": "a", "outcome": "odd", "reason": "", "seconds": 0},
        {"name": "a", "outcome": "failed", "reason": "", "seconds": float("nan")},
        {"name": "a", "outcome": "failed", "reason": 1, "seconds": 0},
        {"name": "a", "outcome": "failed", "reason": "", "seconds": True},
    ],
)
def test_a_result_that_is_none_is_left_out(tmp_path: Path, check: Mapping[str, object]) -> None:
    good = {"name": "b", "outcome": "failed", "reason": "bad\x1bsign", "seconds": 1}
    raw = {"reports": [{"deployment": "20", "when": 1, "checks": [check, good]}]}
    (tmp_path / health.FILE).write_text(json.dumps(raw))
    with Directory.open(tmp_path) as boot:
        found = health.read(boot)
    assert found["20"].checks == (Result("b", Outcome.FAILED, "bad?sign", 1),)


def test_a_report_replaces_the_one_of_the_same_deployment_and_the_oldest_goes(tmp_path: Path) -> None:
    with Directory.open(tmp_path) as boot:
        for number in range(1, health.MAX_REPORTS + 3):
            health.add(boot, Health(str(number), number, ()))
        health.add(boot, Health("5", 99, ()))
        found = health.read(boot)
    assert list(found) == ["3", "4", "6", "7", "8", "9", "10", "11", "12", "5"]
    assert found["5"].when == 99
