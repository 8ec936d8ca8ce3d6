from __future__ import annotations

import gzip
import io
import random
import stat
import struct
import zlib
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swupd import process
from swupd.errors import DeltaError
from swupd.formats import delta, gzipped
from swupd.formats.gzipped import Producer, Recipe

MODE = stat.S_IFREG | 0o644
PLAIN = b"\x1f\x8b\x08\0\0\0\0\0\x02\x03"
FULL = (
    b"\x1f\x8b\x08\x1f\x01\x02\x03\x04\0\x03"
    b"\x04\0abcd"  # an extra field
    b"name\0comment\0"
    b"\xaa\xbb"  # the header's own checksum
)
HEADERS = (PLAIN, FULL)


def run(argv: Sequence[str], stdin: bytes) -> bytes:
    return process.run(argv, env={"PATH": "/usr/bin:/bin"}, stdin=stdin).stdout


def no_program(argv: Sequence[str], stdin: bytes) -> bytes:
    return process.run(argv, env={"PATH": "/nowhere"}, stdin=stdin).stdout


def words(number: int, seed: int = 1) -> bytes:
    """Text that looks natural to a compressor."""
    chance = random.Random(seed)
    known = ["".join(chance.choices("etaoinshrdlu", k=chance.randint(2, 9))) for _ in range(500)]
    return " ".join(chance.choices(known, k=number)).encode()


def sparse_changes() -> bytes:
    """Content whose blocks the program ends earlier than zlib does."""
    chance = random.Random(1)
    phrase = words(40)
    return b"".join(chance.randbytes(20) + phrase for _ in range(500))


def container(old: bytes, new: bytes) -> bytes:
    """A delta that takes the beginning of the old content and inserts the rest."""
    same = min(len(old), len(new))
    changes = bytes((b - a) % 256 for a, b in zip(old[:same], new[:same], strict=True))
    return delta.encode(len(old), [(same, len(new) - same, 0)], changes, new[same:], mode=MODE, uid=1, gid=2)


def compressed(content: bytes, level: int, memory: int, header: bytes = PLAIN) -> bytes:
    packer = zlib.compressobj(level, zlib.DEFLATED, -15, memory)
    body = packer.compress(content) + packer.flush()
    return header + body + struct.pack("<II", zlib.crc32(content), len(content))


recipes = st.builds(Recipe, st.sampled_from(Producer), st.integers(1, 9), st.sampled_from(HEADERS))


# -- opening -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("header", HEADERS)
def test_a_gzip_file_is_its_header_and_its_content(header: bytes) -> None:
    assert gzipped.opened(compressed(b"content", 9, 8, header)) == (header, b"content")


GOOD = compressed(words(50), 9, 8)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"plain text",
        GOOD[:9],
        GOOD[:-1],
        GOOD[:40],
        GOOD + b"\0",
        GOOD + GOOD,
        GOOD[:-8] + bytes(4) + GOOD[-4:],
        GOOD[:-4] + bytes(4),
        GOOD[:3] + b"\x20" + GOOD[4:],
        GOOD[:3] + b"\x04" + GOOD[4:10] + b"\xff\xff",
        PLAIN[:3] + b"\x08" + PLAIN[4:] + b"a name without an end",
        PLAIN[:3] + b"\x10" + PLAIN[4:] + b"a" * gzipped.HEADER_LIMIT + b"\0" + GOOD[10:],
        GOOD[:20] + bytes([GOOD[20] ^ 0xFF]) + GOOD[21:],
    ],
)
def test_anything_but_one_sound_member_is_not_opened(data: bytes) -> None:
    assert gzipped.opened(data) is None


def test_a_file_that_unpacks_to_more_than_the_limit_is_not_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gzipped, "CONTENT_LIMIT", 1000)
    assert gzipped.opened(compressed(bytes(1000), 9, 8)) == (PLAIN, bytes(1000))
    assert gzipped.opened(compressed(bytes(1001), 9, 8)) is None
    assert gzipped.opened(compressed(bytes(1_000_000), 9, 8)) is None


@given(st.binary(max_size=200))
def test_whatever_follows_a_gzip_header_is_opened_or_not(data: bytes) -> None:
    for header in HEADERS:
        found = gzipped.opened(header + data)
        assert found is None or isinstance(found[1], bytes)


# -- recipes -----------------------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(recipe=recipes, content=st.binary(max_size=5000))
def test_what_is_rebuilt_is_a_gzip_file_with_this_header_and_content(recipe: Recipe, content: bytes) -> None:
    data = gzipped.rebuild(recipe, content, run)
    assert gzipped.opened(data) == (recipe.header, content)
    assert gzip.decompress(data) == content


@settings(max_examples=40, deadline=None)
@given(content=st.binary(max_size=5000), memory=st.sampled_from([8, 9]), level=st.sampled_from([6, 9]))
def test_what_zlib_made_is_proved_and_rebuilt_to_the_last_bit(content: bytes, memory: int, level: int) -> None:
    data = compressed(content, level, memory, FULL)
    found = gzipped.prove(data, run)
    assert found is not None
    assert found[1] == content
    assert gzipped.rebuild(*found, run) == data


@pytest.mark.parametrize("level", [1, 6, 9])
def test_a_level_that_the_header_suggests_is_tried(level: int) -> None:
    content = words(20_000)
    target = io.BytesIO()
    with gzip.GzipFile("name", "wb", level, target, mtime=5) as file:
        file.write(content)
    found = gzipped.prove(target.getvalue(), run)
    assert found is not None
    assert (found[0].producer, found[0].level) == (Producer.ZLIB_MEMORY_8, level)


