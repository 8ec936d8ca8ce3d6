"""Archives of a published tree: fullfiles, manifest tars and packs (swupd client specification, section 1.4).

Reading never touches a file system. Members come one at a time, each checked by `tarheader` and against the limits
before any of its content is read, and the content comes as a stream that its reader may leave at any point. Guarantees:

* Compression is recognised by itself. What is cut off anywhere, damaged, too large, or not plain content raises
  ArchiveError with one line that names the member; a reader that gets to the end has seen a complete archive (two zero
  blocks, then nothing but zeros to the end of the last compressed stream).
* No name comes twice, and a hard link names an earlier file of the same archive.
* `verified_chunks` and `read_fullfile` compute the swupd hash from header and content while the content passes. They
  raise before the content ends, so that a writer that removes its file on any error (`Directory.write_file`) leaves
  either the object with that hash or nothing.

Writing is in `archive_write`, compression in `compression`; their names can be imported from here.
One archive is read by one thread.
"""

from __future__ import annotations

import dataclasses
import io
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

from swupd.errors import ArchiveError
from swupd.formats.archive_write import END_OF_ARCHIVE, fullfile, manifest_tar, pack_head, write_pack
from swupd.formats.compression import Compression, compress, decompressed, detect
from swupd.formats.filehash import ContentHasher, hash_content, hash_directory, hash_link
from swupd.formats.tarheader import (
    BLOCK_BYTES,
    EXTENSION_KINDS,
    ZERO_BLOCK,
    Member,
    ObjectType,
    pack_header,
    parse_block,
    parse_extension,
    parse_member,
    refused,
)

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

__all__ = [
    "END_OF_ARCHIVE",
    "FULLFILE_LIMITS",
    "MANIFEST_LIMITS",
    "PACK_LIMITS",
    "ArchiveLimits",
    "Compression",
    "Member",
    "ObjectType",
    "compress",
    "decompressed",
    "detect",
    "fullfile",
    "manifest_tar",
    "object_hash",
    "pack_head",
    "pack_header",
    "read_fullfile",
    "read_manifest_tar",
    "read_members",
    "verified_chunks",
    "write_pack",
]

WHOLE_BYTES = 1 << 20
"""Content up to this size is read at once, larger content in pieces of this size."""
EXTENSION_BYTES = 1 << 20
"""Content of an extension header (pax records with extended attributes are the largest)."""


@dataclass(frozen=True)
class ArchiveLimits:
    """What an archive may hold; more is an ArchiveError."""

    members: int
    object_bytes: int
    """Content of one member."""
    total_bytes: int
    """The whole archive without compression, headers and filling included."""


_MIB = 1 << 20
_GIB = 1 << 30
FULLFILE_LIMITS = ArchiveLimits(members=1, object_bytes=4 * _GIB, total_bytes=4 * _GIB + 4 * _MIB)
MANIFEST_LIMITS = ArchiveLimits(members=2, object_bytes=256 * _MIB, total_bytes=260 * _MIB)
PACK_LIMITS = ArchiveLimits(members=1_000_000, object_bytes=4 * _GIB, total_bytes=64 * _GIB)


def read_members(source: BinaryIO, limits: ArchiveLimits) -> Iterator[tuple[Member, BinaryIO]]:
    """The members of an archive with their content, in order; the content is readable until the next step.

    The content of directories, symbolic links and hard links (`link_to`) is empty. Raises ArchiveError.
    """
    archive = decompressed(source, limit=limits.total_bytes)
    seen: dict[str, Member] = {}
    records: dict[bytes, bytes] = {}
    described_by: set[bytes] = set()
    while True:
        block = _exactly(archive, BLOCK_BYTES)
        if block == ZERO_BLOCK:
            if described_by:
                raise ArchiveError("the archive ends with the description of a member that does not follow")
            _expect_end(archive)
            return
        header = parse_block(block)
        if header.kind in EXTENSION_KINDS:
            if not 0 <= header.size <= EXTENSION_BYTES:
                raise refused(header.name, f"has extension records of {header.size} bytes")
            content = _exactly(archive, header.size)
            _exactly(archive, -header.size % BLOCK_BYTES)
            described = parse_extension(header, content)
            if header.kind in described_by or not records.keys().isdisjoint(described):
                raise refused(header.name, "describes what another header describes as well")
            described_by.add(header.kind)
            records |= described
            continue
        member = parse_member(header, records)
        if described_by:
            records = {}
            described_by = set()
        if member.name in seen:
            raise refused(member.name, "comes twice")
        if len(seen) >= limits.members:
            raise refused(member.name, f"is one more than the {limits.members} that may be in the archive")
        if member.size > limits.object_bytes:
            raise refused(member.name, f"has {member.size} bytes, more than the {limits.object_bytes} that it may")
        if member.link_to is not None:
            member = _resolve(member, seen)
        seen[member.name] = member
        size = 0 if member.link_to is not None else member.size
        if size <= WHOLE_BYTES:
            yield member, io.BytesIO(_exactly(archive, size, member))
        else:
            body = _Body(archive, member)
            yield member, io.BufferedReader(body, WHOLE_BYTES)
            body.skip()
        _exactly(archive, -size % BLOCK_BYTES, member)


