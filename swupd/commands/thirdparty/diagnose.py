"""`swupd 3rd-party diagnose`: `swupd diagnose` on the content of the repositories."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from swupd.commands import diagnose
from swupd.commands.thirdparty.choosing import add_repo_option, arguments_for, for_each, worst
from swupd.report import Report
from swupd.thirdparty.host import working

HELP = "check whether all files of the repositories are as they should be"
EXAMPLES = """\
  swupd 3rd-party diagnose                       exit status: 0 all is well, 1 something was found
  swupd 3rd-party diagnose --repo mine --picky"""


def add_arguments(parser: ArgumentParser) -> None:
    diagnose.add_arguments(parser)
    add_repo_option(parser)


def run(args: Namespace, report: Report) -> int:
    with working(args, report) as host:
        return worst(
            for_each(host, args, lambda each: diagnose.run(arguments_for(diagnose, host.arguments(each)), report))
        )
