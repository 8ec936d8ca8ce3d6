"""Deltas between the contents of two gzip files (docs/update-pack.md, section 3).

A small change of its content changes nearly every byte of a gzip file, so that an ordinary delta is as large as the
file. A gzip delta leads from the old content to the new one, and holds a *recipe*: what it takes to compress the new
content to exactly the bytes that were published. Guarantees:

* A file is opened only if it is one well-formed gzip member and nothing else; what it unpacks to, and what a delta may
  give, is limited to CONTENT_LIMIT bytes before it is in memory.
* `prove` returns a recipe only after it has given the file, bit for bit, with the zlib and the gzip of this machine.
  Those of another machine may compress differently: whoever applies a delta compares the hash of the result.
* Whatever is wrong with a delta, or with the program that it needs, is a DeltaError.

Nothing is run here: programs are run by the caller's function (RunGzip), which passes on only what they print.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import IntEnum

from swupd.errors import CommandError, DeltaError
from swupd.formats import delta

CONTENT_LIMIT = 64 << 20
"""Bytes of the content of a gzip file, old or new."""
HEADER_LIMIT = 0xFFFF
"""Bytes of the header of a gzip file."""

RunGzip = Callable[[Sequence[str], bytes], bytes]
"""Runs a program in a clean environment: (argv, standard input) -> standard output. Raises CommandError."""

_MAGIC = b"GZDELTA1"
_HEAD = struct.Struct("<8sBBH")
_TRAILER = struct.Struct("<II")
_GZIP_HEADER_BYTES = 10
_GZIP_BEGINNING = b"\x1f\x8b\x08"
"""Magic number and method "deflate" (RFC 1952)."""
_FLAGS_AT, _SPEED_AT = 3, 8
_HEADER_CHECKSUM, _EXTRA, _NAME, _COMMENT, _RESERVED = 0x02, 0x04, 0x08, 0x10, 0xE0
_LEVELS = range(1, 10)
_LIKELY_LEVELS = {2: (9, 6), 4: (1, 9, 6)}
"""Levels to try by the header's byte of speed: "best" and "fastest" are told there, others are not."""
_OTHER_LEVELS = (6, 9)


class Producer(IntEnum):
    """What compresses the content. The values are those of the format."""

    ZLIB_MEMORY_8 = 1
    """zlib with its usual memory level."""
    ZLIB_MEMORY_9 = 2
    """zlib with blocks as large as those of GNU gzip."""
    GZIP = 3
    """The program GNU gzip, which ends the blocks of larger files elsewhere."""


_TRIED = (Producer.ZLIB_MEMORY_9, Producer.ZLIB_MEMORY_8, Producer.GZIP)
"""Of 698 gzip files in updates of Debian, the first one made 592, the last one 103 that the others did not."""
_MEMORY_LEVELS = {Producer.ZLIB_MEMORY_8: 8, Producer.ZLIB_MEMORY_9: 9}


@dataclass(frozen=True)
class Recipe:
    """How a content becomes the gzip file that it was taken from."""

    producer: Producer
    level: int
    header: bytes
    """The beginning of the file as it is, up to the compressed data."""


def opened(data: bytes) -> tuple[bytes, bytes] | None:
    """The header and the content of a gzip file; None if `data` is not exactly one sound member of sane size."""
    start = _header_length(data)
    if start is None:
        return None
    decoder = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        content = decoder.decompress(memoryview(data)[start:], CONTENT_LIMIT + 1)
    except zlib.error:
        return None
    if not decoder.eof or len(content) > CONTENT_LIMIT or decoder.unused_data != _trailer(content):
        return None
    return data[:start], content


def prove(data: bytes, run: RunGzip) -> tuple[Recipe, bytes] | None:
    """A recipe that makes the gzip file `data` from its content, and this content; None if there is none."""
    found = opened(data)
    if found is None:
        return None
    header, content = found
    for producer in _TRIED:
        for level in _LIKELY_LEVELS.get(header[_SPEED_AT], _OTHER_LEVELS):
            recipe = Recipe(producer, level, header)
            with suppress(DeltaError):
                if rebuild(recipe, content, run) == data:
                    return recipe, content
    return None


