"""`swupd 3rd-party bundle-list`: `swupd bundle-list` on the repositories.

The lists about one bundle (--deps, --has-dep) are made for the repository that has it.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from swupd.commands import bundle_list
from swupd.commands.thirdparty.choosing import (
    add_repo_option,
    arguments_for,
    available,
    for_each,
    with_bundle,
    worst,
)
from swupd.report import Report
from swupd.thirdparty.host import looking
from swupd.thirdparty.repositories import Repository

HELP = "list installed or available bundles of the repositories"
EXAMPLES = """\
  swupd 3rd-party bundle-list                    installed bundles
  swupd 3rd-party bundle-list --all --repo mine"""


def add_arguments(parser: ArgumentParser) -> None:
    bundle_list.add_arguments(parser)
    add_repo_option(parser)


def run(args: Namespace, report: Report) -> int:
    with looking(args, report) as host:

        def work(repository: Repository) -> int:
            return bundle_list.run(arguments_for(bundle_list, host.arguments(repository)), report)

        about = args.deps or args.has_dep
        if about:
            return work(with_bundle(host, args, about, lambda each: available(each, host)))
        return worst(for_each(host, args, work))
