"""The faces of the report."""

from __future__ import annotations

import io
import itertools
import json
import os

import pytest

from swupd.errors import UsageError
from swupd.report import CONTINUES, JsonReport, TextReport, counted, human_size, show_error


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def texts(**options: bool) -> tuple[TextReport, io.StringIO, io.StringIO]:
    out, err = io.StringIO(), io.StringIO()
    return TextReport(out=out, err=err, **options), out, err


def speak(report: TextReport | JsonReport) -> None:
    report.start("update")
    report.answer("answer")
    report.info("info")
    report.verbose("verbose")
    report.debug("debug")
    report.warning("careful")
    report.error("broken", "mend it")
    report.end(0)


def test_plain_text_shows_answers_and_information() -> None:
    report, out, err = texts()
    speak(report)
    assert out.getvalue() == "answer\ninfo\n"
    assert err.getvalue() == "Warning: careful\nError: broken\nHint: mend it\n"


def test_quiet_shows_only_the_answer_and_errors() -> None:
    report, out, err = texts(quiet=True)
    speak(report)
    assert out.getvalue() == "answer\n"
    assert err.getvalue() == "Error: broken\nHint: mend it\n"


def test_debug_wins_over_quiet() -> None:
    report, out, _ = texts(quiet=True, debug=True)
    speak(report)
    assert "Debug: " in out.getvalue()
    assert "verbose" in out.getvalue()


def test_elsewhere_only_a_long_step_says_how_far_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 5.0, 12.0, 13.0])
    monkeypatch.setattr("swupd.report.time.monotonic", lambda: next(clock))
    report, out, _ = texts()
    report.step("download_packs", "Downloading packs")
    for done in (1, 2, 4):
        report.progress(done, 4, 100)
    assert out.getvalue() == "Downloading packs\n   50 %  Downloading packs\n"


@pytest.mark.parametrize(("shown", "lines"), [(False, ""), (True, "  100 %  Downloading packs\n")])
def test_progress_can_be_switched_off(shown: bool, lines: str, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = itertools.count(step=100)
    monkeypatch.setattr("swupd.report.time.monotonic", lambda: next(clock))
    monkeypatch.setenv("TERM", "dumb")
    screen = Terminal()
    report = TextReport(out=screen, show_progress=shown)
    report.step("download_packs", "Downloading packs")
    report.progress(1, 1)
    assert screen.getvalue() == "Downloading packs\n" + lines


def test_a_name_that_is_no_text_is_still_shown() -> None:
    report, out, _ = texts()
    report.answer(b"/usr/\xff".decode("utf-8", "surrogateescape"))
    assert out.getvalue() == "/usr/\ufffd\n"


def test_the_json_stream_is_one_valid_array_with_an_object_a_line() -> None:
    out = io.StringIO()
    report = JsonReport(out)
    report.info("before the start: dropped")
    report.start("update")
    report.step("load_manifests", "Loading", 1, 10)
    report.progress(5, 10)
    report.warning('quotes " and back\\slash\tand\nlines')
    report.info("")
    report.end(3)
    records = json.loads(out.getvalue())
    assert records[0] == {"type": "start", "section": "update"}
    assert records[1]["stepDescription"] == "load_manifests"
    assert [r["stepCompletion"] for r in records[1:3]] == [-1, 50]
    assert records[3] == {"type": "warning", "msg": 'quotes " and back\\slash\tand lines'}
    assert records[4] == {"type": "end", "section": "update", "status": 3}
    assert len(out.getvalue().splitlines()) == len(records) + 2


def test_one_array_goes_on_in_the_program_that_takes_over() -> None:
    out = io.StringIO()
    first = JsonReport(out)
    first.start("update")
    first.info("one")
    environment = first.hand_over()
    assert environment == {CONTINUES: f"{os.getpid()} update"}
    second = JsonReport(out, continues="update")
    second.start("update")
    second.info("two")
    second.end(0)
    assert json.loads(out.getvalue()) == [
        {"type": "start", "section": "update"},
        {"type": "info", "msg": "one"},
        {"type": "info", "msg": "two"},
        {"type": "end", "section": "update", "status": 0},
    ]


def test_only_an_array_that_has_begun_is_handed_over() -> None:
    assert JsonReport(io.StringIO()).hand_over() == {}
    assert TextReport(out=io.StringIO()).hand_over() == {}


def test_an_error_is_shown_with_its_hint() -> None:
    report, _, err = texts()
    show_error(report, UsageError("no such option", hint="see --help"))
    assert err.getvalue() == "Error: no such option\nHint: see --help\n"


def test_things_are_counted_as_people_do() -> None:
    assert [counted(n, "file") for n in (0, 1, 2)] == ["0 files", "1 file", "2 files"]


def test_sizes_have_the_unit_that_fits() -> None:
    assert [human_size(n) for n in (0, 999, 1500, 23_000_000, 5_000_000_000_000)] == [
        "0 bytes",
        "999 bytes",
        "1.5 kB",
        "23.0 MB",
        "5000.0 GB",
    ]
