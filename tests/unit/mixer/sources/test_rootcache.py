"""Finished roots by key."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from mixer.errors import SourceError
from mixer.sources import Package, PackageDatabase
from mixer.sources.rootcache import KEEP, Record, RootCache
from swupd.formats import filehash

KEY = "ab" * 32


def record() -> Record:
    packages = {
        "base": Package(
            "base", "1:2-3", ("/usr", "/usr/odd\udcff"), (), essential=True, licence="MIT", purl="pkg:deb/x"
        ),
        "app": Package("app", "0", ("/usr",), ("base",)),
    }
    return Record(
        PackageDatabase(packages, frozenset({"base"}), ("/bin",)),
        {"user": {"root": 0}, "group": {"root": 0}},
        ("a note",),
    )


def hashes(root: Path) -> dict[str, str]:
    names = [found.name for found in filehash.walk(str(root))]
    return dict(zip(names, filehash.hash_paths([f"{root}{name}" for name in names]), strict=True))


@pytest.fixture
def cache(tmp_path: Path) -> RootCache:
    return RootCache(tmp_path / "cache/roots")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    (root / "usr").mkdir(parents=True)
    (root / "usr/tool").write_text("tool")
    (root / "usr/tool").chmod(0o4755)
    (root / "usr/odd\udcff").write_text("odd")
    (root / "bin").symlink_to("usr")
    (root / "sticky").mkdir()
    (root / "sticky").chmod(0o1777)
    if os.geteuid() == 0:
        os.chown(root / "usr/tool", 0, 4711)
        (root / "usr/tool").chmod(0o2755)
    return root


def test_a_root_and_its_record_come_back_as_they_were(cache: RootCache, root: Path, tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir()
    cache.add(KEY, root, record())
    assert cache.find(KEY) == record()
    assert cache.unpack(KEY, tmp_path / "again")
    assert hashes(tmp_path / "again") == hashes(root)


def test_a_key_that_was_never_added_is_not_found(cache: RootCache) -> None:
    assert cache.find(KEY) is None


def test_a_root_without_a_record_does_not_exist(cache: RootCache, root: Path, tmp_path: Path) -> None:
    cache.add(KEY, root, record())
    (tmp_path / "cache/roots" / f"{KEY}.json").unlink()
    assert cache.find(KEY) is None


@pytest.mark.parametrize("text", ["", "[]", '{"packages": 1}', "\x00", '{"packages": [[]]}'])
def test_a_damaged_record_counts_as_missing(cache: RootCache, root: Path, tmp_path: Path, text: str) -> None:
    cache.add(KEY, root, record())
    (tmp_path / "cache/roots" / f"{KEY}.json").write_text(text)
    assert cache.find(KEY) is None
    assert list((tmp_path / "cache/roots").iterdir()) == []


@pytest.mark.parametrize("damage", ["truncated", "flipped", "foreign"])
def test_a_damaged_archive_leaves_nothing_and_is_dropped(
    cache: RootCache, root: Path, tmp_path: Path, damage: str
) -> None:
    (root / "usr/large").write_bytes(os.urandom(300_000))
    cache.add(KEY, root, record())
    archive = tmp_path / "cache/roots" / f"{KEY}.tar.zst"
    data = bytearray(archive.read_bytes())
    if damage == "truncated":
        del data[len(data) // 2 :]
    elif damage == "flipped":
        data[len(data) // 2] ^= 1
    else:
        data[:] = b"not an archive"
    archive.write_bytes(data)
    assert not cache.unpack(KEY, tmp_path / "again")
    assert not (tmp_path / "again").exists()
    assert cache.find(KEY) is None


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a small file system")
def test_a_full_disk_is_reported_and_costs_no_cached_root(cache: RootCache, root: Path, tmp_path: Path) -> None:
    (root / "usr/large").write_bytes(os.urandom(3_000_000))
    cache.add(KEY, root, record())
    small = tmp_path / "small"
    small.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", small], check=False).returncode:
        pytest.skip("mounting is not permitted here")
    try:
        with pytest.raises(SourceError, match="no room for the root"):
            cache.unpack(KEY, small / "root")
        assert list(small.iterdir()) == []
    finally:
        subprocess.run(["umount", small], check=True)
    assert cache.find(KEY)


def test_the_roots_that_were_not_used_for_the_longest_time_go(cache: RootCache, root: Path, tmp_path: Path) -> None:
    keys = [f"{number:064d}" for number in range(KEEP + 2)]
    for number, key in enumerate(keys[:-1]):
        cache.add(key, root, record())
        os.utime(tmp_path / "cache/roots" / f"{key}.json", (number + 1, number + 1))
    (tmp_path / "cache/roots/.dead.partial").write_text("left by a killed build")
    assert cache.unpack(keys[1], tmp_path / "used")
    cache.add(keys[-1], root, record())
    assert [key for key in keys if cache.find(key)] == [keys[1], *keys[3:]]
    assert not list((tmp_path / "cache/roots").glob(".*"))
