"""Making everything new beside its place: phase A of `swupd.install`.

Until the list of changes is carried out, nothing has changed but `.update.<name>` siblings, and `undo` removes them.
A directory that does not exist yet, or that stands where something else is now, is made as one sibling with all its
content: one rename brings it whole.

A staged file is *hard-linked* if it has no other name yet, so the usual object costs neither a copy nor space. Any
further use is a copy: files that share an inode change together when somebody edits one of them in place. Links and
directories are made anew.
"""

from __future__ import annotations

import errno
import os
import stat
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress

from swupd.changes import DISPLACED, SIBLING, Action, Change, Failure, beside
from swupd.errors import InstallError, UnsafePathError
from swupd.formats import layout
from swupd.formats.manifest import Entry, FileType
from swupd.fs import Directory, chunks_of
from swupd.walker import Frame, Walker, follow, parents, split

UNLISTED_PARENT_MODE = 0o755
"""Mode of a directory that must exist but that no manifest describes."""

_TYPE_NAMES = {FileType.FILE: "file", FileType.DIRECTORY: "directory", FileType.LINK: "symbolic link"}
_NO_HARD_LINK = frozenset({errno.EXDEV, errno.EMLINK, errno.EPERM, errno.EOPNOTSUPP})


class Preparation:
    """Makes siblings in one root, and the list of changes that will bring them to their places.

    wanted: the whole list of files that the root shall have. removals: what shall go, deepest first.
    """

    def __init__(
        self, root: Directory, staged: Directory, wanted: Mapping[str, Entry], removals: Sequence[str]
    ) -> None:
        self._root = root
        self._staged = staged
        self._wanted = wanted
        self._removals = dict.fromkeys(removals)
        self._emptied = {parent for name in removals for parent in parents(name)}
        """Directories above something that is removed."""
        self._changes: list[Change] = []
        self._fresh: dict[str, str] = {}
        """Directories that are made anew, with the names of their siblings."""
        self._fresh_root = ""
        """The one of them that the walker is in."""
        self._settled: set[str] = set()
        """Removals that a change takes care of, or that must not happen because a change cannot."""
        self._made: list[tuple[str, str]] = []
        self._walker = Walker(root, self._enter)
        self.installed = Counter[str]()
        """New objects, counted by the path of the change that brings them."""
        self.replaced: list[str] = []
        self.failures: list[Failure] = []
        self.devices: dict[int, str] = {}
        """The file systems that are touched, each with a directory on it."""

    def start(self) -> None:
        """Must come before the first `add`."""
        self._arrive(self._walker.go(""))

    def add(self, entry: Entry) -> None:
        """Make what `entry` needs. Entries come in tree order.

        Raises OSError, UnsafePathError if a directory above is something else and nobody replaces it, InstallError if
        the object is not staged.
        """
        directory, base = split(entry.name)
        frame = self._walker.go(directory)
        if frame.fresh:
            self._create(frame.directory, base, entry)
            self.installed[self._fresh_root] += 1
            return
        status = frame.directory.lstat(base)
        clear: list[str] = []
        if status is not None and stat.S_ISDIR(status.st_mode):
            if entry.type is FileType.DIRECTORY:
                self._set_attributes(frame, base, entry, status)
                return
            foreign, clear = self._content(frame.directory, base, entry.name)
            if foreign:
                # Better the whole old directory than half of it.
                self._settled.update(name for name in self._removals if name.startswith(f"{entry.name}/"))
                kind = _TYPE_NAMES[entry.type]
                self.failures.append(Failure(entry.name, f"cannot become a {kind} while {foreign} is in there"))
                return
        self._place(frame, base, entry, clear)
        if status is None:
            self.installed[entry.name] += 1
        else:
            self.replaced.append(entry.name)

    def sync(self) -> None:
        """Wait until all file systems that were touched have everything on disk."""
        for path in self.devices.values():
            self._walker.go(path).directory.sync()

    def undo(self) -> None:
        """Remove every sibling; nothing else has changed."""
        self.close()
        with Walker(self._root, follow) as walker:
            for directory, sibling in reversed(self._made):
                with suppress(OSError, UnsafePathError):
                    walker.go(directory).directory.remove_tree(sibling)

    def close(self) -> None:
        self._walker.close()

    def changes(self) -> tuple[list[Change], list[Change]]:
        """All that is left to do: new things and then removals; and after all of them, what brings os-release."""
        first: list[Change] = []
        last: list[Change] = []
        for change in self._changes:
            brings_os_release = change.action is Action.PLACE and f"{layout.OS_RELEASE}/".startswith(f"{change.path}/")
            (last if brings_os_release else first).append(change)
        gone = [Change(Action.REMOVE, *split(name)) for name in self._removals if name not in self._settled]
        return first + gone, last

    def _enter(self, frame: Frame, component: str) -> Frame:
        """Into a directory, which is made if it is missing or if what stands there is to go."""
        path = f"{frame.path}/{component}"
        if frame.fresh:
            if frame.directory.lstat(component) is None:
                self._make_parent(frame.directory, component, path)
            return Frame(path, frame.directory.descend(component), fresh=True)
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
            self._place(frame, component, None, [])
            self.installed[path] += 1
        self._fresh_root = path
        return Frame(path, frame.directory.descend(self._fresh[path]), fresh=True)

    def _arrive(self, frame: Frame) -> None:
        """In a directory that exists: note its file system, and clear away what a killed run left."""
        self.devices.setdefault(os.fstat(frame.directory.fd).st_dev, frame.path)
        for name in frame.directory.names():
            for prefix in (SIBLING, DISPLACED):
                base = name.removeprefix(prefix)
                if name.startswith(prefix) and self._is_managed(frame, base) and not self._is_managed(frame, name):
                    self._clear_leftover(frame, name, base, prefix)

    def _is_managed(self, frame: Frame, base: str) -> bool:
        path = f"{frame.path}/{base}"
        return path in self._wanted or path in self._removals

    def _clear_leftover(self, frame: Frame, name: str, base: str, prefix: str) -> None:
        if prefix == SIBLING:
            frame.directory.remove_tree(name)
        elif frame.directory.lstat(base) is None:
            frame.directory.rename(name, base)  # killed between the two renames of a directory that gives way
        elif not self._content(frame.directory, name, f"{frame.path}/{base}")[0]:
            frame.directory.remove_tree(name)

    def _place(self, frame: Frame, base: str, entry: Entry | None, clear: Sequence[str]) -> None:
        """Make the sibling of a new object (of a parent directory without an entry) and the change that places it."""
        path = f"{frame.path}/{base}"
        sibling = beside(SIBLING, base)
        if f"{frame.path}/{sibling}" in self._wanted:
            sibling = beside(SIBLING, base, short=True)
        frame.directory.remove_tree(sibling)
        self._made.append((frame.path, sibling))
        if entry is None:
            self._make_parent(frame.directory, sibling, path)
        else:
            self._create(frame.directory, sibling, entry)
        if entry is None or entry.type is FileType.DIRECTORY:
            self._fresh[path] = sibling
        inside = tuple(name[len(path) + 1 :] for name in clear)
        self._changes.append(Change(Action.PLACE, frame.path, base, sibling, inside))
        self._settled.update([path, *clear])

    def _set_attributes(self, frame: Frame, base: str, entry: Entry, status: os.stat_result) -> None:
        wanted = self._object(entry)
        attributes = (stat.S_IMODE(wanted.st_mode), wanted.st_uid, wanted.st_gid)
        if attributes != (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid):
            self._changes.append(Change(Action.ATTRIBUTES, frame.path, base, attributes=attributes))
            self.replaced.append(entry.name)

    def _make_parent(self, directory: Directory, name: str, path: str) -> None:
        """A directory that must exist: as its entry says if that is staged, otherwise an ordinary one."""
        entry = self._wanted.get(path)
        if entry is None or not entry.is_present:
            directory.make_directory(name, mode=UNLISTED_PARENT_MODE)
        elif entry.type is not FileType.DIRECTORY:
            raise InstallError(
                f"the manifests have files below {path}, which is a {_TYPE_NAMES[entry.type]}; nothing was changed",
                hint="this is a mistake in the published content: tell its publisher",
            )
        elif self._staged.lstat(entry.hash) is None:
            directory.make_directory(name, mode=UNLISTED_PARENT_MODE)
        else:
            self._create(directory, name, entry)

    def _create(self, directory: Directory, name: str, entry: Entry) -> None:
        status = self._object(entry)
        mode, owner = stat.S_IMODE(status.st_mode), (status.st_uid, status.st_gid)
        if entry.type is FileType.DIRECTORY:
            directory.make_directory(name, mode=mode, owner=owner)
        elif entry.type is FileType.LINK:
            directory.make_link(name, self._staged.readlink(entry.hash), owner=owner)
        elif status.st_nlink > 1 or not self._linked(entry.hash, directory, name):
            with self._staged.open_file(entry.hash) as source:
                directory.write_file(name, chunks_of(source), mode=mode, owner=owner, mtime=status.st_mtime)

    def _linked(self, file_hash: str, directory: Directory, name: str) -> bool:
        """Hard-link a staged file; False where the file systems do not allow it."""
        try:
            directory.hard_link(self._staged, file_hash, name)
        except OSError as error:
            if error.errno in _NO_HARD_LINK:
                return False
            raise
        return True

    def _object(self, entry: Entry) -> os.stat_result:
        """The status of the staged object, which must be there and be of the type of its entry."""
        status = self._staged.lstat(entry.hash)
        if status is None or _type_of(status) is not entry.type:
            what = "is not staged" if status is None else f"is not a {_TYPE_NAMES[entry.type]}"
            raise InstallError(
                f"the object {entry.hash} for {entry.name} {what}; nothing was changed",
                hint="run the command again; if that does not help, run it after: swupd clean",
            )
        return status

    def _content(self, parent: Directory, base: str, path: str) -> tuple[str, list[str]]:
        """What is in a directory that has to go: (the first path that must stay or "", all names deepest first)."""
        names: list[str] = []
        with parent.descend(base) as directory:
            for name in directory.names():
                below = f"{path}/{name}"
                status = directory.lstat(name)
                removed = below in self._removals
                if status is not None and stat.S_ISDIR(status.st_mode) and (removed or below in self._emptied):
                    foreign, inner = self._content(directory, name, below)
                    if foreign:
                        return foreign, []
                    names += inner
                elif not removed:
                    return below, []
                names.append(below)
        return "", names


def _type_of(status: os.stat_result) -> FileType:
    if stat.S_ISREG(status.st_mode):
        return FileType.FILE
    if stat.S_ISDIR(status.st_mode):
        return FileType.DIRECTORY
    return FileType.LINK if stat.S_ISLNK(status.st_mode) else FileType.NONE
