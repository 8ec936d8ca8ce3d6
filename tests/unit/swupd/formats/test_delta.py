from __future__ import annotations

import bz2
import gzip
import lzma
import random
import stat
import struct
import tracemalloc
from collections.abc import Callable
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swupd.errors import DeltaError
from swupd.formats.delta import NEW_SIZE_LIMIT, TRIPLES_LIMIT, DeltaHeader, apply, encode, read_header

MODE = stat.S_IFREG | 0o644

# The examples of the specification, section 4.5: "hello\n" becomes "hello world\n".
BLOCKS = bytes.fromhex("0500000000000000 0700000000000000 0100000000000000 0500000000000000 20776f726c640a")
SMALL = bytes.fromhex("4253444946463456 2018080007000600 0c00a48100000000 0000000000000106") + BLOCKS
LARGE = (
    bytes.fromhex(
        "4253444946463455 4318000000080000 0000000000070000 0000000000060000 00000000000c0000"
        "0000000000000000 0000000000ed8100 0000000000000000 000106"
    )
    + BLOCKS
)

Packer = Callable[[bytes], bytes]
PACKERS: dict[str, tuple[int, Packer]] = {
    "none": (0, bytes),
    "bzip2": (1, bz2.compress),
    "gzip": (2, lambda data: gzip.compress(data, mtime=0)),
    "xz": (3, lambda data: lzma.compress(data, check=lzma.CHECK_CRC32, preset=1)),
}


def control(*triples: tuple[int, int, int]) -> bytes:
    return b"".join(struct.pack("<qqq", *triple) for triple in triples)


def container(
    blocks: tuple[bytes, bytes, bytes],
    sizes: tuple[int, int],
    *,
    encoding: int = 0x421,
    magic: bytes = b"BSDIFF4U",
    mode: int = MODE,
    grown: int = 0,
) -> bytes:
    """A delta with blocks as they are stored, and with a header that is `grown` bytes longer than known ones."""
    lengths = [len(block) for block in blocks]
    if magic == b"BSDIFF4U":
        header = struct.pack("<8sBIQQQQQIIIH", magic, 67 + grown, *lengths, *sizes, 0, mode, 1, 2, encoding)
    else:
        header = struct.pack("<8sBBHHHHIIIH", magic, 32 + grown, *lengths, *sizes, mode, 1, 2, encoding)
    return header + bytes(grown) + b"".join(blocks)


def test_the_small_example_of_the_specification_is_applied() -> None:
    new, header = apply(b"hello\n", SMALL)
    assert new == b"hello world\n"
    assert header == DeltaHeader(6, 12, stat.S_IFREG | 0o644, 0, 0, 32, 24, 8, 7, 0x0601)


def test_the_large_example_of_the_specification_is_applied() -> None:
    new, header = apply(b"hello\n", LARGE)
    assert new == b"hello world\n"
    assert header == DeltaHeader(6, 12, stat.S_IFREG | 0o755, 0, 0, 67, 24, 8, 7, 0x0601)


def test_the_large_example_of_the_specification_is_written() -> None:
    assert encode(6, [(5, 7, 1)], bytes(5), b" world\n", mode=stat.S_IFREG | 0o755, uid=0, gid=0) == LARGE


@pytest.mark.parametrize("magic", [b"BSDIFF4U", b"BSDIFF4V"])
@pytest.mark.parametrize("control_packer", PACKERS)
@pytest.mark.parametrize("diff_packer", PACKERS)
@pytest.mark.parametrize("extra_packer", PACKERS)
def test_every_encoding_of_every_block_is_read(
    magic: bytes, control_packer: str, diff_packer: str, extra_packer: str
) -> None:
    encoding = 0
    blocks = []
    plain = (control((3, 2, 0), (2, 0, 0)), b"\x00\x01\xff\x00\x02", b"XY")
    for group, (name, block) in enumerate(zip((control_packer, diff_packer, extra_packer), plain, strict=True)):
        bit, pack = PACKERS[name]
        encoding |= 1 << (5 * group + bit)
        blocks.append(pack(block))
    delta = container((blocks[0], blocks[1], blocks[2]), (5, 7), encoding=encoding, magic=magic)
    new, header = apply(b"abcde", delta)
    assert new == b"acbXYdg"
    assert (header.mode, header.uid, header.gid) == (MODE, 1, 2)


