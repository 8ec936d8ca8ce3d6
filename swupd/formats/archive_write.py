"""Writing the archives of a published tree (swupd client specification, section 1.4; mixer specification, 9 and 10).

The same input gives the same bytes: nothing of the build host (names of users, times, limits) gets in. Nothing is
compressed here, so that callers choose one compression for the whole archive. Everything raises ArchiveError if the
content is not as long as its member says, because all that follows in the archive would be unreadable.
"""

from __future__ import annotations

import stat
from collections.abc import Iterable, Mapping
from typing import BinaryIO

from swupd.errors import ArchiveError
from swupd.formats.layout import DELTA_DIRECTORY, STAGED_DIRECTORY
from swupd.formats.tarheader import ZERO_BLOCK, Member, ObjectType, pack_header, padding

END_OF_ARCHIVE = 2 * ZERO_BLOCK
_PACK_DIRECTORY_MODE = stat.S_IFDIR | 0o700
_MANIFEST_MODE = stat.S_IFREG | 0o644


def fullfile(member: Member, content: bytes = b"") -> bytes:
    """The uncompressed archive of one object; `member.name` is its hash."""
    return b"".join((pack_header(member), content, _end_of_member(member, len(content)), END_OF_ARCHIVE))


def pack_head() -> bytes:
    """The two directories that every pack begins with."""
    directories = (DELTA_DIRECTORY, STAGED_DIRECTORY)
    return b"".join(pack_header(Member(name, ObjectType.DIRECTORY, _PACK_DIRECTORY_MODE, 0, 0)) for name in directories)


def write_pack(target: BinaryIO, objects: Iterable[tuple[Member, Iterable[bytes]]]) -> None:
    """Write a pack: its head, then the objects (named "delta/…" and "staged/…") in the order given.

    `target` takes the uncompressed archive; the caller compresses, and closes it.
    """
    target.write(pack_head())
    for member, chunks in objects:
        target.write(pack_header(member))
        written = 0
        for chunk in chunks:
            target.write(chunk)
            written += len(chunk)
        target.write(_end_of_member(member, written))
    target.write(END_OF_ARCHIVE)


def manifest_tar(files: Mapping[str, bytes], mtime: int) -> bytes:
    """The uncompressed archive of a manifest and perhaps its signature, in the order given."""
    parts = []
    for name, content in files.items():
        member = Member(name, ObjectType.FILE, _MANIFEST_MODE, 0, 0, len(content), mtime)
        parts += [pack_header(member), content, padding(len(content))]
    return b"".join((*parts, END_OF_ARCHIVE))


def _end_of_member(member: Member, written: int) -> bytes:
    if written != (member.size if member.type is ObjectType.FILE else 0):
        raise ArchiveError(
            f"the content of {member.name} has {written} bytes instead of {member.size}",
            hint="it changed while it was archived; run the build again when nothing else works on its files",
        )
    return padding(written)
