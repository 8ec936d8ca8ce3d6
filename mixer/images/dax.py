"""What stands around file systems so that guests map them with DAX: the image format of Kata Containers.

A guest that has the image as a persistent memory device (QEMU's nvdimm) finds the PFN super block, which says that what
counts begins at 2 MiB; from there on it reads a partition table. Whoever reads the image as a disk (virtio-blk) finds
another table, which names the same partitions. Both are of the kind MBR.

    0               partition table of the whole image
    4 KiB           PFN super block
    2 MiB           partition table of what begins here
    3 MiB           the first partition; the next ones follow at multiples of 1 MiB, the last goes to the end

* The size is a multiple of 128 MiB, as the hosts' memory hotplug wants it. What no file system takes is a hole.
* Nothing depends on anything but sizes.

The super block is `struct nd_pfn_sb` of the kernel's drivers/nvdimm/pfn.h. Spec: seed systems, section 4.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import BinaryIO

from mixer.errors import BuildError
from mixer.images.gpt import SECTOR_BYTES, Extent

MIB = 1 << 20
DATA_OFFSET = 2 * MIB
"""Where the device of a guest begins in the image."""
SIZE_ALIGNMENT = 128 * MIB
MAX_PARTITIONS = 4
MAX_BYTES = 2**32 * SECTOR_BYTES
"""Of an image: a table counts sectors with 32 bits."""

_PFN_OFFSET = 4096
_PFN = struct.Struct("<16s16s16sIHHQQIIII4000xQ")
_PFN_MODE_RAM = 1
"""The guest describes the pages in its own memory, not on the device."""

_DISK_SIGNATURE = 0x4B415441
_LINUX = 0x83
_NO_CYLINDERS = b"\xfe\xff\xff"
"""Stands for a sector that only its number names."""
_MBR_ENTRY = struct.Struct("<B3sB3sII")
_MBR = struct.Struct("<440xIH64s2s")


@dataclass(frozen=True, slots=True)
class Layout:
    """Where everything lies in an image, in bytes."""

    size: int
    partitions: tuple[Extent, ...]


def layout(sizes: Sequence[int]) -> Layout:
    """The layout of an image with a partition for each of these, one to four; they are sizes in bytes, at least one.

    Raises BuildError if they are too large for a partition table, ValueError for another number of them.
    """
    if not 1 <= len(sizes) <= MAX_PARTITIONS or min(sizes) < 1:
        raise ValueError(f"not one to {MAX_PARTITIONS} partitions, or one without a size: {list(sizes)}")
    offsets = [DATA_OFFSET + MIB]
    for size in sizes:
        offsets.append(offsets[-1] + _round_up(size, MIB))
    total = _round_up(offsets[-1], SIZE_ALIGNMENT)
    if total > MAX_BYTES:
        raise BuildError(
            f"an image of {total // MIB} MiB is too large for DAX, {MAX_BYTES // MIB} MiB are the most",
            hint="leave out bundles",
        )
    ends = [*offsets[1:-1], total]
    return Layout(total, tuple(Extent(start, end - start) for start, end in zip(offsets, ends, strict=False)))


def write_header(file: BinaryIO, layout: Layout) -> None:
    """Write tables and super block, and give the file its length. There it is all zeros, or not yet that long."""
    if file.seek(0, os.SEEK_END) < layout.size:
        file.truncate(layout.size)
    for offset, block in (
        (0, _partition_table(layout, 0)),
        (_PFN_OFFSET, _pfn_super_block()),
        (DATA_OFFSET, _partition_table(layout, DATA_OFFSET)),
    ):
        file.seek(offset)
        file.write(block)


def _partition_table(layout: Layout, start: int) -> bytes:
    """The first sector of the disk that begins at `start` of the image."""
    entries = b"".join(
        _MBR_ENTRY.pack(
            0,  # not active
            _NO_CYLINDERS,
            _LINUX,
            _NO_CYLINDERS,
            (partition.offset - start) // SECTOR_BYTES,
            partition.size // SECTOR_BYTES,
        )
        for partition in layout.partitions
    )
    return _MBR.pack(_DISK_SIGNATURE, 0, entries, b"\x55\xaa")


def _pfn_super_block() -> bytes:
    fields = (
        b"NVDIMM_PFN_INFO",
        b"",  # uuid
        b"",  # parent_uuid
        0,  # flags
        0,  # version_major
        2,  # version_minor
        DATA_OFFSET,
        0,  # npfns
        _PFN_MODE_RAM,
        0,  # start_pad
        0,  # end_trunc
        DATA_OFFSET,  # align
    )
    return _PFN.pack(*fields, _fletcher64(_PFN.pack(*fields, 0)))


def _fletcher64(data: bytes) -> int:
    """The sum of 32-bit words in the lower half, the sum of these sums in the upper."""
    low = high = 0
    for (word,) in struct.iter_unpack("<I", data):
        low = (low + word) & 0xFFFFFFFF
        high = (high + low) & 0xFFFFFFFF
    return high << 32 | low


def _round_up(size: int, alignment: int) -> int:
    return -(-size // alignment) * alignment
