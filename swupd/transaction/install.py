"""Staged objects -> a root (swupd client specification, section 5.8), as a transaction.

What it guarantees: after any interruption (the process killed, an error, a full disk, a power cut) at any call, the
next swupd run of any kind leaves the root exactly as it was or exactly as it should be, and says so
(`transaction.recovery`). An error while the process lives does so at once. The phases:

1. *Decide* (`transaction.decide`): nothing is changed. All that will be made, replaced and removed is written to the
   journal (`transaction.journal`), which is on disk before anything else happens.
2. *Prepare* (`transaction.prepare`): new things are made beside their places, old ones are kept. Then all of that is
   waited for, on every file system. What fails until here is undone by removing the siblings: no existing path has
   changed.
3. *Commit* (`transaction.changes`): the journal gets its second name; from now on the way is forward. Renames and
   attributes, then removals, and last what brings `/usr/lib/os-release`. If one change is impossible, all that were
   carried out are undone in the opposite order, from what was kept; the journal says so before that begins. Signals
   that ask us to end wait meanwhile.
4. All file systems are synced, and the journal says that the files are in place. What follows (tracking files, scripts)
   and the end of the journal are the caller's (`transaction.recovery.follow_up`, `transaction.kept.file_installed`).

And besides:

* A directory that holds something which is not to be removed is neither removed nor renamed. Where that is known
  beforehand and it should give way to a file or link, that one path is a failure in the result and all the rest is
  installed; where it should just go, it is kept and named.
* No link is followed in any parent, neither of what is written nor of what is removed (`swupd.fs.Directory`).
* `apply` is for roots that are known to be damaged: single paths fail, the others go on, and nothing is undone.

Staged objects stay, whatever happens; `swupd.staging.Stager.release` takes them away after success. (Renaming them into
the root would save a call for each, but an interrupted run would have eaten what it had downloaded.)

Not for use by several threads at the same time.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from swupd.errors import DiskSpaceError, InstallError, ProjectError, UnsafePathError, is_disk_full
from swupd.formats import layout
from swupd.formats.manifest import Entry
from swupd.fs import Directory, chunks_of
from swupd.plan import removal_order, tree_order
from swupd.report import Report, counted
from swupd.signals import undisturbed
from swupd.transaction import kept
from swupd.transaction.changes import Commit, Failure, Ground, Impossible, Return, reason, withdraw
from swupd.transaction.decide import Decisions
from swupd.transaction.journal import Action, Header, Journal, Purpose, State
from swupd.transaction.kept import Kept
from swupd.transaction.prepare import Preparation
from swupd.walker import split

_SHOWN_FAILURES = 3
_PROGRESS_EVERY = 256
_ATTEMPTS = 2
_AGAIN = "see to the cause and run the command again"


class UnfinishedError(InstallError):
    """A root is neither old nor new, and its journal stays for the next attempt."""


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

    def check(self) -> None:
        """Raise InstallError if single paths are not as they should be."""
        if self.failures:
            raise InstallError(
                f"{counted(len(self.failures), 'path')} could not be changed: {listed(self.failures)}",
                hint="see to the cause, then run: swupd repair",
            )


class Installer:
    """Writes staged objects into one root, which may be any directory.

    `staged` has the objects by their hashes. `data` is the data directory, whose lock is held; it gets the journal,
    which is in the state INSTALLED after a success.
    """

    def __init__(self, root: Directory, staged: Directory, data: Directory, report: Report) -> None:
        self._root = root
        self._staged = staged
        self._data = data
        self._report = report

    def install(
        self, entries: Iterable[Entry], remove: Iterable[str], wanted: Mapping[str, Entry], purpose: Purpose
    ) -> InstallResult:
        """Write `entries`, whose objects are all staged, and remove the names of `remove`; missing ones are fine.

        `wanted` is the whole list of files that the root shall have: parents that are missing are made as it says.

        Raises InstallError (UnsafePathError if a directory above an entry is something else) or DiskSpaceError, and
        then nothing has changed; or UnfinishedError, if not even that was possible.
        """
        return self._run(entries, remove, wanted, purpose, tolerant=False)

    def apply(
        self, entries: Iterable[Entry], remove: Iterable[str], wanted: Mapping[str, Entry], purpose: Purpose
    ) -> InstallResult:
        """Like `install`, for a root that is known to be damaged: paths that cannot be put right are in the result.

        Raises InstallError or DiskSpaceError for what concerns more than single paths; then nothing has changed.
        """
        return self._run(entries, remove, wanted, purpose, tolerant=True)

    def _run(
        self,
        entries: Iterable[Entry],
        remove: Iterable[str],
        wanted: Mapping[str, Entry],
        purpose: Purpose,
        *,
        tolerant: bool,
    ) -> InstallResult:
        ordered = sorted(entries, key=lambda entry: tree_order(entry.name))
        removals = removal_order(remove)
        decisions = Decisions(self._root, self._staged, wanted, ordered, removals, tolerant=tolerant)
        try:
            self._check_alone()
            header = self._header(purpose, wanted, removals, tolerant=tolerant)
            journal = Journal.write(self._data, header, decisions.changes())
        except OSError as error:
            raise _nothing_changed(error, self._data.path) from error
        try:
            try:
                not_kept = self._prepare(journal, ordered, wanted)
            except BaseException:
                abandon(journal, self._root)
                raise
            with undisturbed():
                try:
                    journal.become(State.COMMITTED)
                except OSError:
                    abandon(journal, self._root)
                    raise
                commit = carry_through(journal, self._root, resumed=False)
        except OSError as error:
            raise _nothing_changed(error, self._root.path) from error
        if ordered:
            self._report.progress(len(ordered), len(ordered))
        noted = (*decisions.failures, *not_kept)
        failed = frozenset(path for path, _ in commit.failures)
        replaced = frozenset(decisions.replaced)
        return InstallResult(
            installed=sum(count for path, count in decisions.installed.items() if path not in failed),
            replaced=len(replaced - failed),
            # A directory that has given way to a file or link is replaced.
            removed=tuple(path for path in commit.removed if path not in replaced),
            kept=tuple(commit.kept),
            failures=(*noted, *commit.failures),
        )

    def _check_alone(self) -> None:
        for state in (State.PREPARING, State.COMMITTED):
            if self._data.lstat(state.value) is not None:
                raise InstallError(
                    f"an earlier installation is unfinished ({self._data.path}/{state.value}); nothing was changed",
                    hint="see to what the message before this one says, and run the command again",
                )

    def _header(
        self, purpose: Purpose, wanted: Mapping[str, Entry], removals: Sequence[str], *, tolerant: bool
    ) -> Header:
        entry = wanted.get(layout.OS_RELEASE)
        before = release_of(self._root)
        after = "" if layout.OS_RELEASE in removals else before
        if entry is not None and entry.is_present and self._staged.lstat(entry.hash) is not None:
            after = _digest(self._staged, entry.hash)
        return Header(
            root=os.path.abspath(self._root.path),
            identity=identity(self._root),
            release=(before, after),
            number=kept.next_number(self._data),
            tolerant=tolerant,
            purpose=purpose,
        )

    def _prepare(self, journal: Journal, entries: list[Entry], wanted: Mapping[str, Entry]) -> list[Failure]:
        """Make all siblings and keep what they replace, on disk; what is damaged and could not be kept."""
        tolerant = journal.header.tolerant
        with Ground(self._root) as ground, Kept.make(self._data, journal.header.number) as keeping:
            preparation = Preparation(ground, self._staged, keeping, entries, wanted, tolerant=tolerant)
            done = 0
            for change in journal.forwards():
                if change.action in (Action.MADE, Action.PLACE, Action.SWAP):
                    if done % _PROGRESS_EVERY == 0:
                        self._report.progress(min(done, len(entries)), len(entries))
                    done += 1
                preparation.make(change)
            ground.sync()
            self._data.sync()
            return preparation.not_kept


@undisturbed()
def carry_through(journal: Journal, root: Directory, *, resumed: bool) -> Commit:
    """From COMMITTED to INSTALLED. resumed: somebody else may have begun.

    If that is impossible everything is undone, and InstallError or DiskSpaceError says why; UnfinishedError if that is
    impossible too.
    """
    try:
        with Ground(root) as ground:
            commit = Commit(ground, tolerant=journal.header.tolerant, resumed=resumed)
            commit.run(journal.forwards(with_made=False))
        kept.file_installed(journal.data)
        journal.become(State.INSTALLED)
    except Exception as error:
        back = undo(journal, root, why=error)
        if back.conflicts:
            raise InstallError(
                f"{error}; what was changed is undone, except {listed(back.conflicts)}",
                hint="see to the cause, then run: swupd repair",
            ) from error
        if isinstance(error, Impossible):
            cause = error.__cause__
            if isinstance(cause, OSError) and is_disk_full(cause):
                raise _nothing_changed(cause, root.path) from error
            raise InstallError(f"{error}; nothing was changed", hint=_AGAIN) from error
        if isinstance(error, OSError):
            raise _nothing_changed(error, root.path) from error
        raise
    return commit


@undisturbed()
def undo(journal: Journal, root: Directory, why: Exception | None = None) -> Return:
    """Put back what a journal has changed, and drop it. The journal says so first, so that it is always continued.

    Raises UnfinishedError, and then the journal stays. why: for its message.
    """
    first = f"{why}; and " if isinstance(why, Impossible) else ""
    try:
        if journal.state is not State.UNDOING:
            journal.become(State.UNDOING)
        back = put_back(journal, root)
        kept.discard(journal)
    except (OSError, ProjectError) as error:
        raise unfinished(f"{first}what was changed cannot be undone: {_said(error)}") from error
    return back


@undisturbed()
def put_back(journal: Journal, root: Directory) -> Return:
    """Undo all changes of a journal, which keeps its state; what fails is tried once more, because memory and
    descriptors come back. Signals that ask us to end wait. Raises UnfinishedError, OSError, JournalError.
    """
    with Ground(root) as ground, Kept.open(journal.data, journal.header.number) as keeping:
        for _ in range(_ATTEMPTS):
            back = Return(ground, keeping, finished=journal.state is State.GOING_BACK)
            back.run(journal.backwards())
            if not back.failures:
                break
    if back.failures:
        raise unfinished(f"not everything can be put back: {listed(back.failures)}")
    return back


def abandon(journal: Journal, root: Directory) -> None:
    """Remove what was prepared, and the journal; if something of that fails, the journal stays for the next run."""
    try:
        if journal.data.lstat(State.PREPARING.value) is None:
            undo(journal, root)  # an error came after it had become COMMITTED
            return
        with Ground(root) as ground:
            if not withdraw(ground, journal.forwards()):
                ground.sync()
                kept.discard(journal)
    except (OSError, ProjectError):
        return


def unfinished(what: str) -> UnfinishedError:
    return UnfinishedError(
        what, hint="see to the cause; the next swupd command goes on with it; if it cannot, run: swupd repair"
    )


def listed(failures: Iterable[Failure]) -> str:
    """The first failures in a line."""
    everything = list(failures)
    more = len(everything) - _SHOWN_FAILURES
    shown = "; ".join(f"{path}: {why}" for path, why in everything[:_SHOWN_FAILURES])
    return shown + (f"; and {more} more" if more > 0 else "")


def identity(root: Directory) -> tuple[int, int, int]:
    """What tells a root from another one: its inode, and device and identifier of its file system."""
    status = os.fstat(root.fd)
    return status.st_ino, status.st_dev, os.fstatvfs(root.fd).f_fsid


def release_of(root: Directory) -> str:
    """The SHA-256 of a root's os-release; empty if it has none."""
    directory, base = split(layout.OS_RELEASE)
    try:
        with root.descend(directory) as below:
            return _digest(below, base)
    except (FileNotFoundError, NotADirectoryError, UnsafePathError):
        return ""


def _digest(directory: Directory, name: str) -> str:
    with directory.open_file(name) as file:
        digest = hashlib.sha256()
        for chunk in chunks_of(file):
            digest.update(chunk)
        return digest.hexdigest()


def _said(error: OSError | ProjectError) -> str:
    return reason(error) if isinstance(error, OSError) else str(error)


def _nothing_changed(error: OSError, root: str) -> InstallError | DiskSpaceError:
    if is_disk_full(error):
        return DiskSpaceError(
            f"no space left below {root}; nothing was changed",
            hint="make room on that file system and run the command again: what was downloaded is kept",
        )
    where = f" ({error.filename})" if error.filename else ""
    return InstallError(
        f"cannot prepare the installation below {root}: {error.strerror or error}{where}; nothing was changed",
        hint=_AGAIN,
    )
