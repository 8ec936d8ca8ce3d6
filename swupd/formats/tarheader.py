"""One member of a tar archive: its header in bytes and as a value (swupd client specification, section 1.4).

Reading accepts what Go's archive/tar, GNU tar and libarchive write for files, directories, links and hard links: POSIX
(ustar) and GNU headers, pax records and GNU long names, numbers in octal and in base 256. All else is refused by name:
other types, sparse files, names that could lead out of a directory, values out of bounds. A `Member` that comes from
here is therefore safe to look at, but it is the writer's duty to create it below a descriptor without following links.

Writing is deterministic: ustar where everything fits, one pax header in front where it does not; user and group names
are always empty, because readers prefer them to the numbers that the swupd hash is made of.
"""

from __future__ import annotations

import os
import re
import stat
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from swupd.errors import ArchiveError

BLOCK_BYTES = 512
ZERO_BLOCK = bytes(BLOCK_BYTES)

NAME_BYTES_LIMIT = 4096
"""Bytes of a name or link text (PATH_MAX)."""
ID_LIMIT = 2**32 - 2
"""The largest user or group id; the one above means "unchanged" to chown."""
MTIME_LIMIT = 253_402_300_799
"""Seconds since 1970 up to the end of year 9999; times outside 0..this are moved to the nearer end."""

_QUOTED_CHARACTERS = 160
_PERMISSIONS = 0o7777
_USTAR = b"ustar\x0000"
_GNU = b"ustar  \0"
_HEADER = struct.Struct("100s8s8s8s12s12s8sc100s8s32s32s8s8s155s12x")
_CHECKSUM = slice(148, 156)
_OCTAL = re.compile(rb"[0-7]+")
_DECIMAL = re.compile(rb"[0-9]{1,20}")
_SECONDS = re.compile(rb"-?[0-9]{1,20}(?:\.[0-9]*)?")
_NAME_FIELD = 100
_ID_FIELD_LIMIT = 0o7777777
_LONG_FIELD_LIMIT = 0o77777777777
_KNOWN_RECORDS = frozenset({b"path", b"linkpath", b"size", b"uid", b"gid", b"mtime"})


class ObjectType(StrEnum):
    """What content can be; the letters are those of manifests."""

    FILE = "F"
    DIRECTORY = "D"
    LINK = "L"


_TYPE_BITS = {ObjectType.FILE: stat.S_IFREG, ObjectType.DIRECTORY: stat.S_IFDIR, ObjectType.LINK: stat.S_IFLNK}
_TYPE_FLAGS = {ObjectType.FILE: b"0", ObjectType.DIRECTORY: b"5", ObjectType.LINK: b"2"}
_TYPES = {b"0": ObjectType.FILE, b"\0": ObjectType.FILE, b"5": ObjectType.DIRECTORY, b"2": ObjectType.LINK}
_HARD_LINK = b"1"
_OTHER_TYPES = {b"3": "a character device", b"4": "a block device", b"6": "a fifo", b"S": "a sparse file"}

EXTENSION_KINDS = frozenset({b"x", b"L", b"K"})
"""Type flags of headers whose content describes the member that follows."""


@dataclass(frozen=True, slots=True)
class Member:
    """One object of an archive."""

    name: str
    """Relative and canonical, without a trailing slash."""
    type: ObjectType
    mode: int
    """The whole st_mode, type bits included."""
    uid: int
    gid: int
    size: int = 0
    """Bytes of content; 0 unless a file."""
    mtime: float = 0
    target: str = ""
    """Text of a symbolic link."""
    link_to: str | None = None
    """Name of the earlier file of the same archive that this one is a second name of: its content comes from there, and
    all other fields but `name` are copies of that member's."""


class Header(NamedTuple):
    """The numbers and texts of one header block; `kind` is the type flag."""

    kind: bytes
    name: bytes
    target: bytes
    mode: int
    uid: int
    gid: int
    size: int
    mtime: float


def refused(name: str | bytes, why: str) -> ArchiveError:
    """The error for a member, named on one line whatever its name contains."""
    text = os.fsdecode(name)
    if len(text) > _QUOTED_CHARACTERS:
        text = text[:_QUOTED_CHARACTERS] + "…"
    return ArchiveError(f"archive member {text!r} {why}", hint="the archive is damaged or not made by a mixer")


# -- reading -----------------------------------------------------------------------------------------------------------


