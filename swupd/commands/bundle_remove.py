"""`swupd bundle-remove`: uninstall bundles (specification section 5.11).

All names are judged before anything is removed: one that cannot be removed stops the command. Configuration, state
and what belongs to the boot manager is never removed.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Collection, Mapping

from swupd.commands.applying import complete, effective
from swupd.commands.dependencies import dependants, orphans, unneeded
from swupd.commands.nextboot import add_option, on_snapshot
from swupd.commands.recording import recorded
from swupd.commands.steps import Steps
from swupd.errors import (
    BundleNotInstalledError,
    ExitCode,
    RequiredBundleError,
    UnknownBundleError,
    UsageError,
)
from swupd.formats.layout import OS_CORE
from swupd.formats.manifest import Manifest
from swupd.fs import Directory
from swupd.plan import consolidate, plan_remove
from swupd.report import Report
from swupd.session import Session, exclusive
from swupd.transaction.install import Installer
from swupd.transaction.journal import Purpose

HELP = "uninstall bundles"
EXAMPLES = """\
  swupd bundle-remove editors
  swupd bundle-remove editors --recursive        and what only editors needed
  swupd bundle-remove libs --force               and all bundles that need libs
  swupd bundle-remove --orphans                  all dependencies that nothing needs any more"""

STEPS = ("load_manifests", "remove_files")


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("bundles", nargs="*", metavar="BUNDLE", help="name of an installed bundle")
    parser.add_argument("-x", "--force", action="store_true", help="remove the bundles that depend on it as well")
    parser.add_argument(
        "-R", "--recursive", action="store_true", help="remove its dependencies as well if nothing else needs them"
    )
    parser.add_argument("--orphans", action="store_true", help="remove dependencies that nothing needs any more")
    add_option(parser)


def run(args: Namespace, report: Report) -> int:
    if args.orphans and (args.bundles or args.force or args.recursive):
        raise UsageError("--orphans cannot be used with bundles, --force or --recursive", hint="give it alone")
    if not args.orphans and not args.bundles:
        raise UsageError("no bundle is named", hint="list the installed ones with: swupd bundle-list")
    return on_snapshot(args, report, _run)


def _run(args: Namespace, report: Report) -> int:
    with exclusive(args, report) as session:
        steps = Steps(report, STEPS)
        steps("load_manifests", "Loading manifests")
        mom = session.server.mom(session.system.installed_version())
        available = {entry.name for entry in mom.entries if entry.is_present}
        installed = session.server.bundles(mom, sorted(session.system.installed_bundles() & available))
        tracked = session.system.tracked()
        if args.orphans:
            removed = orphans(installed, tracked)
        else:
            _check(args.bundles, available, installed)
            removed = choose(args.bundles, installed, tracked, force=args.force, recursive=args.recursive)
        if removed:
            _remove(removed, session, installed, steps, mom.version)
        else:
            report.info("There is nothing to remove")
    return ExitCode.OK


def choose(
    names: Collection[str],
    installed: Mapping[str, Manifest],
    tracked: Collection[str],
    *,
    force: bool,
    recursive: bool,
) -> set[str]:
    """All bundles that have to go with `names`; RequiredBundleError if others need them and `force` is not set."""
    removed = set(names)
    users = dependants(installed, removed)
    if users and not force:
        raise RequiredBundleError(
            f"{', '.join(sorted(removed))} cannot be removed: needed by {', '.join(sorted(users))}",
            hint="name these bundles too, or remove them along with --force",
        )
    removed |= users
    if recursive:
        removed |= unneeded(installed, removed, tracked)
    return removed


def _check(names: Collection[str], available: Collection[str], installed: Collection[str]) -> None:
    for name in names:
        if name == OS_CORE:
            raise RequiredBundleError(f"{OS_CORE} cannot be removed: it is the system itself")
        if name not in available:
            raise UnknownBundleError(
                f"there is no bundle {name} in the installed version", hint="list them with: swupd bundle-list"
            )
        if name not in installed:
            raise BundleNotInstalledError(
                f"bundle {name} is not installed", hint="list the installed ones with: swupd bundle-list"
            )


def _remove(
    removed: Collection[str], session: Session, installed: Mapping[str, Manifest], steps: Steps, version: int
) -> None:
    report = session.report
    kept = consolidate(manifest for name, manifest in installed.items() if name not in removed)
    plan = plan_remove(
        consolidate(installed[name] for name in removed),
        kept,
        mounts=session.system.mount_points(),
        snapshot=session.settings.is_snapshot,
    )
    names = tuple(sorted(removed))
    purpose = Purpose(f"bundle-remove {' '.join(names)}", version, version, untrack=names, scripts=False)
    steps("remove_files", f"Removing {', '.join(sorted(removed))}")
    with recorded(session, purpose) as record:
        with (
            Directory.open(session.settings.root) as root,
            Directory.open(session.statedir.staged) as staged,
            Directory.open(session.statedir.data_dir) as data,
        ):
            result = Installer(root, staged, data, report).install((), plan.remove, kept, effective(purpose, session))
        complete(session, steps, purpose)
        record.done(result)
    for name in (*plan.skipped, *result.kept):
        report.verbose(f"{name} is kept")
    report.info(f"Removed {', '.join(sorted(removed))} in {session.seconds:.1f} s")
    report.info(f"  files: {len(result.removed)} removed")
