"""`swupd etc diff|revert`: what of /etc is not as the factory has it, and putting it back.

A stateless system ships its /etc as /usr/share/factory/etc; what users change lies above it and survives every update.
`diff` lists these changes: A added, M changed, m only mode, owner or attributes, T another type, D deleted,
O a directory that replaces the factory's, = a copy of the factory's object, which hides newer ones, d a deletion of
what the factory does not have any more. A ! behind it is a conflict: the factory's object is not the one any more that
the change was made against. Exit status 1 says that something differs, 0 that nothing does. With --quiet there are only
the paths, with --json-output each message is a difference as JSON.

`revert` puts paths back: at once, and from the next boot on they follow the factory again. Until then `diff` shows them
as reverted. A path that is changed again meanwhile stays as it is then, if `diff` or `revert` has been called before
the machine goes down.

What a machine makes for itself (machine-id, hostname, host keys, caches and backups) is left out without --all.
"""

from __future__ import annotations

import json
import os
from argparse import ArgumentParser, Namespace
from collections.abc import Iterable, Sequence

from swupd import statedir
from swupd.errors import ExitCode, NotRootError, ProjectError, UsageError
from swupd.nextboot import etcoverlay
from swupd.nextboot.etccompare import Difference, Kind, selected
from swupd.nextboot.etcoverlay import Layers
from swupd.nextboot.etcrevert import Reverted, bring_up_to_date, relative, revert, settle_queue
from swupd.report import Report, counted
from swupd.session import Session, exclusive, reading

HELP = "list what differs from the factory's /etc, or put it back"
EXAMPLES = """\
  swupd etc diff
  swupd etc diff /etc/ssh --all              also what the machine made for itself
  swupd etc revert /etc/hosts
  swupd etc revert /etc                      everything"""

DIFF, REVERT = "diff", "revert"
_SIGNS = {
    Kind.ADDED: ("A", "added"),
    Kind.CHANGED: ("M", "changed"),
    Kind.MODE: ("m", "mode, owner or attributes changed"),
    Kind.SAME: ("=", "a copy that hides newer ones of the factory"),
    Kind.TYPE: ("T", "of another type"),
    Kind.DELETED: ("D", "deleted"),
    Kind.STALE: ("d", "deleted, as the factory has done as well"),
    Kind.OPAQUE: ("O", "replaces the directory of the factory"),
}


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("action", choices=(DIFF, REVERT), metavar=f"{DIFF}|{REVERT}", help="what to do")
    parser.add_argument(
        "paths", nargs="*", metavar="FILE", help="files and directories (default for diff: all of /etc)"
    )
    parser.add_argument("--all", action="store_true", help="also what the machine makes for itself")


def run(args: Namespace, report: Report) -> int:
    paths = [relative(path) for path in args.paths]
    return _diff(args, paths, report) if args.action == DIFF else _revert(args, paths, report)


def told(report: Report, result: Reverted) -> None:
    """Tell what a revert did."""
    for path in result.unchanged:
        report.info(f"{_shown(path)} does not differ from the factory")
    for path in result.missing:
        report.warning(f"{_shown(path)} is neither there nor in the factory")
    for path in result.restored:
        report.verbose(f"restored: {_shown(path)}")
    for path in result.removed:
        report.verbose(f"removed: {_shown(path)}")
    if result.restored or result.removed:
        report.info(f"{counted(len(result.restored), 'path')} restored, {len(result.removed)} removed")
    if result.queued:
        report.info("Reverted paths follow the factory again from the next boot on")


def _revert(args: Namespace, paths: Sequence[str], report: Report) -> int:
    if not paths:
        raise UsageError("the paths to put back are missing", hint="'swupd etc revert /etc' puts everything back")
    with exclusive(args, report, network=False) as session:
        layers = etcoverlay.find_layers(session.settings.root)
        settle_queue(layers, report)
        told(report, revert(layers, paths, report, machine_made=args.all))
    return ExitCode.OK


def _diff(args: Namespace, paths: Sequence[str], report: Report) -> int:
    with reading(args, report) as session:
        try:
            layers = etcoverlay.find_layers(session.settings.root)
            found = _found(session, layers)
            shown = [d for d in selected(found, paths or [""]) if args.all or not layers.is_machine_made(d.path)]
        except PermissionError as error:
            raise NotRootError(f"cannot read {error.filename}: {error.strerror}", hint="run this as root") from error
    if args.json_output:
        for difference in shown:
            report.answer(_json(difference))
    elif args.quiet:
        for difference in shown:
            report.answer(_shown(difference.path))
    elif not shown:
        report.info("Nothing differs from the factory")
    else:
        for line in table(shown):
            report.info(line)
    return ExitCode.NO if any(difference.is_visible for difference in shown) else ExitCode.OK


def _found(session: Session, layers: Layers) -> list[Difference]:
    """All differences; root also brings up to date what is on record about them, unless another swupd is at work."""
    if not layers.is_overlay:
        return etcoverlay.survey(layers, {})
    if os.geteuid() == 0:
        try:
            session.statedir.prepare()
            with statedir.lock(session.statedir):
                bring_up_to_date(layers, session.report)
        except (ProjectError, OSError) as error:
            session.report.verbose(f"{error}: the record of changes is as it was")
    bases = etcoverlay.read_bases(layers.state, session.report)
    return etcoverlay.survey(layers, bases, etcoverlay.read_queue(layers.state))


def table(differences: Iterable[Difference]) -> list[str]:
    """The lines of a table for people."""
    rows = [
        (_SIGNS[d.kind][0] + "!" * d.is_conflict, _shown(d.path) + "/" * d.is_directory, _words(d)) for d in differences
    ]
    width = max(len(path) for _, path, _ in rows)
    return [f"{sign:2} {path:{width}}  {words}" for sign, path, words in rows]


def _words(difference: Difference) -> str:
    if difference.is_queued:
        return "reverted: follows the factory from the next boot on"
    words = _SIGNS[difference.kind][1]
    return f"{words}; the factory's is another one since then" if difference.is_conflict else words


def _json(difference: Difference) -> str:
    return json.dumps(
        {
            "path": _shown(difference.path),
            "kind": difference.kind.value,
            "directory": difference.is_directory,
            "conflict": difference.is_conflict,
            "reverted": difference.is_queued,
        }
    )


def _shown(path: str) -> str:
    return f"/etc/{path}" if path else "/etc"
