"""`swupd boot`: what the units of a bootable image run at every boot, to find out whether it went well.

`check` runs the health checks: the executables in /usr/lib/swupd/health.d and /etc/swupd/health.d, in the order of
their names, each for a minute at most, and all together for four; one that is not reached has failed. One in /etc
replaces the one of the same name in /usr; a link to /dev/null there switches it off. `no-failed-unit`, that no unit of
systemd has failed, is built in, and is replaced and switched off in the same way. The exit status is 1 if a check
failed: then a version that is on trial is left for the one before.

`complete` says that the boot went well: the running version is not on trial any more, versions that failed are written
down, and those that are not needed are removed. It may be run at any time again.

Both need root and no network.
"""

from __future__ import annotations

import os
import time
from argparse import ArgumentParser, Namespace
from contextlib import ExitStack

from swupd import statedir
from swupd.errors import ExitCode, LockedError, NextBootError, NotRootError, ProjectError
from swupd.nextboot import assess, health
from swupd.nextboot.health import Health, Outcome
from swupd.nextboot.place import Located, Place, locate
from swupd.report import Report
from swupd.session import Session
from swupd.settings import resolve

HELP = "assess a boot; run by the units of an image"
EXAMPLES = """\
  swupd boot check                   run the health checks; exit status 1 if one failed
  swupd boot complete                the boot went well: keep this version
  ln -s /dev/null /etc/swupd/health.d/no-failed-unit     do without the check for failed units"""

CHECK = "check"
COMPLETE = "complete"


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "action",
        choices=(CHECK, COMPLETE),
        metavar=f"{CHECK}|{COMPLETE}",
        help="run the health checks, or keep this version",
    )


def run(args: Namespace, report: Report) -> int:
    if os.geteuid() != 0:
        raise NotRootError("this command must be run as root", hint="run it with sudo or in a root shell")
    with ExitStack() as resources:
        # Nothing else that sessions do: a boot is assessed whatever state the rest is in.
        session = Session(resolve(vars(args), os.environ), report, resources)
        try:
            located = locate(session.settings.root)
        except NextBootError as error:
            report.verbose(str(error))
            located = None
        if args.action == CHECK:
            return _check(session, located)
        if located is None:
            report.info("This system does not boot from deployments: there is nothing to keep")
        else:
            _complete(session, located)
    return ExitCode.OK


def _check(session: Session, located: Located | None) -> int:
    report, root = session.report, session.settings.root
    checks = health.find_checks(root)
    width = max((len(check.name) for check in checks), default=0)
    results = []
    for result in health.perform(root, checks):
        results.append(result)
        line = f"{result.name:{width}}  {result.outcome.value:7}  {result.seconds:5.1f} s  {result.reason}".rstrip()
        (report.answer if result.outcome is Outcome.FAILED else report.info)(line)
    found = Health(located.running if located else "", int(time.time()), tuple(results))
    if located is not None:
        try:
            assess.remember(located, found)
        except OSError as error:
            report.warning(f"this cannot be kept in {located.boot_state}: {error.strerror}")
    if found.is_good:
        return ExitCode.OK
    if located is not None and assess.is_on_trial(located):
        report.info(f"Version {located.running} is on trial and not healthy: the one before will be booted again")
    else:
        report.info("The system is degraded, but its version has booted well before: it stays")
    return ExitCode.NO


def _complete(session: Session, located: Located) -> None:
    report = session.report
    was_on_trial = assess.is_on_trial(located)
    with Place.open(located) as place:
        if not assess.bless(place):
            report.warning(f"version {located.running} runs, but has no boot entry")
        report.info(f"Version {located.running} {'has booted well and stays' if was_on_trial else 'is good'}")
        try:
            session.statedir.prepare()
            with statedir.lock(session.statedir):
                done = assess.keep_house(place, session.statedir.data_dir)
        except LockedError as error:
            report.info(f"{error}: what is not needed is removed another time")
        except (ProjectError, OSError) as error:
            report.warning(f"what is not needed could not be removed: {error}")
        else:
            for failure in done.failures:
                report.warning(f"version {failure.name} failed its boot: {failure.why}")
            for name in done.removed:
                report.info(f"Removed {name}")
