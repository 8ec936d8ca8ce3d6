from __future__ import annotations

import io
import lzma
import os
import platform
import subprocess
import tarfile
from contextlib import closing
from pathlib import Path
from typing import BinaryIO

import pytest
import zstandard

from mixer import cache, content
from mixer.content import ContentStore, Stored, Wanted
from mixer.engine import InProcess, Processes
from mixer.errors import BuildError
from swupd.formats.filehash import hash_path
from swupd.report import TextReport


@pytest.fixture
def store(tmp_path: Path) -> ContentStore:
    return ContentStore(tmp_path / "objects")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "full"
    (root / "dir").mkdir(parents=True)
    (root / "dir").chmod(0o1775)
    (root / "empty").write_bytes(b"")
    (root / "file").write_bytes(b"content\n" * 100)
    (root / "file").chmod(0o4755)
    os.utime(root / "file", (1234567890, 1234567890))
    (root / "link").symlink_to("a/target")
    (root / "large").write_bytes(os.urandom(3 * 1024 * 1024 + 7))
    (root / "program").write_bytes(Path("/bin/ls").read_bytes())
    return root


def wanted(*paths: Path) -> dict[str, Wanted]:
    return {hash_path(str(path)): Wanted(str(path), path.lstat().st_size) for path in paths}


def all_of(root: Path) -> dict[str, Wanted]:
    return wanted(*(root / name for name in sorted(os.listdir(root))))


def opened(name: str) -> BinaryIO:
    return Path(name).open("rb")


def member(store: ContentStore, file_hash: str) -> tuple[tarfile.TarInfo, bytes]:
    """The one member of an object as stock zstd and tar see it."""
    data = zstandard.ZstdDecompressor().decompressobj().decompress(store.path(file_hash).read_bytes())
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        (info,) = tar.getmembers()
        file = tar.extractfile(info) if info.isfile() else None
        return info, file.read() if file else b""


def test_every_kind_of_object_comes_back_with_its_hash(store: ContentStore, root: Path) -> None:
    objects = all_of(root)

    store.add(objects, InProcess(), TextReport())

    assert store.missing(objects) == set()
    for file_hash, object_wanted in objects.items():
        with store.open(file_hash) as (_, chunks):
            data = b"".join(chunks)
        path = Path(object_wanted.path)
        assert data == (path.read_bytes() if path.is_file() and not path.is_symlink() else b"")


def test_an_object_is_an_archive_of_one_member_named_by_its_hash(store: ContentStore, root: Path) -> None:
    (file_hash,) = objects = wanted(root / "file")
    store.add(objects, InProcess(), TextReport())

    info, data = member(store, file_hash)

    assert (info.name, info.mode, info.mtime) == (file_hash, 0o4755, 1234567890)
    assert (info.uname, info.gname) == ("", "")
    assert data == (root / "file").read_bytes()


def test_the_archive_of_a_link_has_its_text(store: ContentStore, root: Path) -> None:
    (file_hash,) = objects = wanted(root / "link")
    store.add(objects, InProcess(), TextReport())

    info, _ = member(store, file_hash)

    assert (info.issym(), info.linkname) == (True, "a/target")


def test_only_what_is_new_is_compressed(store: ContentStore, root: Path) -> None:
    first = store.add(wanted(root / "file", root / "dir"), InProcess(), TextReport())

    second = store.add(all_of(root), InProcess(), TextReport())

    assert first.objects == 2
    assert second.objects == 4
    assert second.content_bytes == sum((root / name).lstat().st_size for name in ("empty", "link", "large", "program"))
    assert store.add(all_of(root), InProcess(), TextReport()) == Stored()


def test_the_kind_of_engine_does_not_change_the_bytes(root: Path, tmp_path: Path) -> None:
    stores = [ContentStore(tmp_path / name) for name in ("here", "elsewhere")]
    stores[0].add(all_of(root), InProcess(), TextReport())
    with closing(Processes(2)) as processes:
        stores[1].add(all_of(root), processes, TextReport())

    for file_hash in all_of(root):
        assert len({store.path(file_hash).read_bytes() for store in stores}) == 1


