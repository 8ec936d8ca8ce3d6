"""`mixer report delta`: what an update costs and why, as a table, as JSON or as a page."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from mixer.commands.options import add_span, number, span
from mixer.errors import BuildError
from mixer.workspace import Workspace
from swupd.fs import replace_file
from swupd.report import Report, TextReport

NAME = "report"
HELP = "show what updates cost, and why"
DESCRIPTION = "Reports about published versions. They change nothing that is published."
EXAMPLES = """\
examples:
  mixer report delta
  mixer report delta --html delta.html"""

DEFAULT_LIMIT = 20
MAX_LIMIT = 10_000_000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    reports = parser.add_subparsers(title="commands", dest="what", metavar="COMMAND", required=True)
    delta = reports.add_parser(
        "delta",
        help="what an update costs, bundle by bundle and file by file",
        description="""\
Show what clients fetch to go from an older version to a published one: by the update
pack, by the packs of the bundles, or as fullfiles; what each bundle costs, and which
files cost most. Pairs of files that `mixer build delta-packs` has not compared yet are
compared now, which may take a while; nothing is published.

Sizes of packs that are published are exact, others are estimates ("about"). A pack is
one compressed stream, in which a file has no size of its own: its cost is the size that
it has compressed alone, scaled so that the costs of all files make the size of the pack.

docs/delta-report.md describes the JSON object and the page.""",
        epilog="""\
examples:
  mixer report delta                            # from the version before to the newest one
  mixer report delta --from 10 --to 30 --html delta.html
  mixer report delta --bundle os-core --limit 0
  mixer report delta --previous-versions 3 --json""",
    )
    add_span(delta)
    delta.add_argument("--bundle", metavar="NAME", default="", help="this bundle and its pack only")
    delta.add_argument("--json", action="store_true", help="print a JSON object with everything")
    delta.add_argument("--html", metavar="FILE", help="write a page with a map as well; an existing file is replaced")
    delta.add_argument(
        "--limit",
        type=int,
        metavar="N",
        default=DEFAULT_LIMIT,
        help="list the N most expensive files, 0 for all of them (default: %(default)s)",
    )


def run(workspace: Workspace, args: argparse.Namespace, report: Report) -> int:
    from mixer import deltareport
    from mixer.config import load

    config = load(workspace, os.environ)
    between = span(args)
    limit = number("--limit", args.limit, 0, MAX_LIMIT) or 0
    page = None if args.html is None else _page_file(args.html)
    told = report
    if args.json:
        # Standard output is the object's alone.
        told = TextReport(out=sys.stderr, quiet=args.quiet, verbose=args.verbose, show_progress=not args.no_progress)
    updates = deltareport.delta_reports(workspace, config, told, between, bundle=args.bundle)
    if args.json:
        report.answer(deltareport.as_json(updates))
    else:
        report.answer("\n\n".join(deltareport.as_text(update, limit) for update in updates))
    if page is not None:
        from mixer import deltapage

        _write(page, deltapage.page(updates, limit))
        told.info(f"The page is {page}")
    return 0


def _page_file(name: str) -> Path:
    """Where the page goes; what cannot work is said before the work."""
    path = Path(name)
    if path.is_dir():
        raise BuildError(f"cannot write {path}: it is a directory", hint="name a file, such as delta.html")
    if not path.parent.is_dir():
        raise BuildError(f"cannot write {path}: there is no directory {path.parent}", hint="create it first")
    return path


def _write(path: Path, data: bytes) -> None:
    try:
        replace_file(path, data)
    except OSError as error:
        raise BuildError(
            f"cannot write {path}: {error.strerror or error}", hint="name a file that you may write with --html"
        ) from error
