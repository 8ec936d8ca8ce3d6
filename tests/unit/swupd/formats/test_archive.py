from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import random
import stat
import subprocess
import tarfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swupd.errors import ArchiveError
from swupd.formats import archive
from swupd.formats.archive import (
    PACK_LIMITS,
    ArchiveLimits,
    Member,
    ObjectType,
    compress,
    fullfile,
    manifest_tar,
    object_hash,
    read_fullfile,
    read_manifest_tar,
    read_members,
    verified_chunks,
)
from swupd.formats.filehash import hash_content, hash_directory, hash_link

FILE_MODE = stat.S_IFREG | 0o644
COMPRESSORS: dict[str, Callable[[bytes], bytes]] = {
    "tar": bytes,
    "gzip": lambda data: gzip.compress(data, mtime=0),
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "zstd": lambda data: compress(data, 3),
}

each_compression = pytest.mark.parametrize("pack", COMPRESSORS.values(), ids=COMPRESSORS)


def tar(*members: tuple[tarfile.TarInfo, bytes], layout: int = tarfile.GNU_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=layout) as writer:
        for info, content in members:
            writer.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def info(name: str, content: bytes = b"", **fields: object) -> tuple[tarfile.TarInfo, bytes]:
    result = tarfile.TarInfo(name)
    result.size = len(content)
    result.mode = 0o644
    for field, value in fields.items():
        setattr(result, field, value)
    return result, content


def read(data: bytes, limits: ArchiveLimits = PACK_LIMITS) -> list[tuple[Member, bytes]]:
    return [(member, content.read()) for member, content in read_members(io.BytesIO(data), limits)]


def refusal(data: bytes, limits: ArchiveLimits = PACK_LIMITS) -> str:
    with pytest.raises(ArchiveError) as caught:
        read(data, limits)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# -- members -----------------------------------------------------------------------------------------------------------


def test_files_directories_and_links_come_with_all_their_attributes() -> None:
    data = tar(
        info("staged", type=tarfile.DIRTYPE, mode=0o1700, uid=7, gid=8, mtime=5),
        info("staged/program", b"content", mode=0o4755, uid=1000, gid=201, mtime=1_700_000_000),
        info("staged/link", type=tarfile.SYMTYPE, linkname="/usr/lib/../x", mode=0o777),
    )
    assert read(data) == [
        (Member("staged", ObjectType.DIRECTORY, stat.S_IFDIR | 0o1700, 7, 8, 0, 5), b""),
        (Member("staged/program", ObjectType.FILE, stat.S_IFREG | 0o4755, 1000, 201, 7, 1_700_000_000), b"content"),
        (Member("staged/link", ObjectType.LINK, stat.S_IFLNK | 0o777, 0, 0, 0, 0, "/usr/lib/../x"), b""),
    ]


@each_compression
def test_every_compression_is_read(pack: Callable[[bytes], bytes]) -> None:
    assert [content for _, content in read(pack(tar(info("a", b"1"), info("b", b"2"))))] == [b"1", b"2"]


