"""`swupd rollback`: undo the last update of this system, with all that was changed after it.

Works without a server: the files come from the data directory, where they are kept until the next update is complete.

On a system that boots from deployments no file is changed: the version before is chosen for the next boot, and those
after it are set aside. If an update waits for its first boot, only that is set aside. DEPLOYMENT, a name from `swupd
snapshots list`, chooses any other one, so that one can go forward again as well.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Sequence

from swupd.commands.applying import scripts
from swupd.commands.steps import Steps
from swupd.errors import ExitCode, StateDirectoryError
from swupd.fs import Directory
from swupd.nextboot import selecting
from swupd.nextboot.deployments import survey
from swupd.nextboot.place import Located, Place, is_deployment, locate
from swupd.report import Report, counted
from swupd.session import Session, exclusive
from swupd.transaction import rollback
from swupd.transaction.kept import Finished

HELP = "undo the last update, with the files that it replaced"
EXAMPLES = """\
  swupd rollback --dry-run         only tell what would be undone
  swupd rollback
  swupd rollback 20                  where versions are chosen for the next boot: that one"""

STEPS = ("undo_files",)


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--dry-run", action="store_true", help="only tell what would be undone")
    parser.add_argument(
        "deployment", nargs="?", default="", metavar="DEPLOYMENT", help="what to boot next, on a system of deployments"
    )


def run(args: Namespace, report: Report) -> int:
    with exclusive(args, report, network=False) as session:
        if args.deployment or is_deployment(session.settings.root):
            _choose_next(args, session, locate(session.settings.root))
            return ExitCode.OK
        try:
            with Directory.open(session.statedir.data_dir) as data, Directory.open(session.settings.root) as root:
                stack = rollback.chosen(data)
                rollback.check(data, root, stack)
                if args.dry_run:
                    _tell(report, data, stack)
                else:
                    _go_back(session, data, root, stack)
        except OSError as error:
            raise StateDirectoryError(
                f"cannot read what is kept: {error.strerror} ({error.filename or session.statedir.data_dir})",
                hint="check the data directory and its disk",
            ) from error
    return ExitCode.OK


def _choose_next(args: Namespace, session: Session, located: Located) -> None:
    """Go back by choosing what boots next."""
    report = session.report
    with Place.open(located) as place:
        selection = selecting.choose(survey(place), selecting.good_names(place), args.deployment)
        name = selection.target.name
        for other in selection.set_aside:
            report.info(f"{'Would set' if args.dry_run else 'Setting'} aside {other}")
        if not args.dry_run and selection.changes:
            selecting.carry_out(place, selection)
            selecting.note(session.statedir.data_dir, located.running, name)
    if name == located.current:
        report.info(f"Version {name} stays: it is running, and boots next")
    else:
        report.info(f"Version {name} {'would boot' if args.dry_run else 'boots'} next: reboot to get it")


def _tell(report: Report, data: Directory, stack: Sequence[Finished]) -> None:
    paths = rollback.count(data, stack)
    for finished in stack:
        report.info(f"Would undo: {finished.header.purpose.title}")
    report.info(f"  files: {paths['restored']} would be put back, {paths['removed']} removed")


def _go_back(session: Session, data: Directory, root: Directory, stack: Sequence[Finished]) -> None:
    report, steps = session.report, Steps(session.report, STEPS)
    for finished in stack:
        steps("undo_files", f"Undoing: {finished.header.purpose.title}")
        for path, reason in rollback.go_back(data, root, finished, session.system, scripts(session)):
            report.warning(f"{path} is left as it is: {reason}")
    purpose = stack[-1].header.purpose
    report.info(
        f"Rolled back from version {purpose.to_version} to {purpose.from_version} "
        f"({counted(len(stack), 'change')}) in {session.seconds:.1f} s"
    )
