"""Commands that change a system, where it is one of several deployments: they work on a snapshot for the next boot.

The command itself is the same. It is given settings with a snapshot as its root, the system's cache, and a state
directory of its own, of which tracking files and history go back to the system's when it is over. If it has changed
something, the snapshot is compared with the manifests, file by file, and becomes the deployment that boots next
(`swupd.nextboot.deploy`); if not, or if it failed, nothing is left of it.

So --next-boot does. Without it the running system is switched to the new deployment at once (`swupd.nextboot.live`),
because what is mounted must not be changed. If it cannot be switched now, that is an error, and the deployment boots
next.
"""

from __future__ import annotations

import os
from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from swupd import history
from swupd.commands.preview import listed
from swupd.commands.steps import Steps
from swupd.commands.verifying import check_files, load_scope
from swupd.errors import (
    DiskSpaceError,
    IncompleteError,
    InstallError,
    NextBootError,
    ProjectError,
    UsageError,
    is_disk_full,
)
from swupd.formats.bootentry import version_of
from swupd.fs import Directory
from swupd.history import Event
from swupd.nextboot import deploy, etcoverlay, etcrevert, rebooting, subvolumes
from swupd.nextboot.deployments import Deployment
from swupd.nextboot.place import Place, is_deployment, locate
from swupd.report import Report, counted, human_size
from swupd.session import Session, exclusive
from swupd.settings import Settings
from swupd.statedir import PRIVATE, StateDir
from swupd.system import System

Command = Callable[[Namespace, Report], int]

OPTION = "--next-boot"
STEPS = ("verify_snapshot", "activate_snapshot")
WORK = "nextboot"
"""The directory of the data directory with what a command keeps there while it works on a snapshot."""


def add_option(parser: ArgumentParser) -> None:
    parser.add_argument(
        OPTION,
        action="store_true",
        help="change a snapshot that becomes active on the next boot, not the running system",
    )


def on_snapshot(args: Namespace, report: Report, command: Command) -> int:
    """Carry a command out on its root; with --next-boot, or if the root is a deployment, on a snapshot of that.

    Raises NextBootError, before anything is done, where there can be no next boot of another version.
    """
    root = Path(os.path.realpath(args.path or "/"))
    # Settings that are given are those of a 3rd-party repository; `swupd verify` has no such option.
    for_next_boot = getattr(args, "next_boot", False)
    if getattr(args, "settings", None) is not None or not (for_next_boot or is_deployment(root)):
        return command(args, report)
    located = locate(root)
    subvolumes.require()
    try:
        with exclusive(args, report, network=False) as session, Place.open(located) as place:
            return _OnSnapshot(args, session, place, command, for_next_boot=for_next_boot).run()
    except OSError as error:
        raise _nothing_made(error) from error


def _nothing_made(error: OSError) -> NextBootError | DiskSpaceError:
    where = f" ({error.filename})" if error.filename else ""
    what = f"cannot make a deployment for the next boot: {error.strerror or error}{where}; what boots next stays"
    if is_disk_full(error):
        return DiskSpaceError(what, hint="make room, for example with: swupd snapshots delete NAME")
    return NextBootError(what, hint="see to the cause and run the command again")


