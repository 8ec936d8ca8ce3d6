"""Undoing finished installations with what they have kept: back to the version before the last update.

On top of the last update lie the changes that came after it (bundles added and removed); they are undone one after the
other, the newest first. What was repaired stays so. Each is undone by the machinery that undoes an installation that
fails, under a journal of its own, so that the next run continues what is interrupted (`transaction.recovery`). Rules:

* Everything is looked at before anything is changed: whether the system still is what the last installation left, and
  whether all that was replaced is still kept.
* A file that was changed by hand meanwhile is replaced like any file of the OS. What is not ours stays, and so does a
  directory that has such things in it.
* No server and no certificate are needed.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from swupd import history
from swupd.errors import DiskSpaceError, InstallError, StateDirectoryError, UnsafePathError, UsageError
from swupd.fs import Directory
from swupd.report import human_size
from swupd.scripts import Scripts
from swupd.system import System
from swupd.transaction import kept
from swupd.transaction.changes import Failure, Ground
from swupd.transaction.install import identity, put_back, release_of, unfinished
from swupd.transaction.journal import FINISHED, Action, Change, Journal, Kind, State, forwards, move
from swupd.transaction.kept import KEPT, Finished
from swupd.transaction.recovery import ROLLED_BACK, follow_up, way_back

_BLOCK = 4096
"""Bytes that a name, a link or a directory may take."""
_OTHER_WAY = "to go to any older version: swupd repair --version N --picky --force"


def chosen(data: Directory) -> list[Finished]:
    """What has to be undone, the newest first; the last one is the last update.

    Raises UsageError if no update is kept, OSError.
    """
    stack = []
    for finished in kept.finished(data):
        stack.append(finished)
        if finished.header.purpose.record_version:
            return stack
    raise UsageError("there is no update that could be rolled back: nothing of it is kept", hint=_OTHER_WAY)


def check(data: Directory, root: Directory, stack: Sequence[Finished]) -> None:
    """Raise InstallError or DiskSpaceError if that cannot be undone in this root; nothing is changed.

    Raises OSError, JournalError too.
    """
    header = stack[0].header
    _, device, file_system = header.identity
    found = identity(root)
    if os.path.abspath(root.path) != header.root or (found[1] != device and found[2] != file_system):
        raise _impossible(f"it was in {header.root}, on another file system")
    if release_of(root) != header.release[1]:
        raise _impossible("the system was changed by something else since")
    needed = Counter[int]()
    with Ground(root) as ground:
        for number, _ in stack:
            with data.descend(f"{KEPT}/{number}") as directory:
                for change in forwards(directory, FINISHED):
                    _check_names(ground, change)
                    _check_kept(ground, directory, change, needed)
        for device, size in needed.items():
            _check_space(ground.on(device), size)


def count(data: Directory, stack: Sequence[Finished]) -> Counter[str]:
    """How many paths come back ("restored") and go ("removed"). Raises OSError, JournalError."""
    paths = Counter[str]()
    for number, _ in stack:
        with data.descend(f"{KEPT}/{number}") as directory:
            for change in forwards(directory, FINISHED):
                if change.old is not None:
                    paths["restored"] += 1
                elif change.action is Action.MADE or (
                    change.action is Action.PLACE and change.kind is not Kind.DIRECTORY
                ):
                    paths["removed"] += 1
    return paths


def go_back(data: Directory, root: Directory, finished: Finished, system: System, scripts: Scripts) -> list[Failure]:
    """Undo one installation, and what followed it; the paths where something that is not ours stays, and why.

    Raises UnfinishedError if not all could be put back, and then the next run goes on; StateDirectoryError.
    """
    try:
        with data.descend(f"{KEPT}/{finished.number}") as directory:
            move(directory, FINISHED, data, State.GOING_BACK.value)
    except OSError as error:
        raise StateDirectoryError(
            f"cannot begin: {error.strerror} ({data.path}); nothing was changed",
            hint="check the data directory's disk and run the command again",
        ) from error
    journal = Journal(data, State.GOING_BACK, finished.header)
    purpose = finished.header.purpose
    try:
        back = put_back(journal, root)
        journal.become(State.GONE_BACK)
        follow_up(way_back(purpose), system, scripts)
        kept.discard(journal)
    except OSError as error:
        raise unfinished(f"the rollback is not complete: {error.strerror} ({error.filename or data.path})") from error
    event = history.Event(int(time.time()), purpose.command, ROLLED_BACK, purpose.to_version, purpose.from_version)
    history.append(Path(data.path), event)
    return back.conflicts


def _check_names(ground: Ground, change: Change) -> None:
    """What has one of the names that the undoing needs is in the way."""
    for name in (change.sibling, change.aside):
        with suppress(OSError, UnsafePathError):
            if name and ground.go(change.directory).lstat(name) is not None:
                raise _impossible(f"{change.directory}/{name} is in the way, whose name is needed")


def _check_kept(ground: Ground, directory: Directory, change: Change, needed: Counter[int]) -> None:
    """What is put back has to be there; add the bytes that it takes, by file system."""
    old = change.old
    if old is None or change.action is Action.ATTRIBUTES:
        return
    device = _device(ground, change.directory)
    if old.kind is not Kind.FILE:
        needed[device] += _BLOCK
        return
    status = directory.lstat(str(old.number))
    if status is None:
        raise _impossible(f"what was at {change.shown} before is not kept any more")
    if status.st_dev != device:
        needed[device] += status.st_size + _BLOCK


def _device(ground: Ground, path: str) -> int:
    """The file system of a directory, or of where it will be made."""
    while True:
        try:
            return os.fstat(ground.go(path).fd).st_dev
        except (FileNotFoundError, NotADirectoryError, UnsafePathError):
            path = path.rpartition("/")[0]


def _impossible(why: str) -> InstallError:
    return InstallError(f"the last update cannot be rolled back: {why}; nothing was changed", hint=_OTHER_WAY)


def _check_space(directory: Directory, size: int) -> None:
    status = os.fstatvfs(directory.fd)
    free = status.f_bfree * status.f_frsize
    if size > free:
        raise DiskSpaceError(
            f"putting back what was replaced needs {human_size(size)} in {directory.path}, where only "
            f"{human_size(free)} are free; nothing was changed",
            hint="make room there and run the command again",
        )
