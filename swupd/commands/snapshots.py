"""`swupd snapshots`: the versions of a machine that can be booted; which ones stay, and which ones go.

A deployment is a version on the disk, with the bundles that it has. `list` shows all of them in the order in which the
boot loader would take them; with --quiet only their names, with --json-output one event for each. `delete` removes
some; never the running one, the one that boots next, or a pinned one. `pin` keeps some from being removed, by `delete`
as well as by the policy that keeps two besides the running one; `unpin` ends that.

All of them need root.
"""

from __future__ import annotations

import json
import os
from argparse import ArgumentParser, Namespace

from swupd.errors import ExitCode, NotRootError, UsageError
from swupd.nextboot import overview, removal, subvolumes
from swupd.nextboot.deployments import survey
from swupd.nextboot.place import Place, locate
from swupd.report import Report
from swupd.session import exclusive, reading

HELP = "list, delete and pin the versions that can be booted"
EXAMPLES = """\
  swupd snapshots list
  swupd snapshots delete 10 20.1
  swupd snapshots pin 10             keep it, whatever comes
  swupd snapshots unpin 10"""

LIST, DELETE, PIN, UNPIN = ACTIONS = ("list", "delete", "pin", "unpin")


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("action", choices=ACTIONS, metavar="|".join(ACTIONS), help="what to do")
    parser.add_argument("names", nargs="*", metavar="DEPLOYMENT", help="which ones, by their names in the list")


def run(args: Namespace, report: Report) -> int:
    if bool(args.names) is (args.action == LIST):
        needs = "takes no names" if args.names else "needs names"
        raise UsageError(f"snapshots {args.action} {needs}", hint="swupd snapshots list; swupd snapshots delete NAME")
    if args.action == LIST:
        with reading(args, report) as session:
            if os.geteuid() != 0:
                raise NotRootError("the boot entries can only be read by root", hint="run it with sudo")
            with Place.open(locate(session.settings.root)) as place:
                _list(args, report, place)
        return ExitCode.OK
    with exclusive(args, report, network=False) as session, Place.open(locate(session.settings.root)) as place:
        if args.action == DELETE:
            chosen = removal.check(survey(place), args.names)
            removal.remove(place, chosen)
            report.info(f"Removed {', '.join(deployment.name for deployment in chosen)}")
        else:
            pinned = (removal.pin if args.action == PIN else removal.unpin)(place, args.names)
            report.info(f"Pinned: {', '.join(sorted(pinned)) or 'nothing'}")
    return ExitCode.OK


def _list(args: Namespace, report: Report, place: Place) -> None:
    found = survey(place)
    if args.quiet:
        for deployment in found:
            report.answer(deployment.name)
        return
    made = [(deployment, subvolumes.made(place.path(deployment.name))) for deployment in found]
    if args.json_output:
        for deployment, when in made:
            report.answer(json.dumps(overview.deployment_json(deployment) | {"made": when}))
    else:
        for line in overview.table(made):
            report.info(line)
