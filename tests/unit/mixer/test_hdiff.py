from __future__ import annotations

import random
from contextlib import suppress

import hdiffpatch
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixer.hdiff import covers, parse

NUMBERS = random.Random(1)
OLD = NUMBERS.randbytes(3000)
NEW = OLD[2000:] + NUMBERS.randbytes(100) + OLD[:1500]


def container(old: bytes = OLD, new: bytes = NEW) -> bytes:
    return hdiffpatch.diff(old, new, None, validate=False)


def test_covers_are_the_parts_that_moved() -> None:
    assert covers(OLD, NEW).tolist() == [2000, 0, 1000, 0, 1100, 1500]


def test_files_with_nothing_in_common_have_no_covers() -> None:
    for old, new in ((b"", b""), (OLD, b""), (b"a" * 500, NUMBERS.randbytes(200))):
        assert sum(covers(old, new)[2::3]) == 0


def test_large_numbers_are_read() -> None:
    old = NUMBERS.randbytes(1 << 20)
    new = old[900_000:] + old[10:800_000] + old[850_000:900_000]
    assert covers(old, new).tolist() == [900_000, 0, 148_576, 10, 148_576, 799_990, 850_000, 948_566, 50_000]


def test_a_container_of_another_kind_is_refused() -> None:
    for other in (b"", b"HDIFF13", b"HDIFF13&zlib" + container()[8:], b"HDIFF14&" + container()[8:]):
        with pytest.raises(ValueError, match="not an uncompressed HDIFF13"):
            parse(other, len(OLD), len(NEW))


def test_a_container_with_compressed_covers_is_refused() -> None:
    packed = bytearray(container())
    assert packed[9:16] == bytes((0x80 | 2600 >> 7, 2600 & 0x7F, 0x80 | 3000 >> 7, 3000 & 0x7F, 2, packed[14], 0))
    packed[15] = packed[14] - 1
    with pytest.raises(ValueError, match="a compressed one"):
        parse(bytes(packed), len(OLD), len(NEW))


def test_a_container_for_files_of_other_sizes_is_refused() -> None:
    for sizes in ((len(OLD) - 1, len(NEW)), (len(OLD), len(NEW) + 1)):
        with pytest.raises(ValueError, match="other files"):
            parse(container(), *sizes)


def test_a_container_that_is_cut_off_in_its_covers_is_refused() -> None:
    for length in range(9, 24):
        with pytest.raises(ValueError, match="cut off"):
            parse(container()[:length], len(OLD), len(NEW))


@given(st.binary(max_size=200), st.integers(0, 1 << 20), st.integers(0, 1 << 20))
@settings(max_examples=100, deadline=None)
def test_noise_is_refused_or_gives_covers_within_the_files(noise: bytes, old_size: int, new_size: int) -> None:
    with suppress(ValueError):
        check(parse(b"HDIFF13&\0" + noise, old_size, new_size).tolist(), old_size, new_size)


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_a_damaged_container_is_refused_or_gives_covers_within_the_files(data: st.DataObject) -> None:
    damaged = bytearray(container())
    for _ in range(data.draw(st.integers(1, 3))):
        damaged[data.draw(st.integers(13, 40))] ^= 1 << data.draw(st.integers(0, 7))
    with suppress(ValueError):
        check(parse(bytes(damaged), len(OLD), len(NEW)).tolist(), len(OLD), len(NEW))


def check(numbers: list[int], old_size: int, new_size: int) -> None:
    """Covers lie within the files, and in the new one behind each other."""
    end = 0
    for old_at, new_at, length in zip(numbers[::3], numbers[1::3], numbers[2::3], strict=True):
        assert 0 <= old_at <= old_at + length <= old_size
        assert end <= new_at <= new_at + length <= new_size
        end = new_at + length
