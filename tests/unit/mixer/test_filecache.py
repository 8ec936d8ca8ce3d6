from __future__ import annotations

import os
import stat
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from mixer.filecache import FileCache, attributes
from mixer.images.tree import Node
from swupd.formats.filehash import hash_content
from swupd.formats.manifest import FileType

CONTENTS = {
    "/usr/bin/sudo": b"sudo" * 1000,
    "/usr/bin/again": b"sudo" * 1000,
    "/usr/share/empty": b"",
    "/usr/secret": b"?",
}


def file(path: str, mode: int, uid: int = 0, gid: int = 0) -> Node:
    data = CONTENTS[path]
    file_hash = hash_content(stat.S_IFREG | mode, uid, gid, data)
    return Node(path, FileType.FILE, mode, uid, gid, len(data), "", file_hash)


SUDO = file("/usr/bin/sudo", 0o4755)
NODES = [SUDO, file("/usr/bin/again", 0o4755), file("/usr/share/empty", 0o644), file("/usr/secret", 0o000, 1234, 5678)]
OWNERS = os.geteuid() == 0


class Content:
    """The content of the nodes, and which of them was asked for."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def __call__(self, node: Node) -> bytes:
        self.asked.append(node.path)
        return CONTENTS[node.path]


@pytest.fixture
def files(tmp_path: Path) -> FileCache:
    """Filled."""
    cache = FileCache(tmp_path / "cache/files", owners=OWNERS)
    assert cache.fill(NODES, Content()) == 3
    return cache


def is_right(files: FileCache, node: Node) -> bool:
    path = files.path(node)
    status = path.lstat()
    mode, owner = attributes(node, owners=OWNERS)
    found = (status.st_mode, (status.st_uid, status.st_gid))
    return found == (stat.S_IFREG | mode, owner) and path.read_bytes() == CONTENTS[node.path]


def test_files_lie_there_with_mode_and_owner(files: FileCache) -> None:
    assert all(is_right(files, node) for node in NODES)


def test_the_same_object_is_one_file(files: FileCache) -> None:
    assert files.path(NODES[0]) == files.path(NODES[1])


def test_what_is_there_is_not_made_again(files: FileCache) -> None:
    content = Content()

    assert files.fill(NODES, content) == 0
    assert content.asked == []


def write(path: Path) -> None:
    path.write_bytes(b"SUDO" * 1000)


def shorten(path: Path) -> None:
    os.truncate(path, 10)


def lengthen(path: Path) -> None:
    with path.open("ab") as target:
        target.write(b"more")


def change_mode(path: Path) -> None:
    path.chmod(0o777)


def give_away(path: Path) -> None:
    os.chown(path, 4321, 4321)
    path.chmod(0o4755)


def give_capability(path: Path) -> None:
    """cap_net_admin, as setcap(8) does."""
    os.setxattr(path, "security.capability", struct.pack("<5I", 0x02000001, 1 << 12, 0, 0, 0))


def link(path: Path) -> None:
    """The content is right behind it."""
    other = path.with_name("other")
    path.rename(other)
    path.symlink_to(other)


def make_fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize(
    "damage", [write, shorten, lengthen, change_mode, give_away, give_capability, link, make_fifo, os.unlink]
)
def test_what_is_damaged_is_made_again(files: FileCache, damage: Callable[[Path], None]) -> None:
    if damage in (give_away, give_capability) and not OWNERS:
        pytest.skip("only root can give files to others, or capabilities to files")
    content = Content()
    damage(files.path(SUDO))

    assert files.fill(NODES, content) == 1

    assert content.asked == ["/usr/bin/again"]
    assert all(is_right(files, node) for node in NODES)
    assert "security.capability" not in os.listxattr(files.path(SUDO))


def test_a_further_name_of_a_damaged_file_keeps_it(files: FileCache, tmp_path: Path) -> None:
    name = tmp_path / "name"
    os.link(files.path(SUDO), name)
    name.write_bytes(b"changed")

    files.fill(NODES, Content())

    assert name.read_bytes() == b"changed"
    assert is_right(files, SUDO)


def test_nobody_else_gets_in(files: FileCache, tmp_path: Path) -> None:
    assert (tmp_path / "cache/files").stat().st_mode & 0o077 == 0
    (tmp_path / "cache/files").chmod(0o755)
    files.fill([], Content())
    assert (tmp_path / "cache/files").stat().st_mode & 0o077 == 0


def test_without_owners_all_is_the_callers(tmp_path: Path) -> None:
    files = FileCache(tmp_path / "files", owners=False)
    content = Content()
    files.fill(NODES, content)

    status = files.path(SUDO).stat()
    assert (status.st_uid, status.st_gid) == (os.geteuid(), os.getegid())
    assert stat.S_IMODE(status.st_mode) == 0o755
    assert stat.S_IMODE(files.path(NODES[3]).stat().st_mode) == 0o400
    assert files.fill(NODES, content) == 0
    write(files.path(SUDO))
    assert files.fill(NODES, content) == 1


def test_directories_without_owners_can_be_changed_by_the_caller() -> None:
    node = Node("/proc", FileType.DIRECTORY, 0o2555, 12, 34, 0, "", "")

    assert attributes(node, owners=False) == (0o755, (os.geteuid(), os.getegid()))
    assert attributes(node, owners=True) == (0o2555, (12, 34))
