"""What goes from the cache: on request (`clean`, specification section 6.2), and by policy after a command (`trim`).

Rules for both:

* Everything here can be fetched again, except what `clean` takes on request: the old files of a rollback. Tracking
  files, the lock, the version file and the history are never touched.
* Everything is reached through descriptors without following links.
* A file that has another name, such as an installed one, counts no bytes: removing it frees none.

`trim` leaves manifests of the current version alone, and keeps what an unfinished operation has staged as long as it is
neither too old nor too much. The markers that say which packs are unpacked go before the objects of those packs.
"""

from __future__ import annotations

import os
import re
import stat
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import NamedTuple

from swupd.fs import Directory
from swupd.statedir import MANIFEST, PARTS, PRIVATE, UNKNOWN_URL, StateDir, failure
from swupd.transaction import kept

DEFAULT_LIMIT = 4 << 30
"""Bytes that the cache of a content URL may keep."""
DEFAULT_DAYS = 30
"""How long something that nobody needs may stay."""

_DAY_SECONDS = 86400
_MANIFEST_FILE = re.compile(r"Manifest\..+")
_LEFT_OVER = re.compile(r"Manifest\..+\.[0-9a-f]{64}|\..+")
"""Beside manifests: the original's marks of verified ones, and files that were never finished."""
_MANIFEST_DELTA = re.compile(r"Manifest-.+")
_PACK_MARKER = re.compile(r"pack-.+\.tar")
_NUMBER = re.compile(r"[0-9]+")


@dataclass
class CleanReport:
    """What was removed, or would be: files, and the bytes that become free."""

    files: int = 0
    bytes: int = 0
    paths: list[str] = field(default_factory=list)

    def add(self, other: CleanReport) -> None:
        self.files += other.files
        self.bytes += other.bytes
        self.paths += other.paths


def clean(statedir: StateDir, mom: bytes | None, *, everything: bool = False, dry_run: bool = False) -> CleanReport:
    """Remove from the cache what is not needed any more, the caches of other content URLs included.

    mom: the text of the current MoM; manifests of versions whose number occurs in it are kept. None keeps none.
    everything: remove the whole cache, and the old files that a rollback would need. Raises StateDirectoryError.
    """
    cleaner = _Cleaner(dry_run)
    try:
        with Directory.open(statedir.cache_dir) as top:
            _clean_old_layout(cleaner, top)
            if everything:
                cleaner.remove(top, statedir.content.parent.name)
                _drop_kept(cleaner, statedir, dry_run=dry_run)
            elif (cache := _descend(top, statedir.content.parent.name)) is not None:
                with cache:
                    _clean_cache(cleaner, cache, statedir.content.name, mom)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise failure("clean the state directory", statedir.cache_dir, error) from error
    return cleaner.report


def _drop_kept(cleaner: _Cleaner, statedir: StateDir, *, dry_run: bool) -> None:
    with Directory.open(statedir.data_dir) as data:
        counter = _Cleaner(dry_run=True)
        counter.remove(data, kept.KEPT)
    cleaner.report.add(counter.report)
    if not dry_run:
        kept.drop(statedir.data_dir)


def trim(statedir: StateDir, mom: bytes | None, *, limit: int = DEFAULT_LIMIT, days: int = DEFAULT_DAYS) -> CleanReport:
    """Bring the cache of this content URL to at most `limit` bytes, and remove what is older than `days`.

    What is made again most easily goes first, then objects, the oldest first. mom: as for `clean`. Raises
    StateDirectoryError.
    """
    cleaner = _Cleaner(dry_run=False)
    try:
        with Directory.open(statedir.content) as content:
            going = list(_surplus(sorted(_items(statedir, content, mom)), limit, time.time() - days * _DAY_SECONDS))
            if any(item.is_object for item in going):
                _clean_markers(cleaner, content)
            for item in going:
                with content.descend(item.part) as part:
                    cleaner.remove(part, item.name)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise failure("trim the cache", statedir.content, error) from error
    return cleaner.report


class _Item(NamedTuple):
    """An entry of a part of the cache; they sort in the order in which they go."""

    is_needed: bool
    is_object: bool
    since: float
    """When it came here. (Its time of modification is that of its content.)"""
    part: str
    name: str
    bytes: int


def _items(statedir: StateDir, content: Directory, mom: bytes | None) -> Iterator[_Item]:
    needed = _current_versions(mom)
    objects = {statedir.staged.name, statedir.download.name}
    for name in PARTS:
        part = _descend(content, name)
        if part is None:
            continue
        with part:
            for entry in part.names():
                status = part.lstat(entry)
                if status is not None:
                    is_needed = name == MANIFEST and entry in needed
                    yield _Item(is_needed, name in objects, status.st_ctime, name, entry, _size(part, entry))


def _surplus(items: Sequence[_Item], limit: int, oldest: float) -> Iterator[_Item]:
    total = sum(item.bytes for item in items)
    for item in items:
        if not item.is_needed and (item.since < oldest or (total > limit and item.bytes)):
            total -= item.bytes
            yield item


def _size(parent: Directory, name: str) -> int:
    """The bytes that become free when an entry and all below it goes."""
    status = parent.lstat(name)
    if status is None:
        return 0
    if stat.S_ISDIR(status.st_mode):
        with parent.descend(name) as below:
            return sum(_size(below, entry) for entry in below.names())
    return _freed(status)


def _freed(status: os.stat_result) -> int:
    """The bytes of a file that become free with this name: another one keeps them on the disk."""
    return status.st_size if status.st_nlink == 1 else 0


def _current_versions(mom: bytes | None) -> frozenset[str]:
    """The names of the directories of manifests that a MoM speaks of."""
    return frozenset(word.decode() for word in (mom or b"").split() if word.isdigit())


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
        self.report.bytes += _freed(status)
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


def _clean_cache(cleaner: _Cleaner, cache: Directory, own: str, mom: bytes | None) -> None:
    for name in sorted(cache.names()):
        if own not in (name, UNKNOWN_URL):
            cleaner.remove(cache, name)
    content = _descend(cache, own)
    if content is None:
        return
    with content:
        _clean_markers(cleaner, content)
        for name, mode in PARTS.items():
            part = _descend(content, name)
            if part is None:
                continue
            with part:
                if mode == PRIVATE:
                    cleaner.empty(part)
                else:
                    _clean_manifests(cleaner, part, mom)


def _clean_markers(cleaner: _Cleaner, content: Directory) -> None:
    for name in sorted(content.names()):
        if _PACK_MARKER.fullmatch(name):
            cleaner.remove(content, name)


def _clean_manifests(cleaner: _Cleaner, manifests: Directory, mom: bytes | None) -> None:
    wanted = _current_versions(mom)
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
        if name in PARTS or _PACK_MARKER.fullmatch(name) or _MANIFEST_DELTA.fullmatch(name):
            cleaner.remove(top, name)
        elif _NUMBER.fullmatch(name) and (version := _descend(top, name)) is not None:
            with version:
                for file in sorted(version.names()):
                    if _MANIFEST_FILE.fullmatch(file):
                        cleaner.remove(version, file)
            cleaner.remove_if_empty(top, name)
