"""`swupd rollback`: undo the last update of this system, with all that was changed after it.

Works without a server: the files come from the data directory, where they are kept until the next update is complete.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Sequence

from swupd.commands.applying import scripts
from swupd.commands.steps import Steps
from swupd.errors import ExitCode, StateDirectoryError
from swupd.fs import Directory
from swupd.report import Report, counted
from swupd.session import Session, exclusive
from swupd.transaction import rollback
from swupd.transaction.kept import Finished

HELP = "undo the last update, with the files that it replaced"
EXAMPLES = """\
  swupd rollback --dry-run         only tell what would be undone
  swupd rollback"""

STEPS = ("undo_files",)


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--dry-run", action="store_true", help="only tell what would be undone")


def run(args: Namespace, report: Report) -> int:
    with exclusive(args, report, network=False) as session:
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
