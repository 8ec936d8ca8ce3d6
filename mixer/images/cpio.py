"""Archives of the kind that the kernel unpacks into its first root file system: cpio, "newc".

Reproducible: members are written in the given order with one time for all, and inode numbers that are counted. The
caller names parents before what is in them, as the kernel makes no directories by itself. Pure; in `pieces` the content
of one member at a time passes.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

MAX_FILE_BYTES = 2**32 - 1
"""The field for the size has eight hexadecimal digits."""
MAX_NAME_BYTES = 4095
"""The kernel reads no longer ones (PATH_MAX)."""
MAX_TIME = 2**32 - 1
"""Later times, from the year 2106 on, are written as this one."""

_MAGIC = b"070701"
_TRAILER = "TRAILER!!!"
_ALIGNMENT = 4


@dataclass(frozen=True, slots=True)
class Member:
    """A file, directory, symbolic link or device."""

    name: str
    """Without a leading slash."""
    mode: int
    """Type and permissions, as in st_mode."""
    content: bytes = b""
    """Of a file; of a link, its target."""
    device: tuple[int, int] = (0, 0)
    """Major and minor number."""
    uid: int = 0
    gid: int = 0


def directory(name: str, mode: int = 0o755) -> Member:
    return Member(name, stat.S_IFDIR | mode)


def file(name: str, content: bytes, mode: int = 0o644) -> Member:
    return Member(name, stat.S_IFREG | mode, content)


def link(name: str, target: str) -> Member:
    return Member(name, stat.S_IFLNK | 0o777, os.fsencode(target))


def character_device(name: str, major: int, minor: int, mode: int = 0o600) -> Member:
    return Member(name, stat.S_IFCHR | mode, device=(major, minor))


def write(members: Iterable[Member], *, time: int = 0) -> bytes:
    """The whole archive, as `pieces` makes it."""
    return b"".join(pieces(members, time=time))


def pieces(members: Iterable[Member], *, time: int = 0) -> Iterator[bytes]:
    """The archive in pieces; `time` is that of all members, in seconds since 1970.

    Raises ValueError for a name or a size that the format cannot express.
    """
    inode = 0
    for inode, member in enumerate(members, start=1):
        if member.name == _TRAILER:
            raise ValueError(f"{_TRAILER} cannot be the name of a member: readers take it for the end of the archive")
        yield from _parts(member, inode, min(time, MAX_TIME))
    yield from _parts(Member(_TRAILER, 0), inode + 1, 0)


def _parts(member: Member, inode: int, time: int) -> Iterator[bytes]:
    name = os.fsencode(member.name) + b"\0"
    if len(name) > MAX_NAME_BYTES or name.startswith((b"/", b"\0")) or name.count(b"\0") > 1:
        raise ValueError(f"{member.name!r} cannot be the name of a member")
    size = len(member.content)
    if size > MAX_FILE_BYTES:
        raise ValueError(f"{member.name} is larger than {MAX_FILE_BYTES} bytes")
    links = 2 if stat.S_ISDIR(member.mode) else 1
    owner, device = (member.uid, member.gid), member.device
    # Inode, mode, uid, gid, links, time, size, device it is on, device it stands for, length of the name, check sum.
    fields = (inode, member.mode, *owner, links, time, size, 0, 0, *device, len(name), 0)
    header = _MAGIC + b"".join(b"%08X" % field for field in fields)
    yield header + name + _padding(len(header) + len(name))
    yield member.content
    yield _padding(size)


def _padding(size: int) -> bytes:
    return bytes(-size % _ALIGNMENT)
