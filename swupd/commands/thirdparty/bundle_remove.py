"""`swupd 3rd-party bundle-remove`: uninstall bundles of repositories, each from the one that has it.

The option for one repository is -e here, because -R is --recursive. All names are looked up before anything is removed.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from swupd.commands import bundle_remove
from swupd.commands.thirdparty.choosing import (
    add_repo_option,
    arguments_for,
    for_each,
    installed,
    settled,
    with_bundle,
    worst,
)
from swupd.report import Report
from swupd.thirdparty.host import working
from swupd.thirdparty.repositories import Repository

HELP = "uninstall bundles of the repositories"
EXAMPLES = """\
  swupd 3rd-party bundle-remove editor
  swupd 3rd-party bundle-remove editor --repo mine --recursive
  swupd 3rd-party bundle-remove --orphans        dependencies that nothing needs, of all repositories"""


def add_arguments(parser: ArgumentParser) -> None:
    bundle_remove.add_arguments(parser)
    add_repo_option(parser, "-e", "--repo")


def run(args: Namespace, report: Report) -> int:
    with working(args, report) as host:
        names: dict[Repository, list[str]] = {}
        for name in dict.fromkeys(args.bundles):
            repository = with_bundle(host, args, name, lambda each: installed(each, host))
            names.setdefault(repository, []).append(name)

        def work(repository: Repository) -> int:
            host.place(repository).note()
            given = arguments_for(bundle_remove, host.arguments(repository), bundles=names.get(repository, []))
            return bundle_remove.run(given, report)

        if args.bundles:
            return worst([settled(host, work)(repository) for repository in names])
        return worst(for_each(host, args, settled(host, work)))
