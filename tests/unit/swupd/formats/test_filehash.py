"""The swupd hash, against what the original client says of the same objects."""

from __future__ import annotations

import errno
import os
import socket
import stat
import tempfile
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swupd.formats import filehash
from swupd.formats.filehash import (
    UNSUPPORTED,
    ZERO_HASH,
    ContentHasher,
    UnsupportedTypeError,
    hash_content,
    hash_directory,
    hash_link,
    hash_path,
    hash_paths,
    walk,
)

VECTORS = Path(__file__).parents[3] / "data" / "hash-vectors.tsv"


class Vector(NamedTuple):
    path: str
    type: str
    mode: int
    uid: int
    gid: int
    content: bytes
    hash: str


def read_vectors() -> list[Vector]:
    vectors = []
    for line in VECTORS.read_text().splitlines():
        if not line.startswith("#"):
            path, kind, mode, uid, gid, content, repeated, expected = line.split("\t")
            data = b"" if content == "-" else bytes.fromhex(content) * int(repeated)
            vectors.append(Vector(path, kind, int(mode, 8), int(uid), int(gid), data, expected))
    return vectors


def create(vector: Vector, directory: Path) -> Path:
    path = directory / vector.path
    if vector.type == "link":
        path.symlink_to(os.fsdecode(vector.content))
    elif vector.type == "dir":
        path.mkdir()
    elif vector.type == "file":
        path.write_bytes(vector.content)
    if vector.type != "none":
        os.chown(path, vector.uid, vector.gid, follow_symlinks=False)
    if vector.type in {"dir", "file"}:
        path.chmod(vector.mode)  # after chown, which takes setuid away
    return path


def test_there_are_35_vectors() -> None:
    assert len(read_vectors()) == 35


@pytest.mark.parametrize("vector", read_vectors(), ids=lambda vector: vector.path)
def test_the_pure_functions_agree_with_the_original(vector: Vector) -> None:
    match vector.type:
        case "file":
            found = hash_content(stat.S_IFREG | vector.mode, vector.uid, vector.gid, vector.content)
        case "dir":
            found = hash_directory(stat.S_IFDIR | vector.mode, vector.uid, vector.gid)
        case "link":
            found = hash_link(vector.uid, vector.gid, vector.content)
        case _:
            found = ZERO_HASH
    assert found == vector.hash


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives objects away")
@pytest.mark.parametrize("vector", read_vectors(), ids=lambda vector: vector.path)
def test_real_objects_agree_with_the_original(vector: Vector, tmp_path: Path) -> None:
    assert hash_path(str(create(vector, tmp_path))) == vector.hash


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives objects away")
@pytest.mark.parametrize("workers", [0, 1, 3])
def test_many_paths_are_hashed_in_their_order(tmp_path: Path, workers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filehash, "LARGE_BYTES", 6)
    monkeypatch.setattr(filehash, "BATCH_BYTES", 20)
    vectors = read_vectors()
    paths = [str(create(vector, tmp_path)) for vector in vectors]
    assert hash_paths(paths, workers=workers) == [vector.hash for vector in vectors]


def test_a_name_of_bytes_is_hashed_below_a_directory_descriptor(tmp_path: Path) -> None:
    name = b"caf\xe9"
    (tmp_path / os.fsdecode(name)).symlink_to("target")
    descriptor = os.open(tmp_path, os.O_RDONLY)
    try:
        assert hash_path(name, dir_fd=descriptor) == hash_link(os.getuid(), os.getgid(), b"target")
    finally:
        os.close(descriptor)


def test_extended_attributes_do_not_count(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"hello\n")
    before = hash_path(str(path))
    try:
        os.setxattr(path, "user.foo", b"bar")
    except OSError:
        pytest.skip("no extended attributes in this file system")
    assert hash_path(str(path)) == before


def test_content_in_pieces_has_the_hash_of_the_whole() -> None:
    hasher = ContentHasher(0o100755, 1, 2, 11)
    for piece in (b"hello", b"", b" ", b"world"):
        hasher.update(piece)
    assert hasher.hexdigest() == hash_content(0o100755, 1, 2, b"hello world")


@settings(max_examples=50, deadline=None)
@given(st.lists(st.binary(max_size=50)))
def test_any_division_into_pieces_gives_the_same_hash(pieces: list[bytes]) -> None:
    data = b"".join(pieces)
    hasher = ContentHasher(0o100644, 0, 0, len(data))
    for piece in pieces:
        hasher.update(piece)
    assert hasher.hexdigest() == hash_content(0o100644, 0, 0, data)


def test_a_large_file_is_read_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filehash, "WHOLE_READ_LIMIT", 10)
    monkeypatch.setattr(filehash, "PIECE_BYTES", 4)
    path = tmp_path / "large"
    path.write_bytes(bytes(range(23)))
    status = path.stat()
    expected = hash_content(status.st_mode, status.st_uid, status.st_gid, bytes(range(23)))
    assert hash_path(str(path)) == expected