@pytest.mark.parametrize("layout", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_names_are_read_in_every_format(layout: int) -> None:
    name = "d" * 60 + "/" + "n" * 70
    ((member, content),) = read(tar(info(name, b"x"), layout=layout))
    assert (member.name, content) == (name, b"x")


@pytest.mark.parametrize("layout", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_link_texts_and_large_owners_are_read(layout: int) -> None:
    text = "../" * 100 + "target"
    ((member, _),) = read(
        tar(info("n" * 150, type=tarfile.SYMTYPE, linkname=text, uid=2**32 - 2, gid=10_000_000), layout=layout)
    )
    assert (member.target, member.uid, member.gid) == (text, 2**32 - 2, 10_000_000)


def test_what_gnu_tar_writes_is_read(tmp_path: Path) -> None:
    (tmp_path / "directory").mkdir(mode=0o750)
    (tmp_path / "directory" / ("n" * 120)).write_bytes(b"content")
    (tmp_path / "link").symlink_to("t" * 150)
    for layout in ("gnu", "posix"):
        written = subprocess.run(
            ["tar", "-C", tmp_path, "--create", f"--format={layout}", "--numeric-owner", "./directory", "link"],
            capture_output=True,
            check=True,
        )
        directory, file, link = read(written.stdout)
        assert (directory[0].name, directory[0].mode) == ("directory", stat.S_IFDIR | 0o750)
        assert (file[0].name, file[1]) == ("directory/" + "n" * 120, b"content")
        assert (link[0].name, link[0].target) == ("link", "t" * 150)
        assert link[0].uid == os.getuid()


def test_times_are_read_as_fractions_and_kept_in_range() -> None:
    def mtime(value: str) -> float:
        ((member, _),) = read(tar(info("a", pax_headers={"mtime": value}), layout=tarfile.PAX_FORMAT))
        return member.mtime

    assert mtime("1700000000.25") == 1_700_000_000.25
    assert mtime("-5.5") == 0
    assert mtime("99999999999999999999") == 253_402_300_799


def test_names_that_are_not_text_survive() -> None:
    ((member, _),) = read(tar(info("caf\udce9", type=tarfile.SYMTYPE, linkname="\udcff")))
    assert os.fsencode(member.name) == b"caf\xe9"
    assert os.fsencode(member.target) == b"\xff"


def test_attributes_that_the_hash_does_not_know_are_ignored() -> None:
    headers = {"SCHILY.xattr.user.a": "hi", "atime": "1.5", "uname": "somebody"}
    ((member, _),) = read(
        tar(info("a", b"x", uname="user", gname="group", pax_headers=headers), layout=tarfile.PAX_FORMAT)
    )
    assert member == Member("a", ObjectType.FILE, FILE_MODE, 0, 0, 1)


def test_a_hard_link_is_a_second_name_of_an_earlier_file() -> None:
    first, second, third = read(
        tar(
            info("./delta/a", b"content", mode=0o755, uid=5),
            info("delta/b", type=tarfile.LNKTYPE, linkname="./delta/a"),
            info("delta/c", type=tarfile.LNKTYPE, linkname="delta/b"),
        )
    )
    assert first == (Member("delta/a", ObjectType.FILE, stat.S_IFREG | 0o755, 5, 0, 7), b"content")
    expected = Member("delta/b", ObjectType.FILE, stat.S_IFREG | 0o755, 5, 0, 7, link_to="delta/a")
    assert second == (expected, b"")
    assert third[0].link_to == "delta/a"


def test_content_that_nobody_read_is_skipped() -> None:
    large = random.Random(1).randbytes(3 << 20)
    members = read_members(io.BytesIO(tar(info("a", large), info("b", b"2"), info("c", large))), PACK_LIMITS)
    _, first = next(members)
    assert first.read(10) == large[:10]
    assert next(members)[1].read() == b"2"
    assert next(members)[1].read() == large
    assert next(members, None) is None


# -- what is refused ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("../evil", "'..'"),
        ("a/../../evil", "'..'"),
        ("./..", "'..'"),
        ("/etc/passwd", "absolute"),
        ("./" + "/etc/passwd", "absolute"),
        ("//etc/passwd", "absolute"),
        ("a//b", "simplest"),
        ("a/./b", "simplest"),
        ("././a", "simplest"),
        ("a/", "simplest"),
        ("", "empty"),
        ("./", "empty"),
        (".", "empty"),
        ("n" * 4097, "impossible name"),
    ],
)
def test_a_name_that_could_lead_elsewhere_is_refused(name: str, why: str) -> None:
    assert why in refusal(tar(info(name)))


def test_a_directory_that_stands_for_the_root_is_refused() -> None:
    assert "empty" in refusal(tar(info(".", type=tarfile.DIRTYPE)))


