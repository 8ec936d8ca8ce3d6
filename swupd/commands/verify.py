"""`swupd verify`: the old name of diagnose, repair and os-install (specification section 6.2).

It is kept for scripts, and says by which command it is replaced.
"""

from __future__ import annotations

from argparse import ArgumentParser, ArgumentTypeError, Namespace

from swupd.commands import diagnose, os_install, repair
from swupd.commands.global_options import LATEST, version_number
from swupd.commands.verifying import add_verify_arguments
from swupd.errors import UsageError
from swupd.report import Report

HELP = "the old name of diagnose, repair and os-install"
EXAMPLES = """\
  swupd verify                                   the same as: swupd diagnose
  swupd verify --fix                             the same as: swupd repair
  swupd verify --install -m 20 --path /mnt       the same as: swupd os-install --version 20 --path /mnt"""


def add_arguments(parser: ArgumentParser) -> None:
    add_verify_arguments(parser, "-m", "--manifest", version_type=_version)
    parser.add_argument("-f", "--fix", action="store_true", help="replace what is missing or changed: use repair")
    parser.add_argument("-i", "--install", action="store_true", help="install into --path: use os-install")


def _version(text: str) -> int | str:
    """A version, or the word for the newest one, which only an installation takes."""
    if text == LATEST:
        return text
    try:
        return version_number(text)
    except ArgumentTypeError as error:
        raise ArgumentTypeError(f"{error}, nor is it '{LATEST}'") from error


def run(args: Namespace, report: Report) -> int:
    if args.install:
        return _install(args, report)
    if args.version == LATEST:
        raise UsageError(f"version '{LATEST}' needs --install", hint="give the number of a version")
    _warn(report, "repair" if args.fix else "diagnose")
    return repair.run(args, report) if args.fix else diagnose.run(args, report)


def _install(args: Namespace, report: Report) -> int:
    if args.fix or args.quick or args.picky or args.extra_files_only or args.file:
        raise UsageError(
            "--install cannot be used with --fix, --quick, --picky, --extra-files-only or --file",
            hint="leave out one of these options",
        )
    _warn(report, "os-install")
    parser = ArgumentParser(add_help=False)
    os_install.add_arguments(parser)
    given = vars(args) | {"version": None if args.version == LATEST else args.version, "bundles": args.bundles or ()}
    return os_install.run(Namespace(**(vars(parser.parse_args([])) | given)), report)


def _warn(report: Report, replacement: str) -> None:
    report.warning(f"'swupd verify' is the old name of this: use 'swupd {replacement}'")
