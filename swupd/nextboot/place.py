"""Where a machine keeps its deployments: the top level of its btrfs, its EFI system partition, the shared state.

`locate` looks at what is mounted and changes nothing; `Place.open` mounts the two, each at a directory of this process
below /run/swupd/mounts, and unmounts them when it is closed. What processes that died have left mounted goes at the
next opening. The layout is that of the disks that the builder makes:

    btrfs top level     @/<deployment>   read-only roots;   @state   what all of them share, mounted at /run/state
    EFI partition       of the same disk, with the entries and kernels of `swupd.nextboot.bootentries`

The EFI partition is repaired before it is mounted, unless somebody has it mounted already: a power cut may leave files
that share clusters or name free ones, and the kernel writes no more to a FAT on which it comes across those. Where
there is no program that can repair it (fsck.vfat of dosfstools), it is used as it is.

A root that is not the running one works as well (`--path`), if it is mounted in the same way. Whoever changes something
holds the system's lock. Raises NextBootError, with what to do, for machines that are not laid out like this.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

from swupd import process
from swupd.closing import Closing
from swupd.errors import CommandError, NextBootError
from swupd.formats.bootentry import SUBVOLUMES, is_deployment_name
from swupd.fs import Directory, make_directories
from swupd.nextboot.bootentries import BootEntries
from swupd.system import MOUNTS, Mount, read_mounts

STATE = "run/state"
"""Where the initrd mounts the shared state, below the root."""
RUN = "run/swupd"
TRIAL = f"{RUN}/trial"
"""Exists while a boot is on trial."""
BOOT_STATE = "boot"
"""The directory of the state that is about boots."""
GOOD = "good"
"""Its directory of empty files, one for each deployment that has booted well."""

BOOT_MOUNT = ("vfat", "umask=0077,noatime,dirsync")
"""Type and options of an EFI system partition. With dirsync a change of names is on the disk at once, step by step."""

_ESP_TYPE = "c12a7328-f81f-11d2-ba4b-00a0c93ec93b"
_IMAGE_HINT = "`mixer build image --type disk` makes disks that can boot into other versions"


@dataclass(frozen=True)
class Located:
    """What the mounts of a root say."""

    root: Path
    device: str
    """The device of its btrfs."""
    running: str
    """The deployment that the root is mounted from."""
    current: str
    """The deployment whose /usr is in use: another one after a live update."""
    mounted: frozenset[str] = frozenset()
    """All deployments of which something is mounted in the root. After several live updates they lie one above the
    other, and the kernel unmounts whatever is mounted on one that is deleted."""

    @property
    def state(self) -> Path:
        return self.root / STATE

    @property
    def boot_state(self) -> Path:
        return self.state / BOOT_STATE


def locate(root: Path, mounts: Sequence[Mount] | None = None) -> Located:
    """Find the deployment that a root is. Raises NextBootError if it is none."""
    point = os.fspath(root)
    if mounts is None:
        try:
            mounts = read_mounts(MOUNTS)
        except OSError as error:
            raise NextBootError(
                f"what is mounted at {point} cannot be found out: {MOUNTS}: {error.strerror}", hint="mount /proc"
            ) from error
    found = _last(mounts, point)
    if found is None or found.type != "btrfs":
        what = "is not a mount point" if found is None else f"is on {found.type}, not on btrfs"
        raise NextBootError(f"{point} {what}: it cannot be given another version for its next boot", hint=_IMAGE_HINT)
    running = _deployment(found.source)
    if not running:
        raise NextBootError(
            f"{point} is the subvolume {found.source}, not one of /{SUBVOLUMES}/<version>: "
            "it cannot be given another version for its next boot",
            hint=_IMAGE_HINT,
        )
    usr = _last(mounts, os.path.join(point, "usr"))
    current = _deployment(usr.source.removesuffix("/usr")) if usr is not None and usr.type == "btrfs" else ""
    if _last(mounts, os.path.join(point, STATE)) is None:
        raise NextBootError(
            f"the shared state is not mounted at {os.path.join(point, STATE)}",
            hint="boot with the initrd of the system's own kernel bundle",
        )
    below = point.rstrip("/") + "/"
    sources = [mount.source for mount in mounts if mount.type == "btrfs" and f"{mount.point}/".startswith(below)]
    mounted = frozenset(name for source in sources if (name := _deployment_above(source)))
    return Located(root, found.device, running, current or running, mounted)


def is_deployment(root: Path) -> bool:
    """Whether a root is mounted from a deployment, as far as that can be seen, and whatever else is wrong with it."""
    try:
        found = _last(read_mounts(MOUNTS), os.fspath(root))
    except OSError:
        return False
    return found is not None and found.type == "btrfs" and bool(_deployment(found.source))


class Place(Closing):
    """The deployments of a machine, reachable until this is closed."""

    def __init__(self, located: Located, top: Path, partition: Directory, uuid: str, resources: ExitStack) -> None:
        self.located = located
        self.top = top
        """Where the top level of the btrfs is mounted, writable."""
        self.entries = BootEntries(partition)
        self.uuid = uuid
        """Of the btrfs, as the kernel's command line names it."""
        self._resources = resources

    @classmethod
    def open(cls, located: Located) -> Place:
        """Mount what is needed. Needs root. Raises NextBootError, CommandError."""
        mounts = located.root / RUN / "mounts"
        _unmount_stale(mounts)
        # Old versions of programs with special rights are in there.
        make_directories(mounts, mode=0o700)
        own = mounts / str(os.getpid())
        with ExitStack() as resources:
            top = _mounted(resources, located.device, own / "top", "btrfs", "subvolid=5,noatime")
            boot = _boot_mounted(resources, _boot_partition(located.device), own / "esp")
            partition = resources.enter_context(Directory.open(boot))
            return cls(located, top, partition, _uuid(located.device), resources.pop_all())

    def close(self) -> None:
        self._resources.close()

    def path(self, name: str) -> Path:
        """The subvolume of a deployment."""
        return self.top / SUBVOLUMES / name

    def names(self) -> list[str]:
        """All that lies beside the deployments, unfinished ones included."""
        with Directory.open(self.top / SUBVOLUMES) as directory:
            return sorted(directory.names())

    def boot_state(self) -> Directory:
        """The directory of the state that is about boots."""
        make_directories(self.located.boot_state / GOOD)
        return Directory.open(self.located.boot_state)


