"""`swupd 3rd-party check-update`: which repositories have a newer version. Needs no root.

The exit status is that of the ordinary command: 0 if any of the repositories has a newer version, 1 if none has. (The
original's is always 0 without --repo, so that a script learns nothing.)
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Iterable

from swupd.commands import check_update
from swupd.commands.thirdparty.choosing import add_repo_option, arguments_for, for_each, worst
from swupd.errors import ExitCode
from swupd.report import Report
from swupd.thirdparty.host import looking

HELP = "tell which repositories have a newer version"
EXAMPLES = """\
  swupd 3rd-party check-update                   exit status: 0 one of them has, 1 none has
  swupd 3rd-party check-update --repo mine --quiet"""


def add_arguments(parser: ArgumentParser) -> None:
    check_update.add_arguments(parser)
    add_repo_option(parser)


def run(args: Namespace, report: Report) -> int:
    with looking(args, report) as host:
        return together(
            for_each(
                host, args, lambda each: check_update.run(arguments_for(check_update, host.arguments(each)), report)
            )
        )


def together(statuses: Iterable[int]) -> int:
    """An error if there was one, else whether there is anything newer."""
    found = list(statuses)
    if worst(found) > ExitCode.NO:
        return worst(found)
    return ExitCode.OK if ExitCode.OK in found else ExitCode.NO
