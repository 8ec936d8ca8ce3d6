"""From a plan to a changed root: what update, bundle-add and os-install have in common (specification 5.7 to 5.10).

The order is the promise: everything is fetched and verified before the first change; if anything of that fails, the
root is as it was. What was staged is kept for the next attempt then, and taken out of the cache after a success.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from swupd.commands.steps import Steps
from swupd.errors import ManifestError
from swupd.formats import layout
from swupd.formats.manifest import Manifest
from swupd.fs import Directory
from swupd.install import Installer, InstallResult
from swupd.plan import FileList, Plan
from swupd.report import counted, human_size
from swupd.route import Chooser, all_packs
from swupd.scripts import Scripts
from swupd.session import Session
from swupd.staging import Stager
from swupd.verify import settle


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
    install_step: str,
    download_only: bool = False,
    before_staging: Callable[[Plan], None] | None = None,
    choose: Chooser = all_packs,
) -> InstallResult | None:
    """Stage and install a plan, then run what has to follow; None if only the download was asked for.

    before_staging: is given the definite plan while nothing has been fetched. choose: as for `Stager.stage`. Raises
    what staging and installing raise.
    """
    report = session.report
    plan = settle(wish.plan, session.settings.root, wish.wanted, report)
    for name in plan.skipped:
        report.verbose(f"{name} is left as it is: it belongs to the administrator")
    if before_staging is not None:
        before_staging(plan)
    with Directory.open(session.settings.root) as root, stager(session, root, steps) as staging:
        staging.stage(plan.install, packs=plan.packs, current=wish.current, choose=choose)
        if download_only:
            return None
        steps(install_step, f"Installing {counted(len(plan.install), 'file')}, removing {len(plan.remove)}")
        result = Installer(root, staging.staged, report).install(plan.install, plan.remove, wish.wanted)
        staging.release(plan.install)
    for name in result.kept:
        report.verbose(f"{name} is kept: it contains something that is not ours")
    return result


def stager(session: Session, root: Directory, steps: Steps) -> Stager:
    """What fills the state directory for this session."""
    return Stager(session.statedir, session.settings.content_url, session.fetcher, root, session.report, step=steps)


def scripts(session: Session) -> Scripts:
    """The helpers of the root, as far as the options allow them."""
    settings = session.settings
    return Scripts(settings.root, session.report, enabled=settings.run_scripts, update_boot=settings.update_boot)


def run_scripts(session: Session, steps: Steps, *, boot: bool, reexec: bool = False, wait: bool = False) -> None:
    """What follows an installation (section 5.9)."""
    if session.settings.run_scripts:
        steps("run_postupdate_scripts", "Running post-update actions")
    scripts(session).after_update(boot=boot, reexec=reexec, wait=wait or session.settings.wait_for_scripts)


def check_format(session: Session, mom: Manifest, *, force: bool) -> None:
    """Raise ManifestError if a version is of another format than ours (section 5.12), unless that is forced."""
    ours = session.settings.format
    if ours in (layout.STAGING_FORMAT, str(mom.format)):
        return
    message = f"version {mom.version} has the format {mom.format}, this system has {ours}"
    if not force:
        raise ManifestError(message, hint=f"choose a version of that format, or give --format {mom.format} or --force")
    session.report.warning(message)


def disagreement(session: Session) -> Callable[[str], None]:
    """What is told when bundles contradict each other."""

    def tell(name: str) -> None:
        session.report.warning(f"bundles disagree about {name}; it is left as it is")

    return tell


def received(session: Session) -> str:
    """What was downloaded, for the last lines of a command."""
    return f"{human_size(session.fetcher.bytes_received)} in {counted(session.fetcher.requests, 'request')}"
