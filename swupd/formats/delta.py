"""Deltas between two regular files: the BSDIFF4U and BSDIFF4V containers (swupd client specification, section 4).

A delta is a header and three blocks: *control* (triples of numbers), *diff* (bytes to add to old ones) and *extra* (new
bytes). `apply` reads both containers with every encoding, and trusts nothing in them:

* The header is checked against the length of the delta, against the old file and against the limit before anything is
  unpacked; each block is unpacked to at most what the header allows it to be, and the result cannot outgrow the
  blocks. So a hostile delta costs at most some four times the memory of the size that the caller allows.
* It raises DeltaError or returns exactly the number of bytes that the header announces. Whether these are the right
  bytes only a hash can tell: a delta applied to a wrong old file of the right size usually gives garbage, not an error.

`encode` writes BSDIFF4U around triples that somebody else found. Blocks are left uncompressed (or stand for zeros), so
that the archive around deltas is compressed as one stream; those of a delta that stands alone can be compressed.
"""

from __future__ import annotations

import io
import lzma
import stat
import struct
import zlib
from collections.abc import Iterable
from dataclasses import dataclass

from swupd.errors import ArchiveError, DeltaError
from swupd.formats.compression import HEAD_BYTES, Compression, decompressed, detect

NEW_SIZE_LIMIT = 512 << 20
"""Bytes of a result; original clients refuse more."""
TRIPLES_LIMIT = 4 << 20
"""Control triples of one delta (they have 24 bytes each); a browser binary of 200 MB needs about half a million."""

_MAGIC_LARGE = b"BSDIFF4U"
_MAGIC_SMALL = b"BSDIFF4V"
_MAGIC_FULL = b"FULLV20U"
_MAGIC_DIRECTORY = b"DIR_V20U"
_LARGE = struct.Struct("<8sBIQQQQQIIIH")
_SMALL = struct.Struct("<8sBBHHHHIIIH")
_TRIPLE = struct.Struct("<qqq")
_COUNT = struct.Struct("<Q")

_CONTROL, _DIFF, _EXTRA = range(3)
_BLOCK_NAMES = ("control", "diff", "extra")
_NONE, _BZIP2, _GZIP, _XZ, _ZEROS = range(5)
_ENCODING_BITS = 5
"""Each block has a bit for each of the encodings above, in that order from the lowest bit."""
_COMPRESSED = {_BZIP2: Compression.BZIP2, _GZIP: Compression.GZIP, _XZ: Compression.XZ}
_GZIP_WBITS = 31
"""How zlib is told to write a gzip stream."""
_XZ_PRESET = 6 | lzma.PRESET_EXTREME
"""With a window of 8 MiB, which is memory of whoever unpacks it."""

_Block = bytes | memoryview
"""A block that is not compressed is not copied either."""

_PIECE_BYTES = 4096
_ZEROS_PIECE = bytes(_PIECE_BYTES)
_LOW_BITS = int.from_bytes(b"\x7f" * _PIECE_BYTES, "little")
_HIGH_BITS = int.from_bytes(b"\x80" * _PIECE_BYTES, "little")


@dataclass(frozen=True)
class DeltaHeader:
    """The header of a delta, checked in itself and against the length of the delta; sizes in bytes."""

    old_size: int
    new_size: int
    mode: int
    """st_mode of the new file, type bits included."""
    uid: int
    gid: int
    offset: int
    """Where the first block begins."""
    control_length: int
    diff_length: int
    extra_length: int
    encoding: int


def read_header(delta: bytes) -> DeltaHeader:
    """The header of a delta; raises DeltaError if it is none, contradicts itself or is not for a regular file."""
    magic = delta[:8]
    if magic == _MAGIC_FULL:
        raise DeltaError("the delta is a marker that the full file is to be taken")
    if magic == _MAGIC_DIRECTORY:
        raise DeltaError("the delta is a directory marker, which cannot be applied")
    if magic not in (_MAGIC_LARGE, _MAGIC_SMALL):
        raise DeltaError("this is not a delta")
    layout = _LARGE if magic == _MAGIC_LARGE else _SMALL
    if len(delta) < layout.size:
        raise DeltaError("the delta is cut off in its header")
    fields = layout.unpack_from(delta)
    offset, control, diff, extra, old_size, new_size = fields[1:7]
    mode, uid, gid, encoding = fields[-4:]
    if offset < layout.size or offset + control + diff + extra != len(delta):
        raise DeltaError(f"the delta has {len(delta)} bytes, its header says {offset + control + diff + extra}")
    if not stat.S_ISREG(mode) or mode & ~0o177777:
        raise DeltaError(f"the delta is for mode {mode:o}, which is not a regular file")
    return DeltaHeader(old_size, new_size, mode, uid, gid, offset, control, diff, extra, encoding)


def apply(old: bytes, delta: bytes, *, limit: int = NEW_SIZE_LIMIT) -> tuple[bytes, DeltaHeader]:
    """The new file and the header with its mode and owner; raises DeltaError for anything that is not as it should be.

    A delta for a new file of more than `limit` bytes is refused.
    """
    header = read_header(delta)
    if header.old_size != len(old):
        raise DeltaError(f"the delta is for an old file of {header.old_size} bytes, not of {len(old)}")
    if header.new_size > min(limit, NEW_SIZE_LIMIT):
        raise DeltaError(f"the delta is for a new file of {header.new_size} bytes, more than it may have")
    position = header.offset
    view = memoryview(delta)
    blocks = []
    for group, length, cap in (
        (_CONTROL, header.control_length, _TRIPLE.size * min(header.new_size + 1, TRIPLES_LIMIT)),
        (_DIFF, header.diff_length, header.new_size),
        (_EXTRA, header.extra_length, header.new_size),
    ):
        blocks.append(_decode(view[position : position + length], header.encoding, group, cap))
        position += length
    control, diff, extra = blocks
    if len(control) % _TRIPLE.size:
        raise DeltaError("the control block of the delta does not consist of whole triples")
    if len(diff) + len(extra) != header.new_size:
        raise DeltaError(f"the delta has {len(diff) + len(extra)} bytes for a new file of {header.new_size}")
    return _combine(old, control, diff, extra), header


