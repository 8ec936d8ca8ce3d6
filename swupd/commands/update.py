"""`swupd update`: bring the system to a newer version (specification section 5.7).

First it is told what will happen, and somebody at a terminal is asked. Everything is downloaded and verified next; then
the files are exchanged, the one that names the version last. An update that was interrupted at any point is continued
by the next one.
"""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from functools import cache

from swupd import reboot
from swupd.cleaning import clean
from swupd.commands.applying import Wish, carry_out, complete, received, scripts
from swupd.commands.check_update import compare_versions
from swupd.commands.complaints import disagreement
from swupd.commands.global_options import LATEST, version_or_latest
from swupd.commands.nextboot import add_option, on_snapshot
from swupd.commands.preview import Preview, foresee, listed
from swupd.commands.recording import recorded
from swupd.commands.rerun import goes_on, is_confirmed, run_again
from swupd.commands.steps import Steps
from swupd.errors import DownloadError, ExitCode, InstalledManifestsError, ManifestError, UsageError
from swupd.faces.prompt import ask
from swupd.formats.manifest import Manifest
from swupd.formats.updateindex import Update
from swupd.nextboot.rebooting import check as check_reboot
from swupd.nextboot.rebooting import parse_time
from swupd.plan import PackNeed, consolidate, pack_needs, plan_update
from swupd.report import Report
from swupd.route import Chooser, Way, all_packs, ways
from swupd.session import Session, exclusive, reading
from swupd.space import SKIP_OPTION
from swupd.transaction.install import InstallResult
from swupd.transaction.journal import Purpose
from swupd.verify import settle

HELP = "update the system to a newer version"
EXAMPLES = """\
  swupd update                       to the newest version
  swupd update --status              only tell whether there is one
  swupd update --dry-run             tell what would happen and what it would take
  swupd update --version 20          to version 20
  swupd update --download            only download, to install quickly later
  swupd update --next-boot           into a snapshot that becomes active on the next boot
  swupd update --next-boot --reboot-at 03:30"""

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
SEARCH_INDEX_STEP = "update_search_index"


@dataclass(frozen=True)
class Versions:
    """Manifests on both sides of an update, by bundle."""

    current: Mapping[str, Manifest]
    target: Mapping[str, Manifest]

    @property
    def added(self) -> set[str]:
        return self.target.keys() - self.current.keys()

    @property
    def removed(self) -> set[str]:
        return self.current.keys() - self.target.keys()

    @property
    def changed(self) -> set[str]:
        common = self.target.keys() & self.current.keys()
        return {name for name in common if self.target[name].version != self.current[name].version}


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
    parser.add_argument("--dry-run", action="store_true", help="only tell what would happen and what it would take")
    parser.add_argument("--incremental", action="store_true", help="go through all versions up to the newest one")
    parser.add_argument(
        "--3rd-party", dest="third_party", action="store_true", help="update the 3rd-party repositories as well"
    )
    parser.add_argument(
        "--update-search-file-index",
        action="store_true",
        help="download the manifests of all bundles, for 'swupd search-file'",
    )
    parser.add_argument(SKIP_OPTION, action="store_true", help="do not check the free space before")
    add_option(parser)
    parser.add_argument(
        "--retry",
        action="store_true",
        help="also to a version that has failed to boot before, or that 'swupd rollback' has set aside",
    )
    parser.add_argument(
        "--reboot-at",
        type=parse_time,
        metavar="TIME",
        help="with --next-boot: reboot into it at HH:MM, in +MINUTES, or now; not if there was nothing to update",
    )


def run(args: Namespace, report: Report) -> int:
    if args.status:
        with reading(args, report) as session:
            return compare_versions(args, session)
    if args.reboot_at is not None:
        check_reboot(args.path, next_boot=args.next_boot)
    if not args.third_party or args.incremental or args.dry_run:
        return on_snapshot(args, report, _run)
    from swupd.commands.thirdparty.update import update_all

    return on_snapshot(args, report, _run) or update_all(args, report)


def _run(args: Namespace, report: Report) -> int:
    with exclusive(args, report) as session:
        outcome = _update(args, session)
    if outcome is _Outcome.GOES_ON:
        run_again(report)
    return ExitCode.NO if outcome is _Outcome.DECLINED else ExitCode.OK


class _Outcome(Enum):
    OVER = auto()
    GOES_ON = auto()
    """Another update has to follow."""
    DECLINED = auto()


