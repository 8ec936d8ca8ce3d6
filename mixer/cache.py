"""A directory of files under keys, each made once: what every store of the builder is kept in.

`<directory>/<first two digits>/<key>`; a key is lower-case hexadecimal, perhaps followed by a suffix. Rules:

* A file appears whole and durable: it is written under `.new`, and renamed only after one `syncfs` for many of them.
* Whoever is killed loses the work of the last COMMIT_SECONDS or COMMIT_BYTES; what it left is removed by the next one.
* Everything may be removed at any time; it is made again from what it was made of.

One process at a time fills a cache; the workspace's lock sees to it. Reading is possible from anywhere.
"""

from __future__ import annotations

import errno
import os
import shutil
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from swupd.fs import Directory

COMMIT_BYTES = 64 * 1024 * 1024
COMMIT_SECONDS = 10.0
"""Bytes of new files, or time, after which they are synced and renamed."""
PUBLISHED_MODE = 0o644
"""Mode of every file, whatever the umask is: many are published, and a web server has to read them."""

_NO_LINK = frozenset({errno.EXDEV, errno.EMLINK, errno.EPERM, errno.ENOTSUP})
"""Why a hard link is refused where a copy still works."""


class Cache:
    """The files below one directory, which is created when the first one is added."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def path(self, key: str) -> Path:
        """Where the file lies if it was made."""
        return self._directory / key[:2] / key

    def missing(self, keys: Iterable[str]) -> set[str]:
        """Those of the keys that have no file."""
        have: dict[str, set[str]] = {}
        lacking: set[str] = set()
        for key in keys:
            shard = key[:2]
            if shard not in have:
                try:
                    have[shard] = set(os.listdir(self._directory / shard))
                except FileNotFoundError:
                    have[shard] = set()
            if key not in have[shard]:
                lacking.add(key)
        return lacking

    @contextmanager
    def filling(self) -> Iterator[Filler]:
        """Add files; those that are complete when the block is left in any way are kept."""
        new = self._directory / ".new"
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir(parents=True)
        filler = Filler(self, new)
        try:
            yield filler
        finally:
            try:
                filler.commit()
            finally:
                shutil.rmtree(new, ignore_errors=True)


class Filler:
    """Takes new files. Its methods are called by one thread; files at different places may be written by others."""

    def __init__(self, cache: Cache, new: Path) -> None:
        self._cache = cache
        self._new = new
        self._finished: list[str] = []
        self._uncommitted = 0
        self._committed_at = time.monotonic()

    def put(self, key: str, data: bytes) -> None:
        """Add a file."""
        with self.place(key).open("xb") as target:
            os.fchmod(target.fileno(), PUBLISHED_MODE)
            target.write(data)
        self.done(key, len(data))

    def place(self, key: str) -> Path:
        """Where to write a file that is too large to be given to `put`; then comes `done`."""
        return self._new / key

    def done(self, key: str, size: int) -> None:
        """The file at `place(key)` is complete."""
        self._finished.append(key)
        self._uncommitted += size
        if self._uncommitted >= COMMIT_BYTES or time.monotonic() - self._committed_at >= COMMIT_SECONDS:
            self.commit()

    def commit(self) -> None:
        """Make finished files durable, then visible."""
        if not self._finished:
            return
        for parent in {self._cache.path(key).parent for key in self._finished}:
            parent.mkdir(exist_ok=True)
        with Directory.open(self._new) as new:
            new.sync()
        for key in self._finished:
            os.rename(self._new / key, self._cache.path(key))
        self._finished = []
        self._uncommitted = 0
        self._committed_at = time.monotonic()


def link_or_copy(source: Path, target: Path) -> int:
    """Hard link, or copy where the system refuses one (another device); returns the size."""
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError as error:
        if error.errno not in _NO_LINK:
            raise
        shutil.copyfile(source, target)
        shutil.copymode(source, target)
    return target.stat().st_size
