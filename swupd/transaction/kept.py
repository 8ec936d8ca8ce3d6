"""What an installation replaces and removes, kept so that it can be put back: by itself if it fails, or on request.

`<data>/kept/<number>/` (0700) belongs to one installation. A file is there under its number in the journal, as a second
name of the very same file; where file systems do not allow that, as a copy (`Directory.copy_file`) with everything that
belongs to it. Links and directories are told by the journal alone. When the installation is finished its journal is
added as `journal`, and from then on it can be rolled back. Numbers rise, so that the newest installation has the
highest one.

* What is kept stays until an update that came later is complete (`drop_before`), or until somebody wants the space
  (`drop`). The journal goes first, so that half of something is never taken for all of it.
* A directory without a journal belongs to the unfinished installation that has its number, or to nobody any more.

All of it may only be changed by whoever holds the lock of the data directory.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from swupd.closing import Closing
from swupd.errors import DiskSpaceError, UnsafePathError, is_disk_full
from swupd.fs import Directory
from swupd.transaction import journal
from swupd.transaction.journal import FINISHED, Header, Journal, JournalError, State, move

KEPT = "kept"
_PRIVATE = 0o700
_NO_HARD_LINK = frozenset({errno.EXDEV, errno.EMLINK, errno.EPERM, errno.EOPNOTSUPP})


class Finished(NamedTuple):
    """A finished installation that can be rolled back."""

    number: int
    header: Header


class Kept(Closing):
    """What one installation keeps. Close it, or use it in a `with` statement."""

    def __init__(self, directory: Directory | None) -> None:
        self._directory = directory

    @classmethod
    def make(cls, data: Directory, number: int) -> Kept:
        """An empty place. Raises OSError."""
        with suppress(FileExistsError):
            data.make_directory(KEPT, mode=_PRIVATE)
        with data.descend(KEPT) as kept:
            kept.remove_tree(str(number))
            kept.make_directory(str(number), mode=_PRIVATE)
            return cls(kept.descend(str(number)))

    @classmethod
    def open(cls, data: Directory, number: int) -> Kept:
        """What is kept under a number; a missing directory is as good as an empty one. Raises OSError."""
        try:
            return cls(data.descend(f"{KEPT}/{number}"))
        except FileNotFoundError:
            return cls(None)

    def close(self) -> None:
        if self._directory is not None:
            self._directory.close()

    def keep(self, directory: Directory, base: str, number: int) -> None:
        """Keep a file. Raises OSError, UnsafePathError for a device where only a copy would do, DiskSpaceError."""
        keeping = self._directory
        if keeping is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), KEPT)
        try:
            try:
                keeping.hard_link(directory, base, str(number))
            except OSError as error:
                if error.errno not in _NO_HARD_LINK:
                    raise
                keeping.copy_file(directory, base, str(number))
        except OSError as error:
            if is_disk_full(error):
                raise DiskSpaceError(
                    f"no space left in {keeping.path} to keep {directory.path}/{base}, which is replaced; "
                    "nothing was changed",
                    hint="make room on that file system; 'swupd clean --all' drops what is kept of earlier updates",
                ) from error
            raise

    def put_back(self, number: int, directory: Directory, base: str, aside: str) -> None:
        """Put a file in its place again, in one step; one that has been put back is not kept any more.

        aside: as for `coming_back`, where only a copy is possible. Raises OSError.
        """
        if self._directory is None:
            return
        try:
            # Of two names of the same file both stay.
            self._directory.rename(str(number), base, to=directory)
        except FileNotFoundError:
            if self._directory.lstat(str(number)) is not None:
                raise
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            with coming_back(directory, base, aside) as name:
                directory.copy_file(self._directory, str(number), name)


@contextmanager
def coming_back(directory: Directory, base: str, aside: str) -> Iterator[str]:
    """The name under which something is to be made that then takes the place `base` in one step.

    aside: a free name, or one that an earlier attempt has left; empty if the place is free. Raises OSError.
    """
    name = aside or base
    with suppress(FileNotFoundError):
        directory.unlink(name)
    try:
        yield name
        if aside:
            directory.rename(aside, base)
    except OSError:
        with suppress(OSError):
            directory.unlink(name)
        raise


def next_number(data: Directory) -> int:
    """A number that is higher than all that are there. Raises OSError."""
    return max(_numbers(data), default=0) + 1


def file_installed(data: Directory) -> int:
    """Add the journal of an installation whose files are in place to what it keeps: it is finished. Raises OSError.

    One that keeps nothing just ends. Returns its number, 0 if there is none.
    """
    try:
        installed = Journal.open(data, State.INSTALLED, only_header=True)
    except JournalError:
        return 0
    if installed is None:
        return 0
    if not installed.header.purpose.keep:
        discard(installed)
        return installed.header.number
    try:
        with data.descend(f"{KEPT}/{installed.header.number}") as directory:
            move(data, State.INSTALLED.value, directory, FINISHED)
    except FileNotFoundError:
        installed.remove()  # somebody has removed what was kept
    return installed.header.number


def discard(ended: Journal) -> None:
    """Drop what an installation keeps, and its journal. Raises OSError."""
    remove(ended.data, ended.header.number)
    ended.remove()


def finished(data: Directory) -> list[Finished]:
    """What can be rolled back, the newest first; damaged journals are left out. Raises OSError."""
    found = []
    for number in sorted(_numbers(data), reverse=True):
        with (
            suppress(FileNotFoundError, NotADirectoryError, UnsafePathError, JournalError),
            data.descend(f"{KEPT}/{number}") as directory,
        ):
            found.append(Finished(number, journal.finished(directory)))
    return found


def drop_before(data: Directory, number: int) -> None:
    """Drop all that is kept of installations before this one. Raises OSError."""
    for other in _numbers(data):
        if other < number:
            remove(data, other)


def drop(data_dir: Path) -> None:
    """Drop all that is kept; there is nothing to roll back then. Raises OSError."""
    with Directory.open(data_dir) as data:
        for number in _numbers(data):
            remove(data, number)


def remove(data: Directory, number: int) -> None:
    """Drop what is kept under one number; what is not there is fine. Raises OSError."""
    try:
        kept = data.descend(KEPT)
    except FileNotFoundError:
        return
    with kept:
        with suppress(FileNotFoundError, NotADirectoryError), kept.descend(str(number)) as directory:
            if directory.lstat(FINISHED) is not None:
                directory.unlink(FINISHED)
                directory.sync_names()
        kept.remove_tree(str(number))


def _numbers(data: Directory) -> list[int]:
    try:
        with data.descend(KEPT) as kept:
            return [int(name) for name in kept.names() if name.isascii() and name.isdigit() and str(int(name)) == name]
    except (FileNotFoundError, NotADirectoryError):
        return []
