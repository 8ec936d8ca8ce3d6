"""An update that another one has to follow: in another format, or the next small step of several.

The program executes itself again with its own command line, in the same process, so that the rest is done by the new
program if the update has brought one, and for the caller it is one command.
"""

from __future__ import annotations

import os
import sys
from argparse import Namespace

from swupd.errors import VersionUnknownError
from swupd.formats import layout
from swupd.report import Report
from swupd.session import Session

CONFIRMED = "SWUPD_UPDATE_CONFIRMED"
"""Environment variable: the process in which somebody has said that the update shall be done."""


def goes_on(args: Namespace, session: Session, target: int, newest: int, format_before: str | None) -> bool:
    """Whether another update has to follow the one to `target`, which is in place (section 5.7, step 16).

    newest: the newest version of the server in the format of before. Raises VersionUnknownError if another update has
    to follow and the system does not say of itself that it has the version of this one.
    """
    wanted: int | None = args.version
    version = session.system.installed_version()
    if _is_in_new_format(args, session, format_before):
        follows = wanted is None or wanted > version
    elif args.incremental:
        follows = version < (newest if wanted is None else min(wanted, newest))
    else:
        return False
    if follows and session.settings.is_snapshot:
        session.report.info("Another update has to follow it after the next boot")
        return False
    if version < target:
        raise VersionUnknownError(
            f"after the update to version {target} the system says that it has version {version}",
            hint="run: swupd repair",
        )
    return follows


def _is_in_new_format(args: Namespace, session: Session, format_before: str | None) -> bool:
    if session.guard is not None and not session.settings.is_snapshot:
        # A 3rd-party repository: the system's format counts, not what its files say.
        return False
    format_after = session.system.format()
    if layout.STAGING_FORMAT in (session.settings.format, format_after) or format_after in (None, format_before):
        return False
    if args.format is not None:
        session.report.warning(
            f"the system has the format {format_after} now: run 'swupd update' again without --format {args.format}"
        )
        return False
    return True


def run_again(report: Report) -> None:
    """Execute the same command once more, without asking again. Does not return."""
    report.info("The update goes on with the next version")
    environ = {**os.environ, **report.hand_over(), CONFIRMED: str(os.getpid())}
    sys.stdout.flush()
    sys.stderr.flush()
    command = own_command(sys.argv, sys.orig_argv, sys.executable)
    os.execve(command[0], command, environ)  # noqa: S606 (our own command line)


def is_confirmed() -> bool:
    """Whether this process goes on with an update. The variable is removed, so that no other program sees it."""
    return os.environ.pop(CONFIRMED, "") == str(os.getpid())


def own_command(argv: list[str], orig_argv: list[str], executable: str) -> list[str]:
    """The command line of this process. A script is named itself and not its interpreter, which may be another now."""
    script = os.path.abspath(argv[0])
    if argv[0] in orig_argv and os.access(script, os.X_OK):
        return [script, *argv[1:]]
    return [executable, *orig_argv[1:]]