class _OnSnapshot:
    """One command."""

    def __init__(
        self, args: Namespace, session: Session, place: Place, command: Command, *, for_next_boot: bool
    ) -> None:
        self._args = args
        self._for_next_boot = for_next_boot
        self._session = session
        self._report = session.report
        self._place = place
        self._command = command
        self._work = session.statedir.data_dir / WORK
        self._tracked = session.system.tracked()
        self._made = ""
        """The deployment that boots next, as soon as there is one."""
        self._taken = 0
        """Bytes of the disk that it takes."""

    def run(self) -> int:
        """The exit status of the command."""
        deployments = deploy.tidy(self._place, self._session.statedir.data_dir)
        base = deploy.base_of(deployments)
        self._check_format(base)
        if not (base.is_running or base.is_current):
            self._report.info(f"Deployment {base.name} waits for the next boot; this adds to it")
        looks_only = getattr(self._args, "dry_run", False) or getattr(self._args, "download", False)
        try:
            self._make_work()
            status = self._carry_out(self._place.path(base.name), base) if looks_only else self._change(base)
        except BaseException as error:
            why = "interrupted" if isinstance(error, KeyboardInterrupt) else str(error)
            self._take_back_history(failure="" if self._made else why)
            raise
        else:
            self._take_back_history()
        finally:
            self._remove_work()
        if self._made:
            self._put_to_use()
        return status

    def _change(self, base: Deployment) -> int:
        place = self._place
        free_before = _free_bytes(place.top)
        with deploy.drafted(place, base) as draft:
            status = self._carry_out(draft.root, base)
            done = self._done()
            if done is None:
                self._take_back_tracking(removed=True)
                return status
            steps = Steps(self._report, STEPS)
            steps("verify_snapshot", "Verifying the snapshot")
            self._verify(draft.root, done.to_version)
            self._tell_conflicts(draft.root)
            steps("activate_snapshot", "Making the snapshot ready to boot")
            # A tracked bundle that is not there does no harm, one that is there and not tracked does.
            self._take_back_tracking(removed=False)
            system = System(draft.root, self._session.statedir)
            draft.activate(
                system.installed_version(), system.pretty_name(), forgive=getattr(self._args, "retry", False)
            )
        self._made = draft.name
        self._taken = max(0, free_before - _free_bytes(place.top))
        self._clean_up()
        return status

    def _put_to_use(self) -> None:
        """The last thing that is done: what is imported after a live switch is the new version's.

        Raises IncompleteError if the running system could not be switched.
        """
        if not self._for_next_boot:
            from swupd.nextboot import live

            result = live.switch(self._place, self._made, self._report)
            if not result.is_active:
                raise IncompleteError(
                    f"version {self._made} is ready and becomes active on the next boot; "
                    f"it could not be made active now because {result.obstacle}",
                    hint="to start it: reboot",
                )
            return
        self._report.info(
            f"Version {version_of(self._made)} becomes active on the next boot "
            f"(deployment {self._made}, {human_size(self._taken)}); to start it: reboot"
        )
        if when := getattr(self._args, "reboot_at", None):
            rebooting.schedule(when)

    def _carry_out(self, root: Path, base: Deployment) -> int:
        """The command itself."""
        guard = deploy.RoomForKernels(self._place, self._place.path(base.name))
        given = {"settings": self._settings(root), "guard": guard, "withheld": self._withheld}
        return self._command(Namespace(**vars(self._args) | given), self._report)

    def _settings(self, root: Path) -> Settings:
        settings = self._session.settings
        return replace(
            settings,
            root=root,
            data_dir=self._work,
            run_scripts=False,
            update_boot=False,
            snapshot_of=settings.root,
            warnings=(),
        )

    def _withheld(self, version: int) -> str:
        return "" if getattr(self._args, "retry", False) else deploy.withheld(self._place, version)

    def _check_format(self, base: Deployment) -> None:
        """Only the program that a new format brings with it can go on with that."""
        root = self._place.path(base.name)
        here, there = self._session.system.format(), System(root, self._session.statedir).format()
        if here != there:
            raise NextBootError(
                f"deployment {base.name} waits for the next boot and has another format ({there}, not {here})",
                hint="reboot first",
            )

    def _verify(self, root: Path, version: int) -> None:
        """Compare all of the snapshot with the manifests."""
        args = Namespace(
            settings=self._settings(root),
            version=version,
            force=True,
            bundles=(),
            quick=False,
            file=None,
            extra_files_only=False,
        )
        with exclusive(args, self._report) as session:
            findings = check_files(args, session, load_scope(args, session))
        wrong = [entry.name for entry in findings.to_install] + list(findings.extraneous)
        if wrong:
            raise InstallError(
                f"{counted(len(wrong), 'file')} of the snapshot would not be as in version {version}, "
                f"{wrong[0]} for one; nothing was changed",
                hint=f"put right what was there before: swupd repair {OPTION}",
            )

    def _clean_up(self) -> None:
        """What fails here does not take the deployment back. What is superfluous now, the base that nobody has booted
        for one, can go with the next run as well."""
        try:
            self._take_back_tracking(removed=True)
            deploy.tidy(self._place, self._session.statedir.data_dir)
        except (OSError, ProjectError) as error:
            self._report.warning(f"deployment {self._made} is ready, but not everything could be tidied up: {error}")

    def _tell_conflicts(self, root: Path) -> None:
        """What the user has changed in /etc and the new version has changed as well."""
        try:
            layers = etcoverlay.find_layers(self._place.located.root)
        except UsageError:
            return  # not a stateless system
        if not layers.is_overlay or not (root / deploy.USERS).exists():
            return
        bases, queue = etcrevert.bring_up_to_date(layers, self._report)
        new_layers = replace(layers, root=root)
        with layers.open_changed() as upper, layers.open_factory() as old, new_layers.open_factory() as new:
            found = etcoverlay.conflicts(upper, old, new, bases, queue)
        if found:
            shown = [f"/etc/{conflict.path}" for conflict in found]
            self._report.info(f"Your own files stay, though this version has other ones{listed(shown)}")
            self._report.info("  to compare them once it is active: swupd etc diff")

    # -- the state directory of the command

    def _make_work(self) -> None:
        self._remove_work()
        with Directory.open(self._work.parent) as data:
            data.make_directory(self._work.name, mode=PRIVATE)
        self._work_system.track(self._tracked)

    @property
    def _work_system(self) -> System:
        settings = self._session.settings
        statedir = StateDir(settings.cache_dir, self._work, settings.content_url)
        statedir.prepare()
        return System(settings.root, statedir)

    def _remove_work(self) -> None:
        with Directory.open(self._work.parent) as data:
            data.remove_tree(self._work.name)

    def _done(self) -> Event | None:
        """What the command says to have done; None if it has changed nothing, or failed."""
        events = history.read(self._work)
        if any(event.outcome != history.DONE for event in events):
            return None
        return events[-1] if events else None

    def _take_back_history(self, *, failure: str = "") -> None:
        for event in history.read(self._work):
            if self._for_next_boot:
                event = replace(event, command=f"{event.command} {OPTION}")
            if failure and event.outcome == history.DONE:
                event = replace(event, outcome=history.FAILED, detail=failure)
            history.append(self._session.statedir.data_dir, event)

    def _take_back_tracking(self, *, removed: bool) -> None:
        now, system = self._work_system.tracked(), self._session.system
        system.track(now - self._tracked)
        if removed:
            system.untrack(self._tracked - now)


def _free_bytes(path: Path) -> int:
    status = os.statvfs(path)
    return status.f_bfree * status.f_frsize
