"""Archives of the kind that the kernel unpacks into its first root file system: cpio, "newc".

Reproducible: members are written in the given order with time 0, owner root, and inode numbers that are counted. The
caller names parents before what is in them, as the kernel makes no directories by itself. Pure.
"""

from __future__ import annotations

import stat
from collections.abc import Iterable
from dataclasses import dataclass

MAX_FILE_BYTES = 2**32 - 1
"""The field for the size has eight hexadecimal digits."""
MAX_NAME_BYTES = 4095
"""The kernel reads no longer ones (PATH_MAX)."""

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


def directory(name: str, mode: int = 0o755) -> Member:
    return Member(name, stat.S_IFDIR | mode)


def file(name: str, content: bytes, mode: int = 0o644) -> Member:
    return Member(name, stat.S_IFREG | mode, content)


def link(name: str, target: str) -> Member:
    return Member(name, stat.S_IFLNK | 0o777, target.encode())


def character_device(name: str, major: int, minor: int, mode: int = 0o600) -> Member:
    return Member(name, stat.S_IFCHR | mode, device=(major, minor))


def write(members: Iterable[Member]) -> bytes:
    """The whole archive. Raises ValueError for a name or a size that the format cannot express."""
    parts: list[bytes] = []
    inode = 0
    for inode, member in enumerate(members, start=1):
        if member.name == _TRAILER:
            raise ValueError(f"{_TRAILER} cannot be the name of a member: readers take it for the end of the archive")
        parts += _parts(member, inode)
    parts += _parts(Member(_TRAILER, 0), inode + 1)
    return b"".join(parts)


def _parts(member: Member, inode: int) -> list[bytes]:
    name = member.name.encode() + b"\0"
    if len(name) > MAX_NAME_BYTES or name.startswith((b"/", b"\0")) or name.count(b"\0") > 1:
        raise ValueError(f"{member.name!r} cannot be the name of a member")
    if len(member.content) > MAX_FILE_BYTES:
        raise ValueError(f"{member.name} is larger than {MAX_FILE_BYTES} bytes")
    links = 2 if stat.S_ISDIR(member.mode) else 1
    # Inode, mode, uid, gid, links, time, size, device it is on, device it stands for, length of the name, check sum.
    fields = (inode, member.mode, 0, 0, links, 0, len(member.content), 0, 0, *member.device, len(name), 0)
    header = _MAGIC + b"".join(b"%08X" % field for field in fields)
    return [header, name, _padding(len(header) + len(name)), member.content, _padding(len(member.content))]


def _padding(size: int) -> bytes:
    return bytes(-size % _ALIGNMENT)
