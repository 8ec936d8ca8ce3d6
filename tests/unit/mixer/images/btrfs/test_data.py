from __future__ import annotations

import io
import struct

from crc32c import crc32c

from mixer.images.btrfs.chunks import Chunk, Device
from mixer.images.btrfs.data import Data
from mixer.images.btrfs.format import MAX_CSUMS, BlockGroup

MIB = 1 << 20


def store(lengths: list[int], *contents: bytes) -> tuple[Data, bytes, list[int]]:
    """Content stored in chunks of these lengths; returns how many extents each has, too."""
    file = io.BytesIO()
    starts = [MIB + sum(lengths[:number]) for number in range(len(lengths))]
    chunks = [Chunk(BlockGroup.DATA, s, n, (s - MIB,)) for s, n in zip(starts, lengths, strict=True)]
    data = Data(Device(file, 0, sum(lengths)), chunks)
    extents = [len(list(data.store(5, 257 + number, content))) for number, content in enumerate(contents)]
    return data, file.getvalue(), extents


def test_content_is_padded_to_sectors_and_follows_what_is_there() -> None:
    _, written, extents = store([MIB], b"a" * 5000, b"b" * 4096, b"c")
    assert written.startswith(b"a" * 5000 + bytes(3192) + b"b" * 4096 + b"c" + bytes(4095))
    assert extents == [1, 1, 1]


def test_an_extent_ends_with_its_chunk() -> None:
    data, written, extents = store([8192, 4096, 8192], b"x" * 4096, b"y" * 16384)
    assert written == b"x" * 4096 + b"y" * 16384
    assert extents == [1, 3]
    assert [(item.key.objectid - MIB, item.key.offset) for item in data.extent_items] == [
        (0, 4096),
        (4096, 4096),
        (8192, 4096),
        (12288, 8192),
    ]


def test_every_sector_has_its_sum_with_the_padding() -> None:
    data, written, _ = store([8192, 8192], b"one" * 2000, b"two" * 1000)
    items = list(data.csum_items())
    assert [item.key.offset - MIB for item in items] == [0, 8192]
    sums = struct.unpack("<3I", b"".join(item.data for item in items))
    assert list(sums) == [crc32c(written[start : start + 4096]) for start in (0, 4096, 8192)]


def test_many_sums_are_spread_over_items() -> None:
    size = (MAX_CSUMS + 1) * 4096
    data, _, _ = store([size], bytes(size))
    assert [len(item.data) for item in data.csum_items()] == [MAX_CSUMS * 4, 4]
