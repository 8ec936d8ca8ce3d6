"""Compressed streams: told apart by their first bytes, unpacked in little memory.

The names in a published tree say nothing about compression (swupd client specification, section 1.4), so every archive
is read through `decompressed`, which guarantees:

* What comes out is the whole of a valid stream. One that is cut off, damaged or followed by anything but another stream
  of the same kind raises ArchiveError when its end is read, never earlier end of file. Readers that must know go on
  reading until `b""`.
* No more than `limit` bytes come out; the next one raises ArchiveError. Memory is bounded whatever the ratio is: by
  WINDOW_BYTES for what a stream asks its reader to keep, and by some 32 MiB for content on its way.
* Errors of the underlying file (OSError) pass through unchanged.

Streams of one kind may follow each other (gzip members, bzip2 and xz streams, zstd frames). Padding is not accepted:
nothing that we read has it, and it would make two different files the same archive.
A reader is used by one thread; it does not close its source.
"""

from __future__ import annotations

import bz2
import io
import lzma
import zlib
from collections.abc import Callable
from enum import Enum
from typing import TYPE_CHECKING, BinaryIO, Protocol

from swupd.errors import ArchiveError

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

WINDOW_BYTES = 1 << 27
"""History that a zstd or xz stream may make its reader keep; what stock decoders accept."""
FEED_BYTES = 64 * 1024
"""Compressed bytes read at a time, where the decoder can be told how much to give out."""
ZSTD_FEED_BYTES = 1024
"""The same for zstd, whose decoder gives out all that its input stands for: a block has at least 4 bytes and unpacks to
at most 128 KiB, so no more than 32 MiB come out at a time. Larger portions are hardly faster."""
PIECE_BYTES = 1 << 20
"""Content that is decoded at a time at most, by the decoders that can be told."""

_XZ_MEMORY_BYTES = WINDOW_BYTES + (16 << 20)


class Compression(Enum):
    """How a stream is compressed; the value is for messages."""

    NONE = "tar"
    GZIP = "gzip"
    BZIP2 = "bzip2"
    XZ = "xz"
    ZSTD = "zstd"


HEAD_BYTES = 6
"""How many bytes of a stream `detect` needs."""


def detect(head: bytes) -> Compression:
    """The compression of a stream that begins with these bytes (HEAD_BYTES are enough); NONE if they say nothing."""
    if head.startswith(b"\x1f\x8b"):
        return Compression.GZIP
    if head.startswith(b"BZh"):
        return Compression.BZIP2
    if head.startswith(b"\xfd7zXZ\0"):
        return Compression.XZ
    if head.startswith(b"\x28\xb5\x2f\xfd") or (head[1:4] == b"\x2a\x4d\x18" and head[0] & 0xF0 == 0x50):
        return Compression.ZSTD
    return Compression.NONE


def decompressed(source: BinaryIO, *, limit: int) -> BinaryIO:
    """The content of `source`, of at most `limit` bytes. Reading raises ArchiveError as the module's contract says."""
    return io.BufferedReader(_Reader(source, limit), FEED_BYTES)


def compress(data: bytes, level: int) -> bytes:
    """One zstd frame that names the size of its content."""
    import zstandard

    return zstandard.ZstdCompressor(level=level, write_content_size=True).compress(data)


