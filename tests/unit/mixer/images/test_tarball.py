from __future__ import annotations

import io
import os
import shutil
import stat
import subprocess
import tarfile
from collections.abc import Iterable, Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixer.errors import BuildError
from mixer.images import tarball
from mixer.images.tree import Node
from swupd.formats.manifest import FileType

TIME = 1_700_000_000
LONG = "x" * 150
BYTES = os.fsdecode(b"not-utf-8-\xff\xfe")


def directory(path: str, mode: int = 0o755) -> Node:
    return Node(path, FileType.DIRECTORY, mode, 0, 0, 0, "", "")


def file(path: str, size: int = 0, mode: int = 0o644, uid: int = 0, gid: int = 0) -> Node:
    return Node(path, FileType.FILE, mode, uid, gid, size, "", "")


def link(path: str, target: str) -> Node:
    return Node(path, FileType.LINK, 0o777, 0, 0, 0, target, "")


def packed(nodes: Iterable[Node], contents: Mapping[str, bytes] | None = None, time: int = TIME) -> bytes:
    target = io.BytesIO()
    tarball.write(target, nodes, lambda node: (contents or {}).get(node.path, b"x" * node.size), time=time)
    return target.getvalue()


def members(data: bytes) -> list[tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        return archive.getmembers()


SYSTEM = [
    directory("/usr"),
    directory("/usr/bin"),
    file("/usr/bin/sudo", 1000, 0o4755),
    link("/usr/bin/sh", "sudo"),
    file("/usr/empty"),
    file("/usr/owned", 3, 0o640, uid=1234, gid=3_000_000),
    directory("/usr/tmp", 0o1777),
    directory(f"/usr/{LONG}"),
    file(f"/usr/{LONG}/{LONG}", 5),
    link("/usr/far", f"{LONG}/{LONG}"),
    file(f"/usr/{BYTES}", 1),
    file(f"/usr/{BYTES}{LONG}", 1),
    link("/usr/odd", f"{BYTES}{LONG}"),
    file("/usr/ü", 1),
    file("/usr/a new\nline", 1),
]


def test_what_is_written_can_be_read() -> None:
    found = members(packed([file("/a", 700, 0o4750, uid=3, gid=4), directory("/b", 0o1777), link("/c", "b")]))

    assert [(m.name, m.type, m.mode, m.uid, m.gid, m.size, m.linkname, m.mtime) for m in found] == [
        ("a", tarfile.REGTYPE, 0o4750, 3, 4, 700, "", TIME),
        ("b", tarfile.DIRTYPE, 0o1777, 0, 0, 0, "", TIME),
        ("c", tarfile.SYMTYPE, 0o777, 0, 0, 0, "b", TIME),
    ]


def test_owners_have_no_names() -> None:
    assert {(member.uname, member.gname) for member in members(packed(SYSTEM))} == {("", "")}


def test_pax_headers_are_only_where_they_are_needed() -> None:
    with_header = {member.name for member in members(packed(SYSTEM)) if member.pax_headers}

    assert with_header == {
        "usr/owned",  # its group
        *(f"usr/{name}" for name in (LONG, f"{LONG}/{LONG}", "far", f"{BYTES}{LONG}", "odd")),
    }


def test_the_size_of_a_large_file_is_written() -> None:
    node = file("/large", 9 << 30)
    content = type("Large", (bytes,), {"__len__": lambda _: node.size})()

    class Begin(io.BytesIO):
        def write(self, data: object) -> int:
            return 0 if data is content else super().write(data)  # type: ignore[arg-type]

    target = Begin()
    tarball.write(target, [node], lambda _: content, time=TIME)
    target.seek(0)
    with tarfile.open(fileobj=target, mode="r:") as archive:
        found = archive.next()

    assert found is not None
    assert (found.name, found.size) == ("large", 9 << 30)


NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\0/"), min_size=1, max_size=200).filter(
    lambda name: name not in {".", ".."} and len(name.encode()) < 256
)


@given(st.dictionaries(NAMES, st.binary(max_size=1500), max_size=5))
def test_any_names_and_contents_come_back(contents: dict[str, bytes]) -> None:
    data = packed(
        [file(f"/{name}", len(content)) for name, content in contents.items()],
        {f"/{name}": content for name, content in contents.items()},
    )

    with tarfile.open(fileobj=io.BytesIO(data), errors="surrogateescape") as archive:
        found = {member.name: archive.extractfile(member) for member in archive}
        assert {name: reader and reader.read() for name, reader in found.items()} == contents


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files to others")
@pytest.mark.parametrize("program", ["tar", "bsdtar"])
def test_tar_programs_unpack_all_of_it(tmp_path: Path, program: str) -> None:
    if shutil.which(program) is None:
        pytest.skip(f"needs {program}")
    archive, root = tmp_path / "archive", tmp_path / "root"
    archive.write_bytes(packed(SYSTEM))
    root.mkdir()

    argv = [program, "-x", "-p", "--numeric-owner", "-f", archive, "-C", root]
    done = subprocess.run(argv, capture_output=True, check=True, env={"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"})

    # GNU tar keeps the bytes of names anyway.
    assert set(done.stderr.splitlines()) <= {b"tar: Ignoring unknown extended header keyword 'hdrcharset'"}
    for node in SYSTEM:
        path = f"{root}{node.path}"
        status = os.lstat(path)
        assert (status.st_uid, status.st_gid, status.st_mtime) == (node.uid, node.gid, TIME)
        if node.type is FileType.LINK:
            assert os.readlink(path) == node.target
        else:
            assert stat.S_IMODE(status.st_mode) == node.mode
        if node.type is FileType.FILE:
            assert Path(path).read_bytes() == b"x" * node.size
    assert sum(len(names) + len(files) for _, names, files in os.walk(root)) == len(SYSTEM)


def test_the_same_nodes_and_time_give_the_same_bytes() -> None:
    assert packed(SYSTEM) == packed(SYSTEM)
    assert packed(SYSTEM) != packed(SYSTEM, time=TIME + 1)


def test_content_of_another_size_is_refused() -> None:
    with pytest.raises(BuildError, match="the content of /a has 2 bytes instead of 3"):
        packed([file("/a", 3)], {"/a": b"xx"})
