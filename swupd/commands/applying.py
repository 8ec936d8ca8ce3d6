"""From a plan to a changed root: what update, bundle-add and os-install have in common (specification 5.7 to 5.10).

The order is the promise: everything is fetched and verified before the first change; if anything of that fails, the
root is as it was. What was staged is kept for the next attempt then, and taken out of the cache after a success.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from swupd.commands.steps import Steps
from swupd.errors import DiskSpaceError, StateDirectoryError, is_disk_full
from swupd.fs import Directory
from swupd.plan import FileList, Plan
from swupd.report import counted, human_size
from swupd.route import Chooser, all_packs
from swupd.scripts import Scripts
from swupd.session import Session
from swupd.space import FileSystems, check_installation
from swupd.transaction.journal import Purpose

# The rest is imported where it is used, for commands that share something of this and install nothing.
if TYPE_CHECKING:
    from swupd.staging import Stager
    from swupd.transaction.install import InstallResult


@dataclass(frozen=True)
class Wish:
    """A plan with the lists of files that it leads between."""

    plan: Plan
    wanted: FileList
    """All that the root shall have in the end."""
    current: FileList = field(default_factory=dict)
    """What the manifests say that it has now, for deltas."""


def carry_out(
    session: Session,
    wish: Wish,
    steps: Steps,
    *,
    purpose: Purpose,
    install_step: str,
    download_only: bool = False,
    check_space: bool = True,
    choose: Chooser = all_packs,
) -> InstallResult | None:
    """Stage and install a definite plan (`swupd.verify.settle`); None if only the download was asked for.

    `complete` has to follow.

    Paths that cannot be installed because something of a user's is in the way are an InstallError in the end, after
    all the rest has been installed and completed.

    check_space: raise DiskSpaceError if there is no room to install what is staged. choose: as for `Stager.stage`.
    Raises what staging and installing raise.
    """
    from swupd.transaction.install import Installer

    report, plan = session.report, wish.plan
    for name in plan.skipped:
        report.verbose(f"{name} is left as it is: it belongs to the administrator")
    if session.guard is not None:
        session.guard.before_staging(plan.install)
    with Directory.open(session.settings.root) as root, stager(session, root, steps) as staging:
        staging.stage(plan.install, packs=plan.packs, current=wish.current, choose=choose)
        if download_only:
            return None
        if session.guard is not None:
            session.guard.before_install(plan.install, staging.staged)
        if check_space:
            check_installation(file_systems(session), session.statedir.data_dir, staging.staged, plan)
        steps(install_step, f"Installing {counted(len(plan.install), 'file')}, removing {len(plan.remove)}")
        with Directory.open(session.statedir.data_dir) as data:
            installer = Installer(root, staging.staged, data, report)
            result = installer.install(plan.install, plan.remove, wish.wanted, effective(purpose, session))
        staging.release(plan.install)
    for name in result.kept:
        report.verbose(f"{name} is kept: it contains something that is not ours")
    if result.failures:
        complete(session, steps, purpose)
        result.check()
    return result


def stager(session: Session, root: Directory, steps: Steps) -> Stager:
    """What fills the state directory for this session."""
    from swupd.staging import Stager

    return Stager(session.statedir, session.settings.content_url, session.fetcher, root, session.report, step=steps)


def file_systems(session: Session) -> FileSystems:
    """Where the files of the root lie."""
    settings = session.settings
    return FileSystems(settings.root, session.system.mount_points(), machine=settings.machine)


def scripts(session: Session) -> Scripts:
    """The helpers of the root, as far as the options allow them."""
    settings = session.settings
    return Scripts(settings.root, session.report, enabled=settings.run_scripts, update_boot=settings.update_boot)


def complete(session: Session, steps: Steps, purpose: Purpose, *, wait: bool = False) -> None:
    """What follows when the files are in place: tracking files, the version file, scripts (section 5.9), and the end of
    the journal. If that fails, the next run of any kind does it.

    wait: return only when restarted services are up. Raises StateDirectoryError, DiskSpaceError.
    """
    from swupd.transaction.recovery import end, follow_up

    if purpose.scripts and session.settings.run_scripts:
        steps("run_postupdate_scripts", "Running post-update actions")
    data_dir = session.statedir.data_dir
    try:
        follow_up(purpose, session.system, scripts(session), wait=wait or session.settings.wait_for_scripts)
        with Directory.open(data_dir) as data:
            end(data, purpose)
    except OSError as error:
        kind = DiskSpaceError if is_disk_full(error) else StateDirectoryError
        raise kind(
            f"all files are in place, but that cannot be recorded in {data_dir}: {error.strerror}",
            hint="see to the data directory's disk; the next swupd command does what is left",
        ) from error


def effective(purpose: Purpose, session: Session) -> Purpose:
    """A purpose with what is really to be done: that is what may have to be repeated, and to be undone."""
    settings, tracked = session.settings, session.system.tracked()
    return replace(
        purpose,
        track=tuple(name for name in purpose.track if name not in tracked),
        untrack=tuple(name for name in purpose.untrack if name in tracked),
        boot=purpose.boot and settings.update_boot,
        scripts=purpose.scripts and settings.run_scripts,
    )


def received(session: Session) -> str:
    """What was downloaded, for the last lines of a command."""
    return f"{human_size(session.fetcher.bytes_received)} in {counted(session.fetcher.requests, 'request')}"
