"""What an installation changes, decided by looking at the root: the first thing that `transaction.install` does.

Nothing is changed here. The result is a stream of `Change`s, which is written to the journal as it comes, so that
450,000 of them need no memory. Their order is that of `transaction.changes.Commit`: new things in tree order, then
removals, deepest first, and last of all what brings `/usr/lib/os-release`, after a barrier.

* A directory that does not exist yet, or that stands where something else is now, is one change with all its content.
* Names beside others (`.update.x`, `.deleted.x`) are chosen so that they are free: what has such a name is not ours.
* A directory that holds something which is not to be removed stays: it does not become a file or link (that is a
  `Failure`, and all its content stays as it is), and as a mere removal it is tried and kept.
* A directory above that is something else now stops everything (UnsafePathError), or with `tolerant` only what is
  below it.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

from swupd.errors import InstallError, UnsafePathError
from swupd.formats import layout
from swupd.formats.manifest import Entry, FileType
from swupd.fs import Directory
from swupd.transaction.changes import DISPLACED, NAME_BYTES, SIBLING, Failure
from swupd.transaction.journal import Action, Change, Kind, Old, kind_of, old_of
from swupd.walker import Frame, Walker, follow, parents, split

TYPE_NAMES = {FileType.FILE: "file", FileType.DIRECTORY: "directory", FileType.LINK: "symbolic link"}
_KINDS = {FileType.FILE: Kind.FILE, FileType.DIRECTORY: Kind.DIRECTORY, FileType.LINK: Kind.LINK}


class Decisions:
    """The changes of one installation, once; afterwards what is known about them.

    entries: what shall be written, in tree order. removals: what shall go, deepest first; missing ones are fine.
    wanted: the whole list of files that the root shall have. staged: has the objects by their hashes.
    """

    def __init__(
        self,
        root: Directory,
        staged: Directory,
        wanted: Mapping[str, Entry],
        entries: Iterable[Entry],
        removals: Sequence[str],
        *,
        tolerant: bool,
    ) -> None:
        self._root = root
        self._staged = staged
        self._wanted = wanted
        self._entries = entries
        self._removals = dict.fromkeys(removals)
        self._tolerant = tolerant
        self._emptied = {parent for name in removals for parent in parents(name)}
        """Directories above something that is removed."""
        self._settled: set[str] = set()
        """Removals that a change takes care of, or that must not happen because a change cannot."""
        self._fresh: set[str] = set()
        """Directories that are made anew."""
        self._fresh_root = ""
        """The outermost of those that the walker is in."""
        self._taken: dict[str, frozenset[str]] = {}
        """By directory the names that look like ours."""
        self._found: list[Change] = []
        self._tree: Change | None = None
        """What brings the new directory whose content is being decided."""
        self._last: list[Change] = []
        self._numbers = 0
        self._walker = Walker(root, self._enter)
        self.installed = Counter[str]()
        """New objects, counted by the path of the change that brings them."""
        self.replaced: list[str] = []
        self.failures: list[Failure] = []

    def changes(self) -> Iterator[Change]:
        """All changes in their order.

        Raises OSError, UnsafePathError if a directory above an entry is something else and nobody replaces it,
        InstallError if an object is not staged or the manifests contradict themselves.
        """
        try:
            self._arrive(self._walker.go(""))
            for entry in self._entries:
                try:
                    self._add(entry)
                except UnsafePathError as error:
                    if not self._tolerant:
                        raise
                    self.failures.append(Failure(entry.name, str(error)))
                if self._found:
                    yield from self._found
                    self._found.clear()
            self._end_tree("/")
            yield from self._found
            yield from self._removed()
            if self._last:
                # One file system keeps the order of renames; several may be on disk at different times.
                yield Change(Action.SYNC)
                yield from self._last
        finally:
            self._walker.close()

    def _add(self, entry: Entry) -> None:
        self._end_tree(entry.name)
        directory, base = split(entry.name)
        frame = self._walker.go(directory)
        if frame.fresh:
            self._make(frame.path, base, _KINDS[entry.type])
            self.installed[self._fresh_root] += 1
            return
        status = frame.directory.lstat(base)
        if status is None:
            self._place(frame, base, _KINDS[entry.type], None)
            self.installed[entry.name] += 1
        elif not stat.S_ISDIR(status.st_mode):
            self._place(frame, base, _KINDS[entry.type], self._old(frame.directory, base, status))
            self.replaced.append(entry.name)
        elif entry.type is FileType.DIRECTORY:
            self._set_attributes(frame, base, entry, status)
        else:
            self._swap(frame, base, entry, status)

    def _removed(self) -> Iterator[Change]:
        with Walker(self._root, follow) as walker:
            for name in self._removals:
                if name in self._settled:
                    continue
                directory, base = split(name)
                try:
                    parent = walker.go(directory).directory
                except (FileNotFoundError, NotADirectoryError, UnsafePathError):
                    continue  # a parent that is missing, or a link by now, means that the path is gone already
                status = parent.lstat(base)
                if status is not None:
                    old = self._old(parent, base, status)
                    yield Change(Action.REMOVE, directory, base, old.kind, old=old)

    def _enter(self, frame: Frame, component: str) -> Frame:
        """Into a directory, which will be made if it is missing or if what stands there is to go."""
        path = f"{frame.path}/{component}"
        if frame.fresh:
            if path not in self._fresh:
                self._check_parent(path)
                self._make(frame.path, component, Kind.DIRECTORY)
            return _not_there(path)
        if path not in self._fresh:
            status = frame.directory.lstat(component)
            if status is not None and stat.S_ISDIR(status.st_mode):
                below = Frame(path, frame.directory.descend(component))
                self._arrive(below)
                return below
            if status is not None and path not in self._removals:
                kind = "symbolic link" if stat.S_ISLNK(status.st_mode) else "file"
                raise UnsafePathError(
                    f"{path} is a {kind} where a directory is expected",
                    hint="put the directory back, or let this do it: swupd repair",
                )
            self._check_parent(path)
            old = None if status is None else self._old(frame.directory, component, status)
            self._place(frame, component, Kind.DIRECTORY, old)
            self.installed[path] += 1
        self._fresh_root = path
        return _not_there(path)

    def _arrive(self, frame: Frame) -> None:
        names = [name for name in frame.directory.names() if name.startswith((SIBLING, DISPLACED))]
        self._taken[frame.path] = frozenset(names)

    def _check_parent(self, path: str) -> None:
        entry = self._wanted.get(path)
        if entry is not None and entry.is_present and entry.type is not FileType.DIRECTORY:
            raise InstallError(
                f"the manifests have files below {path}, which is a {TYPE_NAMES[entry.type]}; nothing was changed",
                hint="this is a mistake in the published content: tell its publisher",
            )

    def _make(self, directory: str, base: str, kind: Kind) -> None:
        """An object in a directory that is made anew."""
        self._found.append(Change(Action.MADE, directory, base, kind))
        if kind is Kind.DIRECTORY:
            self._fresh.add(f"{directory}/{base}")

    def _place(self, frame: Frame, base: str, kind: Kind, old: Old | None) -> None:
        """A new object where nothing is, or a file or link."""
        sibling, aside = self._free_names(frame.path, base)
        path = f"{frame.path}/{base}"
        self._settled.add(path)
        if kind is Kind.DIRECTORY:
            self._found.append(Change(Action.MADE, frame.path, base, kind, sibling, aside, old))
            self._fresh.add(path)
            self._tree = Change(Action.PLACE, frame.path, base, kind, sibling, aside)
        else:
            self._decide(Change(Action.PLACE, frame.path, base, kind, sibling, aside, old))

    def _end_tree(self, name: str) -> None:
        """What brings a new directory comes after the last thing that is in it."""
        if self._tree is not None and not name.startswith(f"{self._tree.path}/"):
            change, self._tree = self._tree, None
            self._decide(change)

    def _swap(self, frame: Frame, base: str, entry: Entry, status: os.stat_result) -> None:
        """A file or link in place of a directory."""
        foreign, content = self._content(frame.directory, base, entry.name)
        if foreign:
            # Better the whole old directory than half of it.
            self._settled.update(name for name in self._removals if name.startswith(f"{entry.name}/"))
            kind = TYPE_NAMES[entry.type]
            self.failures.append(Failure(entry.name, f"cannot become a {kind} while {foreign} is in there"))
            return
        sibling, aside = self._free_names(frame.path, base)
        changes = [Change(Action.SWAP, frame.path, base, _KINDS[entry.type], sibling, aside)]
        for path, old in [*content, (entry.name, old_of(status))]:
            place = split(f"{frame.path}/{aside}{path[len(entry.name) :]}")
            changes.append(Change(Action.REMOVE, *place, old.kind, old=old, was=path))
            self._settled.add(path)
        self._decide(*changes)
        self.replaced.append(entry.name)

    def _decide(self, *changes: Change) -> None:
        brings_os_release = f"{layout.OS_RELEASE}/".startswith(f"{changes[0].path}/")
        (self._last if brings_os_release else self._found).extend(changes)

    def _set_attributes(self, frame: Frame, base: str, entry: Entry, status: os.stat_result) -> None:
        wanted = staged_object(self._staged, entry)
        attributes = (stat.S_IMODE(wanted.st_mode), wanted.st_uid, wanted.st_gid)
        if attributes != (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid):
            old = old_of(status)
            self._found.append(
                Change(Action.ATTRIBUTES, frame.path, base, Kind.DIRECTORY, old=old, attributes=attributes)
            )
            self.replaced.append(entry.name)

    def _content(self, parent: Directory, base: str, path: str) -> tuple[str, list[tuple[str, Old]]]:
        """What is in a directory that has to go: (the first path that must stay or "", all the rest deepest first)."""
        found: list[tuple[str, Old]] = []
        with parent.descend(base) as directory:
            for name in directory.names():
                below = f"{path}/{name}"
                status = directory.lstat(name)
                if status is None:
                    continue
                removed = below in self._removals
                if stat.S_ISDIR(status.st_mode) and (removed or below in self._emptied):
                    foreign, inner = self._content(directory, name, below)
                    if foreign:
                        return foreign, []
                    found += inner
                elif not removed:
                    return below, []
                found.append((below, self._old(directory, name, status)))
        return "", found

    def _old(self, directory: Directory, base: str, status: os.stat_result) -> Old:
        kind = kind_of(status)
        if kind is Kind.LINK:
            return old_of(status, target=directory.readlink(base))
        if kind is Kind.FILE:
            self._numbers += 1
            return old_of(status, number=self._numbers)
        return old_of(status)

    def _free_names(self, directory: str, base: str) -> tuple[str, str]:
        """Two names next to `base` that every file system takes and that nothing has or will have."""
        taken = self._taken[directory]
        for stem in _stems(base):
            names = SIBLING + stem, DISPLACED + stem
            if len(os.fsencode(names[1])) <= NAME_BYTES and not any(
                name in taken or f"{directory}/{name}" in self._wanted for name in names
            ):
                break
        return names


def staged_object(staged: Directory, entry: Entry) -> os.stat_result:
    """The status of the staged object, which must be there and be of the type of its entry; InstallError if not."""
    status = staged.lstat(entry.hash)
    if status is None or _type_of(status) is not entry.type:
        what = "is not staged" if status is None else f"is not a {TYPE_NAMES[entry.type]}"
        raise InstallError(
            f"the object {entry.hash} for {entry.name} {what}; nothing was changed",
            hint="run the command again; if that does not help, run it after: swupd clean",
        )
    return status


def _not_there(path: str) -> Frame:
    """A directory that only exists in the plan."""
    return Frame(path, Directory(-1, path), fresh=True)


def _stems(base: str) -> Iterator[str]:
    yield base
    digest = hashlib.sha256(os.fsencode(base)).hexdigest()
    yield digest
    number = 0
    while True:
        number += 1
        yield f"{digest}.{number}"


def _type_of(status: os.stat_result) -> FileType:
    if stat.S_ISREG(status.st_mode):
        return FileType.FILE
    if stat.S_ISDIR(status.st_mode):
        return FileType.DIRECTORY
    return FileType.LINK if stat.S_ISLNK(status.st_mode) else FileType.NONE
