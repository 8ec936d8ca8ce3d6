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

Only one thread may use `prepare` and `clean`; the others may be used from any.
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
from dataclasses import dataclass, field
from pathlib import Path

from swupd.errors import DiskSpaceError, LockedError, StateDirectoryError, UsageError, is_disk_full
from swupd.formats import layout
from swupd.fs import Directory

DEFAULT = "/var/lib/swupd"
"""Where cache and data are unless somebody says otherwise."""
CACHED_MANIFEST_LIMIT = 1 << 30
"""Bytes; a larger file in the cache is no manifest."""

_MANIFEST = "manifest"
_DOWNLOAD = "download"
_TEMP = "temp"
_PRIVATE = 0o700
_READABLE = 0o755
_PARTS = {
    _MANIFEST: _READABLE,
    layout.STAGED_DIRECTORY: _PRIVATE,
    layout.DELTA_DIRECTORY: _PRIVATE,
    _DOWNLOAD: _PRIVATE,
    _TEMP: _PRIVATE,
}
_CACHE = "cache"
_BUNDLES = "bundles"
_UNKNOWN_URL = "_"
"""Stands for the content directory while the content URL is unknown."""
_PID = struct.Struct("@i")
_PRECIOUS = ("", "var", "usr")
_MANIFEST_FILE = re.compile(r"Manifest\..+")
_LEFT_OVER = re.compile(r"Manifest\..+\.[0-9a-f]{64}|\..+")
"""Beside manifests: the original's marks of verified ones, and files that were never finished."""
_MANIFEST_DELTA = re.compile(r"Manifest-.+")
_PACK_MARKER = re.compile(r"pack-.+\.tar")
_NUMBER = re.compile(r"[0-9]+")


@dataclass
class CleanReport:
    """What `clean` removed, or would remove: files, and the bytes that become free."""

    files: int = 0
    bytes: int = 0
    paths: list[str] = field(default_factory=list)


class StateDir:
    """The state of one system and one content URL. Nothing is opened or made before `prepare`."""

    def __init__(self, cache_dir: Path, data_dir: Path, content_url: str) -> None:
        self.cache_dir = cache_dir
        self.data_dir = data_dir
        self._url_known = bool(content_url)
        try:
            self._content_name = layout.cache_name(content_url) if content_url else _UNKNOWN_URL
        except ValueError as error:
            raise UsageError(
                f"the content URL {content_url} cannot name a directory", hint="use another --contenturl"
            ) from error
        self.content = cache_dir / _CACHE / self._content_name
        """All that comes from the content URL."""
        self.staged = self.content / layout.STAGED_DIRECTORY
        self.delta = self.content / layout.DELTA_DIRECTORY
        self.download = self.content / _DOWNLOAD
        self.temp = self.content / _TEMP
        self.tracking = data_dir / _BUNDLES
        self.lock_file = data_dir / "swupd_lock"
        self.version_file = data_dir / "version"

    def manifests(self, version: int) -> Path:
        """The directory of the cached manifests of one version."""
        return self.content / _MANIFEST / str(version)

    def pack_marker(self, bundle: str, from_version: int, version: int) -> Path:
        """The empty file that says: this pack has been unpacked."""
        return self.content / layout.pack_marker(bundle, from_version, version)

    def prepare(self) -> None:
        """Make what is missing and put right what is wrong; StateDirectoryError if that is impossible."""
        try:
            for path in (self.cache_dir, self.data_dir):
                check_location(path, Path("/"))
                os.makedirs(path, mode=_READABLE, exist_ok=True)
                _check_owner(path)
            with Directory.open(self.data_dir) as data:
                _ensure(data, _BUNDLES, _READABLE, keep=True)
            with Directory.open(self.cache_dir) as top:
                _ensure(top, _CACHE, _READABLE, keep=True)
                with top.descend(_CACHE) as cache:
                    _ensure(cache, self._content_name, _READABLE, keep=True)
                    with cache.descend(self._content_name) as content:
                        for name, mode in _PARTS.items():
                            _ensure(content, name, mode)
        except OSError as error:
            raise _failure("prepare the state directory", self.cache_dir, error) from error

    def read_manifest(self, version: int, name: str) -> bytes | None:
        """The cached file `manifest/<version>/<name>` as it is, unverified; None if there is none of sane size."""
        try:
            with Directory.open(self.content) as content, content.descend(f"{_MANIFEST}/{version}") as directory:
                status = directory.lstat(name)
                if status is None or not stat.S_ISREG(status.st_mode) or status.st_size > CACHED_MANIFEST_LIMIT:
                    return None
                with directory.open_file(name) as file:
                    return file.read(CACHED_MANIFEST_LIMIT)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise _failure(f"read the cached {name}", self.manifests(version), error) from error

    def write_manifest(self, version: int, name: str, data: bytes) -> None:
        """Put `manifest/<version>/<name>` into the cache, mode 0644, in one step."""
        temporary = f".{name}.new"
        try:
            with Directory.open(self.content) as content, content.descend(_MANIFEST) as manifests:
                if manifests.lstat(str(version)) is None:
                    with suppress(FileExistsError):
                        manifests.make_directory(str(version), mode=_READABLE)
                with manifests.descend(str(version)) as directory:
                    directory.remove_tree(temporary)
                    directory.write_file(temporary, [data], mode=0o644)
                    _make_way(directory, name)
                    directory.rename(temporary, name)
        except OSError as error:
            raise _failure(f"write {len(data)} bytes of {name}", self.manifests(version), error) from error

    def drop_manifest(self, version: int, *names: str) -> None:
        """Remove cached files of a version; what is not there is fine."""
        try:
            with Directory.open(self.content) as content, content.descend(f"{_MANIFEST}/{version}") as directory:
                for name in names:
                    directory.remove_tree(name)
        except (FileNotFoundError, NotADirectoryError):
            return
        except OSError as error:
            raise _failure("remove cached manifests", self.manifests(version), error) from error

    def clean(self, mom: bytes | None, *, everything: bool = False, dry_run: bool = False) -> CleanReport:
        """Remove from the cache what is not needed any more (section 6.2, `clean`).

        mom: the text of the current MoM; manifests of versions whose number occurs in it are kept. None keeps none.
        everything: remove the whole cache. Tracking files, the lock and the version file are never touched.
        """
        cleaner = _Cleaner(dry_run)
        try:
            with Directory.open(self.cache_dir) as top:
                _clean_old_layout(cleaner, top)
                if everything:
                    cleaner.remove(top, _CACHE)
                elif (cache := _descend(top, _CACHE)) is not None:
                    with cache:
                        self._clean_cache(cleaner, cache, mom)
        except FileNotFoundError:
            pass
        except OSError as error:
            raise _failure("clean the state directory", self.cache_dir, error) from error
        return cleaner.report

    def _clean_cache(self, cleaner: _Cleaner, cache: Directory, mom: bytes | None) -> None:
        for name in sorted(cache.names()):
            if name != self._content_name and self._url_known:
                cleaner.remove(cache, name)
        content = _descend(cache, self._content_name)
        if content is None:
            return
        with content:
            for name in sorted(content.names()):
                if _PACK_MARKER.fullmatch(name):
                    cleaner.remove(content, name)
            for name, mode in _PARTS.items():
                part = _descend(content, name)
                if part is None:
                    continue
                with part:
                    if mode == _PRIVATE:
                        cleaner.empty(part)
                    else:
                        _clean_manifests(cleaner, part, mom)


