"""`swupd clean`: make the cache small (specification section 6.2)."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from swupd.errors import ExitCode, VersionUnknownError
from swupd.formats import layout
from swupd.report import Report, counted, human_size
from swupd.session import Session, exclusive

HELP = "remove downloaded files that are not needed any more"
EXAMPLES = """\
  swupd clean                        keep the manifests of the installed version
  swupd clean --all                  remove the whole cache
  swupd clean --dry-run              only show what would be removed"""


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--all", action="store_true", help="remove the manifests of the installed version as well")
    parser.add_argument("--dry-run", action="store_true", help="remove nothing, print the paths")


def run(args: Namespace, report: Report) -> int:
    with exclusive(args, report, network=False) as session:
        found = session.statedir.clean(_current_mom(session), everything=args.all, dry_run=args.dry_run)
    if args.dry_run:
        for path in found.paths:
            report.answer(path)
    what = "would be removed" if args.dry_run else "removed"
    report.info(f"{counted(found.files, 'file')} {what}, {human_size(found.bytes)} freed")
    return ExitCode.OK


def _current_mom(session: Session) -> bytes | None:
    try:
        version = session.system.installed_version()
    except VersionUnknownError:
        return None
    return session.statedir.read_manifest(version, layout.manifest_name(layout.MOM))
