from __future__ import annotations

import os
import struct
import subprocess
from pathlib import Path

import pytest

from mixer.errors import BuildError
from mixer.images import esp
from swupd.errors import CommandError

OFFSET = 1 << 20
SIZE = esp.MIN_BYTES
TIME = 1700000000
FILES = {
    "EFI/BOOT/BOOTX64.EFI": b"loader" * 1000,
    "loader/entries/os-10.conf": b"title Test\n",
    "os/vmlinuz-0123456789abcdef": os.urandom(100_000),
    "empty": b"",
}


def write(path: Path, files: dict[str, bytes] | None = None, *, size: int = SIZE, time: int = TIME) -> Path:
    with path.open("xb") as file:
        file.truncate(OFFSET + SIZE + (1 << 20))
    esp.write(path, OFFSET, size, FILES if files is None else files, label="ESP", serial=0x1234ABCD, time=time)
    return path


def mtools(program: str, image: Path, *arguments: str) -> bytes:
    argv = [program, "-i", f"{image}@@{OFFSET}", *arguments]
    return subprocess.run(argv, capture_output=True, check=True, env={"TZ": "UTC", "PATH": "/usr/bin"}).stdout


def test_all_files_are_there(tmp_path: Path) -> None:
    image = write(tmp_path / "disk")

    assert {name: mtools("mtype", image, f"::/{name}") for name in FILES} == FILES
    listed = mtools("mdir", image, "-b", "-/", "::/").decode().split()
    assert {name.removeprefix("::/") for name in listed if not name.endswith("/")} == FILES.keys()


def test_it_is_a_fat32_without_mistakes_and_with_its_label(tmp_path: Path) -> None:
    image = write(tmp_path / "disk")
    alone = tmp_path / "esp"
    with image.open("rb") as disk, alone.open("wb") as file:
        disk.seek(OFFSET)
        file.write(disk.read(SIZE))

    done = subprocess.run(["/usr/sbin/fsck.vfat", "-n", "-v", alone], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout
    tell = subprocess.run(["/usr/sbin/blkid", "-p", "-o", "export", alone], capture_output=True, text=True, check=True)
    assert "LABEL=ESP" in tell.stdout.split("\n")
    assert "UUID=1234-ABCD" in tell.stdout.split("\n")
    assert "VERSION=FAT32" in tell.stdout.split("\n")


def test_nothing_outside_its_place_is_touched(tmp_path: Path) -> None:
    data = write(tmp_path / "disk").read_bytes()

    assert not data[:OFFSET].strip(b"\0")
    assert not data[OFFSET + SIZE :].strip(b"\0")
    assert len(data) == OFFSET + SIZE + (1 << 20)


def test_all_times_are_the_one_given(tmp_path: Path) -> None:
    data = write(tmp_path / "disk").read_bytes()

    day, moment = (2023 - 1980) << 9 | 11 << 5 | 14, 22 << 11 | 13 << 5 | 20 // 2
    for name in (b"EFI        ", b"BOOT       ", b"BOOTX64 EFI"):
        entry = data[data.index(name, OFFSET + 4096) :][:32]
        _, created, created_day, accessed_day, _, changed, changed_day = struct.unpack("<HHHHHHH", entry[12:26])
        assert (created_day, accessed_day, changed_day) == (day, day, day)
        assert (created, changed) == (moment, moment)


def test_times_that_fat_does_not_know_are_moved_to_the_nearest(tmp_path: Path) -> None:
    image = write(tmp_path / "disk", time=5)

    assert "1980-01-01   0:00" in mtools("mdir", image, "::/os").decode()


def test_the_same_arguments_give_the_same_bytes_in_any_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = write(tmp_path / "first")
    for name, value in (("TZ", "Asia/Tokyo"), ("SOURCE_DATE_EPOCH", "1"), ("MTOOLSRC", "/nowhere"), ("LANG", "de_DE")):
        monkeypatch.setenv(name, value)
    (tmp_path / "below").mkdir()
    monkeypatch.chdir(tmp_path / "below")

    assert write(tmp_path / "below/second").read_bytes() == first.read_bytes()


def test_files_without_room_are_one_line_before_anything_is_written(tmp_path: Path) -> None:
    image = tmp_path / "disk"

    with pytest.raises(BuildError, match="the EFI system partition of 160 MiB has no room for 158 MiB of files"):
        write(image, {"os/initrd": bytes(158 << 20)})

    assert not image.read_bytes().strip(b"\0")


def test_what_room_promises_has_room(tmp_path: Path) -> None:
    files = {"a": bytes(esp.room(SIZE) - 3000), "b/c": bytes(1000), "b/d": bytes(2000)}

    image = write(tmp_path / "disk", files)

    assert len(mtools("mtype", image, "::/a")) == len(files["a"])


def test_a_partition_too_small_for_fat32_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="has no room"):
        write(tmp_path / "disk", {}, size=esp.MIN_BYTES - (1 << 20))


def test_a_name_that_mtools_would_split_is_refused_and_no_other_image_touched(tmp_path: Path) -> None:
    other = write(tmp_path / "disk", {})
    before = other.read_bytes()

    with pytest.raises(BuildError, match=r"mtools cannot write into .*/disk@@1M\.part: it takes what comes before @@"):
        write(tmp_path / "disk@@1M.part")

    assert other.read_bytes() == before


def test_a_file_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match=r"^mkfs\.vfat failed with status 1: "):
        esp.write(tmp_path / "missing/disk", OFFSET, SIZE, FILES, label="ESP", serial=1, time=TIME)
