"""`swupd update`: bring the system to a newer version (specification section 5.7).

Everything is downloaded and verified first; then the files are exchanged, the one that names the version last. An
update that was interrupted at any point is continued by the next one.
"""

from __future__ import annotations

import os
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from swupd.commands.applying import Wish, carry_out, disagreement, received, run_scripts, scripts
from swupd.commands.check_update import compare_versions
from swupd.commands.global_options import LATEST, version_or_latest
from swupd.commands.steps import Steps
from swupd.errors import (
    DownloadError,
    ExitCode,
    InstalledManifestsError,
    ManifestError,
    UsageError,
    VersionUnknownError,
)
from swupd.formats import layout
from swupd.formats.manifest import Manifest
from swupd.install import InstallResult
from swupd.plan import PackNeed, consolidate, pack_needs, plan_update
from swupd.report import Report
from swupd.route import Chooser, Way, all_packs, ways
from swupd.session import Session, exclusive, reading

HELP = "update the system to a newer version"
EXAMPLES = """\
  swupd update                       to the newest version
  swupd update --status              only tell whether there is one
  swupd update --version 20          to version 20
  swupd update --download            only download, to install quickly later"""

DOWNLOAD_STEPS = (
    "load_manifests",
    "run_preupdate_scripts",
    "download_packs",
    "extract_packs",
    "prepare_for_update",
    "validate_fullfiles",
    "download_fullfiles",
    "extract_fullfiles",
)
STEPS = (*DOWNLOAD_STEPS, "update_files", "run_postupdate_scripts")


@dataclass(frozen=True)
class Versions:
    """Manifests on both sides of an update, by bundle."""

    current: Mapping[str, Manifest]
    target: Mapping[str, Manifest]

    @property
    def added(self) -> int:
        return len(self.target.keys() - self.current.keys())

    @property
    def removed(self) -> int:
        return len(self.current.keys() - self.target.keys())

    @property
    def changed(self) -> int:
        common = self.target.keys() & self.current.keys()
        return sum(self.target[name].version != self.current[name].version for name in common)


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "-V",
        "--version",
        "-m",
        "--manifest",
        type=version_or_latest,
        metavar="N",
        help=f"the version to update to, or '{LATEST}' (default)",
    )
    parser.add_argument("-s", "--status", action="store_true", help="only tell whether there is a newer version")
    parser.add_argument("-k", "--keepcache", action="store_true", help="do not clean the cache afterwards")
    parser.add_argument("--download", action="store_true", help="download everything, change nothing")


def run(args: Namespace, report: Report) -> int:
    if args.status:
        with reading(args, report) as session:
            return compare_versions(args, session)
    with exclusive(args, report) as session:
        again = _update(args, session)
    if again:
        _run_again(report)
    return ExitCode.OK


def _update(args: Namespace, session: Session) -> bool:
    """Do one update; whether another one has to follow, in another format."""
    report = session.report
    format_before = session.system.format()
    installed = _installed_version(session)
    newest = session.server.latest_version()
    target = _target_version(args, installed, newest)
    if target <= installed:
        report.info(f"Version {installed} is installed; the server has nothing newer (version {newest})")
        return False
    report.info(f"Updating from version {installed} to {target}")
    steps = Steps(report, DOWNLOAD_STEPS if args.download else STEPS)

    steps("load_manifests", "Loading manifests")
    versions = _load(session, installed, target)
    disagree = disagreement(session)
    current = consolidate(versions.current.values())
    wanted = consolidate(versions.target.values(), on_conflict=disagree)

    if session.settings.run_scripts:
        steps("run_preupdate_scripts", "Running pre-update actions")
    scripts(session).before_update(wanted)

    plan = plan_update(
        current,
        wanted,
        mounts=session.system.mount_points(),
        packs=pack_needs(versions.current, versions.target),
    )
    result = carry_out(
        session,
        Wish(plan, wanted, current),
        steps,
        install_step="update_files",
        download_only=args.download,
        choose=_chooser(session, installed, target),
    )
    if result is None:
        report.info(f"Version {target} is downloaded ({received(session)}); 'swupd update' will install it")
        return False
    session.system.record_version(target)
    again = _goes_on(args, session, target, format_before)
    run_scripts(session, steps, boot=plan.needs_boot_update, reexec=plan.needs_reexec, wait=again)
    if not args.keepcache:
        session.statedir.clean(session.statedir.read_manifest(target, layout.manifest_name(layout.MOM)))
    _summarise(session, versions, result, f"Updated from version {installed} to {target}")
    return again