class _Decoder(Protocol):
    """One stream being decoded: the interface of bz2 and lzma, which the other kinds are given."""

    @property
    def eof(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    @property
    def needs_input(self) -> bool: ...
    def decompress(self, data: bytes, max_length: int) -> bytes: ...


class _Plain:
    eof = False
    unused_data = b""
    needs_input = True

    def decompress(self, data: bytes, max_length: int) -> bytes:  # noqa: ARG002
        return data


class _Gzip:
    def __init__(self) -> None:
        self._decoder = zlib.decompressobj(wbits=31)
        self._full = False

    @property
    def eof(self) -> bool:
        return self._decoder.eof

    @property
    def unused_data(self) -> bytes:
        return self._decoder.unused_data

    @property
    def needs_input(self) -> bool:
        return not self._decoder.unconsumed_tail and not self._full

    def decompress(self, data: bytes, max_length: int) -> bytes:
        unpacked = self._decoder.decompress(self._decoder.unconsumed_tail + data, max_length)
        self._full = len(unpacked) == max_length  # zlib may hold more of it without any input left
        return unpacked


class _Zstd:
    def __init__(self) -> None:
        import zstandard

        self._error = zstandard.ZstdError
        self._decoder = zstandard.ZstdDecompressor(max_window_size=WINDOW_BYTES).decompressobj()
        self.needs_input = True

    @property
    def eof(self) -> bool:
        return self._decoder.eof

    @property
    def unused_data(self) -> bytes:
        return self._decoder.unused_data

    def decompress(self, data: bytes, max_length: int) -> bytes:  # noqa: ARG002
        try:
            return self._decoder.decompress(data)
        except self._error as error:
            raise ValueError(str(error)) from error


_DECODERS: dict[Compression, Callable[[], _Decoder]] = {
    Compression.NONE: _Plain,
    Compression.GZIP: _Gzip,
    Compression.BZIP2: bz2.BZ2Decompressor,
    Compression.XZ: lambda: lzma.LZMADecompressor(format=lzma.FORMAT_XZ, memlimit=_XZ_MEMORY_BYTES),
    Compression.ZSTD: _Zstd,
}


class _Reader(io.RawIOBase):
    """The decoders behind the interface of an unbuffered file."""

    def __init__(self, source: BinaryIO, limit: int) -> None:
        self._source = source
        self._limit = limit
        self._left = limit
        self._waiting = b""
        """Compressed bytes that were read and not yet decoded."""
        self._ready = memoryview(b"")
        """Content that was decoded and not yet given out."""
        self._fill_head()
        self._kind = detect(self._waiting)
        self._decoder = _DECODERS[self._kind]()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        target = memoryview(buffer).cast("B")
        while not self._ready:
            content = self._decode(min(len(target), PIECE_BYTES))
            if content is None:
                return 0
            if len(content) > self._left:
                raise ArchiveError(
                    f"the {self._kind.value} data unpacks to more than the {self._limit} bytes that it may",
                    hint="the file is not what it should be; get it again, or ask whoever published it",
                )
            self._left -= len(content)
            self._ready = memoryview(content)
        given = self._ready[: len(target)]
        target[: len(given)] = given
        self._ready = self._ready[len(given) :]
        return len(given)

    def _decode(self, wanted: int) -> bytes | None:
        """Some content, possibly none yet; None at the end of the last stream."""
        if self._decoder.eof and not self._next_stream():
            return None
        data = self._waiting
        self._waiting = b""
        if not data and self._decoder.needs_input:
            data = self._source.read(ZSTD_FEED_BYTES if self._kind is Compression.ZSTD else FEED_BYTES)
            if not data:
                if self._kind is Compression.NONE:
                    return None
                raise ArchiveError(f"the {self._kind.value} data ends in the middle")
        try:
            content = self._decoder.decompress(data, wanted)
        except (ValueError, OSError, EOFError, zlib.error, lzma.LZMAError) as error:
            raise ArchiveError(f"the {self._kind.value} data is damaged: {error}") from error
        if self._decoder.eof:
            self._waiting = self._decoder.unused_data
        return content

    def _next_stream(self) -> bool:
        """Go on to the stream that follows; false if there is none."""
        self._fill_head()
        if not self._waiting:
            return False
        if detect(self._waiting) is not self._kind:
            raise ArchiveError(f"the {self._kind.value} data is followed by something else")
        self._decoder = _DECODERS[self._kind]()
        return True

    def _fill_head(self) -> None:
        """Have as many bytes waiting as it takes to recognise a stream, unless the source ends before."""
        while len(self._waiting) < HEAD_BYTES and (more := self._source.read(HEAD_BYTES - len(self._waiting))):
            self._waiting += more
