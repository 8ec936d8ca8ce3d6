"""`swupd 3rd-party bundle-info`: `swupd bundle-info` for a bundle of the repository that has it."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from swupd.commands import bundle_info
from swupd.commands.thirdparty.choosing import add_repo_option, arguments_for, available, with_bundle
from swupd.report import Report
from swupd.thirdparty.host import looking

HELP = "show what is known of a bundle of the repositories"
EXAMPLES = """\
  swupd 3rd-party bundle-info editor
  swupd 3rd-party bundle-info editor --repo mine --files"""


def add_arguments(parser: ArgumentParser) -> None:
    bundle_info.add_arguments(parser)
    add_repo_option(parser)


def run(args: Namespace, report: Report) -> int:
    with looking(args, report) as host:
        repository = with_bundle(host, args, args.bundle, lambda each: available(each, host))
        return bundle_info.run(arguments_for(bundle_info, host.arguments(repository)), report)