def test_blocks_of_zeros_are_only_counted() -> None:
    blocks = (control((3, 4, 0)), struct.pack("<Q", 3), struct.pack("<Q", 4))
    new, _ = apply(b"abc", container(blocks, (3, 7), encoding=1 | 1 << 9 | 1 << 14))
    assert new == b"abc\0\0\0\0"


def test_the_lowest_encoding_bit_wins() -> None:
    new, _ = apply(b"abc", container((control((3, 0, 0)), bytes(3), b""), (3, 3), encoding=0xFFFF))
    assert new == b"abc"


def test_a_header_may_grow() -> None:
    for magic in (b"BSDIFF4U", b"BSDIFF4V"):
        new, header = apply(b"abc", container((control((3, 0, 0)), bytes(3), b""), (3, 3), magic=magic, grown=9))
        assert new == b"abc"
        assert header.offset in (76, 41)


def test_the_old_position_moves_both_ways() -> None:
    triples = control((2, 0, 2), (2, 0, -6), (3, 0, 3))
    new, _ = apply(b"abcdef", container((triples, bytes(7), b""), (6, 7)))
    assert new == b"abefabc"


def test_what_the_old_file_does_not_have_adds_nothing() -> None:
    new, _ = apply(b"abc", container((control((5, 0, -2)), b"\x01\x01\x01XY", b""), (3, 5)))
    assert new == b"bcdXY"


def test_additions_wrap_around_in_every_piece() -> None:
    numbers = random.Random(1)
    old, diff = numbers.randbytes(20_001), numbers.randbytes(20_001)
    new, _ = apply(old, container((control((20_001, 0, 0)), diff, b""), (20_001, 20_001)))
    assert new == bytes((a + b) % 256 for a, b in zip(old, diff, strict=True))


def test_an_empty_new_file_is_possible() -> None:
    assert apply(b"abc", container((b"", b"", b""), (3, 0)))[0] == b""


# -- what is refused ---------------------------------------------------------------------------------------------------


def refusal(old: bytes, delta: bytes, limit: int = NEW_SIZE_LIMIT) -> str:
    with pytest.raises(DeltaError) as caught:
        apply(old, delta, limit=limit)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_markers_are_not_applied() -> None:
    assert "full file" in refusal(b"x", b"FULLV20U")
    assert "directory" in refusal(b"x", b"DIR_V20U")
    assert "directory" in refusal(b"x", b"DIR_V20U" + bytes(100))


@pytest.mark.parametrize("delta", [b"", b"BSDIFF4", b"BSDIFF40" + bytes(100), b"bsdiff4u" + bytes(100), b"<html>"])
def test_what_is_no_delta_is_refused(delta: bytes) -> None:
    assert "not a delta" in refusal(b"x", delta)


@pytest.mark.parametrize("delta", [SMALL, LARGE])
def test_a_delta_cut_off_anywhere_or_with_something_behind_is_refused(delta: bytes) -> None:
    for length in range(len(delta)):
        refusal(b"hello\n", delta[:length])
    refusal(b"hello\n", delta + b"\0")


def test_an_old_file_of_another_size_is_refused() -> None:
    assert "not of 5" in refusal(b"hello", SMALL)
    assert "not of 7" in refusal(b"hello\n\n", SMALL)


def test_a_new_file_above_the_limit_is_refused() -> None:
    assert apply(b"hello\n", SMALL, limit=12)[0] == b"hello world\n"
    assert "new file of 12 bytes" in refusal(b"hello\n", SMALL, limit=11)


def test_no_limit_is_above_what_original_clients_take() -> None:
    size = NEW_SIZE_LIMIT + 1
    delta = container((control((0, size, 0)), b"", struct.pack("<Q", size)), (0, size), encoding=1 | 1 << 5 | 1 << 14)
    assert "more than it may have" in refusal(b"", delta, limit=1 << 40)


@pytest.mark.parametrize("mode", [0, 0o644, stat.S_IFDIR | 0o755, stat.S_IFLNK | 0o777, MODE | 1 << 20])
def test_a_delta_for_anything_but_a_regular_file_is_refused(mode: int) -> None:
    assert "not a regular file" in refusal(b"abc", container((control((3, 0, 0)), bytes(3), b""), (3, 3), mode=mode))


