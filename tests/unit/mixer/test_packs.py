from __future__ import annotations

import io
import os
import random
import tarfile
from pathlib import Path

import pytest
import zstandard

from mixer.content import ContentStore, Wanted
from mixer.errors import BuildError
from mixer.packs import PackCache, PackJob, zero_pack
from swupd.formats.archive import PACK_LIMITS, object_hash, read_members
from swupd.formats.filehash import hash_path
from swupd.formats.manifest import Entry, FileType
from swupd.report import TextReport


@pytest.fixture
def store(tmp_path: Path) -> ContentStore:
    return ContentStore(tmp_path / "objects")


@pytest.fixture
def cache(tmp_path: Path, store: ContentStore) -> PackCache:
    return PackCache(tmp_path / "packs", store)


@pytest.fixture
def job(tmp_path: Path, store: ContentStore) -> PackJob:
    root = tmp_path / "full"
    (root / "dir").mkdir(parents=True)
    (root / "file").write_bytes(b"content\n" * 1000)
    (root / "random").write_bytes(os.urandom(2_000_000))
    (root / "link").symlink_to("file")
    hashes = {hash_path(str(root / name)): root / name for name in ("dir", "file", "random", "link")}
    store.add({h: Wanted(str(path), path.lstat().st_size) for h, path in hashes.items()}, TextReport())
    return PackJob("b", list(hashes), 2_008_004)


def entry(name: str, file_hash: str, kind: FileType = FileType.FILE) -> Entry:
    return Entry.present(kind, file_hash * 64, 10, name)


def test_a_zero_pack_has_each_present_hash_once_like_beside_like() -> None:
    entries = [
        entry("/usr/lib/z.so", "1"),
        entry("/usr/bin/x", "2"),
        entry("/usr/lib/a.so.1.2", "3"),
        entry("/usr/bin/copy-of-x", "2"),
        entry("/usr/share/a.txt", "4"),
        entry("/usr/lib", "5", FileType.DIRECTORY),
        Entry.deleted(10, "/usr/gone"),
        Entry.ghosted(10, "/boot/gone"),
    ]
    sizes = {"/usr/lib/z.so": 1, "/usr/bin/copy-of-x": 20, "/usr/bin/x": 20, "/usr/lib/a.so.1.2": 300}

    job = zero_pack("b", entries, {"/usr/share/a.txt": 4000, "/usr/lib": 0, **sizes})

    assert [file_hash[0] for file_hash in job.hashes] == ["2", "5", "3", "1", "4"]
    assert (job.name, job.size) == ("b", 4321)


def test_a_pack_is_read_by_our_client_with_every_hash_right(cache: PackCache, job: PackJob) -> None:
    assert cache.make([job], TextReport()) == 1

    with cache.path(job).open("rb") as source:
        found = {
            member.name: object_hash(member, [data.read()])
            for member, data in read_members(source, PACK_LIMITS)
            if member.name not in ("delta", "staged")
        }
    assert found == {f"staged/{file_hash}": file_hash for file_hash in job.hashes}


def test_a_pack_is_read_by_stock_zstd_and_tar(cache: PackCache, job: PackJob) -> None:
    cache.make([job], TextReport())

    data = zstandard.ZstdDecompressor().decompressobj().decompress(cache.path(job).read_bytes())
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        names = tar.getnames()

    assert names == ["delta", "staged", *(f"staged/{file_hash}" for file_hash in job.hashes)]


def test_the_window_is_no_larger_than_the_pack(cache: PackCache, job: PackJob) -> None:
    cache.make([job], TextReport())

    head = zstandard.get_frame_parameters(cache.path(job).read_bytes()[:64])

    assert head.window_size <= 4 << 20
    assert head.has_checksum


def test_a_pack_is_made_once(cache: PackCache, job: PackJob) -> None:
    cache.make([job], TextReport())
    first = cache.path(job).read_bytes()

    assert cache.missing([job]) == []
    assert cache.make([job], TextReport()) == 0
    cache.path(job).unlink()
    assert cache.make([job], TextReport(), workers=1) == 1
    assert cache.path(job).read_bytes() == first


def test_other_members_make_another_pack(cache: PackCache, job: PackJob) -> None:
    assert cache.path(job) != cache.path(PackJob("b", job.hashes[:-1], job.size))


def test_a_pack_without_its_objects_is_an_error_and_leaves_nothing(
    cache: PackCache, job: PackJob, tmp_path: Path
) -> None:
    with pytest.raises(BuildError, match="content store is damaged"):
        cache.make([PackJob("b", [*job.hashes, "f" * 64], job.size)], TextReport())

    assert list((tmp_path / "packs").iterdir()) == []


def test_a_failure_stops_the_packs_beside_it(cache: PackCache, job: PackJob, tmp_path: Path) -> None:
    small = PackJob("broken", ["f" * 64], 0)

    with pytest.raises(BuildError):
        cache.make([small, PackJob("large", job.hashes * 20, job.size * 20)], TextReport(), workers=2)

    assert list((tmp_path / "packs").iterdir()) == []


def test_a_pack_is_published_as_a_hard_link(cache: PackCache, job: PackJob, tmp_path: Path) -> None:
    cache.make([job], TextReport())

    size = cache.link(job, tmp_path / "published.tar")

    assert (tmp_path / "published.tar").stat().st_size == size
    assert (tmp_path / "published.tar").samefile(cache.path(job))


def test_the_bytes_of_a_pack_do_not_depend_on_the_number_of_threads(
    tmp_path: Path, store: ContentStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mixer.packs.JOB_BYTES", 512 << 10)
    words = random.Random(1)
    text = tmp_path / "text"
    text.write_text(" ".join(str(words.randrange(10_000)) for _ in range(500_000)))
    file_hash, size = hash_path(str(text)), text.stat().st_size
    store.add({file_hash: Wanted(str(text), size)}, TextReport())
    made = set()
    for workers in (1, 2, 3):
        cache = PackCache(tmp_path / f"packs-{workers}", store)
        job = PackJob("b", [file_hash], size)
        cache.make([job], TextReport(), workers=workers)
        made.add(cache.path(job).read_bytes())
    assert size > 4 * (512 << 10)
    assert len(made) == 1
