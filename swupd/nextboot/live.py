"""Switching the running system to another deployment, which was made for its next boot.

The deployment that is mounted is never changed: it is the lower layer of the overlay on /etc, and programs run from it.
The new one is mounted over it instead, with everything old left below for those who have it open:

1. The overlay on /etc becomes read-only, because two that can be written must not share an upper layer. That fails
   while somebody has a file of /etc open for writing; who passes by is waited for. Until the third step, for some
   milliseconds, nobody can change /etc.
2. /usr of the new deployment is bound over /usr, and /boot over /boot. If the new one lacks the modules of the running
   kernel, /usr/lib/modules of the one that booted is bound over its own: a new kernel needs a boot.
3. An overlay with the new factory below, and the same upper layer, is mounted over /etc.
4. Accounts, temporary files and services follow (`swupd.nextboot.restarting`).

A step of the first three that fails undoes those before it, in reverse: the running system is as it was. After that
nothing can undo the switch. None of it is on disk, and the next boot has the new deployment in any case.

The mounts reach services with a mount namespace too (/ is shared), and cover what such a service has mounted over /usr,
/etc and /boot itself, ProtectSystem for one: it is restarted, so that it is protected again.

What does not follow before it is restarted, or the next boot: the running kernel; processes, in what they have open,
mapped or as their working directory; directories and links directly below /; services that are new.

Switches pile up mounts, so after MAX_SWITCHES of them a boot has to come first. Whoever calls holds the system's lock.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

from swupd import reboot
from swupd.formats.bootentry import SUBVOLUMES
from swupd.nextboot import mounts, restarting
from swupd.nextboot.etcoverlay import FACTORY, UPPER
from swupd.nextboot.place import Place
from swupd.report import Report
from swupd.signals import undisturbed
from swupd.system import MOUNTS, Mount, read_mounts

MAX_SWITCHES = 16
"""Between two boots."""
PATIENCE_SECONDS = 1.0
"""How long programs that write to /etc are waited for."""
_PAUSE_SECONDS = 0.1
_ETC = "etc"
"""Below the root, and the directory of the state with its layers."""
_WORK = "work"
_MODULES = "usr/lib/modules"
_BOUND = tuple(directory for directory in restarting.SWITCHED if directory != _ETC)


@dataclass(frozen=True)
class LiveResult:
    """What became of a switch."""

    obstacle: str = ""
    """Why the system was not switched, as the end of a sentence ("cron has /etc/crontab open"); empty if it was.
    If it is not empty, everything is as it was before."""
    restarted: tuple[str, ...] = ()
    """The units that were restarted, sorted."""
    outdated: tuple[str, ...] = ()
    """The units, sessions and programs that go on with files of an older deployment, sorted."""

    @property
    def is_active(self) -> bool:
        """Whether the running system is the new deployment now."""
        return not self.obstacle


class _ObstacleError(Exception):
    """The switch is not possible now; its text is LiveResult.obstacle."""


def switch(place: Place, name: str, report: Report) -> LiveResult:
    """Make a deployment that is sealed and has its boot entry the running system's; tells the report what came of it.

    All or nothing: either the system is switched, or nothing has changed, the result says why, and the deployment
    becomes active on the next boot. What follows a switch (accounts, temporary files, services) cannot undo it; what
    fails there is a warning. Call it last: modules that are imported later come from the new version.

    Raises nothing for what can happen on a sound machine.
    """
    root = place.located.root
    try:
        _check(root, read_mounts(MOUNTS))
        before = restarting.look(root)
        with undisturbed():
            _mount_over(place, name)
    except _ObstacleError as obstacle:
        return LiveResult(obstacle=str(obstacle))
    report.info(f"Version {name} is active now: /usr, /boot and the defaults of /etc are those of the new version")
    followed = restarting.follow(place, name, before, report)
    if followed.restarted:
        report.info(f"  restarted: {', '.join(followed.restarted)}")
    if followed.outdated:
        report.info(f"  with files of older versions until the next boot: {', '.join(followed.outdated)}")
    if _kernel(place, name) != _kernel(place, place.located.running):
        report.info(reboot.sentence(["kernel"]))
        reboot.remember(["kernel"], root / "run")
    return LiveResult("", followed.restarted, followed.outdated)


def _kernel(place: Place, name: str) -> str:
    """What a deployment boots with."""
    return next((entry.kernel for entry in place.entries.read() if entry.name == name), "")


def _check(root: Path, table: Sequence[Mount]) -> None:
    """Raise _ObstacleError if the mounts are not such that others can be put over them."""
    if root == Path("/") and not mounts.shares_the_systems():
        raise _ObstacleError("this command has mounts of its own, which the rest of the system would not see")
    at = {directory: [mount for mount in table if mount.point == f"{root / directory}"] for directory in _BOUND}
    if not any(mount.point == f"{root / _ETC}" and mount.type == "overlay" for mount in table):
        raise _ObstacleError("/etc is no overlay: the system was not booted with the initrd of its kernel bundle")
    if len(at["usr"]) >= MAX_SWITCHES:
        raise _ObstacleError(f"the system was switched {len(at['usr'])} times since it was booted, which is enough")
    for mount in table:
        if _is_in_the_way(root, mount):
            raise _ObstacleError(f"something of its own is mounted at {mount.point}")


def _is_in_the_way(root: Path, mount: Mount) -> bool:
    """Whether a mount that is not ours would be hidden."""
    point = Path(mount.point)
    if point == root / _ETC:
        return mount.type != "overlay"
    if point.is_relative_to(root / _ETC):
        return True
    if not any(point.is_relative_to(root / directory) for directory in _BOUND):
        return False
    return mount.type != "btrfs" or not mount.source.startswith(f"/{SUBVOLUMES}/")


def _mount_over(place: Place, name: str) -> None:
    """Steps 1 to 3. Raises _ObstacleError when everything is as it was."""
    root, new = place.located.root, place.path(name)
    etc, state = root / _ETC, place.located.state / _ETC
    with ExitStack() as undo:
        try:
            _make_read_only(etc)
            undo.callback(mounts.make_writable, etc)
            for directory in _BOUND:
                _bind(undo, new / directory, root / directory)
            modules = place.path(place.located.running) / _MODULES
            release = os.uname().release
            if (modules / release).is_dir() and not (new / _MODULES / release).is_dir():
                _bind(undo, modules, root / _MODULES)
            mounts.overlay(root / FACTORY, state / UPPER, state / _WORK, etc)
        except OSError as error:
            raise _ObstacleError(f"{error.filename or name} could not be mounted over: {error.strerror}") from error
        undo.pop_all()


def _bind(undo: ExitStack, source: Path, point: Path) -> None:
    mounts.bind(source, point)
    undo.callback(mounts.unmount, point)


def _make_read_only(etc: Path) -> None:
    until = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            mounts.make_read_only(etc)
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
            if time.monotonic() > until:
                who = ", ".join(sorted(set(_writers(etc)))) or "a program has a file of /etc open"
                raise _ObstacleError(who) from error
            time.sleep(_PAUSE_SECONDS)
        else:
            return


def _writers(directory: Path) -> Iterator[str]:
    """Who has files below a directory open for writing."""
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with suppress(OSError):
            for descriptor in os.listdir(f"/proc/{pid}/fd"):
                with suppress(OSError):
                    path = os.readlink(f"/proc/{pid}/fd/{descriptor}")
                    if path.startswith(f"{directory}/") and _can_write(Path(f"/proc/{pid}/fdinfo/{descriptor}")):
                        program = Path(f"/proc/{pid}/comm").read_text(errors="replace").strip()
                        yield f"{program} has /etc{path.removeprefix(str(directory))} open"


def _can_write(information: Path) -> bool:
    """Whether a descriptor was opened for writing; raises OSError."""
    flags = next(line for line in information.read_text().splitlines() if line.startswith("flags:"))
    return int(flags.split()[1], 8) & os.O_ACCMODE != os.O_RDONLY
