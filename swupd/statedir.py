"""The state directory: cache, tracking files and the lock (swupd client specification, section 5.2).

What it guarantees:

* The layout is the original client's, so both may work on one system, one after the other.
* A part of the cache with the wrong type, owner or mode is removed and made again, because somebody else may have
  written into it. Tracking files are the only state that cannot be fetched again: their directory is put right in
  place and only removed if it is no directory at all.
* Everything below the two directories is reached through descriptors without following links; the directories
  themselves are the administrator's and must belong to us alone, or nothing is done.
* Files appear in the cache under their final name in one step. Nothing is synced: whatever is read from the cache
  is verified again by its reader.
* The lock is a POSIX record lock (`fcntl`), the only kind that the original respects. The kernel drops it when the
  process ends, and also when the process closes any other descriptor of that file: nobody else may open it.

Only one thread may use `prepare`; the others may be used from any. What goes from the cache is decided in
`swupd.cleaning`.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import stat
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from swupd.errors import (
    DiskSpaceError,
    LockedError,
    StateDirectoryError,
    UnsafePathError,
    UsageError,
    is_disk_full,
)
from swupd.formats import layout
from swupd.fs import Directory, make_directories

DEFAULT = "/var/lib/swupd"
"""Where cache and data are unless somebody says otherwise."""
CACHED_MANIFEST_LIMIT = 1 << 30
"""Bytes; a larger file in the cache is no manifest."""

MANIFEST = "manifest"
_DOWNLOAD = "download"
_TEMP = "temp"
PRIVATE = 0o700
_READABLE = 0o755
PARTS = {
    MANIFEST: _READABLE,
    layout.STAGED_DIRECTORY: PRIVATE,
    layout.DELTA_DIRECTORY: PRIVATE,
    _DOWNLOAD: PRIVATE,
    _TEMP: PRIVATE,
}
_CACHE = "cache"
_BUNDLES = "bundles"
UNKNOWN_URL = "_"
"""Stands for the content directory while the content URL is unknown."""
_PID = struct.Struct("@i")
_VERSION = re.compile(r"[1-9][0-9]{0,9}")
_PRECIOUS = ("", "var", "usr")


class StateDir:
    """The state of one system and one content URL. Nothing is opened or made before `prepare`.

    shared_cache: another cache directory, whose manifests are read where this one has none; it is never changed.
    """

    def __init__(self, cache_dir: Path, data_dir: Path, content_url: str, *, shared_cache: Path | None = None) -> None:
        self.cache_dir = cache_dir
        self.data_dir = data_dir
        try:
            self._content_name = layout.cache_name(content_url) if content_url else UNKNOWN_URL
        except ValueError as error:
            raise UsageError(
                f"the content URL {content_url} cannot name a directory", hint="use another --contenturl"
            ) from error
        self.content = cache_dir / _CACHE / self._content_name
        """All that comes from the content URL."""
        self._shared = shared_cache / _CACHE / self._content_name if shared_cache is not None else None
        self.staged = self.content / layout.STAGED_DIRECTORY
        self.delta = self.content / layout.DELTA_DIRECTORY
        self.download = self.content / _DOWNLOAD
        self.temp = self.content / _TEMP
        self.tracking = data_dir / _BUNDLES
        self.lock_file = data_dir / "swupd_lock"
        self.version_file = data_dir / "version"

    def manifests(self, version: int) -> Path:
        """The directory of the cached manifests of one version."""
        return self.content / MANIFEST / str(version)

    def pack_marker(self, bundle: str, from_version: int, version: int) -> Path:
        """The empty file that says: this pack has been unpacked."""
        return self.content / layout.pack_marker(bundle, from_version, version)

    def prepare(self) -> None:
        """Make what is missing and put right what is wrong; StateDirectoryError if that is impossible."""
        try:
            for path in (self.cache_dir, self.data_dir):
                check_location(path, Path("/"))
                make_directories(path, mode=_READABLE)
                check_owner(path)
            with Directory.open(self.data_dir) as data:
                _ensure(data, _BUNDLES, _READABLE, keep=True)
            with Directory.open(self.cache_dir) as top:
                _ensure(top, _CACHE, _READABLE, keep=True)
                with top.descend(_CACHE) as cache:
                    _ensure(cache, self._content_name, _READABLE, keep=True)
                    with cache.descend(self._content_name) as content:
                        for name, mode in PARTS.items():
                            _ensure(content, name, mode)
        except OSError as error:
            raise failure("prepare the state directory", self.cache_dir, error) from error

    def read_manifest(self, version: int, name: str) -> bytes | None:
        """The cached file `manifest/<version>/<name>` as it is, unverified; None if there is none of sane size."""
        try:
            data = _read_manifest(self.content, version, name)
        except OSError as error:
            raise failure(f"read the cached {name}", self.manifests(version), error) from error
        if data is None and self._shared is not None:
            # What is somebody else's may be closed to us, or odd: then it is of no use.
            with suppress(OSError, UnsafePathError):
                data = _read_manifest(self._shared, version, name)
        return data

    def cached_versions(self) -> list[int]:
        """The versions that the manifest cache has something of, the newest first."""
        try:
            names = _manifest_directories(self.content)
        except OSError as error:
            raise failure("list the cached manifests", self.content, error) from error
        if self._shared is not None:
            with suppress(OSError, UnsafePathError):
                names |= _manifest_directories(self._shared)
        return sorted((int(name) for name in names if _VERSION.fullmatch(name)), reverse=True)

    def write_manifest(self, version: int, name: str, data: bytes) -> None:
        """Put `manifest/<version>/<name>` into the cache, mode 0644, in one step."""
        temporary = f".{name}.new"
        try:
            with Directory.open(self.content) as content, content.descend(MANIFEST) as manifests:
                if manifests.lstat(str(version)) is None:
                    with suppress(FileExistsError):
                        manifests.make_directory(str(version), mode=_READABLE)
                with manifests.descend(str(version)) as directory:
                    directory.remove_tree(temporary)
                    directory.write_file(temporary, [data], mode=0o644)
                    _make_way(directory, name)
                    directory.rename(temporary, name)
        except OSError as error:
            raise failure(f"write {len(data)} bytes of {name}", self.manifests(version), error) from error

    def drop_manifest(self, version: int, *names: str) -> None:
        """Remove cached files of a version; what is not there is fine."""
        try:
            with Directory.open(self.content) as content, content.descend(f"{MANIFEST}/{version}") as directory:
                for name in names:
                    directory.remove_tree(name)
        except (FileNotFoundError, NotADirectoryError):
            return
        except OSError as error:
            raise failure("remove cached manifests", self.manifests(version), error) from error


@contextmanager
def lock(statedir: StateDir) -> Iterator[None]:
    """Hold the system's lock; LockedError if another process has it. The data directory must exist."""
    try:
        fd = os.open(statedir.lock_file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise failure("open the lock file", statedir.lock_file, error) from error
    try:
        try:
            fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EAGAIN):
                raise failure("lock", statedir.lock_file, error) from error
            raise LockedError(
                f"another swupd is running{_holder(fd)}; it holds {statedir.lock_file}",
                hint="wait until it has finished, then try again",
            ) from error
        # The pid only informs: a disk that is too full for it does not matter.
        with suppress(OSError):
            os.pwrite(fd, _PID.pack(os.getpid()), 0)
        yield
    finally:
        os.close(fd)