def _mounted(resources: ExitStack, device: str, where: Path, kind: str, options: str) -> Path:
    make_directories(where)
    try:
        process.run(["mount", "-t", kind, "-o", options, device, where], env=process.ENVIRONMENT)
    except CommandError as error:
        raise NextBootError(
            f"cannot mount {device}: {error}", hint="check the device and the kernel's modules"
        ) from error
    resources.callback(_unmount, where)
    return where


def _boot_mounted(resources: ExitStack, device: str, where: Path) -> Path:
    """Repair the boot partition and mount it."""
    with Directory.open(where.parent.parent) as mounts:
        # Nobody of us mounts what is being repaired.
        fcntl.flock(mounts.fd, fcntl.LOCK_EX)
        repair(device)
        return _mounted(resources, device, where, *BOOT_MOUNT)


def repair(device: str) -> None:
    """Put the file system of a boot partition right, if it is not mounted and there is a program that can do that.

    Of files that share clusters only the first one keeps them; the others are empty then, and can be removed.
    """
    try:
        # The kernel lets nobody have a device to himself that is mounted.
        os.close(os.open(device, os.O_RDONLY | os.O_EXCL | os.O_CLOEXEC))
    except OSError:
        return
    with suppress(CommandError):
        process.run([f"fsck.{BOOT_MOUNT[0]}", "-a", device], env=process.ENVIRONMENT, check=False)


def _unmount(where: Path) -> None:
    with suppress(CommandError):
        # Lazily: a reader of the mount table must not be able to keep us from it.
        process.run(["umount", "--lazy", where], env=process.ENVIRONMENT)
    for directory in (where, where.parent):
        with suppress(OSError), Directory.open(directory.parent) as parent:
            parent.remove_directory(directory.name)


def _unmount_stale(mounts: Path) -> None:
    """Unmount what processes that are gone had mounted."""
    try:
        names = os.listdir(mounts)
    except FileNotFoundError:
        return
    for name in names:
        if name.isdigit() and not os.path.exists(f"/proc/{name}"):
            for part in ("top", "esp"):
                if os.path.isdir(mounts / name / part):
                    _unmount(mounts / name / part)


def _boot_partition(device: str) -> str:
    """The EFI system partition of the disk that a partition is on."""
    here = os.path.realpath(f"/sys/class/block/{os.path.basename(os.path.realpath(device))}")
    if not os.path.exists(f"{here}/partition"):
        raise NextBootError(f"{device} is not a partition, so there is no boot partition beside it", hint=_IMAGE_HINT)
    disk = os.path.dirname(here)
    for name in sorted(os.listdir(disk)):
        if os.path.exists(f"{disk}/{name}/partition") and _probe(f"/dev/{name}", "PART_ENTRY_TYPE") == _ESP_TYPE:
            return f"/dev/{name}"
    raise NextBootError(
        f"/dev/{os.path.basename(disk)} has no EFI system partition, so there is no boot loader", hint=_IMAGE_HINT
    )


def _uuid(device: str) -> str:
    uuid = _probe(device, "UUID")
    if not uuid:
        raise NextBootError(f"the file system on {device} has no UUID", hint="check it with: blkid")
    return uuid


def _probe(device: str, tag: str) -> str:
    """What is written on a device itself, whatever udev knows of it; empty if nothing is."""
    argv = ["blkid", "--probe", "--output", "value", "--match-tag", tag, device]
    return process.run(argv, env=process.ENVIRONMENT, check=False).stdout.decode(errors="replace").strip()


def _last(mounts: Sequence[Mount], point: str) -> Mount | None:
    """What is mounted at a point: the last one covers the others."""
    return next((mount for mount in reversed(mounts) if mount.point == point), None)


def _deployment_above(source: str) -> str:
    """The deployment that a mount shows a part of; empty if it is of none."""
    parts = source.split("/", 3)
    return _deployment("/".join(parts[:3]))


def _deployment(source: str) -> str:
    """The deployment in the subvolume path of a mount; empty if it is none."""
    prefix = f"/{SUBVOLUMES}/"
    name = source.removeprefix(prefix) if source.startswith(prefix) else ""
    return name if is_deployment_name(name) else ""
