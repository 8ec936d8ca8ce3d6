from __future__ import annotations

import bz2
import gzip
import io
import lzma
import time
import tracemalloc
import zlib
from collections.abc import Callable
from contextlib import suppress

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from swupd.errors import ArchiveError
from swupd.formats.compression import WINDOW_BYTES, Compression, compress, decompressed, detect

COMPRESSORS: dict[Compression, Callable[[bytes], bytes]] = {
    Compression.GZIP: lambda data: gzip.compress(data, mtime=0),
    Compression.BZIP2: bz2.compress,
    Compression.XZ: lambda data: lzma.compress(data, preset=1),
    Compression.ZSTD: lambda data: compress(data, 3),
}
CONTENT = b"".join(b"line %d of something that repeats\n" % number for number in range(3000))

each = pytest.mark.parametrize("kind", COMPRESSORS, ids=lambda kind: kind.value)


def unpack(packed: bytes, limit: int = 1 << 20) -> bytes:
    return decompressed(io.BytesIO(packed), limit=limit).read()


@each
def test_a_stream_is_recognised_by_its_first_bytes_and_unpacked(kind: Compression) -> None:
    packed = COMPRESSORS[kind](CONTENT)
    assert detect(packed) is kind
    assert unpack(packed) == CONTENT


def test_what_is_not_compressed_comes_out_unchanged() -> None:
    assert detect(CONTENT) is Compression.NONE
    assert unpack(CONTENT) == CONTENT
    assert unpack(b"") == b""


@each
def test_an_empty_stream_is_empty(kind: Compression) -> None:
    assert unpack(COMPRESSORS[kind](b"")) == b""


@each
def test_streams_one_after_the_other_are_read_on(kind: Compression) -> None:
    pack = COMPRESSORS[kind]
    assert unpack(pack(b"one ") + pack(b"") + pack(CONTENT)) == b"one " + CONTENT


@each
def test_a_stream_that_arrives_in_small_pieces_is_read(kind: Compression) -> None:
    pack = COMPRESSORS[kind]
    assert decompressed(Dripping(pack(CONTENT) + pack(CONTENT)), limit=1 << 20).read() == 2 * CONTENT


@each
def test_a_stream_cut_off_anywhere_is_refused(kind: Compression) -> None:
    packed = COMPRESSORS[kind](CONTENT[:4000])
    for length in range(6, len(packed)):
        with pytest.raises(ArchiveError):
            unpack(packed[:length])


@each
def test_something_behind_a_stream_is_refused(kind: Compression) -> None:
    pack = COMPRESSORS[kind]
    other = Compression.GZIP if kind is not Compression.GZIP else Compression.XZ
    for garbage in (b"\0", b"\0\0\0\0", b"garbage", COMPRESSORS[other](b"x"), pack(b"x")[:5]):
        with pytest.raises(ArchiveError):
            unpack(pack(CONTENT) + garbage)


@each
def test_damage_raises_nothing_but_archive_errors(kind: Compression) -> None:
    packed = bytearray(COMPRESSORS[kind](CONTENT[:4000]))
    for position in range(6, len(packed)):
        damaged = bytes(packed[:position]) + bytes([packed[position] ^ 0x55]) + bytes(packed[position + 1 :])
        with suppress(ArchiveError):
            unpack(damaged)


@each
def test_exactly_the_limit_is_allowed_and_a_byte_more_is_not(kind: Compression) -> None:
    packed = COMPRESSORS[kind](CONTENT)
    assert unpack(packed, len(CONTENT)) == CONTENT
    with pytest.raises(ArchiveError, match=f"more than the {len(CONTENT) - 1} bytes"):
        unpack(packed, len(CONTENT) - 1)


def test_the_limit_holds_for_what_is_not_compressed() -> None:
    with pytest.raises(ArchiveError):
        unpack(CONTENT, len(CONTENT) - 1)


@pytest.fixture(scope="module")
def bombs() -> dict[Compression, bytes]:
    """200 MiB of zeros, or more, in as few bytes as each kind can; made from repeated streams to save time."""
    part = bytes(20 << 20)
    return {kind: pack(part) * 10 for kind, pack in COMPRESSORS.items()}