@pytest.mark.parametrize(
    ("kind", "what"),
    [
        (tarfile.CHRTYPE, "character device"),
        (tarfile.BLKTYPE, "block device"),
        (tarfile.FIFOTYPE, "fifo"),
        (tarfile.CONTTYPE, "unknown type '7'"),
        (tarfile.GNUTYPE_SPARSE, "sparse"),
        (tarfile.XGLTYPE, "unknown type 'g'"),
        (b"D", "unknown type 'D'"),
        (b"V", "unknown type 'V'"),
    ],
)
def test_other_types_are_refused_by_name(kind: bytes, what: str) -> None:
    message = refusal(tar(info("thing", type=kind)))
    assert "'thing'" in message
    assert what in message


def test_a_sparse_file_in_pax_records_is_refused() -> None:
    headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": "../a"}
    assert "sparse" in refusal(tar(info("a", b"x", pax_headers=headers), layout=tarfile.PAX_FORMAT))


def test_a_name_that_comes_twice_is_refused() -> None:
    assert "'a' comes twice" in refusal(tar(info("a", b"1"), info("./a", b"2")))
    assert "'a' comes twice" in refusal(tar(info("a", type=tarfile.DIRTYPE), info("a", b"2")))


@pytest.mark.parametrize("target", ["later", "../outside", "/etc/passwd", "directory", "link", "self"])
def test_a_hard_link_to_anything_but_an_earlier_file_is_refused(target: str) -> None:
    message = refusal(
        tar(
            info("directory", type=tarfile.DIRTYPE),
            info("link", type=tarfile.SYMTYPE, linkname="directory"),
            info("self", type=tarfile.LNKTYPE, linkname=target),
            info("later", b"x"),
        )
    )
    assert "self" in message or target in message


def test_more_members_than_allowed_are_refused() -> None:
    limits = ArchiveLimits(members=2, object_bytes=10, total_bytes=1 << 20)
    assert len(read(tar(info("a"), info("b")), limits)) == 2
    assert "'c' is one more than the 2" in refusal(tar(info("a"), info("b"), info("c")), limits)


def test_a_member_larger_than_allowed_is_refused_before_it_is_read() -> None:
    limits = ArchiveLimits(members=2, object_bytes=10, total_bytes=1 << 20)
    assert len(read(tar(info("a", bytes(10))), limits)) == 1
    assert "'a' has 11 bytes" in refusal(tar(info("a", bytes(11)))[:512], limits)


def test_an_archive_larger_than_allowed_is_refused() -> None:
    limits = ArchiveLimits(members=9, object_bytes=5000, total_bytes=10_000)
    data = tar(info("a", bytes(5000)), info("b", bytes(5000)))
    assert "more than the 10000 bytes" in refusal(data, limits)
    assert "more than the 10000 bytes" in refusal(compress(data, 3), limits)


def test_zeros_without_end_behind_the_archive_count_as_well() -> None:
    limits = ArchiveLimits(members=9, object_bytes=5000, total_bytes=1 << 20)
    bomb = compress(tar(info("a")) + bytes(2 << 20), 3)
    assert "more than the 1048576 bytes" in refusal(bomb, limits)


@pytest.mark.parametrize("size", ["99999999999999999999", "-1", "1e3", "0x10", " 1", ""])
def test_an_impossible_size_is_refused(size: str) -> None:
    assert "'a'" in refusal(tar(info("a", pax_headers={"size": size}), layout=tarfile.PAX_FORMAT))


@pytest.mark.parametrize("owner", ["4294967295", "-1", "99999999999999999999", "1_000"])
def test_an_impossible_owner_is_refused(owner: str) -> None:
    assert "'a'" in refusal(tar(info("a", pax_headers={"uid": owner}), layout=tarfile.PAX_FORMAT))
    assert "'a'" in refusal(tar(info("a", pax_headers={"gid": owner}), layout=tarfile.PAX_FORMAT))


