"""The kernel mounts an image that we have written, and works with it as with any other."""

from __future__ import annotations

import os
import random
import stat
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import UUID

import pytest

from mixer.images import btrfs
from mixer.images.btrfs import Item, Subvolume
from swupd.formats.manifest import FileType

MIB = 1 << 20
FSID = UUID("0d1f4f5a-87a4-4c36-8a2c-5d2a3f4b9e01")
TIME = 1_700_000_000
SIZES = (0, 1, 2048, 2049, 4096, 4097, 100_000, 3 * MIB)

pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root"),
]


def run(*argv: str | Path) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{argv}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def system() -> list[Item]:
    """A deployment with some thousand files, and the state."""
    numbers = random.Random(3)

    def entry(path: str, kind: FileType, mode: int, **fields: object) -> Item:
        return Item(path, kind, mode, numbers.randrange(70_000), numbers.randrange(70_000), **fields)  # type: ignore[arg-type]

    def file(path: str, size: int) -> Item:
        content = numbers.randbytes(size)
        return entry(path, FileType.FILE, numbers.randrange(0o10000), size=size, content=lambda: content)

    items = [
        entry("", FileType.DIRECTORY, 0o755),
        entry("@", FileType.DIRECTORY, 0o711),
        entry("@/20", FileType.DIRECTORY, 0o755, subvolume=Subvolume(read_only=True)),
        entry("@/20/bin", FileType.LINK, 0o777, target="usr/bin"),
        entry("@/20/usr", FileType.DIRECTORY, 0o2755),
        entry("@state", FileType.DIRECTORY, 0o700, subvolume=Subvolume()),
        entry("@state/home", FileType.DIRECTORY, 0o1777, subvolume=Subvolume()),
        file("@state/home/file", 5000),
    ]
    for top in range(30):
        items.append(entry(f"@/20/usr/{top}", FileType.DIRECTORY, 0o755))
        items += [file(f"@/20/usr/{top}/file-{number}", SIZES[number % 7]) for number in range(100)]
    return items + [file(f"@/20/usr/large-{number}", SIZES[-1]) for number in range(20)]


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "image"
    with path.open("wb") as file:
        btrfs.write(file, 0, 2048 * MIB, system(), label="os", uuid=FSID, time=TIME)
    return path


@contextmanager
def mounted(image: Path, options: str) -> Iterator[Path]:
    target = image.with_suffix(".mounted")
    target.mkdir(exist_ok=True)
    run("mount", "-t", "btrfs", "-o", f"loop,{options}", image, target)
    try:
        yield target
    finally:
        run("umount", target)


def check(image: Path) -> None:
    done = subprocess.run(["btrfs", "check", "--check-data-csum", image], capture_output=True, text=True, check=False)
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    assert "no error found" in said
    assert "warning" not in said.lower()


def test_the_kernel_finds_every_item_as_it_was_given(image: Path) -> None:
    with mounted(image, "ro") as top:
        names = {os.path.relpath(path, top) for path in top.rglob("*")}
        items = system()
        assert names == {item.path for item in items} - {""}
        for item in items:
            path = top / item.path
            status = path.lstat()
            assert (status.st_uid, status.st_gid, status.st_mtime, status.st_nlink) == (item.uid, item.gid, TIME, 1)
            match item.type:
                case FileType.LINK:
                    assert os.readlink(path) == item.target
                case FileType.FILE:
                    assert item.content is not None
                    assert path.read_bytes() == item.content()
                    assert stat.S_IMODE(status.st_mode) == item.mode
                case _:
                    assert stat.S_IMODE(status.st_mode) == item.mode
                    assert (status.st_ino == 256) == (item.subvolume is not None or not item.path)


def test_subvolumes_are_listed_and_one_is_read_only(image: Path) -> None:
    with mounted(image, "rw") as top:
        listed = [line.split() for line in run("btrfs", "subvolume", "list", top).splitlines()]
        assert [(line[1], line[6], line[8]) for line in listed] == [
            ("256", "5", "@/20"),
            ("257", "5", "@state"),
            ("258", "257", "@state/home"),
        ]
        assert run("btrfs", "property", "get", top / "@/20", "ro") == "ro=true\n"
        assert run("btrfs", "property", "get", top / "@state", "ro") == "ro=false\n"
        with pytest.raises(OSError, match="Read-only file system"):
            (top / "@/20/file").touch()


def test_a_system_can_live_in_it(image: Path) -> None:
    with mounted(image, "ro,subvol=@/20") as root:
        assert (root / "usr").is_dir()
    with mounted(image, "rw") as top:
        assert "no errors found" in run("btrfs", "scrub", "start", "-B", top)
        run("btrfs", "subvolume", "snapshot", top / "@/20", top / "@/30")
        for number in range(10):
            (top / f"@/30/usr/large-{number}").unlink()
            (top / f"@/30/usr/{number}/new").write_bytes(os.urandom(10 * MIB))
        (top / "@state/home/file").write_bytes(b"other")
        run("btrfs", "property", "set", top / "@/20", "ro", "false")
        run("btrfs", "subvolume", "delete", "--commit-after", top / "@/20")
        run("btrfs", "subvolume", "sync", top)
        run("btrfs", "balance", "start", "--full-balance", top)
        assert "no errors found" in run("btrfs", "scrub", "start", "-B", top)
    check(image)
    with mounted(image, "ro") as top:
        assert sorted(os.listdir(top / "@")) == ["30"]
        assert (top / "@/30/usr/large-10").stat().st_size == SIZES[-1]
        assert (top / "@state/home/file").read_bytes() == b"other"
