from __future__ import annotations

import hashlib
import io
import os
import subprocess
import tarfile
from pathlib import Path

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from mixer import packs
from mixer.content import Wanted
from mixer.engine import InProcess
from mixer.errors import BuildError
from mixer.packs import FrameStore, Pack, Run, zero_pack
from swupd.formats.archive import PACK_LIMITS, object_hash, read_members
from swupd.formats.filehash import hash_path
from swupd.formats.manifest import Entry, FileType
from swupd.report import TextReport

Tree = tuple[list[Entry], dict[str, int], dict[str, Wanted]]
"""Entries, sizes by path, places by hash."""


@pytest.fixture
def frames(tmp_path: Path) -> FrameStore:
    return FrameStore(tmp_path / "frames")


def tree(root: Path) -> Tree:
    entries, sizes, places = [], {}, {}
    for path in sorted(root.rglob("*")):
        name, file_hash = f"/{path.relative_to(root)}", hash_path(str(path))
        kind = FileType.LINK if path.is_symlink() else FileType.DIRECTORY if path.is_dir() else FileType.FILE
        sizes[name] = path.stat().st_size if kind is FileType.FILE else 0
        entries.append(Entry.present(kind, file_hash, 10, name))
        places.setdefault(file_hash, Wanted(str(path), sizes[name]))
    return entries, sizes, places


@pytest.fixture
def small(tmp_path: Path) -> Tree:
    root = tmp_path / "full"
    (root / "dir").mkdir(parents=True)
    (root / "file").write_bytes(b"content\n" * 1000)
    (root / "random").write_bytes(os.urandom(2_000_000))
    (root / "link").symlink_to("file")
    return tree(root)


def many(root: Path, count: int = 300) -> Path:
    """Files that end a run now and then."""
    root.mkdir()
    for i in range(count):
        (root / f"file{i:03}").write_bytes(hashlib.sha256(b"%d" % i).digest() * 100)
    return root


def write(frames: FrameStore, content: Tree, target: Path) -> Pack:
    entries, sizes, places = content
    pack = zero_pack("b", entries, sizes)
    frames.make(frames.missing([pack]), places, InProcess(), TextReport())
    assert frames.write(pack, target) == target.stat().st_size
    return pack


def members(path: Path) -> dict[str, str]:
    with path.open("rb") as source:
        found = {m.name: object_hash(m, [data.read()]) for m, data in read_members(source, PACK_LIMITS)}
    assert list(found)[:2] == ["delta", "staged"]
    return {name: found[name] for name in list(found)[2:]}


def entry(name: str, file_hash: str, kind: FileType = FileType.FILE) -> Entry:
    return Entry.present(kind, file_hash * 64, 10, name)


def test_a_zero_pack_has_each_present_hash_once_large_ones_first() -> None:
    entries = [
        entry("/usr/lib/z.so", "1"),
        entry("/usr/bin/x", "2"),
        entry("/usr/bin/copy-of-x", "2"),
        entry("/usr/share/a.txt", "4"),
        entry("/usr/lib", "5", FileType.DIRECTORY),
        Entry.deleted(10, "/usr/gone"),
        Entry.ghosted(10, "/boot/gone"),
    ]
    sizes = {
        "/usr/lib/z.so": 1_000_000,
        "/usr/bin/copy-of-x": 20,
        "/usr/bin/x": 20,
        "/usr/share/a.txt": 4,
        "/usr/lib": 0,
    }

    pack = zero_pack("b", entries, sizes)

    assert [file_hash[0] for run in pack.runs for file_hash in run.hashes] == ["1", "2", "5", "4"]
    assert zero_pack("b", [Entry.deleted(10, "/usr/gone")], {}).runs == ()


def test_a_pack_is_read_by_our_client_with_every_hash_right(frames: FrameStore, small: Tree, tmp_path: Path) -> None:
    write(frames, small, tmp_path / "pack")

    assert members(tmp_path / "pack") == {f"staged/{entry.hash}": entry.hash for entry in small[0]}


@pytest.mark.parametrize("run_bytes", [packs.RUN_BYTES, 20_000])
def test_a_pack_is_read_by_stock_programs(
    frames: FrameStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run_bytes: int
) -> None:
    monkeypatch.setattr(packs, "RUN_BYTES", run_bytes)
    content = tree(many(tmp_path / "full"))
    pack = write(frames, content, tmp_path / "pack")
    assert (len(pack.runs) > 10) is (run_bytes == 20_000)

    for argv in (["tar", "--zstd", "-tf", "pack"], ["bsdtar", "-tf", "pack"], ["sh", "-c", "zstd -dc <pack | tar -t"]):
        listed = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, check=True).stdout.split()
        assert listed[:2] == ["delta/", "staged/"]
        assert {name.removeprefix("staged/") for name in listed[2:]} == {entry.hash for entry in content[0]}


