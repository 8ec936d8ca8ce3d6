"""`swupd os-install`: install an operating system into a directory (specification section 5.12).

The directory may be empty, or hold an installation that was interrupted: what is there and right is kept, and so is
whatever is there below /etc, /var and the like.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

from swupd.commands.applying import Wish, carry_out, complete, received
from swupd.commands.complaints import check_format, disagreement
from swupd.commands.global_options import LATEST, bundle_list, version_or_latest
from swupd.commands.preview import foresee
from swupd.commands.recording import recorded
from swupd.commands.statedir_cache import StatedirCache
from swupd.commands.steps import Steps
from swupd.errors import ExitCode, UsageError
from swupd.formats.layout import OS_CORE
from swupd.formats.manifest import Manifest
from swupd.fs import make_directories
from swupd.plan import consolidate, pack_needs, plan_install
from swupd.report import Report
from swupd.session import Session, exclusive
from swupd.space import SKIP_OPTION
from swupd.transaction.journal import Purpose
from swupd.verify import settle

HELP = "install an operating system into a directory"
EXAMPLES = """\
  swupd os-install /mnt/root --url https://example.org/update --bundles editors,games
  swupd os-install /mnt/root --version 20 --statedir /var/tmp/swupd"""

DOWNLOAD_STEPS = (
    "load_manifests",
    "download_packs",
    "extract_packs",
    "check_files_hash",
    "validate_fullfiles",
    "download_fullfiles",
    "extract_fullfiles",
)
STEPS = (*DOWNLOAD_STEPS, "add_missing_files", "run_postupdate_scripts")


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("target", nargs="?", type=Path, metavar="PATH", help="where to install; the same as --path")
    parser.add_argument(
        "-V", "--version", type=version_or_latest, metavar="N", help=f"the version to install, or '{LATEST}' (default)"
    )
    parser.add_argument("-x", "--force", action="store_true", help="install a version of another format")
    parser.add_argument(
        "-B", "--bundles", type=bundle_list, default=(), metavar="A,B", help=f"bundles besides {OS_CORE}"
    )
    parser.add_argument(
        "-s", "--statedir-cache", type=Path, metavar="DIR", help="another state directory to take content from"
    )
    parser.add_argument("--download", action="store_true", help="download everything, install nothing")
    parser.add_argument("--skip-optional", action="store_true", help="do not install optional dependencies")
    parser.add_argument(SKIP_OPTION, action="store_true", help="do not check the free space before")


def run(args: Namespace, report: Report) -> int:
    if (args.target is None) == (args.path is None):
        raise UsageError("one directory is needed to install into", hint="give it as PATH or with --path")
    args.path = args.target or args.path
    with exclusive(args, report) as session:
        _install(args, session)
    return ExitCode.OK


def _install(args: Namespace, session: Session) -> None:
    report = session.report
    steps = Steps(report, DOWNLOAD_STEPS if args.download else STEPS)
    make_directories(session.settings.root)
    cache = StatedirCache(args.statedir_cache, session.statedir) if args.statedir_cache else None
    if cache is not None:
        cache.lend_manifests()

    version = args.version or session.server.latest_version()
    steps("load_manifests", f"Installing version {version} into {session.settings.root}")
    mom = session.server.mom(version)
    check_format(session, mom, force=args.force)
    requested = [OS_CORE, *args.bundles]
    _warn_of_experiments(session, mom, requested)
    manifests = session.server.closure(mom, requested, optional=not args.skip_optional)
    wanted = consolidate(manifests.values(), on_conflict=disagreement(session))
    plan = plan_install(wanted, mounts=session.system.mount_points(), packs=pack_needs({}, manifests))

    purpose = Purpose("os-install", 0, version, track=tuple(args.bundles), boot=True, keep=False)
    with recorded(session, purpose) as record:
        wish = Wish(settle(plan, session.settings.root, wanted, report), wanted)
        if cache is not None:
            cache.lend_objects({entry.hash for entry in wish.plan.install})
        if not args.skip_diskspace_check:
            foresee(session, wish, steps, manifests.values(), download_only=args.download).check_space()
        result = carry_out(
            session,
            wish,
            steps,
            purpose=purpose,
            install_step="add_missing_files",
            download_only=args.download,
            check_space=not args.skip_diskspace_check,
        )
        if result is None:
            report.info(f"Version {version} is downloaded ({received(session)})")
            return
        complete(session, steps, purpose)
        record.done(result)
    report.info(f"Installed version {version} in {session.seconds:.1f} s")
    report.info(f"  bundles:    {', '.join(sorted(manifests))}")
    report.info(f"  files:      {result.installed + result.replaced} installed")
    report.info(f"  downloaded: {received(session)}")


def _warn_of_experiments(session: Session, mom: Manifest, requested: list[str]) -> None:
    experimental = {entry.name for entry in mom.entries if entry.is_experimental}
    for name in sorted(experimental.intersection(requested)):
        session.report.warning(f"bundle {name} is experimental")
