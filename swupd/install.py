"""Staged objects -> a root (swupd client specification, section 5.8), so that a root is never left half done by us.

What it guarantees:

* Phase A, *prepare*: everything new is made beside its place, as `.update.<name>`. Until that is complete and on disk
  not one existing path has changed. If anything fails, the siblings are removed and the error says so.
* Phase C, *commit*: a list of changes is carried out: renames and attributes first, then removals, and last of all
  what brings `/usr/lib/os-release`. A change that fails is recorded and the others go on. Signals that ask us to end
  wait until the list is through. After A and after C all file systems that were touched are synced, and before
  os-release if there are several.
* A directory that holds something which is not to be removed is neither removed nor renamed: where it should give way
  to a file or a link, that one entry fails and all its content stays; where it should just go, it is kept and named.
* No link is followed in any parent, neither of what is written nor of what is removed (`swupd.fs.Directory`).

Crash rules: a process killed in A leaves siblings, which the next run removes when it comes by; one killed in C leaves
a prefix of the list done, and the next run of the same command does the rest: its objects are still staged, because
`swupd.staging.Stager.release` takes them away after success only. (Renaming objects into the root would save a call
for each, but an interrupted run would have eaten what it had downloaded.)

Not for use by several threads at the same time.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from types import FrameType
from typing import NamedTuple

from swupd.changes import Commit, Failure
from swupd.errors import DiskSpaceError, InstallError, UnsafePathError, is_disk_full
from swupd.formats.manifest import Entry
from swupd.fs import Directory
from swupd.plan import removal_order, tree_order
from swupd.prepare import Preparation
from swupd.report import Report, counted

_SHOWN_FAILURES = 3
_PROGRESS_EVERY = 256
_END_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class InstallResult(NamedTuple):
    """What became of the root."""

    installed: int
    """Files, links and directories that were not there before."""
    replaced: int
    """Those that were there, directories with new attributes included."""
    removed: tuple[str, ...]
    kept: tuple[str, ...]
    """Directories that should have gone and are not empty."""
    failures: tuple[Failure, ...]

    def failed(self, name: str) -> bool:
        """Whether this path is not as it should be: it or a directory above it could not be put in place."""
        return any(f"{name}/".startswith(f"{path}/") for path, _ in self.failures)


class Installer:
    """Writes staged objects into one root, which may be any directory. `staged` has the objects by their hashes."""

    def __init__(self, root: Directory, staged: Directory, report: Report) -> None:
        self._root = root
        self._staged = staged
        self._report = report

    def install(self, entries: Iterable[Entry], remove: Iterable[str], wanted: Mapping[str, Entry]) -> InstallResult:
        """Write `entries`, whose objects are all staged, and remove the names of `remove`; missing ones are fine.

        `wanted` is the whole list of files that the root shall have: parents that are missing are made as it says.

        Raises InstallError (UnsafePathError if a directory above an entry is something else) or DiskSpaceError if it
        cannot be prepared, and then nothing has changed; InstallError too if single paths could not be changed, after
        all others were.
        """
        result = self._run(entries, remove, wanted, tolerant=False)
        if result.failures:
            shown = "; ".join(f"{path}: {reason}" for path, reason in result.failures[:_SHOWN_FAILURES])
            more = len(result.failures) - _SHOWN_FAILURES
            raise InstallError(
                f"{counted(len(result.failures), 'path')} could not be changed: {shown}"
                + (f"; and {more} more" if more > 0 else ""),
                hint="see to the cause, then run: swupd repair",
            )
        return result

    def apply(self, entries: Iterable[Entry], remove: Iterable[str], wanted: Mapping[str, Entry]) -> InstallResult:
        """Like `install`, for a root that is known to be damaged: paths that cannot be put right are in the result.

        Raises InstallError or DiskSpaceError for what concerns more than single paths; then nothing has changed.
        """
        return self._run(entries, remove, wanted, tolerant=True)

    def _run(
        self, entries: Iterable[Entry], remove: Iterable[str], wanted: Mapping[str, Entry], *, tolerant: bool
    ) -> InstallResult:
        ordered = sorted(entries, key=lambda entry: tree_order(entry.name))
        preparation = Preparation(self._root, self._staged, wanted, removal_order(remove))
        try:
            preparation.start()
            for number, entry in enumerate(ordered):
                if number % _PROGRESS_EVERY == 0:
                    self._report.progress(number, len(ordered))
                try:
                    preparation.add(entry)
                except UnsafePathError as error:
                    if not tolerant:
                        raise
                    preparation.failures.append(Failure(entry.name, str(error)))
            preparation.sync()
        except BaseException as error:
            preparation.undo()
            if isinstance(error, OSError):
                raise _nothing_changed(error, self._root.path) from error
            raise
        finally:
            preparation.close()
        commit = Commit(self._root)
        try:
            with _undisturbed():
                changes, os_release = preparation.changes()
                commit.run(changes)
                if os_release and len(preparation.devices) > 1:
                    # One file system keeps the order of renames; several may be on disk at different times.
                    commit.sync(preparation.devices.values())
                commit.run(os_release)
                commit.sync(preparation.devices.values())
        finally:
            commit.close()
        if ordered:
            self._report.progress(len(ordered), len(ordered))
        failed = frozenset(path for path, _ in commit.failures)
        return InstallResult(
            installed=sum(count for path, count in preparation.installed.items() if path not in failed),
            replaced=sum(path not in failed for path in preparation.replaced),
            removed=tuple(commit.removed),
            kept=tuple(commit.kept),
            failures=(*preparation.failures, *commit.failures),
        )


def _nothing_changed(error: OSError, root: str) -> InstallError | DiskSpaceError:
    if is_disk_full(error):
        return DiskSpaceError(
            f"no space left below {root}; nothing was changed",
            hint="make room on that file system and run the command again: what was downloaded is kept",
        )
    where = f" ({error.filename})" if error.filename else ""
    return InstallError(
        f"cannot prepare the installation below {root}: {error.strerror or error}{where}; nothing was changed",
        hint="see to the cause and run the command again",
    )


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Signals that ask the process to end are kept back until the block is through."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may set handlers, and only it is interrupted by them
        return
    received: list[int] = []

    def remember(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 (what signal handlers are given)
        received.append(number)

    previous = {number: signal.signal(number, remember) for number in _END_SIGNALS}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        if received:
            signal.raise_signal(received[0])
