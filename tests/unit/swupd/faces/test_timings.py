from __future__ import annotations

import io

from swupd.faces.timings import TimedReport
from swupd.report import TextReport


def test_the_seconds_of_each_step_are_printed_at_the_end() -> None:
    out = io.StringIO()
    report = TimedReport(TextReport(out=out))
    report.start("update")
    report.step("load_manifests", "Loading manifests", 1, 2)
    report.step("update_files", "Updating files", 2, 2)
    report.end(0)
    assert [line.split()[1:] for line in out.getvalue().splitlines()[2:]] == [
        ["s", "load_manifests"],
        ["s", "update_files"],
        ["s", "in", "all"],
    ]


def test_a_command_without_steps_has_only_a_total() -> None:
    out = io.StringIO()
    report = TimedReport(TextReport(out=out))
    report.start("info")
    report.end(0)
    assert out.getvalue().endswith(" s  in all\n")


def test_times_are_printed_before_another_program_takes_over() -> None:
    out = io.StringIO()
    report = TimedReport(TextReport(out=out))
    report.start("update")
    report.step("load_manifests", "Loading manifests", 1, 2)
    assert report.hand_over() == {}
    assert out.getvalue().splitlines()[1].endswith(" s  load_manifests")
