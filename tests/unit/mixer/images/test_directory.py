from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mixer.content import ContentStore
from mixer.errors import BuildError
from mixer.images import directory
from mixer.images.directory import Way
from mixer.images.summary import Summary
from mixer.images.tree import ImageTree
from swupd.formats import filehash
from swupd.formats.manifest import FileType
from swupd.report import TextReport

Published = Any

TIME = 1_700_000_000
NOBODY = 65534
LARGE = "/usr/share/large"
OTHER = Path("/dev/shm")
"""Another file system, for copies."""


@pytest.fixture
def tree(published: Published) -> ImageTree:
    found: ImageTree = published.load("office")
    return found


def build(tree: ImageTree, target: Path, cache: Path, time: int = TIME) -> Summary:
    return directory.build(tree, target, TextReport(), cache=cache, time=time)


def facts(target: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(Path(f"{target}.json").read_text())
    return found


def check(target: Path, tree: ImageTree) -> None:
    """All of the tree is there, and nothing else, with the hashes of the manifests and the time."""
    found = {entry.name: entry for entry in filehash.walk(str(target))}
    assert found.keys() == {node.path for node in tree.nodes}
    for node in tree.nodes:
        assert found[node.path].status.st_mtime == TIME
        assert filehash.hash_path(found[node.path].path) == node.hash
    status = target.stat()
    assert (stat.S_IMODE(status.st_mode), status.st_uid, status.st_mtime) == (0o755, os.geteuid(), TIME)


def mount_btrfs(at: Path) -> None:
    image = at.with_name("image")
    image.touch()
    os.truncate(image, 128 << 20)
    at.mkdir()
    try:
        subprocess.run(["mkfs.btrfs", "-q", "-m", "single", image], check=True, capture_output=True)
        subprocess.run(["mount", "-o", "loop", image, at], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no btrfs can be mounted here: {error}")


@pytest.fixture(params=list(Way))
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Path, Path, Way]]:
    """Where a directory and the cache are made, and how its files get there."""
    way: Way = request.param
    cache, target = tmp_path / "cache/files", tmp_path / "root"
    if way is Way.HARD_LINK:
        yield target, cache, way
    elif way is Way.REFLINK:
        disk = tmp_path / "disk"
        mount_btrfs(disk)
        try:
            yield disk / "root", disk / "cache/files", way
        finally:
            subprocess.run(["umount", disk], check=True)
    else:
        if not OTHER.is_dir() or OTHER.stat().st_dev == tmp_path.stat().st_dev:
            pytest.skip(f"{OTHER} is no other file system")
        top = OTHER / f"test-directory-{os.getpid()}"
        top.mkdir()
        try:
            yield top / "root", cache, way
        finally:
            shutil.rmtree(top)


def test_a_directory_is_what_the_tree_is(tree: ImageTree, place: tuple[Path, Path, Way]) -> None:
    target, cache, way = place

    made = build(tree, target, cache)

    check(target, tree)
    assert made.size == f"each file by {way}"
    assert facts(target) == tree.facts("directory") | {
        "bundles": list(tree.bundles),
        "files_by": way.value,
        "owners": os.geteuid() == 0,
    }
    assert json.loads(Path(f"{target}.spdx.json").read_text())["spdxVersion"] == "SPDX-2.3"


def test_a_second_directory_is_made_of_the_same_files(tree: ImageTree, tmp_path: Path) -> None:
    build(tree, tmp_path / "one", tmp_path / "files")
    build(tree, tmp_path / "other", tmp_path / "files")

    check(tmp_path / "other", tree)
    assert (tmp_path / f"one{LARGE}").samefile(tmp_path / f"other{LARGE}")
    assert facts(tmp_path / "one") == facts(tmp_path / "other")


def test_what_was_changed_through_a_directory_is_right_in_the_next_one(
    tree: ImageTree, place: tuple[Path, Path, Way]
) -> None:
    target, cache, _ = place
    build(tree, target, cache)
    (target / LARGE[1:]).write_bytes(b"changed")

    build(tree, target.with_name("next"), cache)

    check(target.with_name("next"), tree)
    assert (target / LARGE[1:]).read_bytes() == b"changed"


