"""`swupd search-file`: which bundles have a path (specification section 6.2).

All manifests of the version are searched; those that the cache does not have are downloaded first, and kept, so that
only the first search takes long. A bundle whose manifest cannot be had does not keep the others from being searched.
"""

from __future__ import annotations

import csv
import io
from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING

from swupd.commands import labels
from swupd.commands.global_options import number, version_number
from swupd.commands.steps import Steps
from swupd.errors import ExitCode
from swupd.report import Report, counted, human_size
from swupd.session import Session, browsing

if TYPE_CHECKING:
    from swupd.metadata import Found

HELP = "find the bundles that have a file"
EXAMPLES = """\
  swupd search-file bin/edit
  swupd search-file --library libgtk         only below /usr/lib
  swupd search-file --regexp 'lib(gtk|qt).*\\.so$' --order size
  swupd search-file --init                   only download what a search needs"""

STEPS = ("load_manifests", "search_term")
_BY_NAME, _BY_SIZE = "alpha", "size"
_MOST = 1_000_000


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "term", nargs="?", default="", metavar="TERM", help="what the path contains, in upper or lower case"
    )
    parser.add_argument(
        "-V", "--version", type=version_number, metavar="N", help="search this version (default: the installed one)"
    )
    parser.add_argument("-l", "--library", action="store_true", help="only paths that begin with /usr/lib")
    parser.add_argument("-B", "--binary", action="store_true", help="only paths that begin with /usr/bin/")
    parser.add_argument("-T", "--top", type=number(1, _MOST), metavar="N", help="show at most N paths of a bundle")
    parser.add_argument("-m", "--csv", action="store_true", help="print lines of PATH,BUNDLE,BYTES,STATUS")
    parser.add_argument("-i", "--init", action="store_true", help="only download the manifests, search nothing")
    parser.add_argument(
        "-o",
        "--order",
        choices=(_BY_NAME, _BY_SIZE),
        default=_BY_NAME,
        metavar=f"{_BY_NAME}|{_BY_SIZE}",
        help="order of the bundles: by name (default), or small ones first",
    )
    parser.add_argument("--regexp", action="store_true", help="TERM is a POSIX extended regular expression")


def run(args: Namespace, report: Report) -> int:
    from swupd import metadata

    prefixes = [*[metadata.LIBRARIES] * args.library, *[metadata.BINARIES] * args.binary]
    wanted = metadata.path_filter(args.term, regexp=args.regexp, prefixes=prefixes)
    with browsing(args, report) as session:
        steps = Steps(report, STEPS)
        steps("load_manifests", "Loading manifests")
        mom = session.server.mom(args.version or session.system.installed_version())
        names = [entry.name for entry in mom.entries if entry.is_present]
        if args.init:
            missing = session.server.each_bundle(mom, names, lambda _name, _manifest: None)
            report.info(f"{len(names) - len(missing)} of {len(names)} manifests of version {mom.version} are there")
            found: list[Found] = []
        else:
            steps("search_term", f"Searching version {mom.version} for '{args.term}'")
            found, missing = metadata.search(session.server, mom, names, wanted)
            _show(args, session, found)
        for name, error in sorted(missing.items()):
            report.verbose(f"{name}: {error}")
    if missing:
        first = min(missing)
        report.error(
            f"{counted(len(missing), 'bundle')} could not be searched, such as {first}: {missing[first]}",
            missing[first].hint,
        )
        return ExitCode.MANIFEST_RECURSION
    return ExitCode.OK if found or args.init else ExitCode.NO


def _show(args: Namespace, session: Session, found: list[Found]) -> None:
    report = session.report
    status = labels.status(session)
    if args.order == _BY_SIZE:
        found.sort(key=lambda one: one.size)
    for one in found:
        label = status.of(one.bundle) or labels.NOT_INSTALLED
        paths = one.paths[: args.top]
        if args.csv:
            for path in paths:
                report.answer(_csv_line(path, one.bundle, one.size, label))
            continue
        if args.quiet:
            report.answer(f"[{one.bundle}]")
        else:
            report.info(f"Bundle {one.bundle} ({label}, {human_size(one.size)})")
        for path in paths:
            report.answer(path if args.quiet else f"  {path}")
        if len(paths) < len(one.paths):
            report.info(f"  and {len(one.paths) - len(paths)} more")
    if found:
        report.info(f"Found {counted(sum(len(one.paths) for one in found), 'path')} in {counted(len(found), 'bundle')}")
    else:
        report.info(f"No path contains '{args.term}'")


def _csv_line(*values: str | int) -> str:
    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow(values)
    return line.getvalue()
