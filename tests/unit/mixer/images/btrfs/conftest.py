"""Images in files, judged by the programs of btrfs itself."""

from __future__ import annotations

import os
import stat
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple
from uuid import UUID

import pytest

from mixer.images import btrfs
from mixer.images.btrfs import Item
from swupd.formats.manifest import FileType

MIB = 1 << 20
FSID = UUID("6e1a2f9c-0d8b-4c53-9a51-2b7f6f0d9a11")
TIME = 1_700_000_000
AS_ROOT = os.geteuid() == 0


class Found(NamedTuple):
    """What a reader finds at a path. `btrfs restore` can set modes and owners only as root, and only those of files."""

    type: FileType
    content: bytes = b""
    mode: int = 0
    owner: tuple[int, int] = (0, 0)


class Image:
    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, items: Sequence[Item], size: int = 256 * MIB, offset: int = 0, label: str = "os") -> None:
        with self.path.open("w+b") as file:
            btrfs.write(file, offset, size, items, label=label, uuid=FSID, time=TIME)

    def check(self) -> None:
        """Both ways of `btrfs check` read all trees and all content, and complain of nothing."""
        for options in (["--check-data-csum"], ["--mode=lowmem"]):
            said = run("btrfs", "check", *options, self.path).lower()
            assert "no error found" in said
            assert "warning" not in said

    def holds(self, items: Sequence[Item]) -> None:
        """A reader that is not ours finds these items, and nothing else."""
        target = self.path.with_suffix(".restored")
        target.mkdir()
        run("btrfs", "restore", "-S", *(["-m"] if AS_ROOT else []), self.path, target)
        paths = [os.path.join(above, name) for above, *names in os.walk(target) for name in (*names[0], *names[1])]
        found = {os.path.relpath(path, target): _found(path) for path in paths}
        assert found == {item.path: _wanted(item) for item in items if item.path}

    def dump(self, *options: str) -> str:
        return run("btrfs", "inspect-internal", "dump-tree", *options, self.path)

    def super_blocks(self) -> list[dict[str, str]]:
        said = run("btrfs", "inspect-internal", "dump-super", "--all", self.path)
        blocks = said.split("superblock: ")[1:]
        return [dict(line.split(None, 1) for line in block.splitlines()[2:] if "\t" in line) for block in blocks]


def run(*argv: str | Path) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, errors="surrogateescape", check=False)
    assert done.returncode == 0, f"{argv}\n{done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr


def _wanted(item: Item) -> Found:
    if not item.content:
        return Found(item.type, os.fsencode(item.target))
    return Found(item.type, item.content(), *((item.mode, (item.uid, item.gid)) if AS_ROOT else ()))


def _found(path: str) -> Found:
    status = os.lstat(path)
    if stat.S_ISLNK(status.st_mode):
        return Found(FileType.LINK, os.fsencode(os.readlink(path)))
    if stat.S_ISDIR(status.st_mode):
        return Found(FileType.DIRECTORY)
    found = (stat.S_IMODE(status.st_mode), (status.st_uid, status.st_gid)) if AS_ROOT else ()
    return Found(FileType.FILE, Path(path).read_bytes(), *found)


@pytest.fixture
def image(tmp_path: Path) -> Image:
    return Image(tmp_path / "image")
