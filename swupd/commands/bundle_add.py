"""`swupd bundle-add`: install bundles of the installed version (specification section 5.10)."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Mapping, Sequence

from swupd.commands.aliases import read_aliases
from swupd.commands.applying import Wish, carry_out, complete, received
from swupd.commands.complaints import disagreement
from swupd.commands.nextboot import add_option, on_snapshot
from swupd.commands.preview import foresee
from swupd.commands.recording import recorded
from swupd.commands.steps import Steps
from swupd.errors import ExitCode, UnknownBundleError
from swupd.formats.manifest import Manifest
from swupd.plan import consolidate, pack_needs, plan_add
from swupd.report import Report
from swupd.session import Session, exclusive
from swupd.space import SKIP_OPTION
from swupd.transaction.journal import Purpose
from swupd.verify import settle

HELP = "install bundles"
EXAMPLES = """\
  swupd bundle-add editors games
  swupd bundle-add editors --skip-optional        without the bundles that it merely suggests"""

STEPS = (
    "load_manifests",
    "download_packs",
    "extract_packs",
    "validate_fullfiles",
    "download_fullfiles",
    "extract_fullfiles",
    "install_files",
    "run_postupdate_scripts",
)


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("bundles", nargs="+", metavar="BUNDLE", help="name or alias of a bundle")
    parser.add_argument("--skip-optional", action="store_true", help="do not install optional dependencies")
    parser.add_argument(SKIP_OPTION, action="store_true", help="do not check the free space before")
    add_option(parser)


def run(args: Namespace, report: Report) -> int:
    return on_snapshot(args, report, _run)


def _run(args: Namespace, report: Report) -> int:
    with exclusive(args, report) as session:
        steps = Steps(report, STEPS)
        steps("load_manifests", "Loading manifests")
        mom = session.server.mom(session.system.installed_version())
        names, unknown = _choose(args.bundles, session, mom)
        if names:
            _add(names, args, session, mom, steps)
    return ExitCode.INVALID_BUNDLE if unknown else ExitCode.OK


def _choose(requested: Sequence[str], session: Session, mom: Manifest) -> tuple[list[str], list[str]]:
    """The bundles to install, and the names that are none of this version; raises if there are only those."""
    report = session.report
    available = {entry.name: entry for entry in mom.entries if entry.is_present}
    installed = session.system.installed_bundles()
    chosen: list[str] = []
    unknown: list[str] = []
    there: list[str] = []
    for name in read_aliases(session.settings.machine, report).expand(requested):
        if name not in available:
            unknown.append(name)
        elif name in installed:
            there.append(name)
        else:
            chosen.append(name)
            if available[name].is_experimental:
                report.warning(f"bundle {name} is experimental")
    if unknown and not chosen and not there:
        raise UnknownBundleError(
            f"there is no bundle {', '.join(unknown)} in version {mom.version}",
            hint="list them with: swupd bundle-list --all",
        )
    for name in unknown:
        report.warning(f"there is no bundle {name} in version {mom.version}; it is left out")
    for name in there:
        report.warning(f"bundle {name} is installed already; it counts as explicitly installed from now on")
    session.system.track(there)
    return chosen, unknown


def _add(names: Sequence[str], args: Namespace, session: Session, mom: Manifest, steps: Steps) -> None:
    report, server = session.report, session.server
    available = {entry.name for entry in mom.entries if entry.is_present}
    installed = server.bundles(mom, sorted(session.system.installed_bundles() & available))
    new = server.closure(mom, names, optional=not args.skip_optional, skip=installed.keys())
    disagree = disagreement(session)
    current = consolidate(installed.values())
    plan = plan_add(
        consolidate(new.values(), on_conflict=disagree),
        current,
        mounts=session.system.mount_points(),
        packs=pack_needs({}, new),
        on_conflict=disagree,
        snapshot=session.settings.is_snapshot,
    )
    wanted = consolidate([*installed.values(), *new.values()])
    purpose = Purpose(
        f"bundle-add {' '.join(names)}",
        mom.version,
        mom.version,
        track=tuple(names),
        boot=plan.needs_boot_update,
        reexec=plan.needs_reexec,
    )

    with recorded(session, purpose) as record:
        wish = Wish(settle(plan, session.settings.root, wanted, report), wanted, current)
        if not args.skip_diskspace_check:
            foresee(session, wish, steps, new.values()).check_space()
        result = carry_out(
            session,
            wish,
            steps,
            purpose=purpose,
            install_step="install_files",
            check_space=not args.skip_diskspace_check,
        )
        complete(session, steps, purpose)
        record.done(result)
    report.info(f"Installed {_listed(names, new)} in {session.seconds:.1f} s")
    if result is not None:
        report.info(f"  files:      {result.installed} added, {result.replaced} changed")
    report.info(f"  downloaded: {received(session)}")


def _listed(names: Sequence[str], new: Mapping[str, Manifest]) -> str:
    dependencies = sorted(new.keys() - set(names))
    return ", ".join(names) + (f" and dependencies ({', '.join(dependencies)})" if dependencies else "")
