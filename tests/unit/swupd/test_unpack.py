from __future__ import annotations

import errno
import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from swupd import unpack
from swupd.formats import layout
from swupd.formats.archive import ArchiveLimits
from swupd.formats.filehash import hash_path
from swupd.formats.manifest import Entry
from swupd.fs import Directory
from swupd.plan import FileList
from swupd.unpack import Unpacker


@pytest.fixture
def files(tmp_path: Path, publisher: Any) -> FileList:
    """More than one batch of small files, and some that are large."""
    tree = tmp_path / "v10"
    (tree / "d").mkdir(parents=True)
    for number in range(300):
        (tree / f"d/{number}").write_text(f"{number}\n" * number)
    for number in range(3):
        (tree / f"big{number}").write_bytes(bytes([number]) * 3_000_000)
    return publisher.publish(tree, 10)


@pytest.fixture
def pack(publisher: Any, files: FileList) -> bytes:
    publisher.pack("b", 0, 10, {entry.hash for entry in files.values()})
    return (publisher.directory / layout.pack(10, "b", 0)).read_bytes()


@contextmanager
def unpacker(machine: Any, files: FileList, **options: Any) -> Iterator[tuple[Unpacker, dict[str, Entry]]]:
    missing = {entry.hash: entry for entry in files.values()}
    with (
        Directory.open(machine.statedir.staged) as staged,
        Directory.open(machine.root) as root,
        Unpacker(staged, missing, root, {}, machine.report, **options) as made,
    ):
        yield made, missing


def test_everything_is_staged_when_unpacking_returns(machine: Any, files: FileList, pack: bytes) -> None:
    with unpacker(machine, files) as (made, missing):
        assert made.unpack(io.BytesIO(pack), "the pack for b")
        assert missing == {}
        assert made.from_packs == len({entry.hash for entry in files.values()})
        assert machine.staged == {entry.hash for entry in files.values()}
    assert all(hash_path(str(machine.statedir.staged / name)) == name for name in machine.staged)


def test_little_memory_is_enough(machine: Any, files: FileList, pack: bytes, monkeypatch: Any) -> None:
    monkeypatch.setattr(unpack, "WAITING_BYTES_LIMIT", 1)
    with unpacker(machine, files) as (made, missing):
        assert made.unpack(io.BytesIO(pack), "the pack for b")
        assert missing == {}


def test_a_full_disk_in_a_thread_is_raised_in_the_caller(
    machine: Any, files: FileList, pack: bytes, monkeypatch: Any
) -> None:
    def full(*args: Any, **options: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Directory, "write_file", full)
    with unpacker(machine, files) as (made, _), pytest.raises(OSError, match="No space left"):
        made.unpack(io.BytesIO(pack), "the pack for b")


def test_an_archive_beyond_its_limits_is_used_up_to_them(machine: Any, files: FileList, pack: bytes) -> None:
    limits = ArchiveLimits(members=50, object_bytes=1 << 30, total_bytes=1 << 30)
    with unpacker(machine, files, limits=limits) as (made, missing):
        assert not made.unpack(io.BytesIO(pack), "the pack for b")
        assert made.from_packs == 48
        assert made.from_packs + len(missing) == len({entry.hash for entry in files.values()})
    assert "damaged" in machine.report.warnings[0]


def test_a_second_pack_brings_only_what_the_first_did_not(machine: Any, files: FileList, pack: bytes) -> None:
    with unpacker(machine, files) as (made, missing):
        made.unpack(io.BytesIO(pack[: len(pack) // 2]), "the pack for b")
        first = made.from_packs
        assert missing
        made.unpack(io.BytesIO(pack), "the pack for b")
        assert not missing
        assert 0 < first < made.from_packs
