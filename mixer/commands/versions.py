"""`mixer versions` and `mixer versions update`: which version is built next, and what it is compared with."""

from __future__ import annotations

import argparse
import json

from mixer.errors import WorkspaceError
from mixer.table import table
from mixer.workspace import MAX_VERSION, State, Workspace
from swupd.report import Report

NAME = "versions"
HELP = "show or advance the version to build"
DESCRIPTION = """\
Show the versions of the mix:

  mix version       the one that the next build makes
  previous          the one that its manifests are compared with
  last published    the last one that `mixer build update` completed (0: none)
  format            what clients have to understand to read it"""
EXAMPLES = """\
examples:
  mixer versions
  mixer versions --json
  mixer versions update"""

DEFAULT_INCREMENT = 10


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print a JSON object")
    actions = parser.add_subparsers(title="commands", dest="action", metavar="COMMAND")
    update = actions.add_parser(
        "update",
        help="go on to the next version",
        description="Set the version to build next; it is compared with the one published last.",
        epilog="""\
examples:
  mixer versions update                   # 10 more
  mixer versions update --increment 100
  mixer versions update --mix-version 500""",
    )
    which = update.add_mutually_exclusive_group()
    which.add_argument(
        "--mix-version", type=int, metavar="N", help="exactly this version, greater than the current one"
    )
    which.add_argument(
        "--increment",
        type=int,
        metavar="N",
        default=DEFAULT_INCREMENT,
        help=f"so much more than the current version (default: {DEFAULT_INCREMENT})",
    )


def run(workspace: Workspace, args: argparse.Namespace, report: Report) -> int:
    workspace.require()
    if args.action == "update":
        return _update(workspace, args, report)
    state = workspace.state()
    versions = {
        "mix version": workspace.mix_version(),
        "previous": state.previous,
        "last published": workspace.last_version(),
        "format": state.format,
    }
    if args.json:
        report.answer(json.dumps({name.replace(" ", "_"): number for name, number in versions.items()}, indent=2))
    else:
        report.answer(table([(name, str(number)) for name, number in versions.items()]))
    return 0


def _update(workspace: Workspace, args: argparse.Namespace, report: Report) -> int:
    with workspace.lock():
        current = workspace.mix_version()
        last = workspace.last_version()
        wanted = args.mix_version if args.mix_version is not None else current + args.increment
        # A new workspace has its first version set already; naming it once more is no mistake.
        if wanted < current or (wanted == current and current <= last):
            raise WorkspaceError(
                f"the new mix version must be greater than {current}, not {wanted}", hint="versions only ever grow"
            )
        if wanted > MAX_VERSION:
            raise WorkspaceError(f"the new mix version must not be greater than {MAX_VERSION}")
        state = workspace.state()
        # The state first: with the new version but the old `previous`, a build would forget what `last` published.
        workspace.set_state(State(state.format, last))
        workspace.set_mix_version(wanted)
    report.info(f"Version {wanted} is built next; it is compared with {last or 'nothing'}.")
    return 0
