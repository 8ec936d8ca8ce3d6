"""`swupd 3rd-party repair`: `swupd repair` on the content of the repositories, and on their wrappers."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from swupd.commands import repair
from swupd.commands.thirdparty.choosing import add_repo_option, arguments_for, for_each, settled, worst
from swupd.report import Report
from swupd.thirdparty.host import working
from swupd.thirdparty.repositories import Repository

HELP = "replace changed and missing files of the repositories"
EXAMPLES = """\
  swupd 3rd-party repair
  swupd 3rd-party repair --repo mine --picky"""


def add_arguments(parser: ArgumentParser) -> None:
    repair.add_arguments(parser)
    add_repo_option(parser)


def run(args: Namespace, report: Report) -> int:
    with working(args, report) as host:

        def work(repository: Repository) -> int:
            host.place(repository).note()
            return repair.run(arguments_for(repair, host.arguments(repository)), report)

        return worst(for_each(host, args, settled(host, work)))