def parse_block(block: bytes) -> Header:
    """The values of one header block of BLOCK_BYTES; raises ArchiveError."""
    name, mode, uid, gid, size, mtime, checksum, kind, target, magic, _, _, _, _, prefix = _HEADER.unpack(block)
    name = _text(name)
    if magic not in (_USTAR, _GNU):
        raise ArchiveError("this is not a tar archive", hint="the file is damaged or something else")
    if _number(checksum, name) != sum(block) - sum(block[_CHECKSUM]) + 8 * 0x20:
        raise refused(name, "has a damaged header (wrong checksum)")
    if magic == _USTAR and prefix[0]:
        name = _text(prefix) + b"/" + name
    return Header(
        kind,
        name,
        _text(target),
        _number(mode, name),
        _number(uid, name),
        _number(gid, name),
        _number(size, name),
        _number(mtime, name),
    )


def parse_extension(header: Header, content: bytes) -> dict[bytes, bytes]:
    """What a header of EXTENSION_KINDS says about the next member, as pax records; raises ArchiveError."""
    if header.kind == b"L":
        return {b"path": _text(content)}
    if header.kind == b"K":
        return {b"linkpath": _text(content)}
    records: dict[bytes, bytes] = {}
    position = 0
    while position < len(content):
        digits, space, _ = content[position : position + 8].partition(b" ")
        if not space or not _DECIMAL.fullmatch(digits):
            raise refused(header.name, "has damaged pax records")
        record = content[position : position + int(digits)]
        position += int(digits)
        key, equals, value = record[len(digits) + 1 : -1].partition(b"=")
        if position > len(content) or not equals or record[-1:] != b"\n":
            raise refused(header.name, "has damaged pax records")
        if key.startswith(b"GNU.sparse."):
            raise refused(header.name, "describes a sparse file, which is not supported")
        if key in records:
            raise refused(header.name, f"has two pax records {os.fsdecode(key)!r}")
        if key in _KNOWN_RECORDS:
            records[key] = value
    return records


def parse_member(header: Header, records: Mapping[bytes, bytes]) -> Member:
    """The member that a header and the records before it describe.

    A hard link has only `name` and `link_to`, its other fields are empty. Raises ArchiveError for everything that is
    not acceptable as content.
    """
    kind, raw_name, raw_target, mode, uid, gid, size, mtime = header
    if records:
        raw_name = records.get(b"path", raw_name)
        raw_target = records.get(b"linkpath", raw_target)
        uid, gid, size = (
            _decimal(records[key], raw_name) if key in records else value
            for key, value in ((b"uid", uid), (b"gid", gid), (b"size", size))
        )
        if b"mtime" in records:
            mtime = _seconds(records[b"mtime"], raw_name)
    object_type = _TYPES.get(kind)
    if object_type is None and kind != _HARD_LINK:
        what = _OTHER_TYPES.get(kind, f"of the unknown type {os.fsdecode(kind)!r}")
        raise refused(raw_name, f"is {what}, which is not allowed")
    name = _checked_name(raw_name, directory=object_type is ObjectType.DIRECTORY)
    if not (0 <= uid <= ID_LIMIT and 0 <= gid <= ID_LIMIT):
        raise refused(raw_name, f"has the impossible owner {uid}:{gid}")
    if size < 0 or (size and object_type is not ObjectType.FILE):
        raise refused(raw_name, f"has the impossible size {size}")
    if object_type is None:
        link_to = _checked_name(raw_target, directory=False)
        return Member(name, ObjectType.FILE, stat.S_IFREG, 0, 0, link_to=link_to)
    target = ""
    if object_type is ObjectType.LINK:
        if not raw_target or b"\0" in raw_target or len(raw_target) > NAME_BYTES_LIMIT:
            raise refused(raw_name, "has an impossible link text")
        target = os.fsdecode(raw_target)
    return Member(
        name,
        object_type,
        _TYPE_BITS[object_type] | (mode & _PERMISSIONS),
        uid,
        gid,
        size,
        min(max(mtime, 0), MTIME_LIMIT),
        target,
    )


def _text(field: bytes) -> bytes:
    """A field up to its NUL; what follows is filling."""
    return field.partition(b"\0")[0]


def _number(field: bytes, name: bytes) -> int:
    """An octal number between spaces and NULs, or a binary one with the first bit set (two's complement below that)."""
    if field[0] & 0x80:
        value = int.from_bytes(field, "big", signed=True)
        # The mark is the highest bit; a negative number has the one below set as well.
        return value if field[0] == 0xFF else value + (1 << (8 * len(field) - 1))
    digits = field.strip(b" \0")
    if not digits:
        return 0
    if not _OCTAL.fullmatch(digits):
        raise refused(name, "has a damaged header (not a number)")
    return int(digits, 8)


