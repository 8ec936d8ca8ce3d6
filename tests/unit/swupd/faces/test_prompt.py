"""Questions, on a real terminal with a real process."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from swupd.faces.prompt import ask
from swupd.report import TextReport

CODE = """\
import sys
from swupd.faces.prompt import ask
from swupd.report import JsonReport, TextReport
from swupd.faces.timings import TimedReport
report = {report}
report.start("update")
try:
    report.info(str(ask(report, "Update now?", assume=None, default={default})))
except KeyboardInterrupt:
    report.error("interrupted")
report.end(0)
"""


def answered(terminal: Any, typed: bytes, *, default: bool = False, report: str = "TextReport()") -> list[str]:
    code = CODE.format(report=report, default=default)
    answers = [("] ", typed)] if typed else []
    lines: list[str] = terminal.run(sys.executable, "-c", code, answers=answers)
    return lines


@pytest.mark.parametrize(
    ("typed", "answer"),
    [(b"y\n", True), (b"Yes \n", True), (b"n\n", False), (b"\n", False), (b"maybe\n", False), (b"\x04", False)],
)
def test_only_a_yes_is_a_yes(typed: bytes, answer: bool, terminal: Any) -> None:
    lines = answered(terminal, typed)
    assert lines[0].startswith("Update now? [y/N]")
    assert lines[1:] == [str(answer), ""]


@pytest.mark.parametrize(("typed", "answer"), [(b"\n", True), (b"n\n", False), (b"\x04", False), (b"what\n", False)])
def test_an_empty_line_means_the_default_and_the_end_of_input_never(typed: bytes, answer: bool, terminal: Any) -> None:
    lines = answered(terminal, typed, default=True)
    assert lines[0].startswith("Update now? [Y/n]")
    assert lines[1:] == [str(answer), ""]


def test_an_interruption_at_the_question_begins_a_new_line(terminal: Any) -> None:
    assert answered(terminal, b"\x03") == ["Update now? [y/N] ^C", "Error: interrupted", ""]


@pytest.mark.parametrize("report", ["TextReport(quiet=True)", "JsonReport()"])
def test_a_face_that_shows_no_questions_answers_with_the_default(report: str, terminal: Any) -> None:
    lines = answered(terminal, b"", report=report)
    assert "Update now?" not in terminal.raw
    assert lines == [""] if "quiet" in report else '"False"' in terminal.raw


def test_a_question_passes_the_report_with_times(terminal: Any) -> None:
    assert answered(terminal, b"y\n", report="TimedReport(TextReport())")[:2] == ["Update now? [y/N] y", "True"]


def test_without_a_terminal_the_default_is_the_answer() -> None:
    code = CODE.format(report="TextReport()", default=True)
    done = subprocess.run([sys.executable, "-c", code], input="n\n", capture_output=True, text=True, check=True)
    assert done.stdout == "True\n"


@pytest.mark.parametrize("answer", [True, False])
def test_an_answer_given_in_advance_wins(answer: bool, capsys: pytest.CaptureFixture[str]) -> None:
    assert ask(TextReport(), "Update now?", assume=answer, default=not answer) is answer
    assert capsys.readouterr().out == ""