def test_a_directory_or_link_with_content_is_refused() -> None:
    for kind in (tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE):
        assert "size" in refusal(tar(info("b", b"x"), info("a", bytes(512), type=kind, linkname="b")))


def test_a_link_without_text_or_with_too_much_is_refused() -> None:
    for text in ("", "t" * 4097):
        assert "link text" in refusal(tar(info("a", type=tarfile.SYMTYPE, linkname=text)))


def test_extension_records_without_end_are_refused() -> None:
    headers = {"SCHILY.xattr.user.a": "x" * (1 << 20)}
    assert "extension records" in refusal(tar(info("a", pax_headers=headers), layout=tarfile.PAX_FORMAT))


def test_a_member_that_is_described_twice_is_refused() -> None:
    long_name = tar(info("n" * 150))[: 2 * 512]
    assert "as well" in refusal(long_name + tar(info("n" * 150)))
    assert "as well" in refusal(long_name + tar(info("p" * 150), layout=tarfile.PAX_FORMAT))
    comment = tar(info("a", pax_headers={"comment": "x"}), layout=tarfile.PAX_FORMAT)[: 2 * 512]
    assert "as well" in refusal(comment + comment + tar(info("a")))


def test_a_description_without_a_member_is_refused() -> None:
    assert "does not follow" in refusal(tar(info("n" * 150))[: 2 * 512] + bytes(1024))


def test_a_wrong_checksum_is_refused() -> None:
    data = bytearray(tar(info("a", b"x")))
    data[100] ^= 1
    assert "checksum" in refusal(bytes(data))


@pytest.mark.parametrize("data", [b"", b"x", b"MANIFEST\t30\n", b"<html>" * 200, bytes(512), b"x" * 1024])
def test_what_is_not_an_archive_is_refused(data: bytes) -> None:
    refusal(data)


def test_an_archive_without_members_is_one() -> None:
    assert read(bytes(1024)) == []
    assert read(tar()) == []


@each_compression
def test_an_archive_cut_off_at_any_byte_is_refused(pack: Callable[[bytes], bytes]) -> None:
    member = Member("h" * 64, ObjectType.FILE, FILE_MODE, 0, 0, 700)
    data = pack(fullfile(member, random.Random(2).randbytes(700)))
    read(data)
    for length in range(len(data)):
        refusal(data[:length])


def test_a_long_name_cut_off_at_any_byte_is_refused() -> None:
    for layout in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        data = tar(info("n" * 150, b"content"), layout=layout)
        for length in range(data.rindex(b"content") + 512 + 1024):
            refusal(data[:length])


def test_anything_but_zeros_behind_the_end_is_refused() -> None:
    data = tar(info("a", b"x"))
    read(data + bytes(100_000))
    assert "goes on after its end" in refusal(data + b"x")
    assert "goes on after its end" in refusal(data + bytes(100_000) + tar(info("b", b"y")))
    assert "goes on after its end" in refusal(tar(info("a", b"x"))[:1024] + bytes(512) + tar(info("b", b"y")))


def test_messages_stay_on_one_line_and_short_whatever_the_name_is() -> None:
    message = refusal(tar(info("../line\nbreak\x1b\udcff" + "n" * 4000)))
    assert "\x1b" not in message
    assert len(message) < 300


@given(st.data())
@settings(max_examples=100, deadline=None)
def test_flipped_bytes_raise_nothing_but_archive_errors(data: st.DataObject) -> None:
    original = tar(
        info("n" * 150, b"content", pax_headers={"mtime": "1.5", "uid": "3000000"}),
        info("b", type=tarfile.LNKTYPE, linkname="n" * 150),
        info("c", type=tarfile.SYMTYPE, linkname="t" * 150),
        layout=tarfile.PAX_FORMAT,
    )
    damaged = bytearray(original)
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, 6 * 1024))] = data.draw(st.integers(0, 255))
    limits = ArchiveLimits(members=9, object_bytes=10_000, total_bytes=20_000)
    with suppress(ArchiveError):
        for member, content in read(bytes(damaged), limits):
            assert ".." not in member.name.split("/")
            assert not member.name.startswith("/")
            assert len(content) <= limits.object_bytes