def _decimal(value: bytes, name: bytes) -> int:
    if not _DECIMAL.fullmatch(value):
        raise refused(name, "has damaged pax records (not a number)")
    return int(value)


def _seconds(value: bytes, name: bytes) -> float:
    if not _SECONDS.fullmatch(value):
        raise refused(name, "has damaged pax records (not a time)")
    return float(value)


def _checked_name(raw: bytes, *, directory: bool) -> str:
    name = raw.removeprefix(b"./")
    if directory:
        name = name.removesuffix(b"/")
    if name.startswith(b"/"):
        raise refused(raw, "has an absolute name")
    if b"\0" in name or len(name) > NAME_BYTES_LIMIT:
        raise refused(raw, "has an impossible name")
    surrounded = b"/%b/" % name
    if b"/../" in surrounded:
        raise refused(raw, "has a name with '..'")
    if b"//" in surrounded or b"/./" in surrounded:
        raise refused(raw, "has a name that is empty or not in its simplest form")
    return os.fsdecode(name)


# -- writing -----------------------------------------------------------------------------------------------------------


def pack_header(member: Member) -> bytes:
    """The header blocks of a member.

    Raises ValueError for a hard link (objects are written whole) and for values that no reader would take back.
    """
    name = os.fsencode(member.name) + (b"/" if member.type is ObjectType.DIRECTORY else b"")
    target = os.fsencode(member.target)
    if member.link_to is not None:
        raise ValueError(f"{member.name} is a hard link")
    if not (0 <= member.uid <= ID_LIMIT and 0 <= member.gid <= ID_LIMIT and member.size >= 0):
        raise ValueError(f"{member.name} has an impossible owner or size")
    size = member.size if member.type is ObjectType.FILE else 0
    records: dict[str, bytes] = {}
    if len(name) > _NAME_FIELD:
        records["path"] = name
    if len(target) > _NAME_FIELD:
        records["linkpath"] = target
    for key, number, limit in (
        ("uid", member.uid, _ID_FIELD_LIMIT),
        ("gid", member.gid, _ID_FIELD_LIMIT),
        ("size", size, _LONG_FIELD_LIMIT),
    ):
        if number > limit:
            records[key] = b"%d" % number
    mtime = min(max(int(member.mtime), 0), _LONG_FIELD_LIMIT)
    block = _pack_block(
        name=name,
        mode=member.mode & _PERMISSIONS,
        uid=0 if "uid" in records else member.uid,
        gid=0 if "gid" in records else member.gid,
        size=0 if "size" in records else size,
        mtime=mtime,
        kind=_TYPE_FLAGS[member.type],
        target=target,
    )
    if not records:
        return block
    content = _pack_records(records)
    extension = _pack_block(
        name=b"PaxHeaders/" + name[-80:].rstrip(b"/").rpartition(b"/")[2],
        mode=0o644,
        uid=0,
        gid=0,
        size=len(content),
        mtime=mtime,
        kind=b"x",
        target=b"",
    )
    return extension + content + padding(len(content)) + block


def padding(size: int) -> bytes:
    """The zeros that fill a content of `size` bytes up to whole blocks."""
    return ZERO_BLOCK[: -size % BLOCK_BYTES]


def _pack_block(
    *, name: bytes, mode: int, uid: int, gid: int, size: int, mtime: int, kind: bytes, target: bytes
) -> bytes:
    block = _HEADER.pack(
        name,
        b"%07o" % mode,
        b"%07o" % uid,
        b"%07o" % gid,
        b"%011o" % size,
        b"%011o" % mtime,
        b"        ",
        kind,
        target,
        _USTAR,
        b"",
        b"",
        b"",
        b"",
        b"",
    )
    return block[: _CHECKSUM.start] + b"%06o\0 " % sum(block) + block[_CHECKSUM.stop :]


def _pack_records(records: Mapping[str, bytes]) -> bytes:
    """Pax records: each begins with its own length in bytes, the digits of that length included."""
    try:
        for value in records.values():
            value.decode()
    except UnicodeDecodeError:
        records = {"hdrcharset": b"BINARY", **records}
    packed = b""
    for key, value in records.items():
        rest = b" %b=%b\n" % (key.encode(), value)
        length = len(rest)
        while length != len(rest) + len(b"%d" % length):
            length = len(rest) + len(b"%d" % length)
        packed += b"%d%b" % (length, rest)
    return packed
