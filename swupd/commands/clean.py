"""`swupd clean`: make the cache small (specification section 6.2)."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from swupd.cleaning import clean
from swupd.errors import ExitCode
from swupd.report import Report, counted, human_size
from swupd.session import exclusive

HELP = "remove downloaded files that are not needed any more"
EXAMPLES = """\
  swupd clean                        keep the manifests of the installed version
  swupd clean --all                  remove the whole cache; there is no rollback afterwards
  swupd clean --dry-run              only show what would be removed"""


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--all", action="store_true", help="remove the whole cache, and what a rollback would need")
    parser.add_argument("--dry-run", action="store_true", help="remove nothing, print the paths")


def run(args: Namespace, report: Report) -> int:
    with exclusive(args, report, network=False) as session:
        found = clean(session.statedir, session.current_mom(), everything=args.all, dry_run=args.dry_run)
    if args.dry_run:
        for path in found.paths:
            report.answer(path)
    what = "would be removed" if args.dry_run else "removed"
    report.info(f"{counted(found.files, 'file')} {what}, {human_size(found.bytes)} freed")
    return ExitCode.OK
