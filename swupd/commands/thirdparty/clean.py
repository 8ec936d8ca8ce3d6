"""`swupd 3rd-party clean`: `swupd clean` on the caches of the repositories, each of which has its own."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from swupd.commands import clean
from swupd.commands.thirdparty.choosing import add_repo_option, arguments_for, for_each, worst
from swupd.report import Report
from swupd.thirdparty.host import working

HELP = "remove downloaded files of the repositories that are not needed any more"
EXAMPLES = """\
  swupd 3rd-party clean
  swupd 3rd-party clean --all --repo mine"""


def add_arguments(parser: ArgumentParser) -> None:
    clean.add_arguments(parser)
    add_repo_option(parser)


def run(args: Namespace, report: Report) -> int:
    with working(args, report) as host:
        return worst(for_each(host, args, lambda each: clean.run(arguments_for(clean, host.arguments(each)), report)))
