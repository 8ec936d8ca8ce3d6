from __future__ import annotations

import re
import subprocess
from pathlib import Path
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixer.images import gpt
from mixer.images.gpt import Extent, Partition
from swupd.errors import CommandError

MIB = 1 << 20
SEED = UUID("12345678-1234-5678-1234-567812345678")
PARTITIONS = (Partition("ESP", gpt.ESP, 10 * MIB), Partition("os", gpt.ROOT_X86_64, 0))


def image(path: Path, size: int = 64 * MIB) -> Path:
    with path.open("xb") as file:
        file.truncate(size)
    return path


def dump(path: Path) -> str:
    return subprocess.run(["/usr/sbin/sfdisk", "-d", path], capture_output=True, text=True, check=True).stdout


def test_the_table_says_what_was_wanted(tmp_path: Path) -> None:
    path = image(tmp_path / "disk")

    assert gpt.write(path, PARTITIONS, SEED) == [Extent(MIB, 10 * MIB), Extent(11 * MIB, 52 * MIB)]

    found = re.findall(r"start= *(\d+), size= *(\d+), type=([0-9A-F-]+), uuid=[0-9A-F-]+, name=\"(.*)\"", dump(path))
    assert found == [
        ("2048", "20480", "C12A7328-F81F-11D2-BA4B-00A0C93EC93B", "ESP"),
        ("22528", "106496", "4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709", "os"),
    ]


def test_the_table_has_no_mistake(tmp_path: Path) -> None:
    path = image(tmp_path / "disk")
    gpt.write(path, PARTITIONS, SEED)

    done = subprocess.run(["/usr/sbin/sfdisk", "--verify", path], capture_output=True, text=True, check=False)

    assert (done.returncode, done.stderr) == (0, "")
    assert "No errors detected" in done.stdout


def test_the_same_seed_gives_the_same_bytes_and_another_seed_does_not(tmp_path: Path) -> None:
    first, second, other = (image(tmp_path / name) for name in ("first", "second", "other"))
    gpt.write(first, PARTITIONS, SEED)
    gpt.write(second, PARTITIONS, SEED)
    gpt.write(other, PARTITIONS, UUID(int=1))

    assert first.read_bytes() == second.read_bytes()
    assert first.read_bytes() != other.read_bytes()


def test_partitions_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="partition ESP does not fit into 11534336 bytes"):
        gpt.write(image(tmp_path / "disk", 11 * MIB), PARTITIONS, SEED)


def test_a_last_partition_without_any_room_is_refused() -> None:
    with pytest.raises(ValueError, match="partition os does not fit"):
        gpt.extents(12 * MIB, PARTITIONS)


def test_a_place_that_sfdisk_cannot_write_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "directory").mkdir()

    with pytest.raises((CommandError, ValueError)) as caught:
        gpt.write(tmp_path / "directory", (), SEED)

    assert "\n" not in str(caught.value)


@given(st.lists(st.integers(1, 100), min_size=1, max_size=5), st.integers(1, 100))
def test_partitions_are_aligned_and_do_not_overlap(sizes: list[int], rest: int) -> None:
    disk = (sum(sizes) + rest + 2) * MIB
    partitions = [Partition(str(number), gpt.ESP, size * MIB) for number, size in enumerate(sizes)]

    placed = gpt.extents(disk, [*partitions, Partition("rest", gpt.ESP, 0)])

    assert [extent.size for extent in placed] == [*(size * MIB for size in sizes), rest * MIB]
    assert all(extent.offset % MIB == 0 for extent in placed)
    ends = [MIB, *(extent.offset + extent.size for extent in placed)]
    assert [extent.offset for extent in placed] == ends[:-1]
    assert ends[-1] == disk - MIB