def _update(args: Namespace, session: Session) -> _Outcome:
    """Do one update."""
    report, settings, system = session.report, session.settings, session.system
    format_before = system.format()
    installed = _installed_version(session)
    newest = session.server.latest_version()
    target = _target_version(args, session, installed, newest)
    if target is None:
        return _Outcome.OVER
    report.info(f"{'Looking at the update' if args.dry_run else 'Updating'} from version {installed} to {target}")
    steps = Steps(report, _step_names(args))

    steps("load_manifests", "Loading manifests")
    versions = _load(session, installed, target)
    current = consolidate(versions.current.values())
    wanted = consolidate(versions.target.values(), on_conflict=disagreement(session))
    mounts, packs = system.mount_points(), pack_needs(versions.current, versions.target)
    draft = plan_update(current, wanted, mounts=mounts, packs=packs, snapshot=settings.is_snapshot)
    plan = settle(draft, settings.root, wanted, report)
    wish = Wish(plan, wanted, current)
    choose = _chooser(session, installed, target)
    preview = foresee(session, wish, steps, versions.target.values(), download_only=args.download, choose=choose)
    if args.dry_run:
        _show(versions, preview, report.info)
        if args.quiet:
            report.answer(str(target))
        return _Outcome.OVER
    if not args.skip_diskspace_check:
        preview.check_space()
    if not _is_agreed(args, session, versions, preview):
        report.info("Nothing was downloaded or changed")
        return _Outcome.DECLINED
    session.server.copy_mom(target, settings.machine)

    if settings.run_scripts:
        steps("run_preupdate_scripts", "Running pre-update actions")
    scripts(session).before_update(wanted)
    purpose = Purpose(
        "update",
        installed,
        target,
        boot=plan.needs_boot_update,
        reexec=plan.needs_reexec,
        record_version=True,
    )
    with recorded(session, purpose) as record:
        result = carry_out(
            session,
            wish,
            steps,
            purpose=purpose,
            install_step="update_files",
            download_only=args.download,
            check_space=not args.skip_diskspace_check,
            choose=choose,
        )
        if result is None:
            report.info(f"Version {target} is downloaded ({received(session)}); 'swupd update' will install it")
            return _Outcome.OVER
        again = goes_on(args, session, target, newest, format_before)
        complete(session, steps, purpose, wait=again)
        record.done(result)
    if args.update_search_file_index:
        steps(SEARCH_INDEX_STEP, "Downloading the manifests of all bundles for 'swupd search-file'")
        _load_everything(session, target)
    if not args.keepcache:
        clean(session.statedir, session.current_mom())
    _summarise(session, versions, result, f"Updated from version {installed} to {target} in {record.seconds:.1f} s")
    if preview.reboot:
        report.info(reboot.sentence(preview.reboot))
        reboot.remember(preview.reboot)
    return _Outcome.GOES_ON if again else _Outcome.OVER


def _step_names(args: Namespace) -> tuple[str, ...]:
    if args.download:
        return DOWNLOAD_STEPS
    return (*STEPS, SEARCH_INDEX_STEP) if args.update_search_file_index else STEPS


def _installed_version(session: Session) -> int:
    installed = session.system.installed_version()
    if installed == 0:
        raise UsageError(
            "the system has version 0, which cannot be updated", hint="it was not made from published content"
        )
    return installed


def _target_version(args: Namespace, session: Session, installed: int, newest: int) -> int | None:
    """The version to update to; None, and a message, if there is nothing to do."""
    wanted: int | None = args.version
    if wanted is not None and wanted < installed:
        raise UsageError(
            f"version {wanted} is older than the installed version {installed}",
            hint=f"to go back: swupd repair --version {wanted} --picky --force",
        )
    report = session.report
    if newest < installed:
        report.info(
            f"Version {installed} is installed, which is newer than the newest one of format {session.settings.format} "
            f"on the server ({newest}): the server is behind, or the system belongs to another format"
        )
        return None
    following = session.server.next_version(installed) if args.incremental else newest
    target = following if wanted is None else min(wanted, following)
    if target <= installed:
        report.info(f"Version {installed} is installed; the server has nothing newer (version {newest})")
        return None
    if "withheld" in args and (reason := args.withheld(target)):
        report.info(f"Nothing is updated: {reason}; to try it again: swupd update --next-boot --retry")
        return None
    return target


def _load(session: Session, installed: int, target: int) -> Versions:
    """The manifests of the installed bundles now, and of what they need in the target version."""
    server = session.server
    mom = server.mom(installed)
    target_mom = server.mom(target)
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

    @cache
    def costs() -> Update | None:
        index = session.server.update_index(target)
        return index.update_from(installed) if index is not None else None

    def choose(missing: frozenset[str], packs: Sequence[PackNeed]) -> Sequence[Way]:
        update = costs()
        if update is None:
            return all_packs(missing, packs)
        found = ways(missing, packs, update, target)
        session.report.verbose(f"The cheapest way: {found[0]}")
        for other in found[1:]:
            session.report.verbose(f"Another way: {other}")
        return found

    return choose


def _show(versions: Versions, preview: Preview, tell: Callable[[str], None]) -> None:
    """What is going to happen."""
    parts = (("changed", versions.changed), ("added", versions.added), ("removed", versions.removed))
    tell("  bundles:  " + "; ".join(f"{len(names)} {what}{listed(names)}" for what, names in parts))
    for line in preview.lines():
        tell(f"  {line}")


def _is_agreed(args: Namespace, session: Session, versions: Versions, preview: Preview) -> bool:
    """Whether the update may begin; somebody at a terminal is shown what is going to happen and asked."""
    report = session.report
    assume = True if is_confirmed() else session.settings.assume
    _show(versions, preview, report.info if assume is None and sys.stdin.isatty() else report.verbose)
    return ask(report, "Download?" if args.download else "Install?", assume=assume, default=True)


def _load_everything(session: Session, target: int) -> None:
    """Have the manifests of all bundles in the cache. They are a convenience: what is missing is a warning."""
    mom = session.server.mom(target)
    names = [entry.name for entry in mom.entries if entry.is_present]
    for name, error in session.server.each_bundle(mom, names, lambda *_: None).items():
        session.report.warning(f"bundle {name} cannot be searched: {error}")


def _summarise(session: Session, versions: Versions, result: InstallResult, what: str) -> None:
    report = session.report
    report.info(what)
    changed, added, removed = len(versions.changed), len(versions.added), len(versions.removed)
    report.info(f"  bundles:    {changed} changed, {added} added, {removed} removed")
    report.info(f"  files:      {result.replaced} changed, {result.installed} added, {len(result.removed)} removed")
    report.info(f"  downloaded: {received(session)}")