def test_an_object_too_large_for_a_task_has_the_same_bytes(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stores = [ContentStore(tmp_path / name) for name in ("task", "stream")]
    objects = wanted(root / "large", root / "program")
    stores[0].add(objects, InProcess(), TextReport())
    monkeypatch.setattr(content, "LARGE_BYTES", 1000)
    assert stores[1].add(objects, InProcess(), TextReport()).objects == 2

    for file_hash in objects:
        with stores[1].open(file_hash) as (_, chunks):
            assert b"".join(chunks)
        packed = [store.path(file_hash).read_bytes() for store in stores]
        assert packed[0][:4] == packed[1][:4]
        assert abs(len(packed[0]) - len(packed[1])) < 100


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the filter is for programs of x86")
def test_a_program_is_compressed_with_the_filter_for_its_machine(store: ContentStore, root: Path) -> None:
    (file_hash,) = objects = wanted(root / "program")
    store.add(objects, InProcess(), TextReport())

    packed = store.path(file_hash).read_bytes()

    assert packed.startswith(b"\xfd7zXZ")
    assert (root / "program").read_bytes() in lzma.decompress(packed)
    plain = lzma.compress(lzma.decompress(packed), check=lzma.CHECK_CRC32)
    assert len(packed) < 0.98 * len(plain)
    listed = subprocess.run(["bsdtar", "-tf", store.path(file_hash)], capture_output=True, text=True, check=True)
    assert listed.stdout.split() == [file_hash]


def test_a_program_for_another_machine_is_not(store: ContentStore, root: Path) -> None:
    program = bytearray((root / "program").read_bytes())
    program[18:20] = (183).to_bytes(2, "little")
    (root / "program").write_bytes(program)
    (file_hash,) = objects = wanted(root / "program")
    store.add(objects, InProcess(), TextReport())

    assert store.path(file_hash).read_bytes().startswith(b"\x28\xb5\x2f\xfd")


def test_lost_objects_are_taken_from_what_was_published(store: ContentStore, root: Path, tmp_path: Path) -> None:
    objects = all_of(root)
    store.add(objects, InProcess(), TextReport())
    other = ContentStore(tmp_path / "other")
    names = {file_hash: str(store.path(file_hash)) for file_hash in objects}

    assert other.fetch(names, opened) == len(objects)
    assert other.fetch(names, opened) == 0

    for file_hash in objects:
        assert other.path(file_hash).read_bytes() == store.path(file_hash).read_bytes()


def test_what_was_published_damaged_is_named_and_not_taken(store: ContentStore, root: Path, tmp_path: Path) -> None:
    (file_hash,) = objects = wanted(root / "file")
    store.add(objects, InProcess(), TextReport())
    data = bytearray(store.path(file_hash).read_bytes())
    data[-6] ^= 1
    (tmp_path / "damaged").write_bytes(data)
    other = ContentStore(tmp_path / "other")

    with pytest.raises(BuildError, match=r"published .*damaged.* is damaged"):
        other.fetch({file_hash: str(tmp_path / "damaged")}, opened)

    assert other.missing(objects) == {file_hash}


@pytest.mark.parametrize("name", ["file", "large", "empty"])
@pytest.mark.parametrize("change", ["longer", "shorter", "other", "mode", "type"])
def test_a_file_that_changed_since_it_was_hashed_is_never_stored(
    store: ContentStore, root: Path, name: str, change: str
) -> None:
    path = root / name
    objects = wanted(path)
    data = path.read_bytes()
    if change == "longer":
        path.write_bytes(data + b"x")
    elif change == "shorter":
        path.write_bytes(data[:-1] or b"y")
    elif change == "other":
        path.write_bytes(bytes(len(data)) or b"z")
    elif change == "mode":
        path.chmod(0o600)
    else:
        path.unlink()
        path.mkdir()

    with pytest.raises(BuildError, match=f"{name} changed after it was hashed"):
        store.add(objects, InProcess(), TextReport())

    assert store.missing(objects) == set(objects)


def test_a_file_that_is_gone_is_named(store: ContentStore, root: Path) -> None:
    objects = wanted(root / "file")
    (root / "file").unlink()

    with pytest.raises(BuildError, match=r"cannot store .*file"):
        store.add(objects, InProcess(), TextReport())


def test_a_failed_build_keeps_what_was_finished_and_leaves_nothing_else(
    store: ContentStore, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(content, "BATCH_COUNT", 1)
    objects = wanted(root / "large", root / "file")
    (root / "file").write_bytes(b"changed")

    with pytest.raises(BuildError):
        store.add(objects, InProcess(), TextReport())

    assert len(store.missing(objects)) == 1
    assert not (store.path("ab").parent.parent / ".new").exists()


def test_objects_are_committed_while_the_work_goes_on(
    store: ContentStore, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "COMMIT_BYTES", 1)
    monkeypatch.setattr(content, "BATCH_COUNT", 1)

    store.add(all_of(root), InProcess(), TextReport())

    assert store.missing(all_of(root)) == set()


def test_a_damaged_object_is_named_with_what_to_do(store: ContentStore, root: Path) -> None:
    (file_hash,) = objects = wanted(root / "file")
    store.add(objects, InProcess(), TextReport())
    path = store.path(file_hash)
    damaged = bytearray(path.read_bytes())
    damaged[-6] ^= 1
    path.write_bytes(damaged)

    with pytest.raises(BuildError, match=f"damaged at .*{file_hash}") as caught, store.open(file_hash) as (_, chunks):
        b"".join(chunks)

    assert "remove this file" in caught.value.hint


def test_a_published_object_is_a_hard_link_that_everybody_can_read(
    store: ContentStore, root: Path, tmp_path: Path
) -> None:
    (file_hash,) = objects = wanted(root / "file")
    former = os.umask(0o077)
    try:
        store.add(objects, InProcess(), TextReport())
    finally:
        os.umask(former)

    size = store.link(file_hash, tmp_path / "published.tar")

    status = (tmp_path / "published.tar").stat()
    assert (status.st_nlink, status.st_size, status.st_mode & 0o777) == (2, size, 0o644)


def test_an_object_is_copied_where_it_cannot_be_linked(
    store: ContentStore, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (file_hash,) = objects = wanted(root / "file")
    store.add(objects, InProcess(), TextReport())

    def refuse(*_: object, **__: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    store.link(file_hash, tmp_path / "published.tar")

    assert (tmp_path / "published.tar").read_bytes() == store.path(file_hash).read_bytes()
