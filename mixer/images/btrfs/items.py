"""What goes into a file system: items, and how much room they need."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from mixer.images.btrfs.format import CSUM_SIZE, MAX_INLINE, MAX_NAME, MAX_TARGET, NODESIZE, SECTORSIZE, round_up
from swupd.formats.manifest import FileType

_ITEM_METADATA = 512
"""What the trees say of an item, without its name and what is inline: an inode and the reference to its directory, two
entries there, one extent, its user."""
_SLACK = 16 << 20


@dataclass(frozen=True, slots=True)
class Subvolume:
    """What makes a directory a subvolume."""

    read_only: bool = False


@dataclass(frozen=True, slots=True)
class Item:
    """A file, a link or a directory; each is an inode of its own."""

    path: str
    """Below the top level, without a leading slash; "" is the top level itself."""
    type: FileType
    mode: int
    """Permission bits, with setuid and the like."""
    uid: int
    gid: int
    target: str = ""
    """Of a link."""
    size: int = 0
    """Of a file, in bytes."""
    content: Callable[[], bytes] | None = None
    """Of a file; called once."""
    subvolume: Subvolume | None = None
    """Of a directory that is a subvolume; the top level always is one."""

    @property
    def name(self) -> bytes:
        return os.fsencode(self.path.rpartition("/")[2])

    @property
    def parent(self) -> str:
        return self.path.rpartition("/")[0]

    @property
    def is_inline(self) -> bool:
        """Whether its content stands in the tree itself."""
        return self.type is not FileType.FILE or self.size <= MAX_INLINE


def in_order(items: Iterable[Item]) -> list[Item]:
    """The items sorted by path, so that a directory comes before what is in it.

    Raises ValueError for items that make no file system: a path twice or without its directory, an impossible name, a
    field that the type needs or does not have.
    """
    ordered = sorted(items, key=lambda item: item.path)
    if not ordered or ordered[0].path or ordered[0].type is not FileType.DIRECTORY:
        raise ValueError('the top level, the directory "", is missing')
    directories: set[str] = set()
    last = None
    for item in ordered:
        if item.path == last:
            raise ValueError(f"{item.path!r} is there twice")
        last = item.path
        _check(item)
        if item.path and item.parent not in directories:
            raise ValueError(f"{item.path!r} has no directory")
        if item.type is FileType.DIRECTORY:
            directories.add(item.path)
    return ordered


def _check(item: Item) -> None:
    name = item.name
    impossible = name in (b"", b".", b"..") or b"\0" in name or len(name) > MAX_NAME
    if item.path and (impossible or item.path.startswith("/")):
        raise ValueError(f"{item.path!r} is no path below the top level")
    if item.mode & ~0o7777:
        raise ValueError(f"{item.path!r} has bits in its mode that are no permissions: {item.mode:o}")
    is_file, is_link = item.type is FileType.FILE, item.type is FileType.LINK
    complete = (
        (is_file or is_link or item.type is FileType.DIRECTORY)
        and is_file == (item.content is not None)
        and is_link == bool(item.target)
        and len(os.fsencode(item.target)) <= MAX_TARGET
        and item.size >= 0
        and (item.type is FileType.DIRECTORY or item.subvolume is None)
    )
    if not complete:
        raise ValueError(f"{item.path!r} is not complete, or it has what its type does not have")


def data_size(items: Iterable[Item]) -> int:
    """The bytes of all content that does not stand in the trees."""
    return sum(round_up(item.size, SECTORSIZE) for item in items if not item.is_inline)


def metadata_size(items: Iterable[Item]) -> int:
    """More than the trees take, and some room for a running system to begin to write.

    A leaf stays empty by less than the largest small item takes, a link of 4 KiB: a quarter of the leaf. The slack is
    for the trees that every file system has, and for that room.
    """
    size = 0
    for item in items:
        size += _ITEM_METADATA + 3 * len(item.name) + len(os.fsencode(item.target))
        size += item.size if item.is_inline else round_up(item.size, SECTORSIZE) // SECTORSIZE * CSUM_SIZE
        size += 2 * NODESIZE if item.subvolume else 0
    return size * 3 // 2 + _SLACK