@contextmanager
def lock(statedir: StateDir) -> Iterator[None]:
    """Hold the system's lock; LockedError if another process has it. The data directory must exist."""
    try:
        fd = os.open(statedir.lock_file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise _failure("open the lock file", statedir.lock_file, error) from error
    try:
        try:
            fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EAGAIN):
                raise _failure("lock", statedir.lock_file, error) from error
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


def _check_owner(path: Path) -> None:
    """Whoever else can write to the directory could exchange what was verified before it is used."""
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


def _descend(parent: Directory, name: str) -> Directory | None:
    """The directory `name`; None if it is missing or something else."""
    status = parent.lstat(name)
    return parent.descend(name) if status is not None and stat.S_ISDIR(status.st_mode) else None


class _Cleaner:
    """Removes, or only counts."""

    def __init__(self, dry_run: bool) -> None:
        self._dry_run = dry_run
        self.report = CleanReport()

    def remove(self, parent: Directory, name: str) -> None:
        """An entry and all below it."""
        status = parent.lstat(name)
        if status is None:
            return
        if stat.S_ISDIR(status.st_mode):
            with parent.descend(name) as below:
                self.empty(below)
            if not self._dry_run:
                parent.remove_directory(name)
            return
        self.report.files += 1
        # Another name keeps the content on the disk.
        self.report.bytes += status.st_size if status.st_nlink == 1 else 0
        self.report.paths.append(f"{parent.path}/{name}")
        if not self._dry_run:
            parent.unlink(name)

    def empty(self, directory: Directory) -> None:
        for name in sorted(directory.names()):
            self.remove(directory, name)

    def remove_if_empty(self, parent: Directory, name: str) -> None:
        if not self._dry_run:
            with suppress(OSError):
                parent.remove_directory(name)


def _clean_manifests(cleaner: _Cleaner, manifests: Directory, mom: bytes | None) -> None:
    wanted = {word.decode() for word in (mom or b"").split() if word.isdigit()}
    for name in sorted(manifests.names()):
        if name not in wanted:
            cleaner.remove(manifests, name)
            continue
        version = _descend(manifests, name)
        if version is not None:
            with version:
                for file in sorted(version.names()):
                    if _LEFT_OVER.fullmatch(file):
                        cleaner.remove(version, file)


def _clean_old_layout(cleaner: _Cleaner, top: Directory) -> None:
    """What clients before 2020 left directly in the cache directory."""
    for name in sorted(top.names()):
        if name in _PARTS or _PACK_MARKER.fullmatch(name) or _MANIFEST_DELTA.fullmatch(name):
            cleaner.remove(top, name)
        elif _NUMBER.fullmatch(name) and (version := _descend(top, name)) is not None:
            with version:
                for file in sorted(version.names()):
                    if _MANIFEST_FILE.fullmatch(file):
                        cleaner.remove(version, file)
            cleaner.remove_if_empty(top, name)


def _holder(fd: int) -> str:
    with suppress(OSError, struct.error):
        return f" as process {_PID.unpack(os.pread(fd, _PID.size, 0))[0]}"
    return ""


def _failure(what: str, path: Path, error: OSError) -> StateDirectoryError | DiskSpaceError:
    if is_disk_full(error):
        return DiskSpaceError(
            f"cannot {what} in {path}: the disk is full", hint="free some space, or give another --cachedir"
        )
    hint = "run as root" if error.errno in (errno.EACCES, errno.EPERM) else "check the directory and its file system"
    return StateDirectoryError(f"cannot {what} in {path}: {error.strerror}", hint=hint)
