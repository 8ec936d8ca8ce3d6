"""The changes of an installation, and carrying them out: phase C of `swupd.install`.

A list of `Change` is plain values, and each one can be tried again after a crash: what it should bring about may be
there already. A change that fails is noted and the others go on. What goes away is only ever removed by name, so what
somebody else has put into a directory meanwhile stays.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Iterable
from contextlib import suppress
from enum import Enum
from typing import NamedTuple

from swupd.errors import UnsafePathError
from swupd.fs import Directory
from swupd.walker import Walker, follow, split

SIBLING = ".update."
"""Prefix of what is not in its place yet."""
DISPLACED = ".deleted."
"""Prefix of a directory that has just given way to a file or link; it exists for a moment only."""
NAME_BYTES = 255
"""Longest name that a file system takes, in bytes."""

_CANNOT_GO = frozenset({errno.ENOTEMPTY, errno.EEXIST, errno.EBUSY})


class Action(Enum):
    """What a change does."""

    PLACE = "place"
    """Rename the sibling to its name, in place of whatever is there."""
    ATTRIBUTES = "attributes"
    """Set mode and owner of a directory that exists."""
    REMOVE = "remove"
    """Remove a file, a link or an empty directory."""


class Change(NamedTuple):
    """One step, on the name `base` of `directory` ("" is the root)."""

    action: Action
    directory: str
    base: str
    sibling: str = ""
    """PLACE: the name beside it that the new object has now."""
    clear: tuple[str, ...] = ()
    """PLACE over a directory: what is to be removed inside, deepest first, as names relative to it."""
    attributes: tuple[int, int, int] = (0, 0, 0)
    """ATTRIBUTES: mode, uid, gid."""

    @property
    def path(self) -> str:
        return f"{self.directory}/{self.base}"


class Failure(NamedTuple):
    """A path that is not as it should be, and why."""

    path: str
    reason: str


class Commit:
    """Carries out changes below one root, and keeps what became of them."""

    def __init__(self, root: Directory) -> None:
        self._walker = Walker(root, follow)
        self.failures: list[Failure] = []
        self.removed: list[str] = []
        self.kept: list[str] = []
        """Directories that could not be removed because they are not empty, or because something is mounted there."""

    def run(self, changes: Iterable[Change]) -> None:
        for change in changes:
            try:
                if change.action is Action.REMOVE:
                    self._remove(self._walker, change.directory, change.base)
                elif change.action is Action.PLACE:
                    self._place(self._walker.go(change.directory).directory, change)
                else:
                    mode, uid, gid = change.attributes
                    parent = self._walker.go(change.directory).directory
                    parent.set_attributes(change.base, mode=mode, owner=(uid, gid))
            except (OSError, UnsafePathError) as error:
                self.failures.append(Failure(change.path, reason(error)))

    def sync(self, directories: Iterable[str]) -> None:
        """Wait until the file systems of these directories have everything on disk."""
        for path in directories:
            try:
                self._walker.go(path).directory.sync()
            except (OSError, UnsafePathError) as error:
                self.failures.append(Failure(path or "/", f"may not be on disk yet: {reason(error)}"))

    def close(self) -> None:
        self._walker.close()

    def _place(self, directory: Directory, change: Change) -> None:
        old, new = directory.lstat(change.base), directory.lstat(change.sibling)
        try:
            if old is None or new is None or stat.S_ISDIR(old.st_mode) == stat.S_ISDIR(new.st_mode):
                directory.rename(change.sibling, change.base)
            elif stat.S_ISDIR(new.st_mode):
                directory.unlink(change.base)
                directory.rename(change.sibling, change.base)
            else:
                self._displace(directory, change)
        except BaseException:
            with suppress(OSError, UnsafePathError):
                directory.remove_tree(change.sibling)
            raise

    def _displace(self, directory: Directory, change: Change) -> None:
        """A file or link in place of a directory. First the names change hands, so that the path is missing for an
        instant only; then the old content goes."""
        aside = beside(DISPLACED, change.base)
        directory.rename(change.base, aside)
        try:
            directory.rename(change.sibling, change.base)
        except BaseException:
            directory.rename(aside, change.base)
            raise
        with directory.descend(aside) as old, Walker(old, follow) as walker:
            for name in change.clear:
                self._remove(walker, *split(f"/{name}"), above=change.path)
        try:
            directory.remove_directory(aside)
        except OSError as error:
            text = f"was replaced, but its old directory is not empty and is {change.directory}/{aside} now"
            raise OSError(error.errno, text) from error

    def _remove(self, walker: Walker, parent: str, base: str, *, above: str = "") -> None:
        """Remove one name; a parent that is missing, or a link by now, means that the path is gone already."""
        try:
            directory = walker.go(parent).directory
        except (FileNotFoundError, NotADirectoryError, UnsafePathError):
            return
        status = directory.lstat(base)
        if status is None:
            return
        path = f"{above}{parent}/{base}"
        if not stat.S_ISDIR(status.st_mode):
            directory.unlink(base)
        else:
            try:
                directory.remove_directory(base)
            except OSError as error:
                if error.errno not in _CANNOT_GO:
                    raise
                self.kept.append(path)
                return
        self.removed.append(path)


def beside(prefix: str, base: str, *, short: bool = False) -> str:
    """A name next to `base` that every file system takes."""
    name = prefix + base
    if short or len(os.fsencode(name)) > NAME_BYTES:
        return prefix + hashlib.sha256(os.fsencode(base)).hexdigest()
    return name


def reason(error: OSError | UnsafePathError) -> str:
    """An error of one path in a few words."""
    return (error.strerror if isinstance(error, OSError) else "") or str(error)
