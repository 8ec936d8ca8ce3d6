"""The boot entries of a machine, and the kernels that they name, on its EFI system partition.

What it guarantees, on a file system that knows neither journals nor atomic replacement (FAT):

* A kernel or initrd is complete before an entry names it. One that is there is believed only after it was read and has
  the hash that its name tells.
* An entry has no content, which the loader passes over, until it has all of it: the kernel writes a file's content
  before its size.
* The state of an entry is changed by renaming it. On FAT that is: the new name, without content; then with that of the
  old one; then the old name goes. The partition is mounted so that this is the order on the disk as well
  (`swupd.nextboot.place`), so a power cut leaves the old name, the new one, or both with the same clusters, and each of
  them boots. To unlink one of those two would give the other's clusters away: before it is mounted again the partition
  is repaired, and then one of them is empty. Nothing else is ever renamed here.
* Kernels go only when no entry names them.

Entries of others, and files that are no entries, are never touched; what a repair has saved of lost clusters goes. One
process at a time changes them.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from swupd.errors import DiskSpaceError, NextBootError, UnsafePathError, is_disk_full
from swupd.formats import bootentry
from swupd.formats.bootentry import ENTRIES, ENTRY_LIMIT, KERNELS, BootEntry
from swupd.fs import Directory, chunks_of
from swupd.report import human_size

MAX_ENTRIES = 1000
KERNEL_LIMIT = 512 << 20
"""Bytes of a kernel or an initrd."""
RESERVE = 1 << 20
"""Bytes of the partition that stay free beside what is copied: entries, and the file system's own."""
_ATTEMPTS = 10
_FILE_MODE = 0o600
_SAVED_CLUSTERS = re.compile(r"FSCK[0-9]{4}\.REC", re.IGNORECASE)
"""What `fsck.vfat -a` calls chains of clusters that belong to no file."""


