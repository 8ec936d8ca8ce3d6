"""Making everything new beside its place, and keeping everything old: what comes between the decisions and the changes.

Nothing that exists is changed: there are siblings afterwards (`.update.<name>`), which the journal names, and more
names or copies of what will be replaced and removed (`transaction.kept`). A directory with all its content is one
sibling.

A staged file is *hard-linked* if it has no other name yet, so the usual object costs neither a copy nor space. Any
further use is a copy, as is every use in another subvolume or file system: files that share an inode change together
when somebody edits one of them in place. Within one btrfs or XFS a copy takes no space either. Links and directories
are made anew.
"""

from __future__ import annotations

import errno
import stat
from collections.abc import Iterable, Mapping

from swupd.formats.manifest import Entry, FileType
from swupd.fs import Directory
from swupd.transaction.changes import Failure, Ground, reason
from swupd.transaction.decide import staged_object
from swupd.transaction.journal import Action, Change, Kind
from swupd.transaction.kept import Kept
from swupd.walker import split

UNLISTED_PARENT_MODE = 0o755
"""Mode of a directory that must exist but that no manifest describes."""

_NO_HARD_LINK = frozenset({errno.EXDEV, errno.EMLINK, errno.EPERM, errno.EOPNOTSUPP})
_UNREADABLE = frozenset({errno.EIO, errno.EUCLEAN, errno.EBADMSG, errno.ESTALE})


class Preparation:
    """Makes the siblings of one installation, and keeps what it replaces.

    entries: what is to be written. wanted: the whole list of files that the root shall have, for parents that are
    missing. tolerant: what cannot be kept because it is damaged is not.
    """

    def __init__(
        self,
        ground: Ground,
        staged: Directory,
        kept: Kept,
        entries: Iterable[Entry],
        wanted: Mapping[str, Entry],
        *,
        tolerant: bool,
    ) -> None:
        self._ground = ground
        self._staged = staged
        self._kept = kept
        self._wanted = wanted
        self._other = {entry.name: entry for entry in entries if wanted.get(entry.name) is not entry}
        """Hardly ever any: with 450,000 files this is no place for all of them."""
        self._directories = frozenset(entry.name for entry in entries if entry.type is FileType.DIRECTORY)
        self._tolerant = tolerant
        self._tree = ("", "")
        """The new directory that is being filled: its place, and where it is now."""
        self.not_kept: list[Failure] = []

    def make(self, change: Change) -> None:
        """Make what a change needs. Changes come in their order.

        Raises OSError, UnsafePathError, InstallError if the object is not staged, DiskSpaceError.
        """
        if change.old is not None and change.old.kind is Kind.FILE:
            self._keep(change.shown, change.old.number)
        if change.action is Action.MADE:
            self._make_in_tree(change)
        elif change.action is Action.SWAP or (change.action is Action.PLACE and change.kind is not Kind.DIRECTORY):
            self._create(self._ground.go(change.directory), change.sibling, change.path)

    def _make_in_tree(self, change: Change) -> None:
        if change.sibling:
            self._tree = change.path, f"{change.directory}/{change.sibling}"
            self._create(self._ground.go(change.directory), change.sibling, change.path)
        else:
            place, now = self._tree
            self._create(self._ground.go(now + change.directory[len(place) :]), change.base, change.path)

    def _keep(self, path: str, number: int) -> None:
        directory, base = split(path)
        try:
            self._kept.keep(self._ground.go(directory), base, number)
        except OSError as error:
            if not self._tolerant or error.errno not in _UNREADABLE:
                raise
            self.not_kept.append(Failure(path, reason(error)))

    def _create(self, directory: Directory, name: str, path: str) -> None:
        entry = self._other.get(path) or self._wanted.get(path)
        if entry is None or not entry.is_present or self._is_mere_parent(entry):
            directory.make_directory(name, mode=UNLISTED_PARENT_MODE)
            return
        status = staged_object(self._staged, entry)
        mode, owner = stat.S_IMODE(status.st_mode), (status.st_uid, status.st_gid)
        if entry.type is FileType.DIRECTORY:
            directory.make_directory(name, mode=mode, owner=owner)
        elif entry.type is FileType.LINK:
            directory.make_link(name, self._staged.readlink(entry.hash), owner=owner)
        elif status.st_nlink > 1 or not self._linked(entry.hash, directory, name):
            with self._staged.open_file(entry.hash) as source:
                directory.copy_content(source, name, mode=mode, owner=owner, mtime=status.st_mtime)

    def _is_mere_parent(self, entry: Entry) -> bool:
        """Whether it is a directory that just has to be there, and of which we have nothing but the name."""
        return (
            entry.type is FileType.DIRECTORY
            and entry.name not in self._directories
            and self._staged.lstat(entry.hash) is None
        )

    def _linked(self, file_hash: str, directory: Directory, name: str) -> bool:
        """Hard-link a staged file; False where the file systems do not allow it."""
        try:
            directory.hard_link(self._staged, file_hash, name)
        except OSError as error:
            if error.errno in _NO_HARD_LINK:
                return False
            raise
        return True