def test_a_directory_of_ours_is_replaced_as_a_whole(tree: ImageTree, published: Published, tmp_path: Path) -> None:
    target = tmp_path / "root"
    build(published.load("kernel"), target, tmp_path / "files")

    build(tree, target, tmp_path / "files")

    check(target, tree)
    assert sorted(path.name for path in tmp_path.glob("root*")) == ["root", "root.json", "root.spdx.json"]


def test_another_directory_is_not_touched(tree: ImageTree, tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    (tmp_path / "root/precious").touch()

    with pytest.raises(BuildError, match="root is there already"):
        build(tree, tmp_path / "root", tmp_path / "files")

    assert os.listdir(tmp_path / "root") == ["precious"]


def test_more_names_than_a_file_can_have_are_copies(tree: ImageTree, tmp_path: Path) -> None:
    """ext4 stops at 65,000."""
    build(tree, tmp_path / "root", tmp_path / "files")
    node = tree.find("/usr/share/empty")
    assert node is not None
    names = tmp_path / "names"
    names.mkdir()
    try:
        for number in range(70_000):
            os.link(tmp_path / f"root{node.path}", names / f"{number}")
    except OSError:
        build(tree, tmp_path / "root", tmp_path / "files")
        check(tmp_path / "root", tree)
    else:
        pytest.skip("files can have more names here")


def test_a_damaged_object_is_named_and_nothing_is_left(tree: ImageTree, published: Published, tmp_path: Path) -> None:
    node = tree.find(LARGE)
    assert node is not None
    published.mix.workspace.objects.joinpath(node.hash[:2], node.hash).write_bytes(b"damaged")

    with pytest.raises(BuildError, match=LARGE):
        build(tree, tmp_path / "root", tmp_path / "files")

    assert list(tmp_path.glob("root*")) == []


def test_a_cache_that_cannot_be_written_is_named(tree: ImageTree, tmp_path: Path) -> None:
    (tmp_path / "files").touch()

    with pytest.raises(BuildError, match=r"cannot write .*/files: File exists"):
        build(tree, tmp_path / "root", tmp_path / "files")

    assert list(tmp_path.glob("root*")) == []


@pytest.fixture
def ordinary(tree: ImageTree, tmp_path: Path) -> Iterator[tuple[ImageTree, Path]]:
    """The tree and a place of an ordinary user, who runs the test from here on."""
    if os.geteuid() != 0:
        yield tree, tmp_path
        return
    top = Path(tempfile.mkdtemp())
    shutil.copytree(tree._objects.path("00").parents[1], top / "objects")
    os.chown(top, NOBODY, NOBODY)
    os.setegid(NOBODY)
    os.seteuid(NOBODY)
    try:
        yield replace(tree, _objects=ContentStore(top / "objects")), top
    finally:
        os.seteuid(0)
        os.setegid(0)
        shutil.rmtree(top)


def test_without_root_all_belongs_to_the_caller(
    ordinary: tuple[ImageTree, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    tree, top = ordinary
    for _ in range(2):
        build(tree, top / "root", top / "files")

    found = {entry.name: entry.status for entry in filehash.walk(str(top / "root"))}
    assert found.keys() == {node.path for node in tree.nodes}
    assert {(status.st_uid, status.st_gid) for status in found.values()} == {(os.geteuid(), os.getegid())}
    assert stat.S_IMODE(found["/usr/bin/sh"].st_mode) == 0o755
    assert stat.S_IMODE(found["/usr/share"].st_mode) == 0o770
    for node in tree.nodes:
        if node.type is FileType.FILE:
            assert (top / f"root{node.path}").read_bytes() == tree.content(node)
    assert facts(top / "root")["owners"] is False
    assert "none has a setuid or setgid bit" in capsys.readouterr().err