class BootEntries:
    """The entries on an open partition. Raises NextBootError if it has none of our layout."""

    def __init__(self, partition: Directory) -> None:
        self._partition = partition

    def read(self) -> list[BootEntry]:
        """In the loader's order: the first is what it starts next."""
        found: dict[str, BootEntry] = {}
        with self._entries() as directory:
            for name, content in _contents(directory).items():
                entry = bootentry.parse(name, content.decode(errors="replace"))
                if entry is None:
                    continue
                # An interrupted renaming leaves two: the loader takes one with tries, and a good one was the last word.
                other = found.get(entry.name)
                if other is None or entry.is_good or other.tries_left == 0:
                    found[entry.name] = entry
        return bootentry.loader_order(found.values())

    def next_sequence(self) -> int:
        return 1 + max((entry.sequence for entry in self.read()), default=0)

    def missing_bytes(self, sources: Iterable[tuple[Path, str]]) -> int:
        """How many bytes of these files (path, name in KERNELS) would have to be copied."""
        with self._kernels() as kernels:
            return sum(path.stat().st_size for path, name in sources if not _is_complete(kernels, name))

    def check_room(self, wanted: int) -> None:
        """Raise DiskSpaceError if the partition has no room for so many bytes more."""
        status = os.statvfs(self._partition.fd)
        free = status.f_bavail * status.f_frsize
        if wanted + RESERVE > free:
            raise DiskSpaceError(
                f"the boot partition has {human_size(free)} free, but {human_size(wanted + RESERVE)} are needed",
                hint="remove versions that are not needed: swupd snapshots list, swupd snapshots delete NAME",
            )

    def add_kernel(self, source: Path, name: str) -> None:
        """Bring a kernel or initrd to the partition, if it is not there. Raises DiskSpaceError, NextBootError."""
        with self._kernels() as kernels, Directory.open(source.parent) as parent:
            if _is_complete(kernels, name):
                return
            with suppress(FileNotFoundError):
                kernels.unlink(name)
            try:
                with parent.open_file(source.name) as file:
                    kernels.write_file(name, chunks_of(file), mode=_FILE_MODE, durable=True)
                kernels.sync()
            except OSError as error:
                if is_disk_full(error):
                    raise DiskSpaceError(
                        f"the boot partition is full: {source.name} could not be copied",
                        hint="remove versions that are not needed: swupd snapshots delete NAME",
                    ) from error
                raise NextBootError(f"cannot copy {source} to the boot partition: {error.strerror}") from error
            if not _is_complete(kernels, name):
                raise NextBootError(
                    f"{source} is not the same on the boot partition after it was copied", hint="check that partition"
                )

    def add(self, entry: BootEntry) -> None:
        """Add an entry, whose kernels are there; from now on the loader may take it."""
        with self._entries() as directory:
            with suppress(FileNotFoundError):
                directory.unlink(entry.file_name)
            try:
                directory.write_file(entry.file_name, [entry.text().encode()], mode=_FILE_MODE, durable=True)
                directory.sync()
            except OSError as error:
                kind = DiskSpaceError if is_disk_full(error) else NextBootError
                raise kind(
                    f"cannot write the boot entry of {entry.name}: {error.strerror}", hint="check the boot partition"
                ) from error

    def change(self, old: BootEntry, new: BootEntry) -> None:
        """Rename an entry to another state of the same one, unless it was done by somebody else meanwhile.

        Raises NextBootError if the entry is not as it was read any more.
        """
        if old.file_name == new.file_name:
            return
        with self._entries() as directory:
            # A boot is blessed without the system's lock: the name that is about to be freed may be the only one.
            fcntl.flock(directory.fd, fcntl.LOCK_EX)
            if directory.lstat(old.file_name) is None:
                if directory.lstat(new.file_name) is None:
                    raise NextBootError(
                        f"the boot entry of {old.name} was changed by somebody else meanwhile", hint="try again"
                    )
                return
            with suppress(FileNotFoundError):
                directory.unlink(new.file_name)
            directory.rename(old.file_name, new.file_name)
            directory.sync()

    def remove(self, name: str) -> None:
        """Remove the entries of a deployment, in whatever state."""
        with self._entries() as directory:
            for file_name in directory.names():
                if bootentry.deployment_of_file(file_name) == name:
                    directory.unlink(file_name)
            directory.sync()

    def collect(self) -> None:
        """Remove kernels that no entry names, and what interrupted runs left."""
        with self._entries() as directory, self._kernels() as kernels:
            contents = _contents(directory)
            for file_name, content in contents.items():
                if not content and bootentry.deployment_of_file(file_name):
                    directory.unlink(file_name)
            # Whatever any entry mentions stays, those of others included.
            mentioned = b"\n".join(contents.values())
            for name in kernels.names():
                if bootentry.is_kernel_file(name) and name.encode() not in mentioned:
                    kernels.unlink(name)
            for name in filter(_SAVED_CLUSTERS.fullmatch, self._partition.names()):
                self._partition.unlink(name)
            directory.sync()

    def _entries(self) -> Directory:
        return self._below(ENTRIES)

    def _kernels(self) -> Directory:
        return self._below(KERNELS)

    def _below(self, name: str) -> Directory:
        try:
            return self._partition.descend(name)
        except (OSError, UnsafePathError) as error:
            raise NextBootError(
                f"the boot partition has no directory /{name}, so there is no boot loader that we know",
                hint="`mixer build image --type disk` makes disks that can boot into other versions",
            ) from error


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, in hex. Raises OSError, UnsafePathError."""
    with Directory.open(path.parent) as parent:
        return _digest(parent, path.name)


def _digest(directory: Directory, name: str) -> str:
    digest = hashlib.sha256()
    with directory.open_file(name) as file:
        for chunk in chunks_of(file):
            digest.update(chunk)
    return digest.hexdigest()


def _is_complete(kernels: Directory, name: str) -> bool:
    """Whether a kernel is there with the content that its name tells."""
    try:
        return name in bootentry.kernel_names(_digest(kernels, name))
    except (OSError, UnsafePathError):
        return False


def _contents(directory: Directory) -> dict[str, bytes]:
    """All entries by their names. None is missed though one may be renamed meanwhile: a boot is blessed without a lock.

    Raises NextBootError if they do not come to rest.
    """
    for _ in range(_ATTEMPTS):
        names = sorted(directory.names())
        found = {name: content for name in names[:MAX_ENTRIES] if (content := _content(directory, name)) is not None}
        if sorted(directory.names()) == names:
            return found
    raise NextBootError("the boot entries are being changed by somebody else", hint="try again")


def _content(directory: Directory, name: str) -> bytes | None:
    try:
        with directory.open_file(name) as file:
            return file.read(ENTRY_LIMIT + 1)
    except (FileNotFoundError, UnsafePathError):
        return None