def test_a_file_that_shrinks_while_it_is_read_has_the_hash_of_no_object(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"0123456789")
    status = path.stat()
    read = os.read

    def shrinking_read(descriptor: int, size: int) -> bytes:
        os.truncate(path, 5)
        return read(descriptor, size)

    monkeypatch.setattr(os, "read", shrinking_read)
    found = hash_path(str(path))
    states = [hash_content(status.st_mode, status.st_uid, status.st_gid, data) for data in (b"0123456789", b"01234")]
    assert found not in states
    assert found != ZERO_HASH


def test_what_is_missing_has_the_zero_hash(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    missing = [str(tmp_path / "missing"), str(tmp_path / "file" / "below a file")]
    assert [hash_path(path) for path in missing] == [ZERO_HASH, ZERO_HASH]
    assert hash_paths(missing) == [ZERO_HASH, ZERO_HASH]


def test_a_file_that_vanishes_after_it_was_seen_has_the_zero_hash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x")
    status = path.lstat()
    path.unlink()
    monkeypatch.setattr(os, "lstat", lambda *_, **__: status)
    assert hash_path(str(path)) == ZERO_HASH
    assert hash_paths([str(path)]) == [ZERO_HASH]


@pytest.mark.timeout(10)
def test_a_file_that_becomes_a_fifo_after_it_was_seen_does_not_block(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x")
    status = path.lstat()
    path.unlink()
    os.mkfifo(path)
    monkeypatch.setattr(os, "lstat", lambda *_, **__: status)
    with pytest.raises(UnsupportedTypeError):
        hash_path(str(path))


def test_a_file_that_becomes_a_link_after_it_was_seen_is_not_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x")
    status = path.lstat()
    path.unlink()
    path.symlink_to("/etc/passwd")
    monkeypatch.setattr(os, "lstat", lambda *_, **__: status)
    with pytest.raises(UnsupportedTypeError):
        hash_path(str(path))


def test_fifos_and_sockets_are_unsupported(tmp_path: Path) -> None:
    fifo, server = tmp_path / "fifo", socket.socket(socket.AF_UNIX)
    os.mkfifo(fifo)
    with server:
        server.bind(str(tmp_path / "socket"))
        assert hash_paths([str(fifo), str(tmp_path / "socket")]) == [UNSUPPORTED, UNSUPPORTED]
        with pytest.raises(UnsupportedTypeError, match="neither a file"):
            hash_path(str(tmp_path / "socket"))


def test_another_error_of_the_system_reaches_the_caller(tmp_path: Path) -> None:
    too_long = str(tmp_path / ("x" * 300))
    with pytest.raises(OSError, match="too long"):
        hash_paths([str(tmp_path), too_long, str(tmp_path)])


def test_an_error_of_a_thread_reaches_the_caller(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filehash, "LARGE_BYTES", 1)
    monkeypatch.setattr(filehash, "BATCH_BYTES", 1)
    paths = [tmp_path / name for name in "abc"]
    for path in paths:
        path.write_bytes(b"x")

    def failing_read(descriptor: int, size: int) -> bytes:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "read", failing_read)
    with pytest.raises(OSError, match="Input/output error"):
        hash_paths([str(path) for path in paths], workers=2)


def test_no_paths_have_no_hashes() -> None:
    assert hash_paths([]) == []


def test_walk_names_everything_in_byte_order_and_follows_no_link(tmp_path: Path) -> None:
    for name in ("a/c/deep", "a/z", "a-b/x", "a0", "é/y"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    (tmp_path / "a" / "loop").symlink_to("..")
    names = [found.name for found in walk(str(tmp_path))]
    assert names == ["/a", "/a-b", "/a-b/x", "/a/c", "/a/c/deep", "/a/loop", "/a/z", "/a0", "/é", "/é/y"]
    assert names == sorted(names, key=os.fsencode)


def test_walk_gives_real_paths_and_what_lstat_says(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("nowhere")
    (found,) = walk(f"{tmp_path}/")
    assert found.path == f"{tmp_path}/link"
    assert stat.S_ISLNK(found.status.st_mode)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root reads all of /dev")
@pytest.mark.skipif(not os.path.ismount("/dev/shm"), reason="no file system at /dev/shm")
def test_walk_names_a_mount_point_but_enters_it_only_when_told() -> None:
    with tempfile.NamedTemporaryFile(dir="/dev/shm") as file:
        name = file.name.removeprefix("/dev")
        inside = {found.name for found in walk("/dev")}
        across = {found.name for found in walk("/dev", one_file_system=False)}
    assert "/shm" in inside
    assert name not in inside
    assert name in across


def test_walk_leaves_out_what_vanishes_meanwhile(tmp_path: Path) -> None:
    for name in ("a", "b", "b/c", "d"):
        (tmp_path / name).mkdir()
    steps = walk(str(tmp_path))
    assert next(steps).name == "/a"
    (tmp_path / "b" / "c").rmdir()
    (tmp_path / "b").rmdir()
    assert [found.name for found in steps] == ["/b", "/d"]


def test_a_root_that_does_not_exist_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        list(walk(str(tmp_path / "missing")))
