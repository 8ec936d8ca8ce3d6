"""The kernel mounts an EROFS image that we have written, and finds in it what was put there."""

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

from mixer.images import dax, erofs
from mixer.images.tree import Node
from swupd.formats.manifest import FileType

MIB = 1 << 20
ID = UUID("0d1f4f5a-87a4-4c36-8a2c-5d2a3f4b9e01")
TIME = 1_700_000_000
SIZES = (0, 1, 4095, 4096, 4097, 100_000, 3 * MIB)

pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root"),
]


class System:
    """Some thousand files of all sizes, modes and owners, some of them the same."""

    def __init__(self) -> None:
        self._numbers = random.Random(3)
        self.contents: dict[str, bytes] = {}
        self.nodes = [
            self._node("/bin", FileType.LINK, 0o777, target="usr/bin"),
            self._node("/long", FileType.LINK, 0o777, target="x" * 4095),
            self._node("/usr", FileType.DIRECTORY, 0o2755),
        ]
        for top in range(30):
            self.nodes.append(self._node(f"/usr/{top}", FileType.DIRECTORY, self._numbers.randrange(0o10000)))
            for number in range(100):
                content = self._numbers.randbytes(SIZES[number % 6])
                self.nodes.append(self._file(f"/usr/{top}/{chr(top + 161) * number}{number}", content))
        self.nodes += [self._file("/usr/large", self._numbers.randbytes(SIZES[6])), self._file("/usr/zero", bytes(MIB))]
        copied = [node for node in self.nodes if node.size][::7]
        for node in copied:
            self.contents[f"{node.path}.copy"] = self.contents[node.path]
            self.nodes.append(
                Node(f"{node.path}.copy", node.type, node.mode, node.uid, node.gid, node.size, "", node.hash)
            )
        self.nodes.sort(key=lambda node: os.fsencode(node.path))

    def _node(self, path: str, kind: FileType, mode: int, size: int = 0, target: str = "") -> Node:
        uid, gid = self._numbers.randrange(70_000), self._numbers.randrange(70_000)
        return Node(path, kind, mode, uid, gid, size, target, path)

    def _file(self, path: str, content: bytes) -> Node:
        self.contents[path] = content
        return self._node(path, FileType.FILE, self._numbers.randrange(0o10000), len(content))

    def write(self, path: Path, offset: int = 0) -> int:
        with path.open("r+b" if path.exists() else "w+b") as file:
            return erofs.write(
                file, offset, self.nodes, lambda node: self.contents[node.path], uuid=ID, label="os", time=TIME
            )

    def is_at(self, root: Path) -> None:
        """What the kernel shows is what was written: type, mode, owner, content, time, number of names."""
        wanted = {node.path: node for node in self.nodes}
        found = {
            f"{parent}/{name}".removeprefix(f"{root}"): Path(parent, name)
            for parent, directories, files in os.walk(root)
            for name in (*directories, *files)
        }
        assert found.keys() == wanted.keys()
        names = [node.hash for node in self.nodes]
        below = [node.path.rpartition("/")[0] for node in self.nodes if node.type is FileType.DIRECTORY]
        for node in self.nodes:
            path = found[node.path]
            status = path.lstat()
            kind = {stat.S_IFREG: "F", stat.S_IFDIR: "D", stat.S_IFLNK: "L"}[stat.S_IFMT(status.st_mode)]
            links = 2 + below.count(node.path) if kind == "D" else names.count(node.hash) if node.size else 1
            assert (kind, stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid, status.st_nlink) == (
                node.type.value,
                node.mode,
                node.uid,
                node.gid,
                links,
            ), node.path
            assert status.st_mtime_ns == status.st_ctime_ns == TIME * 10**9
            if kind == "F":
                assert path.read_bytes() == self.contents[node.path], node.path
            elif kind == "L":
                assert os.readlink(path) == node.target


@contextmanager
def mounted(image: Path, target: Path, offset: int = 0) -> Iterator[Path]:
    target.mkdir()
    run("mount", "-t", "erofs", "-o", f"ro,loop,offset={offset}", image, target)
    try:
        yield target
    finally:
        run("umount", target)


def run(*argv: str | Path) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{argv}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def test_the_kernel_finds_everything_as_it_was_written(tmp_path: Path) -> None:
    system = System()
    system.write(tmp_path / "image")
    with mounted(tmp_path / "image", tmp_path / "root") as root:
        system.is_at(root)
        status = root.stat()
        assert (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid, status.st_nlink) == (0o755, 0, 0, 3)


def test_the_kernel_finds_each_of_ten_thousand_names(tmp_path: Path) -> None:
    names = [f"{number}-{'n' * (number % 200)}" for number in range(10_000)]
    nodes = [Node(f"/{name}", FileType.FILE, 0o644, 0, 0, 0, "", "empty") for name in sorted(names)]
    with (tmp_path / "image").open("w+b") as file:
        erofs.write(file, 0, nodes, lambda _: b"", uuid=ID, label="", time=TIME)
    with mounted(tmp_path / "image", tmp_path / "root") as root:
        assert sorted(os.listdir(root)) == sorted(names)
        assert [name for name in names if not (root / name).is_file()] == []
        assert [name for name in ("", "0", "zzz", "10000-") if (root / f"{name}?").exists()] == []


def test_the_file_system_in_a_dax_image_can_be_mounted(tmp_path: Path) -> None:
    system = System()
    layout = dax.layout([erofs.required(system.nodes)])
    with (tmp_path / "image").open("w+b") as file:
        dax.write_header(file, layout)
    system.write(tmp_path / "image", layout.partitions[0].offset)
    assert (tmp_path / "image").stat().st_size == layout.size
    with mounted(tmp_path / "image", tmp_path / "root", layout.partitions[0].offset) as root:
        system.is_at(root)
