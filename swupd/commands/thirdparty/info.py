"""`swupd 3rd-party info`: `swupd info` on each repository. Needs no root."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from swupd.commands import info
from swupd.commands.thirdparty.choosing import add_repo_option, arguments_for, for_each, worst
from swupd.report import Report
from swupd.thirdparty.host import looking

HELP = "show the installed versions and the URLs"
EXAMPLES = """\
  swupd 3rd-party info
  swupd 3rd-party info --repo mine --quiet       print its version number only"""


def add_arguments(parser: ArgumentParser) -> None:
    info.add_arguments(parser)
    add_repo_option(parser)


def run(args: Namespace, report: Report) -> int:
    with looking(args, report) as host:
        return worst(for_each(host, args, lambda each: info.run(arguments_for(info, host.arguments(each)), report)))
