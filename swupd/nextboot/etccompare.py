"""Two directories compared: what somebody has changed, with the original that the changes were made to.

Pure: looks, and changes nothing; nothing follows a link. The changed one is a whole directory, or the upper layer of an
overlay over the original: what it does not have is then as in the original, deleted is what has a *whiteout* in its
place (a character device 0:0), and a directory that is marked *opaque* hides the original's.

* Types, contents, modes, owners and extended attributes count as differences, times do not.
* The digest of an object is its swupd hash; that of a directory covers all below it.
* Paths are relative to the two directories and have no slash at the ends; "" are the directories themselves.

Raises OSError. What is below a directory that vanishes meanwhile is left out.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from typing import BinaryIO

from swupd.errors import UnsafePathError
from swupd.formats.filehash import UnsupportedTypeError, hash_path
from swupd.fs import Directory
from swupd.walker import split

NOTHING = ""
"""The digest of what does not exist."""

_OPAQUE = "trusted.overlay.opaque"
_NO_CONTENT = ("trusted.overlay.", "btrfs.", "security.selinux")
"""Extended attributes that say nothing of an object, but of how it is stored."""
_CHUNK = 1 << 20


class Kind(Enum):
    """How a path differs from the factory."""

    ADDED = "added"
    CHANGED = "changed"
    MODE = "mode"
    """Only its mode, owner or extended attributes."""
    SAME = "same"
    """A copy that hides the factory's object: it stays when the factory's changes. Only where /etc is an overlay."""
    TYPE = "type"
    DELETED = "deleted"
    STALE = "stale"
    """Deleted, and the factory has none any more."""
    OPAQUE = "opaque"
    """A directory that replaces the factory's: nothing of that is seen below it."""


@dataclass(frozen=True, slots=True)
class Difference:
    path: str
    kind: Kind
    is_directory: bool = False
    """What is in /etc now."""
    is_conflict: bool = False
    """The factory's object is not the one that the change was made against."""
    is_queued: bool = False
    """Reverted; it follows the factory from the next boot on."""

    @property
    def is_visible(self) -> bool:
        """Whether programs see anything else than the factory."""
        return self.kind not in (Kind.SAME, Kind.STALE)

    @property
    def is_whole(self) -> bool:
        """Whether it stands for all below it, too."""
        return not (self.kind is Kind.MODE and self.is_directory)


def differences(mine: Directory, factory: Directory, *, plain: bool = False) -> Iterator[Difference]:
    """How a layer differs from the factory, in tree order; of what is hidden as a whole only the top.

    plain: `mine` is no layer but all there is, so what is missing in it was deleted.
    """
    if _attributes(mine, ".") != _attributes(factory, "."):
        yield Difference("", Kind.MODE, is_directory=True)
    yield from _below(mine, factory, "", plain=plain)


def digest(directory: Directory, name: str) -> str:
    """What is at `name` with all below it, as 64 hexadecimal digits; NOTHING if there is nothing. Raises OSError."""
    status = directory.lstat(name)
    if status is None:
        return NOTHING
    try:
        own = hash_path(name, dir_fd=directory.fd)
    except UnsupportedTypeError:
        return hashlib.sha256(f"{status.st_mode} {status.st_rdev}".encode()).hexdigest()
    if not stat.S_ISDIR(status.st_mode):
        return own
    whole = hashlib.sha256(own.encode())
    with directory.descend(name) as below:
        for entry in sorted(below.names()):
            whole.update(os.fsencode(entry) + b"\0" + digest(below, entry).encode())
    return whole.hexdigest()


def digest_at(top: Directory, path: str) -> str:
    """The digest of what is at a path; NOTHING also if there is no directory that could hold it."""
    directory, name = split(path)
    try:
        with top.descend(directory) as parent:
            return digest(parent, name)
    except (FileNotFoundError, NotADirectoryError, UnsafePathError):
        return NOTHING


def is_within(path: str, top: str) -> bool:
    """Whether a path is another one or below it."""
    return not top or path == top or path.startswith(f"{top}/")


def selected(differences: Iterable[Difference], paths: Iterable[str]) -> list[Difference]:
    """The differences at and below some paths, and the directories around them that differ as a whole."""
    tops = list(paths)
    return [
        difference
        for difference in differences
        for path in [difference.path]
        if any(is_within(path, top) or (difference.is_whole and is_within(top, path)) for top in tops)
    ]