@given(st.binary(max_size=600), st.sampled_from(["path", "linkpath", "size", "uid", "mtime", "x"]))
@settings(max_examples=100, deadline=None)
def test_any_pax_record_is_read_or_refused(value: bytes, key: str) -> None:
    headers = {key: value.decode("utf-8", "surrogateescape")}
    with suppress(ArchiveError):
        read(tar(info("a", pax_headers=headers), layout=tarfile.PAX_FORMAT))


# -- hashes ------------------------------------------------------------------------------------------------------------


def test_the_hash_of_a_member_is_that_of_the_object() -> None:
    file = Member("x", ObjectType.FILE, stat.S_IFREG | 0o4755, 1, 2, 6)
    directory = Member("x", ObjectType.DIRECTORY, stat.S_IFDIR | 0o755, 1, 2)
    link = Member("x", ObjectType.LINK, stat.S_IFLNK | 0o777, 1, 2, target="caf\udce9")
    assert object_hash(file, [b"foo", b"bar"]) == hash_content(stat.S_IFREG | 0o4755, 1, 2, b"foobar")
    assert object_hash(directory) == hash_directory(stat.S_IFDIR | 0o755, 1, 2)
    assert object_hash(link) == hash_link(1, 2, b"caf\xe9")


@pytest.mark.parametrize("size", [0, 10, archive.WHOLE_BYTES, archive.WHOLE_BYTES + 1, 3 << 20])
def test_verified_content_is_passed_on(size: int) -> None:
    content = random.Random(3).randbytes(size)
    member = Member("x", ObjectType.FILE, FILE_MODE, 0, 0, size)
    expected = hash_content(FILE_MODE, 0, 0, content)
    assert b"".join(verified_chunks(member, io.BytesIO(content), expected)) == content


@pytest.mark.parametrize("size", [10, 3 << 20])
def test_content_with_another_hash_ends_with_an_error(size: int) -> None:
    member = Member("x", ObjectType.FILE, FILE_MODE, 0, 0, size)
    with pytest.raises(ArchiveError, match=f"instead of {'0' * 64}"):
        list(verified_chunks(member, io.BytesIO(bytes(size)), "0" * 64))


def test_a_wrong_directory_or_link_is_refused_without_being_read() -> None:
    for kind, bits in ((ObjectType.DIRECTORY, stat.S_IFDIR), (ObjectType.LINK, stat.S_IFLNK)):
        with pytest.raises(ArchiveError, match="has the hash"):
            verified_chunks(Member("x", kind, bits | 0o755, 0, 0), io.BytesIO(), "0" * 64)


# -- fullfiles and manifest tars ---------------------------------------------------------------------------------------


def named(member: Member, content: bytes = b"") -> tuple[Member, str]:
    hash_ = object_hash(member, [content])
    return replace(member, name=hash_), hash_


@pytest.mark.parametrize("size", [0, 700, 3 << 20])
def test_a_fullfile_gives_its_object(size: int) -> None:
    content = random.Random(4).randbytes(size)
    member, hash_ = named(Member("", ObjectType.FILE, stat.S_IFREG | 0o6755, 3, 4, size, 99), content)
    got, chunks = read_fullfile(io.BytesIO(compress(fullfile(member, content), 3)), hash_)
    assert got == member
    assert b"".join(chunks) == content


