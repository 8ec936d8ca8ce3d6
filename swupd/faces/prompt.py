"""A question that somebody at a terminal answers with yes or no (specification section 6.1, --yes and --assume).

A program never waits for an answer that nobody can give: without a terminal to read from and to show the question on,
with --quiet and in a JSON stream, the answer is the default.
"""

from __future__ import annotations

import sys

from swupd.report import Report


def ask(report: Report, question: str, *, assume: bool | None, default: bool = False) -> bool:
    """The answer to `question`, such as "Update now?"; the choices are added.

    assume: the answer of --yes or --assume, None without them. An empty line means `default`; an end of the input, and
    anything that is not y or yes, means no.
    """
    if assume is not None:
        return assume
    if not sys.stdin.isatty():
        return default
    line, is_open = "", True
    try:
        is_open = report.question(f"{question} [{'Y/n' if default else 'y/N'}] ")
        if not is_open:
            return default
        line = sys.stdin.readline()
        is_open = not line.endswith("\n")
    finally:
        if is_open:
            # Interrupted, or the end of the input: the terminal has not begun a new line.
            report.info("")
    word = line.strip().lower()
    return word in ("y", "yes") if word or not line else default
