"""Installations that were interrupted: finishing or undoing them, before a command does anything of its own.

What is found says what is done (`transaction.journal.State`):

* being prepared: no existing path had been changed; what was made beside its places goes;
* committed: it is finished; what cannot be finished is undone;
* being undone, or rolled back: that is continued to its end;
* files in place: what follows an installation is done, also again: tracking files, the version file, scripts.

And about that:

* One line says what was done, and the history gets an event.
* A journal is only followed into the root of this command, if it was written for that (wherever it was mounted then),
  and in the version that it knows: if somebody else has changed the system meanwhile, what we left lying beside its
  places goes, and the journal with it. A journal of another root that is still there stops the command.
* Programs of a root that is not running are left to a command that changes it: looking at one must not run them.
* A file that is no journal is put aside (`journal.damaged`), with a warning, so that it stops nobody twice.
* If the root cannot be put right, UnfinishedError says why and the journal stays for the next run. Only a repair goes
  on nevertheless; when it has succeeded it calls `forget_unfinished`.

The data directory's lock must be held, and it must be ours alone (`swupd.statedir.check_owner`).
"""

from __future__ import annotations

import errno
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from swupd import history
from swupd.errors import InstallError, ProjectError, StateDirectoryError
from swupd.fs import Directory
from swupd.scripts import Scripts
from swupd.system import System
from swupd.transaction import journal, kept
from swupd.transaction.changes import Failure, Ground, withdraw
from swupd.transaction.install import UnfinishedError, carry_through, identity, listed, put_back, release_of, undo
from swupd.transaction.journal import Journal, JournalError, Purpose, State

if TYPE_CHECKING:
    from swupd.session import Session

FINISHED_LATER = "finished later"
UNDONE = "undone"
ROLLED_BACK = "rolled back"
# What is finished here, or undone here, is followed up under the state that comes next.
_ORDER = (
    State.PREPARING,
    State.COMMITTED,
    State.UNDOING,
    State.GOING_BACK,
    State.INSTALLED,
    State.GONE_BACK,
)


def recover(session: Session, *, repairing: bool = False, looking: bool = False) -> None:
    """Put an interrupted installation right, if there is one; very quick if not.

    repairing: what is impossible is only warned of. looking: the command changes nothing. Raises InstallError.
    """
    data_dir = session.statedir.data_dir
    if not journal.exists(data_dir):
        return
    try:
        with Directory.open(data_dir) as data:
            for state in _ORDER:
                found = _open(data, state, session)
                if found is not None:
                    _Recovery(session, found, may_run_programs=session.system.is_host or not looking).run()
    except (OSError, ProjectError) as error:
        if isinstance(error, OSError):
            error = _unreadable(error, data_dir)
        if not repairing:
            raise error from None
        session.report.warning(f"{error}; the repair goes on nevertheless")


def forget_unfinished(data_dir: Path) -> None:
    """Drop an installation that can be neither finished nor undone: the root was repaired. Raises OSError."""
    with Directory.open(data_dir) as data:
        for state in (State.UNDOING, State.GOING_BACK):
            with suppress(JournalError):
                found = Journal.open(data, state)
                if found is not None:
                    kept.discard(found)


def follow_up(purpose: Purpose, system: System, scripts: Scripts, *, wait: bool = False) -> None:
    """What has to follow when the files are in place, except for the end of the journal; it may be done again.

    wait: return only when restarted services are up. Raises StateDirectoryError.
    """
    system.track(purpose.track)
    system.untrack(purpose.untrack)
    if purpose.record_version:
        system.record_version(purpose.to_version)
    if purpose.scripts:
        scripts.after_update(boot=purpose.boot, reexec=purpose.reexec, wait=wait)


def end(data: Directory, purpose: Purpose) -> None:
    """The end of the journal, when all that follows is done: it joins what is kept, or goes with it. Raises OSError.

    An update that has got so far is confirmed: what was kept before it goes.
    """
    number = kept.file_installed(data)
    if purpose.record_version and number:
        kept.drop_before(data, number)


def way_back(purpose: Purpose) -> Purpose:
    """What has to follow when an installation has been undone after its end."""
    return Purpose(
        command="rollback",
        from_version=purpose.to_version,
        to_version=purpose.from_version,
        track=purpose.untrack,
        untrack=purpose.track,
        boot=purpose.boot,
        reexec=purpose.reexec,
        scripts=purpose.scripts,
        record_version=purpose.record_version,
    )


