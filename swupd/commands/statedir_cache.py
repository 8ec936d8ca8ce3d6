"""Content that another state directory has already (option --statedir-cache of os-install, specification section 6.2).

An installation medium brings a state directory with everything downloaded; what is needed of it becomes part of our
own cache, by hard link or copy, before the server is asked. Nothing is trusted: whoever uses the cache verifies it.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from swupd.errors import UsageError
from swupd.fs import Directory, chunks_of
from swupd.statedir import StateDir

_MANIFESTS = "manifest"


class StatedirCache:
    """The state directory `source`, as far as it has content of the URL that `statedir` is for."""

    def __init__(self, source: Path, statedir: StateDir) -> None:
        if not source.is_dir():
            raise UsageError(f"{source} is no directory", hint="--statedir-cache takes a state directory")
        self._source = source / statedir.content.relative_to(statedir.cache_dir)
        self._statedir = statedir

    def lend_manifests(self) -> None:
        """Take over all manifests that we do not have."""
        with _opened(self._source / _MANIFESTS) as versions:
            for version in versions.names() if versions else ():
                if not (version.isascii() and version.isdigit()) or versions is None:
                    continue
                with suppress(NotADirectoryError), versions.descend(version) as directory:
                    for name in directory.names():
                        if self._statedir.read_manifest(int(version), name) is None:
                            with suppress(OSError), directory.open_file(name) as file:
                                self._statedir.write_manifest(int(version), name, file.read())

    def lend_objects(self, hashes: Iterable[str]) -> None:
        """Take over staged objects that we do not have."""
        with _opened(self._source / self._statedir.staged.name) as theirs, _opened(self._statedir.staged) as ours:
            if theirs is None or ours is None:
                return
            for name in hashes:
                if ours.lstat(name) is None:
                    with suppress(FileNotFoundError):
                        _copy(theirs, ours, name)


@contextmanager
def _opened(path: Path) -> Iterator[Directory | None]:
    """A directory, None if there is none."""
    try:
        directory = Directory.open(path)
    except (FileNotFoundError, NotADirectoryError):
        yield None
        return
    with directory:
        yield directory


def _copy(source: Directory, target: Directory, name: str) -> None:
    """Give an object a second name, or copy it with owner and mode where that is impossible."""
    status = source.lstat(name)
    if status is None:
        return
    owner = (status.st_uid, status.st_gid)
    if stat.S_ISDIR(status.st_mode):
        target.make_directory(name, mode=stat.S_IMODE(status.st_mode), owner=owner)
    elif stat.S_ISLNK(status.st_mode):
        target.make_link(name, source.readlink(name), owner=owner)
    elif stat.S_ISREG(status.st_mode):
        try:
            target.hard_link(source, name, name)
        except OSError:
            with source.open_file(name) as file:
                mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
                target.write_file(name, chunks_of(file), mode=mode, owner=owner, mtime=status.st_mtime)
