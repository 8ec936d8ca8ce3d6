from __future__ import annotations

import gzip
import io
import json
import os
import re
import resource
import signal
import stat
import subprocess
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import zstandard

from mixer.errors import BuildError
from mixer.images import archives
from mixer.images.tree import ImageTree, Node
from swupd.formats.manifest import FileType
from swupd.report import TextReport

Published = Any

TIME = 1_700_000_000


@pytest.fixture
def tree(published: Published) -> ImageTree:
    """os-core with an init, which is a file there."""
    found: ImageTree = published.load("office", "guest")
    return found


def tar(tree: ImageTree, target: Path, compression: str = "none", time: int = TIME) -> bytes:
    archives.build_tar(tree, target, TextReport(), compression=compression, time=time)
    return target.read_bytes()


def initrd(tree: ImageTree, target: Path, time: int = TIME) -> bytes:
    archives.build_initrd(tree, target, TextReport(), time=time)
    return target.read_bytes()


def unpacked(data: bytes) -> bytes:
    return zstandard.ZstdDecompressor().decompressobj().decompress(data)


def listing(archive: bytes) -> dict[str, list[str]]:
    """What cpio says of each member: mode, links, owner, group, …"""
    argv = ["cpio", "-itv", "--numeric-uid-gid", "--quiet"]
    lines = subprocess.run(argv, input=archive, capture_output=True, check=True).stdout.decode().splitlines()
    # A name follows the time, or for devices their numbers and the time.
    return {re.split(r" +\d+ +(?:\d\d:\d\d|\d{4}) ", line, maxsplit=1)[1]: line.split() for line in lines}


def test_a_tar_has_what_the_tree_has(tree: ImageTree, tmp_path: Path) -> None:
    with tarfile.open(fileobj=io.BytesIO(tar(tree, tmp_path / "image"))) as archive:
        for node, member in zip(tree.nodes, archive.getmembers(), strict=True):
            assert f"/{member.name}" == node.path
            assert (member.mode, member.uid, member.gid, member.mtime) == (node.mode, node.uid, node.gid, TIME)
            assert member.linkname == node.target
            if node.type is FileType.FILE:
                content = archive.extractfile(member)
                assert content is not None
                assert content.read() == tree.content(node)


def test_a_tar_is_compressed_as_it_is_asked_for(tree: ImageTree, tmp_path: Path) -> None:
    plain = tar(tree, tmp_path / "plain")
    gzipped = tar(tree, tmp_path / "gzip", "gzip")

    assert gzip.decompress(gzipped) == plain
    assert gzipped[:8] == b"\x1f\x8b\x08\0\0\0\0\0"  # no name, no time
    assert unpacked(tar(tree, tmp_path / "zstd", "zstd")) == plain


@pytest.mark.parametrize("compression", archives.COMPRESSIONS)
def test_the_same_tree_and_time_give_the_same_tar(tree: ImageTree, tmp_path: Path, compression: str) -> None:
    one = tar(tree, tmp_path / "one", compression)

    assert tar(tree, tmp_path / "other", compression) == one
    assert tar(tree, tmp_path / "other", compression, time=TIME + 1) != one


def test_what_is_in_a_tar_is_said_beside_it(tree: ImageTree, tmp_path: Path) -> None:
    data = tar(tree, tmp_path / "image", "zstd")

    facts = json.loads((tmp_path / "image.json").read_text())
    assert facts == {
        "type": "tar",
        "version": 10,
        "bundles": list(tree.bundles),
        "mom": tree.mom_hash,
        "files": len(tree.nodes),
        "content_bytes": tree.content_bytes,
        "compression": "zstd",
        "bytes": len(data),
    }
    assert json.loads((tmp_path / "image.spdx.json").read_text())["spdxVersion"] == "SPDX-2.3"


@contextmanager
def small_disk(limit: int) -> Iterator[None]:
    """No file of this process can grow beyond so many bytes."""
    before, former = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, former)