def encode(
    old_size: int,
    triples: Iterable[tuple[int, int, int]],
    diff: bytes,
    extra: bytes,
    *,
    mode: int,
    uid: int,
    gid: int,
    compressed: bool = False,
) -> bytes:
    """A BSDIFF4U container around triples (bytes to add, bytes to insert, step in the old file) and their bytes.

    With `compressed` each block is as small as it can be alone, for a delta outside of an archive.
    """
    control = b"".join(_TRIPLE.pack(*triple) for triple in triples)
    blocks = []
    encoding = 0
    for group, content in ((_CONTROL, control), (_DIFF, diff), (_EXTRA, extra)):
        kind, block = _NONE, content
        if group != _CONTROL and content and not content.strip(b"\0"):
            kind, block = _ZEROS, _COUNT.pack(len(content))
        elif compressed:
            kind, block = _smallest(content)
        blocks.append(block)
        encoding |= 1 << (group * _ENCODING_BITS + kind)
    lengths = [len(block) for block in blocks]
    new_size = len(diff) + len(extra)
    header = _LARGE.pack(_MAGIC_LARGE, _LARGE.size, *lengths, old_size, new_size, 0, mode, uid, gid, encoding)
    return b"".join((header, *blocks))


def _smallest(content: bytes) -> tuple[int, bytes]:
    """The encoding that makes a block the smallest, and the block with it."""
    choices = (
        (_NONE, content),
        (_GZIP, zlib.compress(content, 9, wbits=_GZIP_WBITS)),
        (_XZ, lzma.compress(content, check=lzma.CHECK_CRC32, preset=_XZ_PRESET)),
    )
    return min(choices, key=lambda choice: len(choice[1]))


def _decode(block: memoryview, encodings: int, group: int, cap: int) -> _Block:
    """The content of a block, of at most `cap` bytes."""
    name = _BLOCK_NAMES[group]
    bits = encodings >> (group * _ENCODING_BITS) & 0x1F
    encoding = (bits & -bits).bit_length() - 1  # the lowest bit counts; -1 if there is none
    if encoding == _NONE:
        if len(block) > cap:
            raise DeltaError(f"the {name} block of the delta is larger than the new file allows")
        return block
    if encoding == _ZEROS and group != _CONTROL:
        if len(block) != _COUNT.size:
            raise DeltaError(f"the {name} block of the delta does not hold a count of zeros")
        (count,) = _COUNT.unpack(block)
        if count > cap:
            raise DeltaError(f"the {name} block of the delta is larger than the new file allows")
        return bytes(count)
    compression = _COMPRESSED.get(encoding)
    if compression is None or detect(bytes(block[:HEAD_BYTES])) is not compression:
        raise DeltaError(f"the {name} block of the delta has no known encoding")
    try:
        return decompressed(io.BytesIO(block), limit=cap).read()
    except ArchiveError as error:
        raise DeltaError(f"the {name} block of the delta is unusable: {error}") from error


def _combine(old: bytes, control: _Block, diff: _Block, extra: _Block) -> bytes:
    """Follow the triples; what they say is checked on the way, and the result cannot outgrow `diff` and `extra`."""
    new = io.BytesIO()  # its result is not copied once more
    old_at = diff_at = extra_at = 0
    for add, insert, seek in _TRIPLE.iter_unpack(control):
        if not (0 <= add <= len(diff) - diff_at and 0 <= insert <= len(extra) - extra_at):
            raise DeltaError("the control block of the delta asks for bytes that the delta does not have")
        for start in range(0, add, _PIECE_BYTES):
            end = min(start + _PIECE_BYTES, add)
            new.write(_sum(old[old_at + start : old_at + end], bytes(diff[diff_at + start : diff_at + end])))
        new.write(extra[extra_at : extra_at + insert])
        diff_at += add
        extra_at += insert
        old_at += add + seek
        if not 0 <= old_at <= len(old):
            raise DeltaError("the control block of the delta leads out of the old file")
    if diff_at != len(diff) or extra_at != len(extra):
        raise DeltaError("the control block of the delta ends before the new file is complete")
    return new.getvalue()


def _sum(old: bytes, diff: bytes) -> bytes:
    """Bytewise sum modulo 256 of at most _PIECE_BYTES; what the old file does not have counts as zero.

    A difference of zeros is the usual case. Others are added as large numbers: the low seven bits of all bytes in one
    addition, without carries between bytes, and the high bits by exclusive or. (Comparing bytes is one memcmp;
    a memoryview would be compared element by element.)
    """
    if len(old) == len(diff) and diff == _ZEROS_PIECE[: len(diff)]:
        return old
    a = int.from_bytes(old, "little")
    b = int.from_bytes(diff, "little")
    return (((a & _LOW_BITS) + (b & _LOW_BITS)) ^ ((a ^ b) & _HIGH_BITS)).to_bytes(len(diff), "little")