@pytest.mark.parametrize("level", [6, 9])
def test_what_only_the_program_makes_is_proved_with_the_program(level: int) -> None:
    content = sparse_changes()
    data = run(["gzip", f"-{level}", "-n", "-c"], content)
    assert gzip.compress(content, level, mtime=0)[10:] != data[10:]
    found = gzipped.prove(data, run)
    assert found is not None
    assert (found[0].producer, found[0].level) == (Producer.GZIP, level)
    assert gzipped.rebuild(*found, run) == data


def test_a_file_of_another_compressor_has_no_recipe() -> None:
    stored = compressed(words(1000), 0, 8)
    assert gzipped.opened(stored) is not None
    assert gzipped.prove(stored, run) is None


def test_without_the_program_the_recipes_of_zlib_are_still_found() -> None:
    content = sparse_changes()
    assert gzipped.prove(compressed(content, 9, 9), no_program) is not None
    assert gzipped.prove(run(["gzip", "-9", "-n", "-c"], content), no_program) is None


def test_a_program_that_is_missing_or_prints_nonsense_is_a_delta_error(tmp_path: Path) -> None:
    recipe = Recipe(Producer.GZIP, 9, PLAIN)
    with pytest.raises(DeltaError, match="cannot run gzip"):
        gzipped.rebuild(recipe, b"content", no_program)
    for printed in (b"", b"hello", PLAIN, PLAIN + bytes(7)):
        with pytest.raises(DeltaError, match="printed something"):
            gzipped.rebuild(recipe, b"content", lambda _, __, printed=printed: printed)


def test_only_the_compressed_data_of_the_programs_output_is_used() -> None:
    named = PLAIN[:3] + b"\x08" + PLAIN[4:] + b"name\0"
    data = gzipped.rebuild(Recipe(Producer.GZIP, 9, named), b"content", run)
    assert data == named + run(["gzip", "-9", "-n", "-c"], b"content")[len(PLAIN) :]


# -- deltas ------------------------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(recipe=recipes, old=st.binary(max_size=2000), new=st.binary(max_size=2000))
def test_a_gzip_delta_leads_from_file_to_file(recipe: Recipe, old: bytes, new: bytes) -> None:
    member = gzipped.encode(recipe, container(old, new))
    assert gzipped.decode(member) == (recipe, container(old, new))
    result, header = gzipped.apply(compressed(old, 6, 8, FULL), member, run)
    assert result == gzipped.rebuild(recipe, new, run)
    assert (header.mode, header.uid, header.gid) == (MODE, 1, 2)


def test_the_bytes_of_a_gzip_delta_are_those_of_its_description() -> None:
    member = gzipped.encode(Recipe(Producer.ZLIB_MEMORY_9, 6, PLAIN), container(b"a", b"b"))
    assert member == b"GZDELTA1" + b"\x02\x06" + b"\x0a\x00" + PLAIN + container(b"a", b"b")


MEMBER = gzipped.encode(Recipe(Producer.ZLIB_MEMORY_8, 9, FULL), container(words(20), words(20, seed=2)))


@pytest.mark.parametrize(
    ("member", "message"),
    [
        (b"", "cut off"),
        (MEMBER[:11], "cut off"),
        (b"GZDELTA2" + MEMBER[8:], "not a gzip delta"),
        (MEMBER[:8] + b"\0" + MEMBER[9:], "producer 0"),
        (MEMBER[:8] + b"\x04" + MEMBER[9:], "producer 4"),
        (MEMBER[:9] + b"\0" + MEMBER[10:], "level 0"),
        (MEMBER[:9] + b"\x0a" + MEMBER[10:], "level 10"),
        (MEMBER[:10] + b"\0\0" + MEMBER[12:], "header that is not gzip's"),
        (MEMBER[:10] + b"\xff\xff" + MEMBER[12:], "header that is not gzip's"),
        (MEMBER[:10] + b"\x0a\0" + MEMBER[12:], "header that is not gzip's"),
        (MEMBER[:50], "not a delta"),
    ],
)
def test_a_gzip_delta_that_is_damaged_is_refused(member: bytes, message: str) -> None:
    with pytest.raises(DeltaError, match=message):
        gzipped.decode(member)


@pytest.mark.parametrize("field", [33, 41])
def test_a_gzip_delta_for_too_large_contents_is_refused_by_its_header(field: int) -> None:
    start = len(MEMBER) - len(gzipped.decode(MEMBER)[1])
    size = struct.pack("<Q", gzipped.CONTENT_LIMIT + 1)
    with pytest.raises(DeltaError, match="more than"):
        gzipped.decode(MEMBER[: start + field] + size + MEMBER[start + field + 8 :])


@settings(deadline=None)
@given(st.data())
def test_a_damaged_gzip_delta_never_raises_anything_else(data: st.DataObject) -> None:
    damaged = bytearray(MEMBER[: data.draw(st.integers(0, len(MEMBER)))])
    for _ in range(data.draw(st.integers(0, 3)) if damaged else 0):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    with suppress(DeltaError):
        gzipped.apply(compressed(words(20), 9, 8), bytes(damaged), run)


@given(st.binary(max_size=300))
def test_noise_after_the_magic_number_is_a_delta_error(noise: bytes) -> None:
    with pytest.raises(DeltaError):
        gzipped.decode(b"GZDELTA1" + noise)


def test_a_gzip_delta_is_not_applied_to_a_file_that_is_not_gzip() -> None:
    with pytest.raises(DeltaError, match="not a gzip file"):
        gzipped.apply(words(20), MEMBER, run)
