"""`mixer check`: a published version, checked with what is published."""

from __future__ import annotations

import argparse
import json
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from mixer.commands.options import number
from mixer.errors import BuildError
from mixer.table import table
from mixer.workspace import MAX_VERSION, Workspace
from swupd.report import Report, TextReport, counted, human_size

if TYPE_CHECKING:
    from mixer.check.findings import CheckResult

NAME = "check"
HELP = "check a published version"
DESCRIPTION = """\
Check that a published version is what it was made as, with what is published and the
certificate of the mix alone: signatures, manifests, every fullfile that its clients may
ask for (also those in the directories of older versions, so the whole OS is read), every
pack and delta in its directory, the update index and the checksums.

Each thing that is wrong is a line, "file: what is wrong"; nothing is repaired. The exit
status is 0 if there is none, else 1. Packs of older versions are not read: check those
versions for them."""
EXAMPLES = """\
examples:
  mixer check                # the newest version
  mixer check 20 --json
  mixer check --no-signing   # a mix that is not signed"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("version", nargs="?", type=int, metavar="V", help="default: the newest one")
    parser.add_argument("--no-signing", action="store_true", help="leave signatures out")
    parser.add_argument(
        "--workers", type=int, metavar="N", help="work on so many cores (default: builder.yaml, else all)"
    )
    parser.add_argument("--json", action="store_true", help="print a JSON object")


def run(workspace: Workspace, args: argparse.Namespace, report: Report) -> int:
    from mixer.check.version import check_version
    from mixer.config import MAX_WORKERS, load
    from mixer.engine import open_engine
    from mixer.store import open_tree

    config = load(workspace, os.environ)
    workers = number("--workers", args.workers, 0, MAX_WORKERS) or config.workers
    told = report
    if args.json:
        # Standard output is the object's alone.
        told = TextReport(out=sys.stderr, quiet=args.quiet, verbose=args.verbose, show_progress=not args.no_progress)
    certificate = None if args.no_signing else _certificate(config.certificate)
    if certificate is None:
        told.warning("signatures are not checked")
    tree = open_tree(config.published, workspace.www, told)
    version = number("V", args.version, 1, MAX_VERSION) or tree.latest()
    with open_engine(config.engine, workers=workers) as engine:
        result = check_version(tree, version, certificate, engine, told)
    if args.json:
        report.answer(_as_json(result))
    else:
        for note in result.notes:
            report.info(f"Note: {note}")
        for problem in result.problems:
            report.answer(str(problem))
        report.info(_as_table(result))
    return 1 if result.problems else 0


def _certificate(path: Path) -> bytes:
    from mixer.release import MAX_PEM_BYTES

    try:
        with path.open("rb") as file:
            return file.read(MAX_PEM_BYTES)
    except OSError as error:
        raise BuildError(
            f"cannot read the certificate {path}: {error.strerror}",
            hint="restore it, or leave signatures out with --no-signing",
        ) from error


def _as_json(result: CheckResult) -> str:
    answer = {
        "version": result.version,
        "problems": [{"file": problem.file, "problem": problem.what} for problem in result.problems],
        "notes": [{"file": note.file, "note": note.what} for note in result.notes],
        "checked": asdict(result.checked),
    }
    return json.dumps(answer, indent=2)


def _as_table(result: CheckResult) -> str:
    checked = result.checked
    return table(
        [
            (
                f"version {result.version}",
                counted(len(result.problems), "problem") if result.problems else "no problem",
            ),
            ("manifests", f"{checked.manifests}"),
            ("signatures", f"{checked.signatures}"),
            ("fullfiles", f"{checked.fullfiles}"),
            ("packs", f"{checked.packs} with {checked.members} members"),
            ("deltas", f"{checked.deltas}"),
            ("read", human_size(checked.bytes)),
            ("checksums", f"{checked.checksums}"),
        ]
    )
