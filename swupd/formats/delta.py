"""Deltas between two regular files: the BSDIFF4U and BSDIFF4V containers (swupd client specification, section 4).

A delta is a header and three blocks: *control* (triples of numbers), *diff* (bytes to add to old ones) and *extra* (new
bytes). `apply` reads both containers with every encoding, and trusts nothing in them:

* The header is checked against the length of the delta, against the old file and against the limit before anything is
  unpacked; each block is unpacked to at most what the header allows it to be, and the result cannot outgrow the
  blocks. So a hostile delta costs at most some four times the memory of the size that the caller allows.
* It raises DeltaError or returns exactly the number of bytes that the header announces. Whether these are the right
  bytes only a hash can tell: a delta applied to a wrong old file of the right size usually gives garbage, not an error.

`make` writes BSDIFF4U with blocks that are left uncompressed (or stand for zeros), so that the archive around them is
compressed as one stream. Its result was applied once before it is returned.
"""

from __future__ import annotations

import bz2
import io
import stat
import struct
from collections.abc import Iterable
from dataclasses import dataclass

from swupd.errors import ArchiveError, DeltaError
from swupd.formats.compression import Compression, compress, decompressed, detect

NEW_SIZE_LIMIT = 512 << 20
"""Bytes of a result; original clients refuse more."""
TRIPLES_LIMIT = 4 << 20
"""Control triples of one delta (they have 24 bytes each); a browser binary of 200 MB needs about half a million."""

MAKE_MINIMUM = 200
"""Bytes; a smaller new file is never worth a delta (original writers say so too)."""
MAKE_LIMIT = 32 << 20
"""Bytes of the old file and of the new file up to which `make` tries: bsdiff needs 17 times as much memory, and half a
minute of CPU for a library of 22 MB."""
WORTHWHILE = 0.9
"""A delta is worthwhile if it has at most this part of the size of the new file, both compressed."""
_ESTIMATE_LEVEL = 3

_MAGIC_LARGE = b"BSDIFF4U"
_MAGIC_SMALL = b"BSDIFF4V"
_MAGIC_FULL = b"FULLV20U"
_MAGIC_DIRECTORY = b"DIR_V20U"
_LARGE = struct.Struct("<8sBIQQQQQIIIH")
_SMALL = struct.Struct("<8sBBHHHHIIIH")
_TRIPLE = struct.Struct("<qqq")
_COUNT = struct.Struct("<Q")

_BSDIFF40_HEADER = struct.Struct("<8sQQQ")
_BSDIFF40_TRIPLE = struct.Struct("<QQQ")
_SIGN = 1 << 63

_CONTROL, _DIFF, _EXTRA = range(3)
_BLOCK_NAMES = ("control", "diff", "extra")
_NONE, _BZIP2, _GZIP, _XZ, _ZEROS = range(5)
_ENCODING_BITS = 5
"""Each block has a bit for each of the encodings above, in that order from the lowest bit."""
_COMPRESSED = {_BZIP2: Compression.BZIP2, _GZIP: Compression.GZIP, _XZ: Compression.XZ}

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
    blocks = []
    for group, length, cap in (
        (_CONTROL, header.control_length, _TRIPLE.size * min(header.new_size + 1, TRIPLES_LIMIT)),
        (_DIFF, header.diff_length, header.new_size),
        (_EXTRA, header.extra_length, header.new_size),
    ):
        blocks.append(_decode(delta[position : position + length], header.encoding, group, cap))
        position += length
    control, diff, extra = blocks
    if len(control) % _TRIPLE.size:
        raise DeltaError("the control block of the delta does not consist of whole triples")
    if len(diff) + len(extra) != header.new_size:
        raise DeltaError(f"the delta has {len(diff) + len(extra)} bytes for a new file of {header.new_size}")
    return _combine(old, control, diff, extra), header


def make(old: bytes, new: bytes, *, mode: int, uid: int, gid: int) -> bytes | None:
    """A delta from `old` to `new`, or None if the full file is the better choice.

    `mode` (whole st_mode), `uid` and `gid` are those of the new file. Both files are expected to be regular ones.
    """
    if not old or len(new) < MAKE_MINIMUM or max(len(old), len(new)) > MAKE_LIMIT:
        return None
    triples, diff, extra = _bsdiff(old, new)
    delta = encode(len(old), triples, diff, extra, mode=mode, uid=uid, gid=gid)
    if len(compress(delta, _ESTIMATE_LEVEL)) > WORTHWHILE * len(compress(new, _ESTIMATE_LEVEL)):
        return None
    return delta if apply(old, delta)[0] == new else None


