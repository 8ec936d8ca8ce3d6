"""`swupd status`: what runs, what boots next, and what became of the other versions.

Needs no root, but only root can look at the boot entries. With --quiet the running version is printed and, if another
one boots next, that one on a second line; with --json-output one event has everything as JSON, in which `failed` has
what failed its boot or its health checks and `set_aside` what somebody went back from. On a system that cannot switch
on its next boot only the version is told.
"""

from __future__ import annotations

import json
from argparse import ArgumentParser, Namespace

from swupd.errors import ExitCode, NextBootError
from swupd.report import Report
from swupd.session import reading

HELP = "show the running version, the next one, and what became of others"
EXAMPLES = """\
  swupd status
  swupd status --quiet               the running version; on a second line another one that boots next
  swupd status --json-output"""


def add_arguments(parser: ArgumentParser) -> None:
    """No options of its own."""


def run(args: Namespace, report: Report) -> int:
    from swupd.nextboot import overview
    from swupd.nextboot.place import is_deployment, locate

    with reading(args, report) as session:
        try:
            located = locate(session.settings.root)
        except NextBootError as error:
            version = session.system.installed_version()
            if args.json_output:
                report.answer(json.dumps({"version": version, "running": None}))
            elif args.quiet:
                report.answer(str(version))
            else:
                report.info(f"Running:   {version}")
                following = "not known" if is_deployment(session.settings.root) else "the same"
                report.info(f"Next boot: {following}; {error}")
            return ExitCode.OK
        seen = overview.look(located)
    if args.json_output:
        report.answer(json.dumps(overview.as_json(seen)))
    elif args.quiet:
        for name in dict.fromkeys(filter(None, (seen.running, seen.next))):
            report.answer(name)
    else:
        for line in overview.lines(seen):
            report.info(line)
    return ExitCode.OK
