"""`swupd 3rd-party list`: the repositories and their URLs (specification section 7.3). Needs no root."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from swupd.errors import ExitCode
from swupd.report import Report
from swupd.thirdparty.host import looking

HELP = "list the repositories and their URLs"
EXAMPLES = """\
  swupd 3rd-party list"""


def add_arguments(parser: ArgumentParser) -> None:
    """No options of its own."""


def run(args: Namespace, report: Report) -> int:
    with looking(args, report) as host:
        for repository in host.repositories:
            report.answer(f"{repository.name}: {repository.url}")
        if not host.repositories:
            report.info("There are no 3rd-party repositories; add one with: swupd 3rd-party add NAME URL")
    return ExitCode.OK