@pytest.mark.parametrize("encoding", [0, 0x420, 0x401, 0x021, 0x430, 0x8421 & ~0x400])
def test_a_block_without_a_known_encoding_is_refused(encoding: int) -> None:
    delta = container((control((3, 0, 0)), bytes(3), b""), (3, 3), encoding=encoding)
    assert "encoding" in refusal(b"abc", delta)


def test_a_block_in_another_compression_than_it_says_is_refused() -> None:
    blocks = (control((3, 0, 0)), gzip.compress(bytes(3)), b"")
    assert "encoding" in refusal(b"abc", container(blocks, (3, 3), encoding=1 | 1 << 8 | 1 << 10))


@pytest.mark.parametrize(
    ("triples", "why"),
    [
        ([], "before the new file is complete"),
        ([(3, 0, 0)], "before the new file is complete"),
        ([(0, 2, 0)], "before the new file is complete"),
        ([(-1, 0, 0)], "does not have"),
        ([(0, -1, 0)], "does not have"),
        ([(4, 0, 0)], "does not have"),
        ([(3, 3, 0)], "does not have"),
        ([(2**63 - 1, 0, 0)], "does not have"),
        ([(3, 2**63 - 1, 0)], "does not have"),
        ([(2, 0, 0), (2, 2, 0)], "does not have"),
        ([(3, 2, 1)], "out of the old file"),
        ([(3, 2, -4)], "out of the old file"),
        ([(3, 2, 2**63 - 1)], "out of the old file"),
        ([(3, 2, -(2**63))], "out of the old file"),
        ([(0, 0, 4), (3, 2, -4)], "out of the old file"),
    ],
)
def test_triples_that_do_not_fit_are_refused(triples: list[tuple[int, int, int]], why: str) -> None:
    assert why in refusal(b"abc", container((control(*triples), bytes(3), b"XY"), (3, 5)))


def test_a_control_block_that_is_not_made_of_triples_is_refused() -> None:
    assert "whole triples" in refusal(b"abc", container((control((3, 0, 0)) + b"\0", bytes(3), b""), (3, 3)))


def test_blocks_that_do_not_add_up_to_the_new_size_are_refused() -> None:
    for size in (4, 6):
        assert "for a new file of" in refusal(b"abc", container((control((3, 2, 0)), bytes(3), b"XY"), (3, size)))


@pytest.mark.parametrize("count", [2**64 - 1, 2**40, 4])
def test_more_zeros_than_the_new_file_has_are_refused_unallocated(count: int) -> None:
    blocks = (control((3, 0, 0)), struct.pack("<Q", count), b"")
    assert "larger than the new file" in refusal(b"abc", container(blocks, (3, 3), encoding=1 | 1 << 9 | 1 << 10))


def test_a_count_of_zeros_has_eight_bytes() -> None:
    for block in (b"", bytes(7), bytes(9)):
        blocks = (control((3, 0, 0)), block, b"")
        assert "count of zeros" in refusal(b"abc", container(blocks, (3, 3), encoding=1 | 1 << 9 | 1 << 10))


@pytest.mark.parametrize("group", range(3))
@pytest.mark.parametrize("packer", ["bzip2", "gzip", "xz"])
def test_a_block_that_unpacks_to_more_than_it_may_is_refused_in_little_memory(group: int, packer: str) -> None:
    bit, pack = PACKERS[packer]
    bomb = pack(bytes(48 << 20))
    blocks = [control((3, 0, 0)), bytes(3), b""]
    blocks[group] = bomb
    encoding = 0x421 & ~(1 << 5 * group) | 1 << (5 * group + bit)
    tracemalloc.start()
    message = refusal(b"abc", container((blocks[0], blocks[1], blocks[2]), (3, 3), encoding=encoding))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert "unusable" in message
    assert peak < 12 << 20


def test_more_triples_than_any_delta_needs_are_refused() -> None:
    triples = gzip.compress(bytes(24 * (TRIPLES_LIMIT + 1)), 1)
    size = 1 << 25
    blocks = (triples, struct.pack("<Q", size), b"")
    message = refusal(b"abc", container(blocks, (3, size), encoding=1 << 2 | 1 << 9 | 1 << 10))
    assert "control block" in message


