"""Carrying out the changes of a journal below one root, forwards and backwards.

Every step of either direction can be done again after a crash: what it should bring about may be there already.

`Commit`, forwards: new things are renamed to their places, the rest is set or removed, each thing by its name only, so
what somebody else has put into a directory meanwhile stays. A path that gives way to something of another type is
missing at no time where the file system can exchange names. The first change that is impossible stops it
(`Impossible`), or, with `tolerant`, is noted and the others go on.

`Return`, backwards: what was replaced or removed is put back from what was kept, and what is new goes. It goes on
after an error (`failures`), because a half of what was there is better than nothing. Where something that is not ours
stands in the way now, that stays (`conflicts`).

`withdraw` removes what was made beside its places before the first change.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable
from contextlib import suppress
from typing import NamedTuple

from swupd.closing import Closing
from swupd.errors import UnsafePathError
from swupd.fs import CANNOT_EXCHANGE, Directory
from swupd.transaction.journal import Action, Change, Kind, Old, old_of
from swupd.transaction.kept import Kept, coming_back
from swupd.walker import Frame, Walker, follow, parents

SIBLING = ".update."
"""Prefix of what is not in its place yet."""
DISPLACED = ".deleted."
"""Prefix of a directory that has just given way to a file or link; it exists for a moment only."""
NAME_BYTES = 255
"""Longest name that a file system takes, in bytes."""

_CANNOT_GO = frozenset({errno.ENOTEMPTY, errno.EEXIST, errno.EBUSY})
_IN_THE_WAY = frozenset({errno.ENOENT, errno.ENOTEMPTY, errno.EEXIST, errno.EISDIR, errno.ENOTDIR, errno.EBUSY})
_NO_PARENT = frozenset({errno.ENOENT, errno.ENOTDIR})


class Failure(NamedTuple):
    """A path that is not as it should be, and why."""

    path: str
    reason: str


class Impossible(Exception):  # noqa: N818 (not an error of the program, and never shown as it is)
    """A change that the system does not allow; `__cause__` is its error."""

    def __init__(self, path: str, cause: OSError | UnsafePathError) -> None:
        super().__init__(f"{path}: {reason(cause)}")
        self.failure = Failure(path, reason(cause))


class Ground(Closing):
    """A way through a root that remembers the file systems it has been on. To be used in a `with` statement."""

    def __init__(self, root: Directory) -> None:
        self._walker = Walker(root, self._enter)
        self._file_systems = {os.fstat(root.fd).st_dev: ""}
        """Each with a directory on it."""

    def close(self) -> None:
        self._walker.close()

    def go(self, path: str) -> Directory:
        """The directory at `path`, open until the next call. Raises OSError, UnsafePathError."""
        return self._walker.go(path).directory

    def on(self, device: int) -> Directory:
        """A directory on one of the file systems, open until the next call. Raises OSError, UnsafePathError."""
        return self.go(self._file_systems[device])

    def sync(self, *, several: bool = False) -> None:
        """Wait until all file systems have everything on disk; with `several` only if there are more than one."""
        if not several or len(self._file_systems) > 1:
            for path in self._file_systems.values():
                try:
                    self.go(path).sync()
                except OSError as error:
                    raise OSError(error.errno, f"{error.strerror}: it may not be on disk", path or "/") from error

    def _enter(self, frame: Frame, component: str) -> Frame:
        below = follow(frame, component)
        self._file_systems.setdefault(os.fstat(below.directory.fd).st_dev, below.path)
        return below


class Commit:
    """Carries out changes in their order, and keeps what became of them.

    resumed: somebody else began and was killed, so that what cannot be found has been done.
    """

    def __init__(self, ground: Ground, *, tolerant: bool, resumed: bool) -> None:
        self._ground = ground
        self._tolerant = tolerant
        self._resumed = resumed
        self.failures: list[Failure] = []
        self.removed: list[str] = []
        self.kept: list[str] = []
        """Directories that could not be removed because they are not empty, or because something is mounted there."""

    def run(self, changes: Iterable[Change]) -> None:
        """Raises Impossible, and what the iteration raises."""
        for change in changes:
            if change.action is not Action.MADE:
                try:
                    self._carry_out(change)
                except (OSError, UnsafePathError) as error:
                    self._fail(change.shown, error)
        try:
            self._ground.sync()
        except (OSError, UnsafePathError) as error:
            self._fail("/", error)

    def _fail(self, path: str, error: OSError | UnsafePathError) -> None:
        if not self._tolerant:
            raise Impossible(path, error) from error
        self.failures.append(Failure(path, reason(error)))

    def _carry_out(self, change: Change) -> None:
        if change.action is Action.PLACE:
            self._place(self._ground.go(change.directory), change)
        elif change.action is Action.REMOVE:
            self._remove(change)
        elif change.action is Action.SWAP:
            _swap(self._ground.go(change.directory), change, resumed=self._resumed)
        elif change.action is Action.ATTRIBUTES:
            mode, uid, gid = change.attributes
            self._ground.go(change.directory).set_attributes(change.base, mode=mode, owner=(uid, gid))
        else:
            self._ground.sync(several=True)

    def _place(self, directory: Directory, change: Change) -> None:
        try:
            if change.kind is Kind.DIRECTORY:
                _place_directory(directory, change, resumed=self._resumed)
            else:
                directory.rename(change.sibling, change.base)
        except FileNotFoundError:
            if not self._resumed:
                raise
        except OSError:
            if self._tolerant:
                with suppress(OSError, UnsafePathError):
                    directory.remove_tree(change.sibling)
            raise

    def _remove(self, change: Change) -> None:
        """Remove one name; a parent that is missing, or a link by now, means that the path is gone already."""
        try:
            directory = self._ground.go(change.directory)
        except (FileNotFoundError, NotADirectoryError, UnsafePathError):
            return
        try:
            if change.kind is Kind.DIRECTORY:
                directory.remove_directory(change.base)
            else:
                directory.unlink(change.base)
        except FileNotFoundError:
            return
        except OSError as error:
            if change.kind is not Kind.DIRECTORY or error.errno not in _CANNOT_GO:
                raise
            if change.was:
                text = f"something has come into it meanwhile, which is in {change.path} now"
                raise OSError(error.errno, text) from error
            self.kept.append(change.shown)
            return
        self.removed.append(change.shown)


class Return:
    """Undoes changes, which come in the opposite order, whether each of them was carried out or not.

    finished: whether they are those of a finished installation. Of another one a sibling that is there says that its
    change was not carried out.
    """

    def __init__(self, ground: Ground, kept: Kept, *, finished: bool) -> None:
        self._ground = ground
        self._kept = kept
        self._finished = finished
        self._not_placed: set[str] = set()
        """New directories that have not come to their places, and are gone."""
        self._missing: list[str] = []
        """What could not be put back into directories that were put aside."""
        self.failures: list[Failure] = []
        self.conflicts: list[Failure] = []

    def run(self, changes: Iterable[Change]) -> None:
        """Raises what the iteration raises."""
        for change in changes:
            if change.action is Action.SWAP and self._is_incomplete(change):
                self.conflicts.append(Failure(change.shown, f"its old content is in {change.directory}/{change.aside}"))
                continue
            try:
                self._undo(change)
            except UnsafePathError as error:
                self.conflicts.append(Failure(change.shown, reason(error)))
            except OSError as error:
                problems = self.conflicts if error.errno in _IN_THE_WAY else self.failures
                problems.append(Failure(change.shown, reason(error)))
                if change.was:
                    self._missing.append(change.path)
        try:
            self._ground.sync()
        except (OSError, UnsafePathError) as error:
            self.failures.append(Failure("/", reason(error)))

    def _undo(self, change: Change) -> None:
        if change.action is Action.SYNC:
            self._ground.sync(several=True)
            return
        if (change.action is Action.MADE and self._is_not_placed(change)) or (change.was and self._is_in_place(change)):
            return
        try:
            directory = self._ground.go(change.directory)
        except OSError as error:
            if change.action is Action.MADE and error.errno in _NO_PARENT:
                return
            raise
        if change.action is Action.PLACE:
            self._undo_place(directory, change)
        elif change.action is Action.MADE:
            self._undo_made(directory, change)
        elif change.action is Action.SWAP:
            _swap_back(directory, change)
        elif change.action is Action.REMOVE:
            self._put_back(directory, change, change.old)
        elif change.old is not None:
            old = change.old
            directory.set_attributes(change.base, mode=old.mode, owner=(old.uid, old.gid))

    def _undo_place(self, directory: Directory, change: Change) -> None:
        status = None if self._finished else directory.lstat(change.sibling)
        if change.kind is Kind.DIRECTORY:
            if status is not None and stat.S_ISDIR(status.st_mode):
                directory.remove_tree(change.sibling)
                self._not_placed.add(change.path)
            elif status is not None:
                directory.unlink(change.sibling)  # the old file or link, which has just given its name away
        elif status is not None:
            directory.unlink(change.sibling)
        elif change.old is not None:
            self._put_back(directory, change, change.old)
        else:
            with suppress(FileNotFoundError):
                directory.unlink(change.base)

    def _undo_made(self, directory: Directory, change: Change) -> None:
        """Remove a new object of a new directory; then what was in the place of that."""
        with suppress(FileNotFoundError):
            if change.kind is not Kind.DIRECTORY:
                directory.unlink(change.base)
            elif change.old is None or (status := directory.lstat(change.base)) is None or _is_directory(status):
                directory.remove_directory(change.base)
        if change.old is not None:
            self._put_back(directory, change, change.old)

    def _put_back(self, directory: Directory, change: Change, old: Old | None) -> None:
        if old is None:
            return
        if old.kind is Kind.FILE:
            self._kept.put_back(old.number, directory, change.base, change.aside)
            return
        status = directory.lstat(change.base)
        if old.kind is Kind.DIRECTORY:
            if status is None:
                directory.make_directory(change.base, mode=old.mode, owner=(old.uid, old.gid))
            elif old_of(status) != old:
                directory.set_attributes(change.base, mode=old.mode, owner=(old.uid, old.gid))
        elif status is None or not self._is_link(directory, change.base, status, old):
            with coming_back(directory, change.base, change.aside) as name:
                directory.make_link(name, old.target, owner=(old.uid, old.gid))

    @staticmethod
    def _is_link(directory: Directory, base: str, status: os.stat_result, old: Old) -> bool:
        return stat.S_ISLNK(status.st_mode) and old_of(status, target=directory.readlink(base)) == old

    def _is_incomplete(self, change: Change) -> bool:
        """Whether the directory that a SWAP has put aside must wait there for what could not be put back into it."""
        aside = f"{change.directory}/{change.aside}"
        return any(f"{path}/".startswith(f"{aside}/") for path in self._missing)

    def _is_not_placed(self, change: Change) -> bool:
        if change.old is not None or not self._not_placed:
            return False  # what was in the place may have gone already
        return not self._not_placed.isdisjoint([change.path, *parents(change.path)])

    def _is_in_place(self, change: Change) -> bool:
        """Whether an object of a directory that should be put aside is where it was, because that was not done."""
        directory, _, base = change.was.rpartition("/")
        try:
            status = self._ground.go(directory).lstat(base)
        except (OSError, UnsafePathError):
            return False
        return status is not None and _is_directory(status) == (change.kind is Kind.DIRECTORY)


def withdraw(ground: Ground, changes: Iterable[Change]) -> list[Failure]:
    """Remove the siblings of changes, none of which was carried out; those that could not be removed, and why."""
    failures = []
    for change in changes:
        if change.sibling and change.action is not Action.MADE:
            try:
                ground.go(change.directory).remove_tree(change.sibling)
            except (OSError, UnsafePathError) as error:
                if not (isinstance(error, OSError) and error.errno in _NO_PARENT):
                    failures.append(Failure(f"{change.directory}/{change.sibling}", reason(error)))
    return failures


def _place_directory(directory: Directory, change: Change, *, resumed: bool) -> None:
    """A directory to its name, where nothing is or a file or link that goes."""
    if resumed:
        status = directory.lstat(change.sibling)
        if status is not None and not _is_directory(status):
            directory.unlink(change.sibling)  # the two had changed their names
            return
    try:
        directory.rename(change.sibling, change.base)
    except NotADirectoryError:
        if _exchanged(directory, change.sibling, change.base):
            directory.unlink(change.sibling)
        else:
            directory.unlink(change.base)
            directory.rename(change.sibling, change.base)


def _swap(directory: Directory, change: Change, *, resumed: bool) -> None:
    """sibling -> base -> aside, where base is a directory and sibling is none."""
    status = directory.lstat(change.base)
    if not resumed and (status is None or not _is_directory(status)):
        raise NotADirectoryError(errno.ENOTDIR, "it is no directory any more")
    if status is not None and _is_directory(status) and not _exchanged(directory, change.sibling, change.base):
        directory.rename(change.base, change.aside)
        status = None
    if status is None:
        directory.rename(change.sibling, change.base)
        return
    sibling = directory.lstat(change.sibling)
    if sibling is not None and _is_directory(sibling):
        directory.rename(change.sibling, change.aside)


def _swap_back(directory: Directory, change: Change) -> None:
    """The directory to its name again, from wherever it is; the object that should take its place goes."""
    status = directory.lstat(change.base)
    if status is None or not _is_directory(status):
        for name in (change.sibling, change.aside):
            there = directory.lstat(name)
            if there is not None and _is_directory(there):
                if status is None or not _exchanged(directory, name, change.base):
                    if status is not None:
                        directory.unlink(change.base)
                    directory.rename(name, change.base)
                break
    for name in (change.sibling, change.aside):
        directory.remove_tree(name)


def _exchanged(directory: Directory, one: str, other: str) -> bool:
    """Exchange two names; False where the file system cannot."""
    try:
        directory.exchange(one, other)
    except OSError as error:
        if error.errno in CANNOT_EXCHANGE:
            return False
        raise
    return True


def _is_directory(status: os.stat_result) -> bool:
    return stat.S_ISDIR(status.st_mode)


def reason(error: OSError | UnsafePathError) -> str:
    """An error of one path in a few words."""
    return (error.strerror if isinstance(error, OSError) else "") or str(error)