def rebuild(recipe: Recipe, content: bytes, run: RunGzip) -> bytes:
    """The gzip file of this content. Raises DeltaError if the program that it takes is missing or fails."""
    body = _compressed(recipe.producer, recipe.level, content, run)
    return b"".join((recipe.header, body, _trailer(content)))


def encode(recipe: Recipe, container: bytes) -> bytes:
    """A gzip delta; `container` is the delta between the contents, with mode and owner of the new file."""
    return _HEAD.pack(_MAGIC, recipe.producer, recipe.level, len(recipe.header)) + recipe.header + container


def decode(member: bytes) -> tuple[Recipe, bytes]:
    """The recipe and the container of a gzip delta. Raises DeltaError, also for contents beyond CONTENT_LIMIT."""
    if len(member) < _HEAD.size:
        raise DeltaError("the gzip delta is cut off")
    magic, number, level, length = _HEAD.unpack_from(member)
    if magic != _MAGIC:
        raise DeltaError("this is not a gzip delta")
    if number not in set(Producer) or level not in _LEVELS:
        raise DeltaError(f"the gzip delta asks for producer {number} at level {level}, which nobody knows")
    header, container = member[_HEAD.size :][:length], member[_HEAD.size + length :]
    if _header_length(header) != length:
        raise DeltaError("the gzip delta holds a header that is not gzip's")
    sizes = delta.read_header(container)
    if max(sizes.old_size, sizes.new_size) > CONTENT_LIMIT:
        raise DeltaError(f"the gzip delta is for contents of more than {CONTENT_LIMIT} bytes")
    return Recipe(Producer(number), level, header), container


def apply(old: bytes, member: bytes, run: RunGzip) -> tuple[bytes, delta.DeltaHeader]:
    """The new gzip file and a header with its mode and owner, from the old file and a gzip delta. Raises DeltaError."""
    recipe, container = decode(member)
    found = opened(old)
    if found is None:
        raise DeltaError("the old file is not a gzip file")
    content, header = delta.apply(found[1], container, limit=CONTENT_LIMIT)
    return rebuild(recipe, content, run), header


def _header_length(data: bytes) -> int | None:
    """Where the compressed data of a gzip file begins; None if `data` does not begin with a gzip header."""
    if len(data) < _GZIP_HEADER_BYTES or not data.startswith(_GZIP_BEGINNING) or data[_FLAGS_AT] & _RESERVED:
        return None
    flags = data[_FLAGS_AT]
    end = _GZIP_HEADER_BYTES
    if flags & _EXTRA:
        end += 2 + int.from_bytes(data[end : end + 2], "little")
    for text in (_NAME, _COMMENT):
        if flags & text:
            end = data.find(b"\0", end) + 1
            if end == 0:
                return None
    if flags & _HEADER_CHECKSUM:
        end += 2
    return end if end <= min(len(data), HEADER_LIMIT) else None


def _compressed(producer: Producer, level: int, content: bytes, run: RunGzip) -> bytes:
    """The raw deflate data of a content."""
    if producer is not Producer.GZIP:
        packer = zlib.compressobj(level, zlib.DEFLATED, -zlib.MAX_WBITS, _MEMORY_LEVELS[producer])
        return packer.compress(content) + packer.flush()
    try:
        made = run(("gzip", f"-{level}", "-n", "-c"), content)
    except CommandError as error:
        raise DeltaError(f"the program gzip is of no use: {error}") from error
    start = _header_length(made)
    if start is None or len(made) < start + _TRAILER.size:
        raise DeltaError("the program gzip printed something that is not gzip's")
    return made[start : -_TRAILER.size]


def _trailer(content: bytes) -> bytes:
    return _TRAILER.pack(zlib.crc32(content), len(content) & 0xFFFFFFFF)