@pytest.mark.parametrize("compression", archives.COMPRESSIONS)
def test_without_room_nothing_is_left(tree: ImageTree, tmp_path: Path, compression: str) -> None:
    target = tmp_path / "there/image"
    target.parent.mkdir()

    with small_disk(1000), pytest.raises(BuildError, match=r"cannot write .*/there/image: File too large"):
        tar(tree, target, compression)

    assert os.listdir(target.parent) == []


def test_an_initrd_is_unpacked_as_the_tree_is(tree: ImageTree, tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    data = unpacked(initrd(tree, tmp_path / "image"))

    subprocess.run(["cpio", "-idm", "--no-absolute-filenames", "--quiet"], input=data, cwd=root, check=True)

    for node in tree.nodes:
        path = Path(f"{root}{node.path}")
        status = path.lstat()
        assert (status.st_uid, status.st_gid) == (node.uid, node.gid)
        if node.type is FileType.LINK:
            assert os.readlink(path) == node.target
        else:
            assert stat.S_IMODE(status.st_mode) == node.mode
        if node.type is FileType.FILE:
            assert path.read_bytes() == tree.content(node)
            assert status.st_mtime == TIME


def test_an_initrd_has_what_a_kernel_needs(tree: ImageTree, tmp_path: Path) -> None:
    found = listing(unpacked(initrd(tree, tmp_path / "image")))

    of_tree = {f"{node.path[1:]} -> {node.target}" if node.target else node.path[1:] for node in tree.nodes}
    assert found.keys() - of_tree == {"init -> /usr/lib/guest/init", "dev", "dev/console"}
    assert of_tree <= found.keys()
    assert found["dev/console"][0] == "crw-------"


def test_an_init_of_the_tree_stays(tree: ImageTree, tmp_path: Path) -> None:
    own = replace(tree, nodes=(Node("/init", FileType.LINK, 0o777, 0, 0, 0, "usr/bin/sh", ""), *tree.nodes))

    found = listing(unpacked(initrd(own, tmp_path / "image")))

    assert [name for name in found if name.startswith("init")] == ["init -> usr/bin/sh"]
    assert json.loads((tmp_path / "image.json").read_text())["init"] == "/init"


def test_without_a_program_to_start_there_is_no_initrd(published: Published, tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="have no init"):
        initrd(published.load("office"), tmp_path / "image")

    assert not (tmp_path / "image").exists()


def test_the_same_tree_and_time_give_the_same_initrd(tree: ImageTree, tmp_path: Path) -> None:
    one = initrd(tree, tmp_path / "one")

    assert initrd(tree, tmp_path / "other") == one
    assert initrd(tree, tmp_path / "other", time=TIME + 1) != one


def test_kernels_have_the_memory_that_an_initrd_needs(tree: ImageTree, tmp_path: Path) -> None:
    """They refuse a window of more than 8 MiB, which an archive of more than that could have."""
    large = tree.find("/usr/share/large")
    assert large is not None
    copies = tuple(replace(large, path=f"/usr/share/zz{number}") for number in range(4))

    data = initrd(replace(tree, nodes=(*tree.nodes, *copies)), tmp_path / "image")

    assert len(unpacked(data)) > 12_000_000
    assert zstandard.get_frame_parameters(data).window_size <= 8 << 20


def test_a_file_that_a_header_cannot_describe_is_named(tree: ImageTree, tmp_path: Path) -> None:
    large = Node("/usr/share/zz", FileType.FILE, 0o644, 0, 0, 4 << 30, "", "")

    with pytest.raises(BuildError, match=r"/zz has 4294967296 bytes, and each file .* less than 4 GiB") as caught:
        initrd(replace(tree, nodes=(*tree.nodes, large)), tmp_path / "image")

    assert "another type" in caught.value.hint
    assert [name for name in os.listdir(tmp_path) if "image" in name] == []