@each
def test_a_bomb_is_defused_in_little_memory_and_time(kind: Compression, bombs: dict[Compression, bytes]) -> None:
    bomb = bombs[kind]
    assert len(bomb) < 1 << 20
    started = time.process_time()
    tracemalloc.start()
    with pytest.raises(ArchiveError, match="more than the"):
        unpack(bomb, 4 << 20)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 48 << 20
    assert time.process_time() - started < 2


def test_a_single_zstd_frame_of_200_mebibytes_does_not_come_out_at_once() -> None:
    bomb = compress(bytes(200 << 20), 1)
    tracemalloc.start()
    assert decompressed(io.BytesIO(bomb), limit=1 << 30).read(100) == bytes(100)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 48 << 20


def test_a_zstd_window_larger_than_stock_decoders_allow_is_refused() -> None:
    def frame(window_log: int) -> bytes:
        # Magic, descriptor (no size, no checksum), window descriptor, then one raw block of one byte, the last.
        return b"\x28\xb5\x2f\xfd\x00" + bytes([(window_log - 10) << 3]) + b"\x09\x00\x00x"

    assert unpack(frame(WINDOW_BYTES.bit_length() - 1)) == b"x"
    with pytest.raises(ArchiveError, match="zstd data is damaged"):
        unpack(frame(WINDOW_BYTES.bit_length()))


def test_an_xz_dictionary_that_needs_too_much_memory_is_refused() -> None:
    def packed(dictionary: int) -> bytes:
        filters = [{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": 1 << 16}]
        # The same stream with another dictionary size in its block header, whose checksum is made good.
        stream = bytearray(lzma.compress(b"content", format=lzma.FORMAT_XZ, filters=filters))
        header_size = (stream[12] + 1) * 4
        position = stream.index(b"\x21\x01", 12) + 2
        stream[position] = dictionary
        checksum = zlib.crc32(stream[12 : 12 + header_size - 4])
        stream[12 + header_size - 4 : 12 + header_size] = checksum.to_bytes(4, "little")
        return bytes(stream)

    assert unpack(packed(30)) == b"content"  # 2^27 bytes
    with pytest.raises(ArchiveError, match=r"[Mm]emory"):
        unpack(packed(36))  # 2^30 bytes


def test_zstd_frames_that_only_pad_are_skipped() -> None:
    skippable = b"\x50\x2a\x4d\x18\x04\x00\x00\x00abcd"
    assert detect(skippable) is Compression.ZSTD
    assert unpack(skippable + compress(b"content", 3) + skippable) == b"content"


def test_an_error_of_the_file_underneath_is_passed_on() -> None:
    class Failing(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            if self.tell() > 100:
                raise OSError(5, "Input/output error")
            return super().read(60)

    with pytest.raises(OSError, match="Input/output error"):
        decompressed(Failing(COMPRESSORS[Compression.GZIP](CONTENT)), limit=1 << 20).read()


def test_a_compressed_frame_names_its_size() -> None:
    assert zstandard.get_frame_parameters(compress(CONTENT, 3)).content_size == len(CONTENT)


@given(st.binary(max_size=3000), st.sampled_from(list(COMPRESSORS)), st.integers(1, 700))
@settings(max_examples=60, deadline=None)
def test_any_content_comes_back_however_it_is_read(content: bytes, kind: Compression, size: int) -> None:
    reader = decompressed(io.BytesIO(COMPRESSORS[kind](content)), limit=len(content))
    pieces = []
    while piece := reader.read(size):
        pieces.append(piece)
    assert b"".join(pieces) == content


@given(st.sampled_from([b"\x1f\x8b\x08\0", b"BZh9", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd"]), st.binary(max_size=300))
@settings(max_examples=100, deadline=None)
def test_noise_behind_a_magic_never_raises_anything_else(magic: bytes, noise: bytes) -> None:
    with suppress(ArchiveError):
        unpack(magic + noise, 10_000)


class Dripping(io.BytesIO):
    """A source that gives fewer bytes than it is asked for, as sockets do."""

    def read(self, size: int | None = -1) -> bytes:
        return super().read(min(size or 0, 7) if size is not None and size >= 0 else size)
