"""`swupd autoupdate`: switch automatic updates on and off (specification sections 6.2 and 6.9).

They are a timer and a service of systemd, and switched off by masking both. Where systemd does not run the system that
is worked on (--path, or an image that is being made), only its files are changed: nothing is started or stopped.
"""

from __future__ import annotations

import os
from argparse import ArgumentParser, Namespace

from swupd import process
from swupd.errors import CommandError, ExitCode, NotRootError
from swupd.report import Report
from swupd.session import Session, reading
from swupd.system import runs_systemd

HELP = "switch automatic updates on or off, or tell whether they are on"
EXAMPLES = """\
  swupd autoupdate                   exit status: 0 they are on, 1 they are off
  swupd autoupdate --disable"""

SYSTEMCTL = "/usr/bin/systemctl"
SERVICE = "swupd-update.service"
TIMER = "swupd-update.timer"
_WANTED_BY_VENDOR = f"usr/lib/systemd/system/*.wants/{TIMER}"


def add_arguments(parser: ArgumentParser) -> None:
    choice = parser.add_mutually_exclusive_group()
    choice.add_argument("--enable", action="store_true", help="update automatically")
    choice.add_argument("--disable", action="store_true", help="do not update automatically")


def run(args: Namespace, report: Report) -> int:
    with reading(args, report) as session:
        if not (args.enable or args.disable):
            is_on = _is_on(session)
            report.info(f"Automatic updates are {'on' if is_on else 'off'}")
            return ExitCode.OK if is_on else ExitCode.NO
        if os.geteuid() != 0:
            raise NotRootError("this command must be run as root", hint="run it with sudo or in a root shell")
        if args.enable:
            _enable(session)
        else:
            _systemctl(session, "mask", *_now(session), SERVICE, TIMER)
        report.info(f"Automatic updates are {'on' if args.enable else 'off'}")
    return ExitCode.OK


def _enable(session: Session) -> None:
    _systemctl(session, "unmask", *_now(session), SERVICE, TIMER)
    if not _is_on(session):
        _systemctl(session, "enable", TIMER)
    if _runs(session):
        _systemctl(session, "restart", TIMER)


def _is_on(session: Session) -> bool:
    """Whether neither unit is masked and something wants the timer; CommandError if systemd does not know them."""
    states = _systemctl(session, "is-enabled", SERVICE, TIMER, check=False)
    if len(states) != 2 or "not-found" in states:
        raise CommandError(
            f"systemd does not know {SERVICE} and {TIMER}", hint="install the units of swupd, or check --path"
        )
    if any(state.startswith("masked") for state in states):
        return False
    # To systemd a unit that only the distribution wants counts as disabled.
    return states[1] != "disabled" or any(session.settings.root.glob(_WANTED_BY_VENDOR))


def _runs(session: Session) -> bool:
    """Whether systemd runs the system that is worked on."""
    return session.system.is_host and runs_systemd(session.settings.root)


def _now(session: Session) -> list[str]:
    return ["--now"] if _runs(session) else []


def _systemctl(session: Session, *arguments: str, check: bool = True) -> list[str]:
    """Run systemctl for the system that is worked on; the lines that it printed. Raises CommandError."""
    where = [] if session.system.is_host else ["--root", str(session.settings.root)]
    done = process.run([SYSTEMCTL, *where, *arguments], check=check)
    return done.stdout.decode(errors="replace").split()
