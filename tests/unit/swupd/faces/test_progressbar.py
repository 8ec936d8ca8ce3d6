"""The bar, on a real terminal with a real process."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import Any

COLOUR = re.compile(r"\033\[[0-9;]+m")
START = """\
import os, signal, sys, time
from swupd.report import TextReport
report = TextReport()
report.start("update")
report.step("load_manifests", "Loading manifests")
report.step("download_packs", "Downloading packs")
def work(begin, end, total, size=0):
    for done in range(begin, end):
        time.sleep(0.05)
        report.progress(done + 1, total, size * (done + 1))
"""


def run(terminal: Any, code: str, **environment: str) -> list[str]:
    lines: list[str] = terminal.run(sys.executable, "-c", START + code, **environment)
    return lines


def test_a_long_step_gets_a_bar_in_its_own_line_and_keeps_it_when_it_is_done(terminal: Any) -> None:
    lines = run(terminal, "work(0, 10, 10, 1_000_000); report.info('Updated'); report.end(0)")
    assert lines[0] == "Loading manifests"
    assert lines[1].startswith("Downloading packs ━━━━━━━━")
    assert "100 %    10.0 MB  in 0." in lines[1]
    assert lines[2:] == ["Updated", ""]
    assert terminal.status == 0


def test_the_bar_tells_bytes_rate_and_time_left_meanwhile(terminal: Any) -> None:
    run(terminal, "work(0, 20, 40, 1_000_000); report.end(0)")
    assert " 0:0" in terminal.raw
    assert " left" in terminal.raw
    assert "MB/s" in terminal.raw


def test_a_short_step_has_no_bar_and_needs_no_rich(terminal: Any) -> None:
    lines = run(terminal, "report.progress(1, 1); report.info(str('rich' in sys.modules)); report.end(0)")
    assert lines == ["Loading manifests", "Downloading packs", "False", ""]


def test_messages_stand_above_the_bar(terminal: Any) -> None:
    code = "work(0, 8, 10)\nreport.warning('careful')\nreport.info('a line')\nwork(8, 10, 10)\nreport.end(0)"
    lines = run(terminal, code)
    assert lines[:3] == ["Loading manifests", "Warning: careful", "a line"]
    assert lines[3].startswith("Downloading packs ━")
    assert "100 %" in lines[3]
    assert lines[4:] == [""]


def test_an_error_stands_whole_below_the_bar_that_shows_how_far_the_step_came(terminal: Any) -> None:
    lines = run(terminal, "work(0, 8, 10); report.error('no more space', 'make some'); report.end(1)")
    assert lines[1].startswith("Downloading packs ━")
    assert "100 %" not in lines[1]
    assert lines[2:] == ["Error: no more space", "Hint: make some", ""]


def test_a_step_of_unknown_length_has_a_spinner_that_goes_away(terminal: Any) -> None:
    lines = run(terminal, "for i in range(12): time.sleep(0.05); report.progress(0, 0)\nreport.end(0)")
    assert "Downloading packs \\" in terminal.raw
    assert lines == ["Loading manifests", "Downloading packs", ""]


def test_another_program_that_takes_over_begins_on_a_new_line(terminal: Any) -> None:
    code = "work(0, 8, 10); report.hand_over(); os.execv('/bin/echo', ['echo', 'goes on'])"
    lines = run(terminal, code)
    assert lines[1].startswith("Downloading packs ━")
    assert lines[2:] == ["goes on", ""]


def test_the_cursor_is_never_hidden(terminal: Any) -> None:
    run(terminal, "work(0, 8, 10); os.kill(os.getpid(), signal.SIGKILL)")
    assert "━" in terminal.raw
    assert "\033[?25l" not in terminal.raw


def test_without_colours_there_are_none(terminal: Any) -> None:
    code = "work(0, 8, 10); report.end(0)"
    run(terminal, code)
    assert COLOUR.search(terminal.raw)
    run(terminal, code, NO_COLOR="1")
    assert "━" in terminal.raw
    assert not COLOUR.search(terminal.raw)


def test_a_terminal_that_can_only_print_lines_gets_lines(terminal: Any) -> None:
    assert run(terminal, "work(0, 8, 10); report.end(0)", TERM="dumb") == ["Loading manifests", "Downloading packs", ""]
    assert "\033" not in terminal.raw


def test_what_is_no_terminal_gets_no_control_signs() -> None:
    code = START + "work(0, 8, 10); report.error('no'); report.end(0)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "Loading manifests\nDownloading packs\n"
    assert done.stderr == "Error: no\n"
