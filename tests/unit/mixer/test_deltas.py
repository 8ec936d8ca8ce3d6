from __future__ import annotations

import gzip
import json
import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixer import deltas
from mixer.content import ContentStore, Wanted
from mixer.deltas import DeltaKey, DeltaStore, DeltaTask, make_deltas, run_gzip, unpacked
from mixer.engine import InProcess
from mixer.errors import BuildError
from swupd.formats import delta, gzipped
from swupd.formats.archive import Member, ObjectType
from swupd.formats.filehash import hash_path
from swupd.report import TextReport

NUMBERS = random.Random(3)
TEXT = " ".join(str(NUMBERS.randrange(1000)) for _ in range(3000)).encode()
EDITED = TEXT.replace(b" 7", b" seven ")


class Files:
    """Files of a content store, and the deltas between them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.objects = ContentStore(path / "objects")
        self.deltas = DeltaStore(path / "deltas", self.objects)

    def add(self, name: str, data: bytes, mode: int = 0o644) -> str:
        path = self.path / name
        path.write_bytes(data)
        path.chmod(mode)
        file_hash = hash_path(str(path))
        self.objects.add({file_hash: Wanted(str(path), len(data))}, InProcess(), TextReport())
        return file_hash

    def make(self, *keys: DeltaKey) -> int:
        return self.deltas.make(keys, InProcess(), TextReport())


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


def test_a_delta_gives_the_new_file_with_its_mode(files: Files) -> None:
    key = DeltaKey(files.add("old", TEXT), files.add("new", EDITED, 0o755))

    assert files.make(key) == 1

    new, header = delta.apply(TEXT, unpacked(files.deltas.packed(key)))
    assert (new, header.mode) == (EDITED, 0o100755)
    record = files.deltas.record(key)
    assert record.algorithm in ("hdiffpatch", "bsdiff")
    assert 0 < record.estimate < record.full


def test_a_pair_is_compared_once(files: Files) -> None:
    key = DeltaKey(files.add("old", TEXT), files.add("new", EDITED))

    assert files.make(key, key) == 1
    assert files.make(key) == 0


def test_a_rename_is_a_tiny_delta(files: Files) -> None:
    file_hash = files.add("old", TEXT)
    key = DeltaKey(file_hash, file_hash)
    files.make(key)

    assert files.deltas.record(key).algorithm == "same"
    assert len(unpacked(files.deltas.packed(key))) < 120


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        (TEXT, b"x" * 199, "smaller than 200 bytes"),
        (b"", TEXT, "the old file is empty"),
        (TEXT, NUMBERS.randbytes(5000), "a delta would not be smaller"),
    ],
)
def test_the_object_itself_is_taken_where_no_delta_helps(files: Files, old: bytes, new: bytes, reason: str) -> None:
    key = DeltaKey(files.add("old", old), files.add("new", new))
    files.make(key)

    record = files.deltas.record(key)

    assert (record.algorithm, record.reason) == ("full", reason)
    assert not record.is_delta
    assert unpacked(files.deltas.packed(key)) == b""


def test_files_that_are_too_large_are_not_even_read(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deltas, "NEW_LIMIT", 1000)
    key = DeltaKey(files.add("old", TEXT), files.add("new", EDITED))
    files.make(key)

    assert files.deltas.record(key).reason.startswith("larger than")


def test_what_costs_the_matcher_too_much_is_reported(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deltas, "LIMITED_BYTES", 1000)
    monkeypatch.setattr(deltas, "MEMORY_PER_BYTE", 1)
    key = DeltaKey(files.add("old", TEXT), files.add("new", EDITED))
    files.make(key)

    record = files.deltas.record(key)

    assert record.algorithm == "too costly"
    assert not record.is_delta
    assert "memory" in record.reason or "failed" in record.reason


def test_the_limited_matcher_finds_the_same(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    old, new = NUMBERS.randbytes(200_000), b""
    new = old[:50_000] + b"changed" + old[60_000:]
    key = DeltaKey(files.add("old", old), files.add("new", new))
    files.make(key)
    monkeypatch.setattr(deltas, "LIMITED_BYTES", 1000)
    monkeypatch.setattr(deltas, "MEMORY_PER_BYTE", 4096)
    again = DeltaStore(files.path / "again", files.objects)
    again.make([key], InProcess(), TextReport())

    assert again.packed(key) == files.deltas.packed(key)


def test_gzip_files_are_compared_by_their_content(files: Files) -> None:
    old, new = (gzip.compress(data, 9, mtime=0) for data in (TEXT, EDITED))
    plain = DeltaKey(files.add("old.gz", old), files.add("new.gz", new))
    opened = DeltaKey(plain.from_hash, plain.to_hash, is_gzip=True)
    files.make(plain, opened)

    record = files.deltas.record(opened)

    assert record.algorithm.startswith("gzip ")
    assert record.estimate < files.deltas.record(plain).full / 2
    recipe, container = gzipped.decode(unpacked(files.deltas.packed(opened)))
    content = delta.apply(TEXT, container)[0]
    assert gzipped.rebuild(recipe, content, run_gzip) == new


def test_gzip_files_that_cannot_be_made_again_have_no_gzip_delta(files: Files) -> None:
    stored = gzip.compress(TEXT, 9, mtime=0)
    odd = stored[:-1] + bytes([stored[-1] ^ 1])
    key = DeltaKey(files.add("old.gz", stored), files.add("new.gz", odd), is_gzip=True)
    files.make(key)

    assert files.deltas.record(key).reason == "it cannot be compressed again to the same bytes"


def test_a_damaged_record_is_named_with_what_to_do(files: Files) -> None:
    key = DeltaKey(files.add("old", TEXT), files.add("new", EDITED))
    files.make(key)
    for path in (files.path / "deltas").rglob("*-*"):
        path.write_bytes(b"nonsense")

    with pytest.raises(BuildError, match="delta store is damaged") as caught:
        files.deltas.record(key)

    assert "remove this file" in caught.value.hint


@given(st.binary(max_size=600), st.binary(max_size=600), st.integers(0, 8))
@settings(max_examples=60, deadline=None)
def test_every_record_is_a_right_delta_or_says_why_not(old: bytes, new: bytes, times: int) -> None:
    old, new = old * times, new * times + old
    member = Member("x", ObjectType.FILE, 0o100644, 0, 0, len(new))
    ((name, data),) = make_deltas([DeltaTask(DeltaKey("a" * 64, "b" * 64), old, new, member)])

    head, _, packed = data.partition(b"\n")
    record = json.loads(head)
    assert name == f"{'a' * 64}-{'b' * 64}"
    if record["algorithm"] == "full":
        assert record["reason"]
    else:
        assert delta.apply(old, unpacked(packed))[0] == new
        assert record["estimate"] < record["full"]
