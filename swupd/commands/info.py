"""`swupd info`: which system this is, and where it updates from (specification section 6.2)."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from swupd import reboot
from swupd.commands.mirror import show_urls
from swupd.errors import ExitCode
from swupd.report import Report
from swupd.session import reading

HELP = "show the installed version and the server's URLs"
EXAMPLES = """\
  swupd info
  swupd info --quiet                 print the version number only
  swupd info --path /mnt/root"""


def add_arguments(parser: ArgumentParser) -> None:
    """No options of its own."""


def run(args: Namespace, report: Report) -> int:
    with reading(args, report) as session:
        version = session.system.installed_version()
        if args.quiet:
            report.answer(str(version))
            return ExitCode.OK
        name = session.system.pretty_name()
        if name:
            report.info(f"Distribution:      {name}")
        with_format = f" (format {session.settings.format})" if args.verbose else ""
        report.info(f"Installed version: {version}{with_format}")
        show_urls(session.settings, report)
        if session.system.is_host and (needed := reboot.remembered()):
            report.info(reboot.sentence(needed))
    return ExitCode.OK