def test_every_frame_stands_alone_and_has_a_checksum(
    frames: FrameStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packs, "RUN_BYTES", 20_000)
    pack = write(frames, tree(many(tmp_path / "full")), tmp_path / "pack")
    data = (tmp_path / "pack").read_bytes()
    count = 0
    while data:
        assert zstandard.get_frame_parameters(data).has_checksum
        decoder = zstandard.ZstdDecompressor().decompressobj()
        decoder.decompress(data)
        data, count = decoder.unused_data, count + 1
    assert count == len(pack.runs) + 2


def test_a_change_costs_the_runs_that_it_is_in(
    frames: FrameStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packs, "RUN_BYTES", 20_000)
    root = many(tmp_path / "full")
    before = write(frames, tree(root), tmp_path / "10")
    (root / "file100").write_bytes(b"changed")
    (root / "file200").unlink()
    (root / "file2555").write_bytes(b"new")
    content = tree(root)
    after = zero_pack("b", content[0], content[1])

    lacking = frames.missing([after])

    assert 1 <= len(lacking) <= 6 < len(before.runs)
    write(frames, content, tmp_path / "20")
    assert members(tmp_path / "20") == {f"staged/{entry.hash}": entry.hash for entry in content[0]}


def test_a_frame_is_made_once(frames: FrameStore, small: Tree, tmp_path: Path) -> None:
    pack = write(frames, small, tmp_path / "pack")

    assert frames.missing([pack]) == []
    assert frames.make([], small[2], InProcess(), TextReport()) == 0
    again = FrameStore(tmp_path / "again")
    write(again, small, tmp_path / "pack2")
    assert (tmp_path / "pack").read_bytes() == (tmp_path / "pack2").read_bytes()


def test_a_member_too_large_for_a_task_is_a_run_of_its_own(
    frames: FrameStore, small: Tree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packs, "LARGE_BYTES", 1_000_000)
    large = next(entry.hash for entry in small[0] if entry.name == "/random")

    pack = write(frames, small, tmp_path / "pack")

    assert (large,) in [run.hashes for run in pack.runs]
    assert members(tmp_path / "pack") == {f"staged/{entry.hash}": entry.hash for entry in small[0]}


def test_the_window_is_no_larger_than_the_content(frames: FrameStore, small: Tree, tmp_path: Path) -> None:
    pack = write(frames, small, tmp_path / "pack")
    data = (tmp_path / "pack").read_bytes()
    head = zstandard.ZstdDecompressor().decompressobj()
    head.decompress(data)

    assert zstandard.get_frame_parameters(head.unused_data[:64]).window_size <= 2 * pack.runs[0].size


def test_a_file_that_changed_since_it_was_hashed_is_never_packed(
    frames: FrameStore, small: Tree, tmp_path: Path
) -> None:
    (tmp_path / "full/file").write_bytes(b"changed")

    with pytest.raises(BuildError, match="file changed after it was hashed"):
        write(frames, small, tmp_path / "pack")


def test_a_lost_frame_is_named_with_what_to_do(frames: FrameStore, small: Tree, tmp_path: Path) -> None:
    pack = write(frames, small, tmp_path / "pack")
    for path in (tmp_path / "frames").rglob("*"):
        if path.is_file():
            path.unlink()

    with pytest.raises(BuildError, match="pack of bundle b") as caught:
        frames.write(pack, tmp_path / "pack2")

    assert "build again" in caught.value.hint


def test_another_content_is_another_frame() -> None:
    assert Run(("a", "b"), 1).key != Run(("b", "a"), 1).key


@given(st.lists(st.tuples(st.text("abc/", min_size=1, max_size=6), st.integers(0, 3 * packs.RUN_LIMIT)), max_size=40))
def test_runs_hold_every_member_once_in_order_and_none_grows_without_end(files: list[tuple[str, int]]) -> None:
    sizes = {f"/{name}": size for name, size in files}
    entries = [Entry.present(FileType.FILE, hashlib.sha256(n.encode()).hexdigest(), 10, n) for n in sizes]

    pack = zero_pack("b", entries, sizes)

    packed = [file_hash for run in pack.runs for file_hash in run.hashes]
    assert sorted(packed) == sorted(entry.hash for entry in entries)
    assert all(run.hashes for run in pack.runs)
    assert all(len(run.hashes) == 1 or run.size <= packs.RUN_LIMIT for run in pack.runs)
    assert zero_pack("b", entries[::-1], sizes) == pack


def test_the_tar_in_the_frames_is_a_whole_one(frames: FrameStore, small: Tree, tmp_path: Path) -> None:
    write(frames, small, tmp_path / "pack")
    stock = subprocess.run(["zstd", "-dc", str(tmp_path / "pack")], capture_output=True, check=True).stdout
    with tarfile.open(fileobj=io.BytesIO(stock)) as tar:
        assert {info.uname for info in tar.getmembers()} == {""}
    assert stock.endswith(bytes(1024))
