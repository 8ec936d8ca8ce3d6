from __future__ import annotations

import os
import shutil
import stat
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixer.images import cpio

ENVIRONMENT = {"PATH": os.environ["PATH"], "TZ": "UTC", "LC_ALL": "C"}
NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\0/"), min_size=1, max_size=40)


def read(data: bytes) -> list[tuple[str, int, bytes]]:
    """A reader of its own: name, mode and content of each member; the trailer is looked at and left out."""
    members, at = [], 0
    while True:
        assert at % 4 == 0
        assert data[at : at + 6] == b"070701"
        fields = [int(data[at + 6 + 8 * index : at + 14 + 8 * index], 16) for index in range(13)]
        mode, size, name_size = fields[1], fields[6], fields[11]
        name = data[at + 110 : at + 110 + name_size]
        assert name.endswith(b"\0")
        begin = -(-(at + 110 + name_size) // 4) * 4
        at = -(-(begin + size) // 4) * 4
        if name == b"TRAILER!!!\0":
            assert at == len(data)
            return members
        assert fields[0] == len(members) + 1
        members.append((name[:-1].decode(), mode, data[begin : begin + size]))


@given(st.lists(st.tuples(NAMES, st.binary(max_size=40)), max_size=6))
def test_what_is_written_can_be_read(files: list[tuple[str, bytes]]) -> None:
    data = cpio.write(cpio.file(name, content, 0o640) for name, content in files)
    assert read(data) == [(name, stat.S_IFREG | 0o640, content) for name, content in files]


@pytest.mark.skipif(shutil.which("cpio") is None, reason="needs cpio")
def test_the_program_cpio_unpacks_it(tmp_path: Path) -> None:
    members = [
        cpio.directory("bin"),
        cpio.file("bin/tool", b"#!/bin/sh\n", 0o755),
        cpio.link("bin/sh", "tool"),
        cpio.directory("secret", 0o700),
    ]
    done = subprocess.run(["cpio", "-idm"], input=cpio.write(members), cwd=tmp_path, capture_output=True, check=True)
    assert b"block" in done.stderr
    assert (tmp_path / "bin/tool").read_bytes() == b"#!/bin/sh\n"
    assert stat.S_IMODE((tmp_path / "bin/tool").stat().st_mode) == 0o755
    assert (tmp_path / "bin/tool").stat().st_mtime == 0
    assert (tmp_path / "bin/sh").readlink() == Path("tool")
    assert stat.S_IMODE((tmp_path / "secret").stat().st_mode) == 0o700


@pytest.mark.skipif(shutil.which("cpio") is None, reason="needs cpio")
def test_a_device_has_its_numbers() -> None:
    archive = cpio.write([cpio.directory("dev"), cpio.character_device("dev/console", 5, 1)])
    listed = subprocess.run(["cpio", "-itv"], input=archive, capture_output=True, check=True).stdout.decode()
    assert listed.splitlines()[1].split()[0] == "crw-------"
    assert "5,   1" in listed


@pytest.mark.skipif(shutil.which("cpio") is None, reason="needs cpio")
def test_members_have_the_owner_and_the_time_that_are_given() -> None:
    member = cpio.Member("a", stat.S_IFREG | 0o4755, b"x", uid=1234, gid=3_000_000)
    archive = cpio.write([member, cpio.link(os.fsdecode(b"\xff"), os.fsdecode(b"\xfe"))], time=1_700_000_000)

    listed = subprocess.run(["cpio", "-itvn"], input=archive, capture_output=True, check=True, env=ENVIRONMENT).stdout
    assert b"-rwsr-xr-x   1 1234     3000000         1 Nov 14  2023 a\n" in listed
    assert listed.splitlines()[1].endswith(b"Nov 14  2023 \xff -> \xfe")


def test_a_time_that_the_format_cannot_express_is_the_last_one() -> None:
    assert cpio.write([cpio.file("a", b"")], time=2**33) == cpio.write([cpio.file("a", b"")], time=2**32 - 1)


@pytest.mark.parametrize("name", ["", "/bin", "a\0b", "x" * 4095])
def test_a_name_that_no_kernel_takes_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="name"):
        cpio.write([cpio.file(name, b"")])


def test_the_name_that_ends_an_archive_is_refused() -> None:
    with pytest.raises(ValueError, match="end of the archive"):
        cpio.write([cpio.file("TRAILER!!!", b""), cpio.file("behind", b"")])


class Huge(bytes):
    def __len__(self) -> int:
        return cpio.MAX_FILE_BYTES + 1


def test_a_file_whose_size_cannot_be_written_is_refused() -> None:
    with pytest.raises(ValueError, match="larger than 4294967295 bytes"):
        cpio.write([cpio.file("big", Huge())])