@given(st.binary(max_size=300))
@settings(max_examples=100, deadline=None)
def test_noise_behind_a_magic_raises_nothing_but_delta_errors(noise: bytes) -> None:
    for magic in (b"BSDIFF4U", b"BSDIFF4V", b""):
        with suppress(DeltaError):
            apply(b"abc", magic + noise, limit=1 << 20)


def example() -> tuple[bytes, bytes]:
    """An old file, and a delta with all that deltas have: changes, insertions, steps in both directions."""
    numbers = random.Random(5)
    diff = bytearray(5000)
    for position in range(100, 5000, 70):
        diff[position] = 3
    triples = [(3000, 150, 500), (1500, 0, -2000), (500, 0, 0)]
    return numbers.randbytes(6000), encode(6000, triples, bytes(diff), numbers.randbytes(150), mode=MODE, uid=3, gid=4)


OLD, DELTA = example()


@given(st.data())
@settings(max_examples=100, deadline=None)
def test_a_damaged_delta_is_refused_or_gives_the_size_that_it_says(data: st.DataObject) -> None:
    delta = bytearray(DELTA)
    for _ in range(data.draw(st.integers(1, 3))):
        delta[data.draw(st.integers(0, len(delta) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    with suppress(DeltaError):
        result, header = apply(OLD, bytes(delta), limit=1 << 16)
        assert len(result) == header.new_size


# -- writing -----------------------------------------------------------------------------------------------------------


def test_blocks_are_left_to_the_compression_of_the_archive() -> None:
    blocks = ([(300, 300, 0)], b"\1" * 300, b"n" * 300)
    delta = encode(300, *blocks, mode=MODE, uid=3, gid=4)
    header = read_header(delta)
    assert header.encoding == 1 << 0 | 1 << 5 | 1 << 10
    assert (header.mode, header.uid, header.gid, header.old_size, header.new_size) == (MODE, 3, 4, 300, 600)
    assert delta[header.offset :] == control((300, 300, 0)) + b"\1" * 300 + b"n" * 300


@pytest.mark.parametrize("compressed", [False, True])
def test_zeros_are_written_as_their_number(compressed: bool) -> None:
    delta = encode(
        1 << 20, [(1 << 20, 500, 0)], bytes(1 << 20), bytes(500), mode=MODE, uid=0, gid=0, compressed=compressed
    )
    assert len(delta) == 67 + 24 + 8 + 8
    assert apply(bytes(range(256)) * 4096, delta)[0] == bytes(range(256)) * 4096 + bytes(500)


def test_each_block_of_a_delta_that_stands_alone_is_compressed_as_it_is_smallest() -> None:
    numbers = random.Random(7)
    short, long = numbers.randbytes(40), b"".join(b"%d " % number for number in range(20_000))
    delta = encode(40, [(40, len(long), 0)], short, long, mode=MODE, uid=0, gid=0, compressed=True)
    assert read_header(delta).encoding == 1 << 0 | 1 << 5 | 1 << 13
    assert delta[-len(lzma.compress(long)) - 100 :].count(b"\xfd7zXZ\0\0\x01") == 1  # with CRC32, as original ones
    assert apply(bytes(40), delta)[0] == short + long

    text = b"the same words, " * 20
    delta = encode(40, [(40, len(text), 0)], short, text, mode=MODE, uid=0, gid=0, compressed=True)
    assert read_header(delta).encoding == 1 << 0 | 1 << 5 | 1 << 12


@given(st.binary(min_size=1, max_size=300), st.binary(max_size=300), st.integers(0, 300))
@settings(max_examples=100, deadline=None)
def test_what_is_written_is_read_however_its_blocks_are_compressed(
    diff: bytes, extra: bytes, insert_first: int
) -> None:
    first = min(insert_first, len(extra))
    triples = [(0, first, 0), (len(diff), len(extra) - first, 0)]
    plain, packed = (
        encode(len(diff), triples, diff, extra, mode=MODE, uid=0, gid=0, compressed=compressed)
        for compressed in (False, True)
    )
    assert apply(bytes(len(diff)), packed) == (extra[:first] + diff + extra[first:], read_header(packed))
    assert apply(bytes(len(diff)), plain)[0] == apply(bytes(len(diff)), packed)[0]
    assert len(packed) <= len(plain)
