from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from swupd.errors import UnsafePathError
from swupd.fs import Directory
from swupd.walker import Frame, Walker, follow, parents, split


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Directory]:
    for path in ("a/b/c", "a/bb", "d"):
        (tmp_path / path).mkdir(parents=True)
    with Directory.open(tmp_path) as directory:
        yield directory


def test_each_directory_is_entered_once_in_tree_order(root: Directory) -> None:
    entered: list[str] = []

    def enter(frame: Frame, component: str) -> Frame:
        entered.append(f"{frame.path}/{component}")
        return follow(frame, component)

    with Walker(root, enter) as walker:
        for path in ("", "/a", "/a/b", "/a/b/c", "/a/b/c", "/a/bb", "/d", ""):
            frame = walker.go(path)
            assert frame.path == path
            assert os.path.samestat(os.fstat(frame.directory.fd), os.stat(f"{root.path}{path}"))
    assert entered == ["/a", "/a/b", "/a/b/c", "/a/bb", "/d"]


def test_descriptors_are_closed_and_the_root_stays_open(root: Directory) -> None:
    before = len(os.listdir("/proc/self/fd"))
    with Walker(root, follow) as walker:
        walker.go("/a/b/c")
        walker.go("/a/bb")
        assert len(os.listdir("/proc/self/fd")) == before + 2
    assert len(os.listdir("/proc/self/fd")) == before
    assert root.names()


def test_a_link_is_not_followed_and_the_walk_can_go_on(root: Directory) -> None:
    os.symlink("b", f"{root.path}/a/link")
    with Walker(root, follow) as walker:
        with pytest.raises(UnsafePathError):
            walker.go("/a/link/c")
        with pytest.raises(FileNotFoundError):
            walker.go("/a/missing")
        assert walker.go("/a/b").path == "/a/b"


def test_a_name_is_its_directory_and_its_last_component() -> None:
    assert split("/usr/bin/ls") == ("/usr/bin", "ls")
    assert split("/usr") == ("", "usr")
    assert list(parents("/usr/bin/ls")) == ["/usr/bin", "/usr"]
    assert list(parents("/usr")) == []