def object_hash(member: Member, chunks: Iterable[bytes] = ()) -> str:
    """The swupd hash of a member with this content (of `member.size` bytes)."""
    if member.type is ObjectType.DIRECTORY:
        return hash_directory(member.mode, member.uid, member.gid)
    if member.type is ObjectType.LINK:
        return hash_link(member.uid, member.gid, os.fsencode(member.target))
    hasher = ContentHasher(member.mode, member.uid, member.gid, member.size)
    for chunk in chunks:
        hasher.update(chunk)
    return hasher.hexdigest()


def verified_chunks(member: Member, data: BinaryIO, expected: str) -> Iterator[bytes]:
    """The content of a member (not of a hard link, which has none) whose swupd hash must be `expected`.

    Raises ArchiveError if it is not: at once for directories, links and files up to WHOLE_BYTES, for larger files after
    the last piece, before the iteration ends.
    """
    if member.type is not ObjectType.FILE:
        _expect_hash(member, object_hash(member), expected)
        return iter(())
    if member.size <= WHOLE_BYTES:
        content = data.read()
        _expect_hash(member, hash_content(member.mode, member.uid, member.gid, content), expected)
        return iter((content,))
    return _verified_pieces(member, data, expected)


def read_fullfile(
    source: BinaryIO, expected: str, *, limits: ArchiveLimits = FULLFILE_LIMITS
) -> tuple[Member, Iterator[bytes]]:
    """The one object of a fullfile: its header and its content, which has the swupd hash `expected`.

    Everything is checked at once, except for the content of a file larger than WHOLE_BYTES: that its hash is right and
    that no second member follows is known, and raised, before the iteration over its pieces ends.
    Raises ArchiveError.
    """
    members = read_members(source, limits)
    first = next(members, None)
    if first is None:
        raise ArchiveError(f"the archive of {expected} is empty")
    member, data = first
    if member.name != expected:
        raise refused(member.name, f"is not {expected}, which the archive is for")
    chunks = verified_chunks(member, data, expected)
    if member.size > WHOLE_BYTES:
        return member, _chain_end(chunks, members)
    _expect_last(members)
    return member, chunks


def read_manifest_tar(
    source: bytes | BinaryIO, bundle: str, *, limits: ArchiveLimits = MANIFEST_LIMITS
) -> dict[str, bytes]:
    """The files of a manifest tar: "Manifest.<bundle>", and "Manifest.<bundle>.sig" if it is there.

    Raises ArchiveError for a missing manifest and for anything else in the archive.
    """
    manifest = f"Manifest.{bundle}"
    files: dict[str, bytes] = {}
    for member, data in read_members(io.BytesIO(source) if isinstance(source, bytes) else source, limits):
        if member.name not in (manifest, f"{manifest}.sig"):
            raise refused(member.name, f"does not belong into the archive of {manifest}")
        if member.type is not ObjectType.FILE or member.link_to is not None:
            raise refused(member.name, "is not a regular file")
        files[member.name] = data.read()
    if manifest not in files:
        raise ArchiveError(f"the archive of {manifest} does not contain it")
    return files


class _Body(io.RawIOBase):
    """The content of one large member; what was not read is skipped."""

    def __init__(self, archive: BinaryIO, member: Member) -> None:
        self._archive = archive
        self._member = member
        self._left = member.size

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        target = memoryview(buffer).cast("B")
        data = _exactly(self._archive, min(len(target), self._left, WHOLE_BYTES), self._member)
        target[: len(data)] = data
        self._left -= len(data)
        return len(data)

    def skip(self) -> None:
        while self._left:
            self._left -= len(_exactly(self._archive, min(self._left, WHOLE_BYTES), self._member))


def _exactly(archive: BinaryIO, size: int, member: Member | None = None) -> bytes:
    data = archive.read(size)
    if len(data) != size:
        if member is not None:
            raise refused(member.name, "is cut off")
        raise ArchiveError("the archive is cut off", hint="get it again; it was probably not transferred completely")
    return data


def _resolve(link: Member, seen: dict[str, Member]) -> Member:
    """A hard link with the attributes of the file that it is another name of."""
    file = seen.get(link.link_to or "")
    if file is None or file.type is not ObjectType.FILE:
        raise refused(link.name, f"is a hard link to {link.link_to!r}, which is not an earlier file of the archive")
    return dataclasses.replace(file, name=link.name, link_to=file.link_to or file.name)


def _expect_end(archive: BinaryIO) -> None:
    """Only zeros after the first zero block, at least one block of them."""
    data = _exactly(archive, BLOCK_BYTES)
    while data:
        if data.strip(b"\0"):
            raise ArchiveError(
                "the archive goes on after its end", hint="the archive is damaged or not made by a mixer"
            )
        data = archive.read(WHOLE_BYTES)


def _expect_hash(member: Member, actual: str, expected: str) -> None:
    if actual != expected:
        raise refused(member.name, f"has the hash {actual} instead of {expected}")


def _verified_pieces(member: Member, data: BinaryIO, expected: str) -> Iterator[bytes]:
    hasher = ContentHasher(member.mode, member.uid, member.gid, member.size)
    while piece := data.read(WHOLE_BYTES):
        hasher.update(piece)
        yield piece
    _expect_hash(member, hasher.hexdigest(), expected)


def _chain_end(chunks: Iterator[bytes], members: Iterator[tuple[Member, BinaryIO]]) -> Iterator[bytes]:
    yield from chunks
    _expect_last(members)


def _expect_last(members: Iterator[tuple[Member, BinaryIO]]) -> None:
    for member, _ in members:
        raise refused(member.name, "is a second object in an archive for one")