class _Recovery:
    """Deals with one journal."""

    def __init__(self, session: Session, found: Journal, *, may_run_programs: bool) -> None:
        self._session = session
        self._may_run_programs = may_run_programs
        self._report = session.report
        self._journal = found
        self._purpose = found.header.purpose
        self._root_path = session.settings.root

    def run(self) -> None:
        """Raises InstallError, OSError."""
        try:
            root = Directory.open(self._root_path)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENOTDIR):
                raise
            self._drop(f"{self._root_path} is not there any more")
            return
        with root:
            if not _is_same(root, self._journal):
                self._check_other_root()
                self._clear(root, "it is another system now")
            elif self._is_outdated(root):
                self._clear(root, "the system was changed by something else since")
            else:
                self._go_on(root)

    def _check_other_root(self) -> None:
        """Raise InstallError if the journal belongs to another root that is still there."""
        other = Path(self._journal.header.root)
        if other != self._root_path and other.exists():
            raise InstallError(
                f"{self._session.statedir.data_dir} belongs to {other}, where {self._purpose.title} was interrupted; "
                "nothing was changed",
                hint=f"finish that first, with: swupd diagnose --path {other}; or give another --statedir",
            )

    def _go_on(self, root: Directory) -> None:
        state = self._journal.state
        if state is State.PREPARING:
            self._withdraw(root)
        elif state is State.COMMITTED:
            self._finish(root)
        elif state is State.UNDOING:
            self._warn_of(undo(self._journal, root).conflicts)
            self._tell("was undone", UNDONE)
        elif state is State.GOING_BACK:
            self._warn_of(put_back(self._journal, root).conflicts)
            self._journal.become(State.GONE_BACK)
        elif state is State.INSTALLED:
            self._follow()
        else:
            self._end_way_back()

    def _withdraw(self, root: Directory) -> None:
        with Ground(root) as ground:
            failures = withdraw(ground, self._journal.forwards())
            if failures:
                raise InstallError(
                    f"an interrupted {self._purpose.title} left {listed(failures)}",
                    hint="see to the cause and run the command again",
                )
            ground.sync()
        kept.discard(self._journal)
        self._tell("was undone: it had not changed anything yet", UNDONE)

    def _finish(self, root: Directory) -> None:
        try:
            commit = carry_through(self._journal, root, resumed=True)
        except UnfinishedError:
            raise
        except ProjectError as error:
            self._report.warning(str(error))
            self._tell("could not be finished and was undone", UNDONE)
            return
        self._warn_of(commit.failures)

    def _follow(self) -> None:
        if self._is_left_to_others():
            return
        system, scripts = self._helpers()
        follow_up(self._purpose, system, scripts)
        end(self._journal.data, self._purpose)
        self._tell("was finished", FINISHED_LATER)

    def _is_left_to_others(self) -> bool:
        """Whether what follows has to wait for a command that may run the programs of the root."""
        if self._may_run_programs or not self._purpose.scripts or not self._session.settings.run_scripts:
            return False
        self._report.warning(
            f"the files of an interrupted {self._purpose.title} are in place; "
            "the next command that changes the system runs what follows"
        )
        return True

    def _end_way_back(self) -> None:
        if self._is_left_to_others():
            return
        system, scripts = self._helpers()
        follow_up(way_back(self._purpose), system, scripts)
        kept.discard(self._journal)
        self._tell("was rolled back to the end", ROLLED_BACK)

    def _helpers(self) -> tuple[System, Scripts]:
        settings = self._session.settings
        return System(self._root_path, self._session.statedir), Scripts(
            self._root_path, self._report, enabled=settings.run_scripts, update_boot=settings.update_boot
        )

    def _is_outdated(self, root: Directory) -> bool:
        """Whether somebody else has brought another version, while things of ours wait for their turn."""
        if self._journal.state is State.PREPARING or release_of(root) in self._journal.header.release:
            return False
        return self._journal.state in (State.UNDOING, State.GOING_BACK) or _has_sibling(root, self._journal)

    def _clear(self, root: Directory, why: str) -> None:
        with Ground(root) as ground:
            withdraw(ground, self._journal.forwards())
            ground.sync()
        self._drop(why)

    def _drop(self, why: str) -> None:
        kept.discard(self._journal)
        self._report.warning(
            f"an interrupted {self._purpose.title} of {self._root_path} is neither finished nor undone: {why}; "
            "if that is not what you expect, run: swupd repair"
        )

    def _warn_of(self, failures: Iterable[Failure]) -> None:
        for path, reason in failures:
            self._report.warning(f"{path} is left as it is: {reason}")

    def _tell(self, what: str, outcome: str) -> None:
        purpose = self._purpose
        self._report.warning(f"an interrupted {purpose.title} {what}")
        event = history.Event(int(time.time()), purpose.command, outcome, purpose.from_version, purpose.to_version)
        history.append(self._session.statedir.data_dir, event)


def _open(data: Directory, state: State, session: Session) -> Journal | None:
    try:
        return Journal.open(data, state)
    except JournalError as error:
        if state is State.PREPARING:
            data.unlink(state.value)  # it was on disk, all of it, before anything was made
            return None
        data.remove_tree(journal.DAMAGED)
        data.rename(state.value, journal.DAMAGED)
        session.report.warning(
            f"{data.path}/{state.value} cannot be used and is called {journal.DAMAGED} now: {error}; "
            "an interrupted installation may be half done: run swupd repair"
        )
        return None


def _is_same(root: Directory, found: Journal) -> bool:
    """Whether a root is the one of a journal: the same inode on the same device or file system, or else whether it has
    anything of ours; numbers of devices may be others after the machine has started again."""
    inode, device, file_system = identity(root)
    known = found.header.identity
    return (inode == known[0] and (device == known[1] or file_system == known[2])) or _has_sibling(root, found)


def _has_sibling(root: Directory, found: Journal) -> bool:
    with Ground(root) as ground:
        for change in found.forwards():
            if change.sibling:
                with suppress(OSError, InstallError):
                    if ground.go(change.directory).lstat(change.sibling) is not None:
                        return True
    return False


def _unreadable(error: OSError, data_dir: Path) -> StateDirectoryError:
    return StateDirectoryError(
        f"an interrupted installation cannot be put right: {error.strerror or error} ({error.filename or data_dir})",
        hint="see to the cause and run the command again",
    )
