"""`swupd history`: what was done to the system, when, and what came of it.

Needs no root. With --quiet each event is one line of tab-separated fields, in the order of `swupd.history.Event`; with
--json-output the message of each record is an event as JSON.
"""

from __future__ import annotations

import json
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from dataclasses import asdict, astuple

from swupd import history
from swupd.commands.global_options import number
from swupd.errors import ExitCode, NotRootError
from swupd.history import Event
from swupd.report import Report, human_size
from swupd.session import reading

HELP = "show what was done to the system and when"
EXAMPLES = """\
  swupd history                      the last 20 events, the newest first
  swupd history --lines 3
  swupd history --quiet              one line of tab-separated fields for each"""

DEFAULT_LINES = 20
_HEADINGS = ("when", "what", "version", "result", "files", "downloaded", "seconds")
_TO_THE_RIGHT = {"downloaded", "seconds"}


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "-l",
        "--lines",
        type=number(1, history.EVENTS),
        default=DEFAULT_LINES,
        metavar="N",
        help=f"how many events to show (default: {DEFAULT_LINES})",
    )


def run(args: Namespace, report: Report) -> int:
    with reading(args, report) as session:
        try:
            events = history.read(session.statedir.data_dir)
        except PermissionError as error:
            raise NotRootError(
                f"cannot read {session.statedir.data_dir / history.FILE}: {error.strerror}", hint="run this as root"
            ) from error
    events = events[-args.lines :][::-1]
    if args.json_output:
        for event in events:
            report.answer(json.dumps(asdict(event)))
    elif args.quiet:
        for event in events:
            report.answer("\t".join(map(str, astuple(event))))
    elif not events:
        report.info("Nothing has been done to this system yet")
    else:
        for line in table(events):
            report.info(line)
    return ExitCode.OK


def table(events: Sequence[Event]) -> list[str]:
    """The lines of a table of events, with what went wrong below its event."""
    rows = [_HEADINGS, *map(_row, events)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row, event in zip(rows, (None, *events), strict=True):
        cells = [
            text.rjust(width) if heading in _TO_THE_RIGHT else text.ljust(width)
            for text, width, heading in zip(row, widths, _HEADINGS, strict=True)
        ]
        lines.append("  ".join(cells).rstrip())
        if event is not None and event.detail:
            lines.append(f"    {event.detail}")
    return lines


def _row(event: Event) -> tuple[str, ...]:
    """What is not known, because another process did it, stays empty."""
    versions = (str(version) for version in (event.from_version, event.to_version) if version)
    files = event.installed or event.replaced or event.removed
    return (
        time.strftime("%Y-%m-%d %H:%M", time.localtime(event.when)),
        event.command,
        " -> ".join(dict.fromkeys(versions)),
        event.outcome,
        f"+{event.installed} ~{event.replaced} -{event.removed}" if files else "",
        human_size(event.received) if event.received else "",
        f"{event.seconds:.1f}" if files or event.seconds else "",
    )