def _below(mine: Directory, factory: Directory, prefix: str, *, plain: bool) -> Iterator[Difference]:
    names = set(mine.names())
    if plain:
        names.update(factory.names())
    for name in sorted(names):
        path = prefix + name
        kind, is_directory = compare(mine, factory, name, plain=plain)
        if kind is not None and not (plain and kind is Kind.SAME):
            yield Difference(path, kind, is_directory)
        if is_merged(kind, is_directory=is_directory):
            with suppress(FileNotFoundError), mine.descend(name) as own, factory.descend(name) as theirs:
                yield from _below(own, theirs, f"{path}/", plain=plain)


def is_merged(kind: Kind | None, *, is_directory: bool) -> bool:
    """Whether something that was compared is a directory whose content is that of both layers."""
    return is_directory and kind in (None, Kind.MODE)


def compare(mine: Directory, factory: Directory, name: str, *, plain: bool = False) -> tuple[Kind | None, bool]:
    """How an entry differs, and whether it is a directory. None: a directory that holds differences at most."""
    own, theirs = mine.lstat(name), factory.lstat(name)
    if own is None or (not plain and _is_whiteout(own)):
        return (Kind.STALE if theirs is None else Kind.DELETED), False
    is_directory = stat.S_ISDIR(own.st_mode)
    if theirs is None:
        return Kind.ADDED, is_directory
    if stat.S_IFMT(own.st_mode) != stat.S_IFMT(theirs.st_mode):
        return Kind.TYPE, is_directory
    if is_directory and not plain and _OPAQUE in _listed(mine, name):
        return (Kind.SAME if _is_copy(mine, factory, name) else Kind.OPAQUE), True
    alike = _attributes(mine, name) == _attributes(factory, name)
    if is_directory:
        return (None if alike else Kind.MODE), True
    if not _same_content(mine, factory, name):
        return Kind.CHANGED, False
    return (Kind.SAME if alike else Kind.MODE), False


def _is_copy(mine: Directory, factory: Directory, name: str) -> bool:
    """Whether a directory is the factory's with all below it."""
    if _attributes(mine, name) != _attributes(factory, name):
        return False
    with mine.descend(name) as own, factory.descend(name) as theirs:
        return next(_below(own, theirs, "", plain=True), None) is None


def _is_whiteout(status: os.stat_result) -> bool:
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == 0


def _same_content(mine: Directory, factory: Directory, name: str) -> bool:
    """Of two objects of the same type that are no directories."""
    own, theirs = mine.lstat(name), factory.lstat(name)
    if own is None or theirs is None:
        return False
    if stat.S_ISLNK(own.st_mode):
        return mine.readlink(name) == factory.readlink(name)
    if not stat.S_ISREG(own.st_mode):
        return own.st_rdev == theirs.st_rdev
    if own.st_size != theirs.st_size:
        return False
    with mine.open_file(name) as one, factory.open_file(name) as other:
        return _same_bytes(one, other)


def _same_bytes(one: BinaryIO, other: BinaryIO) -> bool:
    while chunk := one.read(_CHUNK):
        if chunk != other.read(_CHUNK):
            return False
    return not other.read(1)


def _attributes(directory: Directory, name: str) -> tuple[int, int, int, dict[str, bytes]]:
    """Mode, owner and extended attributes; the mode of a link never counts."""
    status = os.stat(name, dir_fd=directory.fd, follow_symlinks=False)
    mode = 0 if stat.S_ISLNK(status.st_mode) else stat.S_IMODE(status.st_mode)
    return mode, status.st_uid, status.st_gid, extended_attributes(directory, name)


def extended_attributes(directory: Directory, name: str) -> dict[str, bytes]:
    """The extended attributes that belong to an object itself."""
    path = _path(directory, name)
    return {
        key: os.getxattr(path, key, follow_symlinks=False)
        for key in _listed(directory, name)
        if not key.startswith(_NO_CONTENT)
    }


def _listed(directory: Directory, name: str) -> list[str]:
    return os.listxattr(_path(directory, name), follow_symlinks=False)


def _path(directory: Directory, name: str) -> str:
    """The kernel's calls for extended attributes know no descriptors of directories."""
    return f"/proc/self/fd/{directory.fd}/{name}"
