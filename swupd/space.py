"""Is there room for it? Looked at before anything is downloaded, and once more before anything is installed.

What needs space, and where:

* the cache: downloads, and the objects that they are unpacked to;
* the system: what is installed, except for objects that only get a second name, because the cache is on the same file
  system. File systems that are mounted below the root count for themselves;
* the data directory: what is replaced or removed, which is kept for a rollback; nothing if it is on the same file
  system as well;
* the boot partition (/boot, /efi or /boot/efi, if it is one): what the boot manager is going to copy there.

Several of them on one file system need the sum. Nothing is written here. Being wrong does no harm: a disk that turns
out to be too full while files are written is an error there as well, and nothing is half done.
"""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from swupd import protected
from swupd.cost import on_disk
from swupd.errors import DiskSpaceError
from swupd.formats.manifest import Entry
from swupd.fs import Directory
from swupd.plan import Plan
from swupd.report import human_size
from swupd.settings import below

ESTIMATE_FACTOR = 1.1
"""How much more than an estimate must be free."""
SKIP_OPTION = "--skip-diskspace-check"

_BOOT_PARTITIONS = ("/boot", "/efi", "/boot/efi")


@dataclass(frozen=True)
class Need:
    """Bytes that something takes of the file system that `path` is on."""

    what: str
    path: Path
    bytes: int


@dataclass(frozen=True)
class Room:
    """A file system: what is needed there, and what is free for root; in bytes."""

    what: str
    path: Path
    needed: int
    free: int

    @property
    def is_enough(self) -> bool:
        return self.needed <= self.free

    def __str__(self) -> str:
        return f"{self.what} ({self.path}): {human_size(self.needed)} needed, {human_size(self.free)} free"


class FileSystems:
    """The root ("") and the file systems that are mounted below it where the OS has files.

    machine: the system that the root is a snapshot of, by which people know its file system.
    """

    def __init__(self, root: Path, mounts: Iterable[str], *, machine: Path | None = None) -> None:
        self.root = root
        self._machine = machine or root
        points = sorted((point for point in mounts if not protected.is_protected(point)), key=len, reverse=True)
        self._prefixes = tuple(f"{point}/" for point in points)
        self._devices = {point: _device(below(root, point)) for point in ["", *points]}

    def of(self, name: str) -> str:
        """The mount point that a name lies below."""
        if not name.startswith(self._prefixes):
            return ""
        return next(prefix for prefix in self._prefixes if name.startswith(prefix))[:-1]

    def apart_from(self, device: int) -> set[str]:
        """The mount points of those that cannot have hard links to files of a device."""
        return {point for point, other in self._devices.items() if other != device}

    @property
    def boot_partition(self) -> str | None:
        return next((point for point in _BOOT_PARTITIONS if point in self._devices), None)

    def path(self, point: str) -> Path:
        """Where people find a file system."""
        return below(self._machine, point)


def system_needs(
    systems: FileSystems, staged: Directory, entries: Iterable[Entry], sizes: Mapping[str, int]
) -> list[Need]:
    """What installing `entries` takes of the file systems of the root and of the boot partition.

    staged: where the objects are linked from. sizes: in bytes, by hash.
    """
    apart = systems.apart_from(os.fstat(staged.fd).st_dev)
    boot = systems.boot_partition
    needed: Counter[str] = Counter()
    used: set[str] = set()
    for entry in entries:
        point = systems.of(entry.name)
        size = on_disk(sizes.get(entry.hash, 0))
        # Only the first use of an object is a link.
        if point in apart or entry.hash in used:
            needed[point] += size
        used.add(entry.hash)
        if boot is not None and point != boot and protected.needs_boot_update(entry.name):
            needed[boot] += size
    return [
        Need("boot partition" if point == boot else "system", systems.path(point), size)
        for point, size in needed.items()
        if size
    ]


def keeping_needs(systems: FileSystems, data_dir: Path, names: Iterable[str]) -> list[Need]:
    """What keeping the files of these names takes, because they are replaced or removed."""
    apart = systems.apart_from(_device(data_dir))
    copied = disk_sizes(systems.root, (name for name in names if systems.of(name) in apart)) if apart else {}
    return [Need("old files", data_dir, sum(map(on_disk, copied.values())))] if copied else []


def disk_sizes(root: Path, names: Iterable[str]) -> dict[str, int]:
    """Sizes of the files that have these names now, in bytes, by name; a guess where parents are links."""
    base = str(root).rstrip("/")
    found = {}
    for name in names:
        with suppress(OSError):
            status = os.lstat(base + name)
            if stat.S_ISREG(status.st_mode):
                found[name] = status.st_size
    return found


def staged_sizes(staged: Directory, entries: Iterable[Entry]) -> dict[str, int]:
    """Sizes of staged objects, in bytes, by hash."""
    found = {}
    for entry in entries:
        status = staged.lstat(entry.hash)
        if status is not None:
            found[entry.hash] = status.st_size
    return found


def rooms(needs: Iterable[Need], *, factor: float = 1.0) -> list[Room]:
    """Needs, multiplied with `factor`, and free space by file system; what does not tell its size is left out."""
    together: dict[int, list[Need]] = {}
    for need in needs:
        together.setdefault(_device(need.path), []).append(need)
    found = []
    for device, parts in together.items():
        status = os.statvfs(_existing(parts[0].path)) if device >= 0 else None
        if status is not None and status.f_blocks:
            what = " and ".join(dict.fromkeys(part.what for part in parts))
            free = status.f_bavail * status.f_frsize
            found.append(Room(what, parts[0].path, int(factor * sum(part.bytes for part in parts)), free))
    return found


def check(found: Iterable[Room]) -> None:
    """Raise DiskSpaceError if a file system has too little room."""
    for room in found:
        if not room.is_enough:
            raise DiskSpaceError(
                f"the file system of {room.path} ({room.what}) has too little room: {room.needed} bytes are needed "
                f"({human_size(room.needed)}), {room.free} are free ({human_size(room.free)}); nothing was changed",
                hint=f"make room there, or try nevertheless with {SKIP_OPTION}",
            )


def check_installation(systems: FileSystems, data_dir: Path, staged: Directory, plan: Plan) -> None:
    """Raise DiskSpaceError if there is no room for carrying out a definite plan. All of it is staged, with its size."""
    needs = system_needs(systems, staged, plan.install, staged_sizes(staged, plan.install))
    check(rooms([*needs, *keeping_needs(systems, data_dir, changed_names(plan))]))


def changed_names(plan: Plan) -> Iterator[str]:
    """What a definite plan replaces or removes, if it is there."""
    yield from (entry.name for entry in plan.install)
    yield from plan.remove


def _device(path: Path) -> int:
    """The device of a path, or of the nearest directory above it that exists; -1 if nobody may look."""
    try:
        return os.stat(_existing(path)).st_dev
    except OSError:
        return -1


def _existing(path: Path) -> Path:
    while not path.exists():
        path = path.parent
    return path
