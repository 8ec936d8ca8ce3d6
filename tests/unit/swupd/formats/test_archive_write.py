from __future__ import annotations

import io
import stat
import subprocess
import tarfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swupd.errors import ArchiveError
from swupd.formats.archive import (
    PACK_LIMITS,
    Member,
    ObjectType,
    fullfile,
    manifest_tar,
    pack_header,
    read_members,
    write_pack,
)

HASH = "0123456789abcdef" * 4
DELTA = f"delta/{HASH}-{HASH[::-1]}"


def reread(data: bytes) -> list[tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as reader:
        return reader.getmembers()


def file(name: str, size: int = 0, mode: int = 0o644, *, uid: int = 0, gid: int = 0, mtime: float = 0) -> Member:
    return Member(name, ObjectType.FILE, stat.S_IFREG | mode, uid, gid, size, mtime)


def pack(*objects: tuple[Member, list[bytes]]) -> bytes:
    buffer = io.BytesIO()
    write_pack(buffer, objects)
    return buffer.getvalue()


def test_a_fullfile_is_what_tarfile_would_have_written() -> None:
    expected = io.BytesIO()
    with tarfile.open(fileobj=expected, mode="w", format=tarfile.USTAR_FORMAT) as writer:
        member = tarfile.TarInfo(HASH)
        member.size, member.mode, member.uid, member.gid, member.mtime = 7, 0o4755, 1000, 201, 1_700_000_000
        writer.addfile(member, io.BytesIO(b"content"))
    data = fullfile(file(HASH, 7, 0o4755, uid=1000, gid=201, mtime=1_700_000_000.75), b"content")
    assert data == expected.getvalue()[: len(data)]
    assert len(data) == 512 + 512 + 1024


def test_directories_and_links_are_header_and_end_only() -> None:
    directory = fullfile(Member(HASH, ObjectType.DIRECTORY, stat.S_IFDIR | 0o1777, 1, 2))
    link = fullfile(Member(HASH, ObjectType.LINK, stat.S_IFLNK | 0o777, 1, 2, target="../caf\udce9"))
    assert len(directory) == len(link) == 512 + 1024
    (got,) = reread(directory)
    assert (got.type, got.name, got.mode, got.uid, got.gid) == (tarfile.DIRTYPE, HASH, 0o1777, 1, 2)
    assert directory.startswith(HASH.encode() + b"/")
    (got,) = reread(link)
    assert (got.type, got.linkname, got.uname, got.gname) == (tarfile.SYMTYPE, "../caf\udce9", "", "")


def test_a_pack_begins_with_its_two_directories() -> None:
    data = pack((file(DELTA, 3), [b"a", b"bc"]), (file(f"staged/{HASH}", 0), []))
    assert [(m.name, m.isdir(), m.mode, m.uid, m.size) for m in reread(data)] == [
        ("delta", True, 0o700, 0, 0),
        ("staged", True, 0o700, 0, 0),
        (DELTA, False, 0o644, 0, 3),
        (f"staged/{HASH}", False, 0o644, 0, 0),
    ]
    assert data.startswith(b"delta/\0")
    assert data.endswith(bytes(1024))


def test_a_pack_is_the_same_whenever_it_is_written() -> None:
    objects = (file(DELTA, 3), [b"abc"])
    assert pack(objects) == pack(objects)


def test_what_does_not_fit_a_plain_header_is_written_as_pax_records() -> None:
    members = [
        file("n" * 101),
        file("n" * 300 + "é"),
        file("owner", uid=2**32 - 2, gid=2_097_152),
        Member("link", ObjectType.LINK, stat.S_IFLNK | 0o777, 0, 0, target="t" * 101),
        Member("latin", ObjectType.LINK, stat.S_IFLNK | 0o777, 0, 0, target="t" * 101 + "\udce9"),
        Member("d" * 100, ObjectType.DIRECTORY, stat.S_IFDIR | 0o755, 0, 0),
    ]
    got = reread(pack(*((member, []) for member in members)))[2:]
    for member, found in zip(members, got, strict=True):
        assert (found.name, found.uid, found.gid, found.linkname) == (
            member.name,
            member.uid,
            member.gid,
            member.target,
        )


def test_a_huge_file_is_announced_in_a_pax_record() -> None:
    header = pack_header(file("huge", 2**33 + 5))
    with tarfile.open(fileobj=io.BytesIO(header), mode="r|") as reader:
        assert reader.next().size == 2**33 + 5  # type: ignore[union-attr]


def test_gnu_tar_reads_it_back(tmp_path: Path) -> None:
    data = pack(
        (file(DELTA, 5, 0o600, uid=12, gid=13, mtime=86400), [b"delta"]),
        (file(f"staged/{HASH}", 7, 0o6755, uid=3_000_000, gid=13, mtime=86400), [b"content"]),
        (Member("staged/link", ObjectType.LINK, stat.S_IFLNK | 0o777, 0, 0, target="t" * 120), []),
    )
    listing = subprocess.run(
        ["tar", "--list", "--verbose", "--numeric-owner", "--utc"], input=data, capture_output=True, check=True
    )
    assert listing.stderr == b""
    lines = [line.split(None, 5) for line in listing.stdout.decode().splitlines()]
    assert lines == [
        ["drwx------", "0/0", "0", "1970-01-01", "00:00", "delta/"],
        ["drwx------", "0/0", "0", "1970-01-01", "00:00", "staged/"],
        ["-rw-------", "12/13", "5", "1970-01-02", "00:00", DELTA],
        ["-rwsr-sr-x", "3000000/13", "7", "1970-01-02", "00:00", f"staged/{HASH}"],
        ["lrwxrwxrwx", "0/0", "0", "1970-01-01", "00:00", "staged/link -> " + "t" * 120],
    ]


def test_content_of_another_length_than_announced_is_refused() -> None:
    for wrong in (b"", b"ab", b"abcd"):
        with pytest.raises(ArchiveError, match="instead of 3"):
            fullfile(file(HASH, 3), wrong)
        with pytest.raises(ArchiveError, match="instead of 3"):
            pack((file(DELTA, 3), [wrong]))
    with pytest.raises(ArchiveError):
        fullfile(Member(HASH, ObjectType.DIRECTORY, stat.S_IFDIR | 0o755, 0, 0), b"x")


def test_what_no_reader_would_take_back_is_not_written() -> None:
    for member in (
        file("a", uid=-1),
        file("a", gid=2**32 - 1),
        file("a", size=-1),
        Member("a", ObjectType.FILE, stat.S_IFREG | 0o644, 0, 0, link_to="b"),
    ):
        with pytest.raises(ValueError, match="a "):
            fullfile(member)


def test_manifest_tars_hold_ordinary_files_of_root() -> None:
    data = manifest_tar({"Manifest.MoM": b"one", "Manifest.MoM.sig": b""}, 1_700_000_000)
    assert [(m.name, m.mode, m.uid, m.gid, m.mtime, m.size) for m in reread(data)] == [
        ("Manifest.MoM", 0o644, 0, 0, 1_700_000_000, 3),
        ("Manifest.MoM.sig", 0o644, 0, 0, 1_700_000_000, 0),
    ]


names = st.binary(min_size=1, max_size=300).filter(lambda raw: b"\0" not in raw and b"/" not in raw and raw[:1] != b".")
texts = st.binary(min_size=1, max_size=300).filter(lambda raw: b"\0" not in raw)
ids = st.integers(0, 2**32 - 2)
attributes = st.tuples(st.integers(0, 0o7777), ids, ids, st.integers(0, 2**33 - 1))


@given(names, texts, attributes, st.binary(max_size=1100))
@settings(max_examples=100, deadline=None)
def test_members_come_back_as_they_were_written(
    name: bytes, text: bytes, attributes: tuple[int, int, int, int], content: bytes
) -> None:
    mode, uid, gid, mtime = attributes
    own = name.decode("utf-8", "surrogateescape")
    target = text.decode("utf-8", "surrogateescape")
    members = [
        Member("1" + own, ObjectType.FILE, stat.S_IFREG | mode, uid, gid, len(content), mtime),
        Member("2" + own, ObjectType.DIRECTORY, stat.S_IFDIR | mode, uid, gid, 0, mtime),
        Member("3" + own, ObjectType.LINK, stat.S_IFLNK | mode, uid, gid, 0, mtime, target),
    ]
    data = pack((members[0], [content]), (members[1], []), (members[2], []))
    got = [(member, stream.read()) for member, stream in read_members(io.BytesIO(data), PACK_LIMITS)][2:]
    assert got == [(members[0], content), (members[1], b""), (members[2], b"")]
