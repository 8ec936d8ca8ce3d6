"""`swupd search`: another program, with its own options (specification section 6.2).

It takes the place of this process, and the whole command line is its own: not even -h is ours.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import NoReturn

from swupd import process
from swupd.report import Report

HELP = "search for bundles and files in an index"
EXAMPLES = """\
  swupd search editor
  swupd search --help                the options are those of swupd-search, from the bundle os-core-search"""

PROGRAM = Path("/usr/bin/swupd-search")


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("arguments", nargs="*", metavar="ARGUMENT", help="passed on as they are")


def run(args: Namespace, report: Report) -> NoReturn:  # noqa: ARG001 (what every command is given)
    process.become(
        [PROGRAM, *args.arguments],
        hint="install it with: swupd bundle-add os-core-search; 'swupd search-file' searches without it",
    )
