"""Changes to a file system, made below directory descriptors.

Every call that changes a root or the state directory is here, so that what can be interrupted is in one place. Rules:

* A `Directory` is an open descriptor. Names given to its methods are single components; paths are walked component by
  component with O_NOFOLLOW, so a symbolic link in a parent is an error (`UnsafePathError`), never a detour.
* Objects are created exclusively (`O_EXCL`), with owner first and mode last (chown clears setuid), without the umask.
* A copy of a file shares its space on the disk with the file, where the file system can do that (btrfs, XFS).
* Of many objects none is synced by itself: a caller that needs a barrier calls `sync()`, one `syncfs` for all. Single
  files that must be on disk are written `durable`; `sync_names()` waits for what happened to names in one directory.

Not thread-safe in the sense of two threads using one name; different names may be worked on at the same time.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from swupd.closing import Closing
from swupd.errors import UnsafePathError

_OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_CREATE_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
CANNOT_EXCHANGE = frozenset({errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP})
"""What `Directory.exchange` fails with where the file system does not know how to."""
_CANNOT_SHARE = frozenset({errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTTY, errno.EPERM})
"""What copying within the kernel fails with where it is not possible."""
_COPY_BYTES = 1 << 30
"""At most so much is copied by one call."""

_RENAME_EXCHANGE = 2
_OPEN_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class Directory(Closing):
    """An open directory. Close it, or use it in a `with` statement."""

    __slots__ = ("fd", "path")

    def __init__(self, fd: int, path: str) -> None:
        self.fd = fd
        self.path = path
        """For messages only."""

    @classmethod
    def open(cls, path: Path | str) -> Directory:
        """Open a directory by a path that the administrator gave: links on the way are his and are followed."""
        return cls(os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC), str(path))

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    # -- looking ---------------------------------------------------------------------------------------------------

    def descend(self, relative: str) -> Directory:
        """Open a directory below this one without following links.

        Raises UnsafePathError if a component is a link or `..`; FileNotFoundError or NotADirectoryError as they come.
        """
        fd = os.dup(self.fd)
        walked = self.path.rstrip("/")
        for component in components(relative):
            walked = f"{walked}/{component}"
            try:
                below = os.open(component, _OPEN_DIRECTORY, dir_fd=fd)
            except OSError as error:
                link = error.errno in (errno.ELOOP, errno.ENOTDIR) and _is_link(fd, component)
                os.close(fd)
                if link:
                    raise UnsafePathError(
                        f"{walked} is a symbolic link where a directory is expected",
                        hint="replace the link by the directory that it stands for",
                    ) from error
                raise
            os.close(fd)
            fd = below
        return Directory(fd, walked or "/")

    def lstat(self, name: str) -> os.stat_result | None:
        """Status of an entry, None if there is none."""
        try:
            return os.stat(name, dir_fd=self.fd, follow_symlinks=False)
        except FileNotFoundError:
            return None

    def names(self) -> list[str]:
        return os.listdir(self.fd)

    def open_file(self, name: str) -> BinaryIO:
        """Open a regular file for reading; raises UnsafePathError for anything else."""
        try:
            fd = os.open(name, _OPEN_FILE, dir_fd=self.fd)
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise UnsafePathError(f"{self.path}/{name} is a symbolic link") from error
            raise
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise UnsafePathError(f"{self.path}/{name} is not a regular file")
        return os.fdopen(fd, "rb")

    def readlink(self, name: str) -> str:
        return os.readlink(name, dir_fd=self.fd)

    # -- changing --------------------------------------------------------------------------------------------------

    def write_file(
        self,
        name: str,
        chunks: Iterable[bytes],
        *,
        mode: int = 0o600,
        owner: tuple[int, int] | None = None,
        mtime: float | None = None,
        durable: bool = False,
    ) -> None:
        """Create a regular file; on any failure nothing is left of it. `owner` is (uid, gid), None keeps ours.

        durable: return only when its content is on disk; for its name see `sync_names`.
        """

        def fill(fd: int) -> None:
            for chunk in chunks:
                _write_all(fd, chunk)

        self._create_file(name, fill, mode=mode, owner=owner, mtime=mtime, durable=durable)

    def copy_content(
        self, source: BinaryIO, name: str, *, mode: int, owner: tuple[int, int], mtime: float | None = None
    ) -> None:
        """Create a regular file with the content of an open one, of which nothing was read; else as `write_file`."""
        self._create_file(name, lambda fd: _copy(source, fd), mode=mode, owner=owner, mtime=mtime, durable=False)

    def _create_file(
        self,
        name: str,
        fill: Callable[[int], None],
        *,
        mode: int,
        owner: tuple[int, int] | None,
        mtime: float | None,
        durable: bool,
    ) -> None:
        fd = os.open(name, _CREATE_FILE, 0o600, dir_fd=self.fd)
        try:
            try:
                fill(fd)
                if owner is not None:
                    os.fchown(fd, *owner)
                os.fchmod(fd, mode)
                if mtime is not None:
                    os.utime(fd, (mtime, mtime))
                if durable:
                    os.fsync(fd)
            finally:
                os.close(fd)
        except BaseException:
            with suppress(OSError):
                os.unlink(name, dir_fd=self.fd)
            raise

    def replace_file(self, name: str, data: bytes, *, mode: int = 0o644) -> None:
        """Write a whole file beside `name`, sync it and rename it over: readers see the old content or the new.

        On any failure nothing is left of the new one.
        """
        temporary = f".{name}.new"
        with suppress(FileNotFoundError):
            self.unlink(temporary)
        self.write_file(temporary, [data], mode=mode, durable=True)
        try:
            self.rename(temporary, name)
        except BaseException:
            with suppress(OSError):
                self.unlink(temporary)
            raise

    def copy_file(self, source: Directory, source_name: str, name: str, *, durable: bool = False) -> None:
        """Create a copy of a regular file with its owner, mode, times and extended attributes.

        durable: as for `write_file`.
        """
        with source.open_file(source_name) as old:
            status = os.fstat(old.fileno())
            mode, owner = stat.S_IMODE(status.st_mode), (status.st_uid, status.st_gid)
            self.copy_content(old, name, mode=mode, owner=owner)
            attributes = os.listxattr(old.fileno())
            try:
                fd = os.open(name, _OPEN_FILE, dir_fd=self.fd)
                try:
                    for attribute in attributes:
                        os.setxattr(fd, attribute, os.getxattr(old.fileno(), attribute))
                    os.utime(fd, ns=(status.st_atime_ns, status.st_mtime_ns))
                    if durable:
                        os.fsync(fd)
                finally:
                    os.close(fd)
            except BaseException:
                with suppress(OSError):
                    os.unlink(name, dir_fd=self.fd)
                raise

    def make_link(self, name: str, target: str, *, owner: tuple[int, int] | None = None) -> None:
        """Create a symbolic link."""
        os.symlink(target, name, dir_fd=self.fd)
        if owner is not None:
            os.chown(name, *owner, dir_fd=self.fd, follow_symlinks=False)

    def make_directory(self, name: str, *, mode: int = 0o755, owner: tuple[int, int] | None = None) -> None:
        os.mkdir(name, 0o700, dir_fd=self.fd)
        self.set_attributes(name, mode=mode, owner=owner)

    def set_attributes(self, name: str, *, mode: int, owner: tuple[int, int] | None) -> None:
        """Mode and owner of a directory that exists."""
        fd = os.open(name, _OPEN_DIRECTORY, dir_fd=self.fd)
        try:
            if owner is not None:
                os.fchown(fd, *owner)
            os.fchmod(fd, mode)
        finally:
            os.close(fd)

    def set_extended_attributes(self, name: str, wanted: Mapping[str, bytes], *, remove: Iterable[str] = ()) -> None:
        """Set extended attributes of a directory that exists, and remove others."""
        fd = os.open(name, _OPEN_DIRECTORY, dir_fd=self.fd)
        try:
            for attribute in remove:
                os.removexattr(fd, attribute)
            for attribute, value in wanted.items():
                os.setxattr(fd, attribute, value)
        finally:
            os.close(fd)

    def hard_link(self, source: Directory, source_name: str, name: str) -> None:
        """Give an object of `source` a second name here (same file system)."""
        os.link(source_name, name, src_dir_fd=source.fd, dst_dir_fd=self.fd, follow_symlinks=False)

    def rename(self, old: str, new: str, *, to: Directory | None = None) -> None:
        os.rename(old, new, src_dir_fd=self.fd, dst_dir_fd=(to or self).fd)

    def exchange(self, one: str, other: str) -> None:
        """Let two objects change their names in one step; where that is impossible it fails as CANNOT_EXCHANGE says."""
        _exchange(self.fd, one, other)

    def unlink(self, name: str) -> None:
        os.unlink(name, dir_fd=self.fd)

    def remove_directory(self, name: str) -> None:
        """Remove an empty directory."""
        os.rmdir(name, dir_fd=self.fd)

    def remove_tree(self, name: str) -> None:
        """Remove an entry and all below it; what is not there is fine. Only ever for our own state."""
        status = self.lstat(name)
        if status is None:
            return
        if not stat.S_ISDIR(status.st_mode):
            self.unlink(name)
            return
        with self.descend(name) as below:
            for entry in below.names():
                below.remove_tree(entry)
        self.remove_directory(name)

    def append_file(self, name: str, *, keep: int) -> BinaryIO:
        """Open a regular file for writing behind its first `keep` bytes; what follows them is cut off. Made if missing.

        Raises UnsafePathError for anything but a regular file.
        """
        flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            fd = os.open(name, flags, 0o600, dir_fd=self.fd)
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.EISDIR, errno.ENXIO):
                raise UnsafePathError(f"{self.path}/{name} is not a regular file") from error
            raise
        try:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise UnsafePathError(f"{self.path}/{name} is not a regular file")
            os.ftruncate(fd, keep)
            os.lseek(fd, keep, os.SEEK_SET)
        except BaseException:
            os.close(fd)
            raise
        return os.fdopen(fd, "wb")

    def sync(self) -> None:
        """Wait until all changes of this file system are on disk."""
        _syncfs(self.fd, self.path)

    def sync_names(self) -> None:
        """Wait until what happened to the names in this directory is on disk."""
        os.fsync(self.fd)


def components(path: str) -> list[str]:
    """The components of a path; `.` and empty ones are dropped, `..` raises UnsafePathError."""
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise UnsafePathError(f"{path} contains '..'")
    return parts


def chunks_of(stream: BinaryIO, size: int = 1 << 20) -> Iterator[bytes]:
    """The content of a stream in pieces."""
    while chunk := stream.read(size):
        yield chunk


def replace_file(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """Write a whole file beside `path`, sync it and rename it over: readers see the old content or the new.

    On any failure nothing is left of the new one.
    """
    with Directory.open(path.parent) as parent:
        parent.replace_file(path.name, data, mode=mode)


def make_directories(path: Path, mode: int = 0o755) -> None:
    """Make a directory that the administrator named, with all above it that are missing."""
    os.makedirs(path, mode=mode, exist_ok=True)


def _is_link(fd: int, name: str) -> bool:
    return stat.S_ISLNK(os.stat(name, dir_fd=fd, follow_symlinks=False).st_mode)


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def _copy(source: BinaryIO, fd: int) -> None:
    """Copy a file into an empty one. The kernel lets them share their content if it can, or copies it by itself."""
    try:
        while os.copy_file_range(source.fileno(), fd, _COPY_BYTES):
            pass
    except OSError as error:
        if error.errno not in _CANNOT_SHARE:
            raise
    # What is left is nothing, or all of it from a file system where the kernel cannot.
    for chunk in chunks_of(source):
        _write_all(fd, chunk)


def _syncfs(fd: int, path: str) -> None:
    _check(_libc().syncfs(fd), path)


def _exchange(fd: int, one: str, other: str) -> None:
    # Linux 3.15, glibc 2.28
    _check(_libc().renameat2(fd, os.fsencode(one), fd, os.fsencode(other), _RENAME_EXCHANGE), other)


def _check(result: int, path: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), path)


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)
