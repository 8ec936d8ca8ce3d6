"""`mixer init`: a directory becomes a workspace.

What is there already is kept, so that a workspace of the original mixer is taken over by adding builder.yaml to it.
builder.yaml comes last: a directory without it is no workspace yet, and an interrupted run can be repeated.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from mixer.errors import WorkspaceError
from mixer.workspace import DEFAULT_FORMAT, MAX_FORMAT, MAX_VERSION, State, Workspace
from swupd.report import Report

NAME = "init"
HELP = "make a directory the workspace of a new mix"
DESCRIPTION = """\
Make the current directory (or --workspace DIR, created if needed) the workspace of
a mix: a commented builder.yaml, the version and the format to build, and a mix of
the two bundles that every mix has, os-core and os-core-update. If no directory of
definitions has them, small ones are written to local-bundles/.

Nothing is overwritten; the files of a workspace of the original mixer are kept."""
EXAMPLES = """\
examples:
  mixer init
  mixer --workspace mix init --bundles bundles
  mixer init --source tree --tree-path /srv/roots --mix-version 100"""

_FIRST_VERSION = 10

_STARTERS = {
    "os-core": """\
# [TITLE]: os-core
# [DESCRIPTION]: What every system has
# [STATUS]: Active
# [CAPABILITIES]: Boot, log in, run programs
# [MAINTAINER]: the owner of this mix
# Packages that Debian calls essential belong to this bundle without being named.
base-files
""",
    "os-core-update": """\
# [TITLE]: os-core-update
# [DESCRIPTION]: What a system needs to update itself
# [STATUS]: Active
# [CAPABILITIES]: Find, verify and install updates
# [MAINTAINER]: the owner of this mix
# The builder adds swupd itself, which runs on this Python.
include(os-core)
ca-certificates
python3
""",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--mix-version", type=int, metavar="N", help=f"version to build first (default: {_FIRST_VERSION})"
    )
    parser.add_argument(
        "--format",
        type=int,
        metavar="F",
        help=f"format of the versions, which clients have to understand (default: {DEFAULT_FORMAT})",
    )
    parser.add_argument(
        "--source",
        choices=("apt", "tree"),
        default="apt",
        help="where content comes from: Debian packages, or prepared roots (default: apt)",
    )
    parser.add_argument("--tree-path", metavar="DIR", help="the directory of prepared roots, with --source tree")
    parser.add_argument(
        "--bundles",
        metavar="DIR",
        action="append",
        default=[],
        help="a directory of bundle definitions to use besides local-bundles/ (may be given again)",
    )


def run(workspace: Workspace, args: argparse.Namespace, report: Report) -> int:
    _check(workspace, args)
    workspace.path.mkdir(parents=True, exist_ok=True)
    with workspace.lock():
        workspace.local_bundles.mkdir(exist_ok=True)
        workspace.images.mkdir(parents=True, exist_ok=True)
        if not workspace.version_file.exists():
            workspace.set_mix_version(args.mix_version or _FIRST_VERSION)
        if not workspace.state_file.exists():
            derived = workspace.state()
            workspace.set_state(State(args.format or derived.format, derived.previous))
        if not workspace.bundles_file.exists():
            workspace.set_mix_bundles(_first_bundles(workspace, args, report))
        _write_configuration(workspace, args)
    report.info(f"{workspace.path} is a workspace now: version {workspace.mix_version()} is built next.")
    report.info("builder.yaml says what it is built from; `mixer build all` builds it.")
    return 0


def _check(workspace: Workspace, args: argparse.Namespace) -> None:
    if workspace.config_file.exists():
        raise WorkspaceError(
            f"{workspace.path} is a workspace already: it has a builder.yaml",
            hint="edit that file, or choose another directory with --workspace DIR",
        )
    if (args.source == "tree") != (args.tree_path is not None):
        raise WorkspaceError("--source tree and --tree-path DIR belong together", hint="give both or none")
    for option, value, limit, file in (
        ("--mix-version", args.mix_version, MAX_VERSION, workspace.version_file),
        ("--format", args.format, MAX_FORMAT, workspace.state_file),
    ):
        if value is None:
            continue
        if not 1 <= value <= limit:
            raise WorkspaceError(f"{option} must be between 1 and {limit}, not {value}")
        if file.exists():
            raise WorkspaceError(
                f"{option} cannot be given, because {workspace.shown(file)} exists", hint="leave the option out"
            )
    for directory in args.bundles:
        if not Path(directory).is_dir():
            raise WorkspaceError(f"{directory} is not a directory of bundle definitions")


def _first_bundles(workspace: Workspace, args: argparse.Namespace, report: Report) -> list[str]:
    """The bundles that every mix has, with definitions for those that have none. Prepared roots bring their own."""
    from mixer.bundles import Definitions

    if args.source == "tree":
        return []
    definitions = Definitions(workspace, [Path(directory).absolute() for directory in args.bundles])
    for name, text in _STARTERS.items():
        if definitions.find(name) is None:
            (workspace.local_bundles / name).write_text(text)
            report.info(f"local-bundles/{name} is a small definition to begin with.")
    return list(_STARTERS)


def _write_configuration(workspace: Workspace, args: argparse.Namespace) -> None:
    from mixer.template import builder_yaml
    from swupd.fs import replace_file

    tree = _from_workspace(workspace, args.tree_path) if args.tree_path is not None else ""
    directories = [_from_workspace(workspace, directory) for directory in args.bundles]
    replace_file(workspace.config_file, builder_yaml(args.source, tree, directories).encode())


def _from_workspace(workspace: Workspace, path: str) -> str:
    """A path of the command line as builder.yaml has to name it: relative ones begin at the workspace there."""
    return path if os.path.isabs(path) else os.path.relpath(path, workspace.path)