def _installed_version(session: Session) -> int:
    installed = session.system.installed_version()
    if installed == 0:
        raise UsageError(
            "the system has version 0, which cannot be updated", hint="it was not made from published content"
        )
    return installed


def _target_version(args: Namespace, installed: int, newest: int) -> int:
    wanted: int | None = args.version
    if wanted is None:
        return newest
    if wanted < installed:
        raise UsageError(
            f"version {wanted} is older than the installed version {installed}",
            hint=f"to go back: swupd repair --version {wanted} --picky --force",
        )
    return min(wanted, newest)


def _load(session: Session, installed: int, target: int) -> Versions:
    """The manifests of the installed bundles now, and of what they need in the target version."""
    server = session.server
    mom = server.mom(installed)
    target_mom = server.mom(target)
    server.copy_mom(target, session.settings.root)
    bundles = session.system.installed_bundles()
    known = {entry.name for entry in mom.entries if entry.is_present}
    for name in sorted(bundles - known):
        session.report.warning(f"bundle {name} is installed, but version {installed} does not have it")
    try:
        current = server.bundles(mom, sorted(bundles & known))
    except (DownloadError, ManifestError) as error:
        raise InstalledManifestsError(
            f"cannot load the manifests of the installed bundles: {error}", hint=error.hint
        ) from error
    wanted = server.closure(target_mom, sorted(bundles), optional=False, ignore_unknown=True, previous=mom)
    for name in sorted(bundles & known - wanted.keys()):
        session.report.info(f"Version {target} has no bundle {name} any more; its files are removed")
    return Versions(current, wanted)


def _chooser(session: Session, installed: int, target: int) -> Chooser:
    """What finds the cheapest way with the update index of the target version; it is fetched when it is needed."""

    def choose(missing: frozenset[str], packs: Sequence[PackNeed]) -> Sequence[Way]:
        index = session.server.update_index(target)
        update = index.update_from(installed) if index is not None else None
        if update is None:
            return all_packs(missing, packs)
        found = ways(missing, packs, update, target)
        session.report.verbose(f"The cheapest way: {found[0]}")
        for other in found[1:]:
            session.report.verbose(f"Another way: {other}")
        return found

    return choose


def _summarise(session: Session, versions: Versions, result: InstallResult, what: str) -> None:
    report = session.report
    report.info(f"{what} in {session.seconds:.1f} s")
    report.info(f"  bundles:    {versions.changed} changed, {versions.added} added, {versions.removed} removed")
    report.info(f"  files:      {result.replaced} changed, {result.installed} added, {len(result.removed)} removed")
    report.info(f"  downloaded: {received(session)}")


def _goes_on(args: Namespace, session: Session, target: int, format_before: str | None) -> bool:
    """Whether the update has brought another format, whose own newest version comes next (section 5.7, step 16)."""
    format_after = session.system.format()
    if layout.STAGING_FORMAT in (session.settings.format, format_after) or format_after in (None, format_before):
        return False
    if args.format is not None:
        session.report.warning(
            f"the system has the format {format_after} now: run 'swupd update' again without --format {args.format}"
        )
        return False
    version = session.system.installed_version()
    if version < target:
        raise VersionUnknownError(
            f"after the update to version {target} the system says that it has version {version}",
            hint="run: swupd repair",
        )
    wanted: int | None = args.version
    return wanted is None or wanted > version


def _run_again(report: Report) -> None:
    """Execute the same command once more, in the new format and perhaps with the new program."""
    report.info("The format of the content has changed: the update goes on in the new format")
    report.end(ExitCode.OK)
    sys.stderr.flush()
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606 (our own command line)
