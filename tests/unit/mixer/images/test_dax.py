from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixer.errors import BuildError
from mixer.images import dax
from mixer.images.gpt import Extent

MIB = 1 << 20
PFN_SUPER_BLOCK = (
    b"NVDIMM_PFN_INFO\0"
    + bytes(16 + 16)  # uuid, parent_uuid
    + bytes.fromhex("00000000 0000 0200")  # flags, version 0.2
    + bytes.fromhex("0000200000000000 0000000000000000")  # dataoff of 2 MiB, npfns
    + bytes.fromhex("01000000 00000000 00000000 00002000")  # mode RAM, start_pad, end_trunc, align of 2 MiB
    + bytes(4000)
    + bytes.fromhex("303894e32b035b68")  # fletcher64
)
MBR = bytes(440) + bytes.fromhex("4154414b 0000 00 feffff 83 feffff")


def image(path: Path, *sizes: int) -> dax.Layout:
    layout = dax.layout(sizes)
    with path.open("w+b") as file:
        dax.write_header(file, layout)
    return layout


def partitions(path: Path, start: int = 0) -> list[tuple[int, int]]:
    """What sfdisk finds on the disk that begins at `start`: offsets from there and sizes, in bytes."""
    disk = path.with_name("disk")
    with path.open("rb") as whole, disk.open("wb") as rest:
        whole.seek(start)
        rest.write(whole.read(MIB))
        rest.truncate(path.stat().st_size - start)
    done = subprocess.run(["/usr/sbin/sfdisk", "--json", disk], capture_output=True, check=True)
    table = json.loads(done.stdout)["partitiontable"]
    assert (table["label"], table["unit"], table["sectorsize"]) == ("dos", "sectors", 512)
    assert {partition["type"] for partition in table["partitions"]} == {"83"}
    return [(partition["start"] * 512, partition["size"] * 512) for partition in table["partitions"]]


def test_the_header_is_what_kata_containers_expects(tmp_path: Path) -> None:
    image(tmp_path / "image", 50 * MIB)
    data = (tmp_path / "image").read_bytes()

    assert len(data) == 128 * MIB
    count = bytes.fromhex("00e80300")  # 125 MiB in sectors
    assert data[:512] == MBR + bytes.fromhex("00180000") + count + bytes(48) + b"\x55\xaa"
    assert data[4096:8192] == PFN_SUPER_BLOCK
    assert data[2 * MIB : 2 * MIB + 512] == MBR + bytes.fromhex("00080000") + count + bytes(48) + b"\x55\xaa"
    assert not any((data[512:4096].strip(b"\0"), data[8192 : 2 * MIB].strip(b"\0"), data[2 * MIB + 512 :].strip(b"\0")))


def test_both_tables_name_the_same_partitions(tmp_path: Path) -> None:
    layout = image(tmp_path / "image", 50 * MIB + 1, 5)

    assert layout.partitions == (Extent(3 * MIB, 51 * MIB), Extent(54 * MIB, 74 * MIB))
    assert partitions(tmp_path / "image") == [(3 * MIB, 51 * MIB), (54 * MIB, 74 * MIB)]
    assert partitions(tmp_path / "image", 2 * MIB) == [(MIB, 51 * MIB), (52 * MIB, 74 * MIB)]


def test_what_is_in_the_partitions_stays(tmp_path: Path) -> None:
    layout = dax.layout([MIB])
    with (tmp_path / "image").open("w+b") as file:
        file.seek(layout.partitions[0].offset)
        file.write(b"file system" * 1000)
        dax.write_header(file, layout)

    data = (tmp_path / "image").read_bytes()
    assert data[3 * MIB :].rstrip(b"\0") == b"file system" * 1000
    assert len(data) == 128 * MIB


def test_an_image_that_just_fits_has_no_room_left(tmp_path: Path) -> None:
    assert image(tmp_path / "image", 125 * MIB).size == 128 * MIB
    assert dax.layout([125 * MIB + 1]).size == 256 * MIB


def test_an_image_too_large_for_a_partition_table_is_refused() -> None:
    assert dax.layout([dax.MAX_BYTES - 3 * MIB]).size == dax.MAX_BYTES
    with pytest.raises(BuildError, match="an image of 2097280 MiB is too large for DAX, 2097152 MiB are the most"):
        dax.layout([dax.MAX_BYTES - 3 * MIB, 1])


@pytest.mark.parametrize("sizes", [[], [0], [MIB, -1], [1] * 5])
def test_impossible_partitions_are_refused(sizes: list[int]) -> None:
    with pytest.raises(ValueError, match="partitions"):
        dax.layout(sizes)


@given(st.lists(st.integers(1, 1 << 34), min_size=1, max_size=4))
def test_partitions_are_aligned_large_enough_and_fill_the_image(sizes: list[int]) -> None:
    layout = dax.layout(sizes)

    assert layout.size % (128 * MIB) == 0
    assert all(extent.size >= size for extent, size in zip(layout.partitions, sizes, strict=True))
    assert all(extent.offset % MIB == extent.size % MIB == 0 for extent in layout.partitions)
    offsets = [extent.offset for extent in layout.partitions]
    assert [3 * MIB, *(extent.offset + extent.size for extent in layout.partitions)] == [*offsets, layout.size]