def check_location(path: Path, root: Path) -> None:
    """Refuse a state directory that is a root or one of its top directories: its content may be wiped.

    Both paths are resolved ones. Raises UsageError.
    """
    refused = {Path("/", name) for name in _PRECIOUS} | {root / name for name in _PRECIOUS}
    if path in refused:
        raise UsageError(
            f"{path} cannot be a state directory, because swupd removes what it does not know there",
            hint=f"give a directory of its own, such as {root / DEFAULT.lstrip('/')}",
        )


def _read_manifest(content: Path, version: int, name: str) -> bytes | None:
    """A file of the manifest cache in a content directory; None if there is none of sane size."""
    try:
        with Directory.open(content) as top, top.descend(f"{MANIFEST}/{version}") as directory:
            status = directory.lstat(name)
            if status is None or not stat.S_ISREG(status.st_mode) or status.st_size > CACHED_MANIFEST_LIMIT:
                return None
            with directory.open_file(name) as file:
                # No more than there is: a buffer of the limit's size is more than a small machine has.
                return file.read(status.st_size)
    except (FileNotFoundError, NotADirectoryError):
        return None


def _manifest_directories(content: Path) -> set[str]:
    """The names in the manifest cache of a content directory."""
    try:
        with Directory.open(content) as top, top.descend(MANIFEST) as manifests:
            return set(manifests.names())
    except (FileNotFoundError, NotADirectoryError):
        return set()


def check_owner(path: Path) -> None:
    """Raise StateDirectoryError unless a directory is ours alone: whoever else can write to it could exchange what was
    verified before it is used, or have a journal of his own followed."""
    status = os.stat(path)
    strangers = stat.S_IWOTH | (stat.S_IWGRP if status.st_gid != os.getegid() else 0)
    if status.st_uid != os.geteuid() or status.st_mode & strangers:
        raise StateDirectoryError(
            f"the state directory {path} belongs to another user or can be written by others",
            hint=f"use another one, or: chown -R root:root {path}; chmod go-w {path}",
        )


def _ensure(parent: Directory, name: str, mode: int, *, keep: bool = False) -> None:
    """Make `name` a directory of ours with this mode; `keep` puts an existing one right instead of emptying it."""
    status = parent.lstat(name)
    if status is not None and stat.S_ISDIR(status.st_mode):
        right = stat.S_IMODE(status.st_mode) == mode and status.st_uid == os.geteuid()
        if right:
            return
        if keep:
            parent.set_attributes(name, mode=mode, owner=(os.geteuid(), os.getegid()))
            return
    parent.remove_tree(name)
    parent.make_directory(name, mode=mode)


def _make_way(directory: Directory, name: str) -> None:
    """A directory where a file belongs would make the rename fail."""
    status = directory.lstat(name)
    if status is not None and stat.S_ISDIR(status.st_mode):
        directory.remove_tree(name)


def _holder(fd: int) -> str:
    with suppress(OSError, struct.error):
        return f" as process {_PID.unpack(os.pread(fd, _PID.size, 0))[0]}"
    return ""


def failure(what: str, path: Path, error: OSError) -> StateDirectoryError | DiskSpaceError:
    if is_disk_full(error):
        return DiskSpaceError(
            f"cannot {what} in {path}: the disk is full", hint="free some space, or give another --cachedir"
        )
    hint = "run as root" if error.errno in (errno.EACCES, errno.EPERM) else "check the directory and its file system"
    return StateDirectoryError(f"cannot {what} in {path}: {error.strerror}", hint=hint)
