"""`swupd check-update`: is there a newer version on the server? (specification sections 5.3 and 6.2).

Needs no root and leaves nothing behind. The newest version over all formats counts, so that a person hears of a
version that only becomes reachable after a format change. One that failed its boot, or that somebody went back from, is
not offered: `swupd update --next-boot --retry` tries it again.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from swupd.errors import ExitCode, ServerError
from swupd.nextboot.overview import failure_of
from swupd.report import Report
from swupd.session import Session, reading

HELP = "tell whether the server has a newer version"
EXAMPLES = """\
  swupd check-update                 exit status: 0 there is one, 1 there is none
  swupd check-update --quiet         print the number of the new version, or nothing"""


def add_arguments(parser: ArgumentParser) -> None:
    """No options of its own."""


def run(args: Namespace, report: Report) -> int:
    with reading(args, report) as session:
        return compare_versions(args, session)


def compare_versions(args: Namespace, session: Session) -> int:
    """Show both versions; OK if the server's is newer, otherwise NO. `update --status` is the same."""
    report = session.report
    installed = session.system.installed_version()
    report.info(f"Installed version: {installed}{_format(args, session, installed)}")
    newest = session.server.latest_overall()
    report.info(f"Newest version:    {newest}{_format(args, session, newest)}")
    if args.verbose:
        report.verbose(f"Newest version in format {session.settings.format}: {session.server.latest_version()}")
    if newest <= installed:
        report.info("There is no newer version")
        return ExitCode.NO
    failure = failure_of(session.settings.root, newest)
    if failure is not None:
        report.info(f"It is not offered: {failure.sentence}")
        return ExitCode.NO
    if args.quiet:
        report.answer(str(newest))
    else:
        report.info(f"There is a newer version: {newest}")
    return ExitCode.OK


def _format(args: Namespace, session: Session, version: int) -> str:
    if not args.verbose:
        return ""
    try:
        return f" (format {session.server.format_of(version)})"
    except ServerError:
        return " (format not known)"
