"""The partition table of a disk image: GPT, written by sfdisk (util-linux) into a file, so no loop device is needed.

* Partitions follow each other in the order given, each begins at a multiple of ALIGNMENT, and the last may take what is
  left. The ends of the disk are left to the tables.
* All GUIDs follow from a seed, so the same disk gets the same bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID, uuid5

from mixer.images.programs import ENVIRONMENT
from swupd import process

SECTOR_BYTES = 512
ALIGNMENT = 1 << 20
"""Bytes; the first and the last so many belong to the two tables."""

ESP = UUID("c12a7328-f81f-11d2-ba4b-00a0c93ec93b")
"""Type of the partition that firmware reads."""
ROOT_X86_64 = UUID("4f68bce3-e8cd-4db1-96e7-fbcaf984b709")
"""Type of the partition of an x86-64 root (Discoverable Partitions Specification)."""


@dataclass(frozen=True, slots=True)
class Partition:
    """A partition that is wanted."""

    name: str
    type: UUID
    size: int
    """Bytes, a multiple of ALIGNMENT; 0: what is left, of the last one only."""


@dataclass(frozen=True, slots=True)
class Extent:
    """Where a partition lies in the image, in bytes."""

    offset: int
    size: int


def extents(disk_size: int, partitions: Sequence[Partition]) -> list[Extent]:
    """Where the partitions of a disk of this many bytes (a multiple of ALIGNMENT) lie.

    Raises ValueError if they do not fit.
    """
    placed: list[Extent] = []
    offset, end = ALIGNMENT, disk_size - ALIGNMENT
    for partition in partitions:
        size = partition.size or end - offset
        if size <= 0 or size % ALIGNMENT or offset + size > end:
            raise ValueError(f"partition {partition.name} does not fit into {disk_size} bytes")
        placed.append(Extent(offset, size))
        offset += size
    return placed


def write(image: Path, partitions: Sequence[Partition], seed: UUID) -> list[Extent]:
    """Write the table of these partitions into an image that has its size already; returns where they lie.

    Raises ValueError if they do not fit, CommandError if sfdisk fails.
    """
    placed = extents(image.stat().st_size, partitions)
    lines = ["label: gpt", f"label-id: {uuid5(seed, 'disk')}", f"first-lba: {ALIGNMENT // SECTOR_BYTES}"]
    for partition, extent in zip(partitions, placed, strict=True):
        start, size = extent.offset // SECTOR_BYTES, extent.size // SECTOR_BYTES
        guid = uuid5(seed, f"partition {partition.name}")
        lines.append(f'start={start}, size={size}, type={partition.type}, uuid={guid}, name="{partition.name}"')
    argv = ["sfdisk", "--quiet", "--no-reread", "--no-tell-kernel"]
    process.run([*argv, image], env=ENVIRONMENT, stdin="\n".join(lines).encode())
    return placed
