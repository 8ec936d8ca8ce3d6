"""`swupd 3rd-party bundle-add`: install bundles of repositories, each from the one that has it (specification 7.4).

All names are looked up before anything is installed.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from swupd.commands import bundle_add
from swupd.commands.thirdparty.choosing import (
    add_repo_option,
    arguments_for,
    available,
    settled,
    with_bundle,
    worst,
)
from swupd.report import Report
from swupd.thirdparty.host import working
from swupd.thirdparty.repositories import Repository

HELP = "install bundles of the repositories"
EXAMPLES = """\
  swupd 3rd-party bundle-add editor
  swupd 3rd-party bundle-add editor --repo mine"""


def add_arguments(parser: ArgumentParser) -> None:
    bundle_add.add_arguments(parser)
    add_repo_option(parser)


def run(args: Namespace, report: Report) -> int:
    with working(args, report) as host:
        names: dict[Repository, list[str]] = {}
        for name in dict.fromkeys(args.bundles):
            repository = with_bundle(host, args, name, lambda each: available(each, host))
            names.setdefault(repository, []).append(name)

        def work(repository: Repository) -> int:
            given = host.arguments(repository, new_commands=True)
            return bundle_add.run(arguments_for(bundle_add, given, bundles=names[repository]), report)

        return worst([settled(host, work)(repository) for repository in names])