def encode(
    old_size: int, triples: Iterable[tuple[int, int, int]], diff: bytes, extra: bytes, *, mode: int, uid: int, gid: int
) -> bytes:
    """A BSDIFF4U container around triples (bytes to add, bytes to insert, step in the old file) and their bytes."""
    control = b"".join(_TRIPLE.pack(*triple) for triple in triples)
    new_size = len(diff) + len(extra)
    encoding = 1 << _NONE
    blocks = [control]
    for group, block in ((_DIFF, diff), (_EXTRA, extra)):
        kind = _ZEROS if block and not block.strip(b"\0") else _NONE
        blocks.append(_COUNT.pack(len(block)) if kind == _ZEROS else block)
        encoding |= 1 << (group * _ENCODING_BITS + kind)
    lengths = [len(block) for block in blocks]
    header = _LARGE.pack(_MAGIC_LARGE, _LARGE.size, *lengths, old_size, new_size, 0, mode, uid, gid, encoding)
    return b"".join((header, *blocks))


def _decode(block: bytes, encodings: int, group: int, cap: int) -> bytes:
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
    if compression is None or detect(block) is not compression:
        raise DeltaError(f"the {name} block of the delta has no known encoding")
    try:
        return decompressed(io.BytesIO(block), limit=cap).read()
    except ArchiveError as error:
        raise DeltaError(f"the {name} block of the delta is unusable: {error}") from error


def _combine(old: bytes, control: bytes, diff: bytes, extra: bytes) -> bytes:
    """Follow the triples; what they say is checked on the way, and the result cannot outgrow `diff` and `extra`."""
    new = bytearray()
    old_at = diff_at = extra_at = 0
    for add, insert, seek in _TRIPLE.iter_unpack(control):
        if not (0 <= add <= len(diff) - diff_at and 0 <= insert <= len(extra) - extra_at):
            raise DeltaError("the control block of the delta asks for bytes that the delta does not have")
        for start in range(0, add, _PIECE_BYTES):
            end = min(start + _PIECE_BYTES, add)
            new += _sum(old[old_at + start : old_at + end], diff[diff_at + start : diff_at + end])
        new += extra[extra_at : extra_at + insert]
        diff_at += add
        extra_at += insert
        old_at += add + seek
        if not 0 <= old_at <= len(old):
            raise DeltaError("the control block of the delta leads out of the old file")
    if diff_at != len(diff) or extra_at != len(extra):
        raise DeltaError("the control block of the delta ends before the new file is complete")
    return bytes(new)


def _sum(old: bytes, diff: bytes) -> bytes:
    """Bytewise sum modulo 256 of at most _PIECE_BYTES; what the old file does not have counts as zero.

    A difference of zeros is the usual case. Others are added as large numbers: the low seven bits of all bytes in one
    addition, without carries between bytes, and the high bits by exclusive or. (bsdiff4's C function is twice as fast,
    but not public, and it changed its arguments between 1.3.1 and 1.3.2.)
    """
    if len(old) == len(diff) and diff == _ZEROS_PIECE[: len(diff)]:
        return old
    a = int.from_bytes(old, "little")
    b = int.from_bytes(diff, "little")
    return (((a & _LOW_BITS) + (b & _LOW_BITS)) ^ ((a ^ b) & _HIGH_BITS)).to_bytes(len(diff), "little")


def _bsdiff(old: bytes, new: bytes) -> tuple[list[tuple[int, int, int]], bytes, bytes]:
    """Triples, diff bytes and extra bytes from the classic algorithm.

    They come in the classic container, the one interface of bsdiff4 that is public: three bzip2 blocks, numbers with a
    separate sign. Unwrapping it costs a seventh of the time.
    """
    import bsdiff4

    container = bsdiff4.diff(old, new)
    _, control_length, diff_length, _ = _BSDIFF40_HEADER.unpack_from(container)
    diff_at = _BSDIFF40_HEADER.size + control_length
    extra_at = diff_at + diff_length
    control = bz2.decompress(container[_BSDIFF40_HEADER.size : diff_at])
    triples = [
        (add, insert, _SIGN - seek if seek & _SIGN else seek)
        for add, insert, seek in _BSDIFF40_TRIPLE.iter_unpack(control)
    ]
    if triples:
        triples[-1] = (*triples[-1][:2], 0)  # it leads nowhere, and not always to a place in the old file
    return triples, bz2.decompress(container[diff_at:extra_at]), bz2.decompress(container[extra_at:])
