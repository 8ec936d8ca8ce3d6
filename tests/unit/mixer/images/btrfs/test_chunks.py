from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixer.images.btrfs.chunks import Chunk, Device, Layout
from mixer.images.btrfs.format import SUPER_OFFSETS, BlockGroup

MIB = 1 << 20
GIB = 1 << 30


def data_chunk(length: int = 16384, *stripes: int) -> Chunk:
    return Chunk(BlockGroup.DATA, 4 * MIB, length, stripes or (MIB,))


@given(metadata=st.integers(0, 2 * GIB), data=st.integers(0, 300 * GIB))
def test_chunks_never_overlap_nor_lie_over_a_super_block(metadata: int, data: int) -> None:
    layout = Layout(metadata, data)
    taken = sorted((stripe, stripe + chunk.length) for chunk in layout.chunks for stripe in chunk.stripes)
    ends = [MIB, *(end for _, end in taken)]
    starts = [*(start for start, _ in taken), layout.size]
    assert all(end <= start for end, start in zip(ends, starts, strict=True))
    for mirror in SUPER_OFFSETS:
        assert not any(start < mirror + 65536 and mirror < end for start, end in taken)


@given(metadata=st.integers(1, 2 * GIB), data=st.integers(0, 300 * GIB))
def test_there_is_room_for_all_metadata_and_data(metadata: int, data: int) -> None:
    layout = Layout(metadata, data)
    assert metadata <= layout.metadata.length
    assert data <= sum(chunk.length for chunk in layout.data) < data + MIB
    assert all(chunk.length <= GIB for chunk in layout.data)


@given(data=st.integers(0, 300 * GIB))
def test_logical_addresses_follow_each_other(data: int) -> None:
    chunks = Layout(MIB, data).chunks
    assert [chunk.bytenr for chunk in chunks[1:]] == [chunk.bytenr + chunk.length for chunk in chunks[:-1]]


def test_a_chunk_is_filled_from_its_start() -> None:
    chunk = data_chunk()
    assert [chunk.allocate(4096), chunk.allocate(8192)] == [4 * MIB, 4 * MIB + 4096]
    assert (chunk.used, chunk.free) == (12288, 4096)
    with pytest.raises(AssertionError, match="8192 bytes are wanted, 4096 are free"):
        chunk.allocate(8192)


def test_a_full_chunk_has_no_free_extent() -> None:
    chunk = data_chunk()
    assert len(list(chunk.free_space_items())) == 2
    chunk.allocate(chunk.length)
    assert len(list(chunk.free_space_items())) == 1


def test_the_device_writes_each_copy_and_is_as_long_as_asked_for(tmp_path: Path) -> None:
    with (tmp_path / "image").open("w+b") as file:
        device = Device(file, 100, 5 * MIB + 1)
        device.write(data_chunk(16384, MIB, 3 * MIB), 4 * MIB + 4096, b"ab", b"c")
    written = (tmp_path / "image").read_bytes()
    assert device.total_bytes == 5 * MIB
    assert len(written) == 100 + 5 * MIB + 1
    assert written.count(b"abc\0") == 2
    assert written.index(b"abc\0") == MIB + 4196
    assert written.rindex(b"abc\0") == 3 * MIB + 4196


def test_a_file_that_is_longer_stays_so(tmp_path: Path) -> None:
    with (tmp_path / "image").open("w+b") as file:
        file.truncate(2 * MIB)
        Device(file, 0, MIB)
    assert (tmp_path / "image").stat().st_size == 2 * MIB