def test_the_fullfile_of_a_directory_may_have_a_slash_behind_its_name() -> None:
    member, hash_ = named(Member("", ObjectType.DIRECTORY, stat.S_IFDIR | 0o755, 0, 0))
    for name in (hash_, hash_ + "/"):
        data = tar(info(name, type=tarfile.DIRTYPE, mode=0o755), layout=tarfile.USTAR_FORMAT)
        got, chunks = read_fullfile(io.BytesIO(data), hash_)
        assert got == member
        assert list(chunks) == []


def test_a_fullfile_with_another_name_is_refused() -> None:
    member, hash_ = named(Member("", ObjectType.FILE, FILE_MODE, 0, 0, 1), b"x")
    data = fullfile(member, b"x")
    for expected in (hash_[:-1], hash_[:-1] + "x", "0" * 64):
        with pytest.raises(ArchiveError, match="which the archive is for"):
            read_fullfile(io.BytesIO(data), expected)


def test_a_fullfile_with_other_content_is_refused() -> None:
    member, hash_ = named(Member("", ObjectType.FILE, FILE_MODE, 0, 0, 1), b"x")
    with pytest.raises(ArchiveError, match="has the hash"):
        read_fullfile(io.BytesIO(fullfile(member, b"y")), hash_)


@pytest.mark.parametrize("size", [5, 3 << 20])
def test_a_second_member_of_a_fullfile_is_an_error_before_the_content_ends(size: int) -> None:
    content = bytes(size)
    member, hash_ = named(Member("", ObjectType.FILE, FILE_MODE, 0, 0, size), content)
    data = fullfile(member, content)[:-1024] + tar(info("second"))
    with pytest.raises(ArchiveError, match="second"):
        list(read_fullfile(io.BytesIO(data), hash_)[1])


def test_a_large_fullfile_that_is_cut_off_is_an_error_before_the_content_ends() -> None:
    content = random.Random(5).randbytes(2 << 20)
    member, hash_ = named(Member("", ObjectType.FILE, FILE_MODE, 0, 0, len(content)), content)
    data = compress(fullfile(member, content), 1)
    for length in (1 << 20, len(data) - 1):
        with pytest.raises(ArchiveError):
            list(read_fullfile(io.BytesIO(data[:length]), hash_)[1])


def test_a_fullfile_that_is_larger_than_allowed_is_refused() -> None:
    member, hash_ = named(Member("", ObjectType.FILE, FILE_MODE, 0, 0, 100), bytes(100))
    limits = ArchiveLimits(members=1, object_bytes=99, total_bytes=1 << 20)
    with pytest.raises(ArchiveError, match="has 100 bytes"):
        read_fullfile(io.BytesIO(fullfile(member, bytes(100))), hash_, limits=limits)


def test_an_empty_archive_is_not_a_fullfile() -> None:
    with pytest.raises(ArchiveError, match="is empty"):
        read_fullfile(io.BytesIO(bytes(1024)), "0" * 64)


def test_a_manifest_tar_gives_manifest_and_signature() -> None:
    files = {"Manifest.MoM": b"MANIFEST\t1\n", "Manifest.MoM.sig": b"\x30"}
    assert read_manifest_tar(lzma.compress(manifest_tar(files, 5)), "MoM") == files
    assert read_manifest_tar(io.BytesIO(manifest_tar({"Manifest.a": b"x"}, 5)), "a") == {"Manifest.a": b"x"}


def test_a_manifest_tar_with_anything_else_is_refused() -> None:
    for data, why in (
        (manifest_tar({"Manifest.b": b"x"}, 0), "does not belong"),
        (manifest_tar({"Manifest.a.sig": b"x"}, 0), "does not contain it"),
        (manifest_tar({}, 0), "does not contain it"),
        (tar(info("Manifest.a", type=tarfile.SYMTYPE, linkname="/etc/passwd")), "not a regular file"),
        (tar(info("Manifest.a", type=tarfile.DIRTYPE)), "not a regular file"),
    ):
        with pytest.raises(ArchiveError, match=why):
            read_manifest_tar(data, "a")
