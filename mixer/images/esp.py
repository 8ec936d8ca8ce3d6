"""The EFI system partition of a disk image: FAT32 with the files that firmware and boot loader read.

It is made inside the image, at its offset, by mkfs.vfat (dosfstools) and mtools, so neither root nor a loop device is
needed. The same arguments give the same bytes: the serial number and all times are given, files are written in the
order given, and nothing of the caller's environment counts.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from mixer.errors import BuildError
from mixer.images.programs import ENVIRONMENT
from swupd import process

SECTOR_BYTES = 512
BLOCK_BYTES = 1024
"""What mkfs.vfat counts sizes in."""
CLUSTER_SECTORS = 4
MIN_BYTES = 160 << 20
"""Smaller than this the clusters would not be as many as FAT32 has at least (65,525)."""
OVERHEAD_BYTES = 4 << 20
"""More than the two tables of allocation and the reserved sectors take of the largest partition that we make."""
FAT_BEGIN = 315_532_800
FAT_END = 4_354_819_198
"""Times that FAT knows, from 1980 to 2107, in seconds since 1970."""

_OFFSET = "@@"
"""What stands between the name of an image and the offset in it, for mtools."""


def room(size: int) -> int:
    """Bytes of content that surely have room in a partition of `size` bytes."""
    return size - OVERHEAD_BYTES - size // 512


def write(
    image: Path, offset: int, size: int, files: Mapping[str, bytes], *, label: str, serial: int, time: int
) -> None:
    """Make the file system of `size` bytes at `offset` of the image, with these files (path from its top -> content).

    `time` is that of all files, in seconds since 1970; `serial` has 32 bits. Raises BuildError if the files have no
    room, or for an image that mtools would look for elsewhere; CommandError if a program fails.
    """
    if _OFFSET in str(image):
        raise BuildError(
            f"mtools cannot write into {image}: it takes what comes before {_OFFSET} for the whole name",
            hint=f"choose a place without {_OFFSET} for the image",
        )
    needed = sum(len(content) for content in files.values())
    if size < MIN_BYTES or needed > room(size):
        raise BuildError(f"the EFI system partition of {size >> 20} MiB has no room for {needed >> 20} MiB of files")
    env = {**ENVIRONMENT, "SOURCE_DATE_EPOCH": str(min(max(time, FAT_BEGIN), FAT_END)), "MTOOLSRC": "/dev/null"}
    mkfs = ["mkfs.vfat", "--invariant", "-F", "32", "-s", str(CLUSTER_SECTORS), "-n", label, "-i", f"{serial:08x}"]
    process.run([*mkfs, "--offset", str(offset // SECTOR_BYTES), image, str(size // BLOCK_BYTES)], env=env)
    place = f"{image}{_OFFSET}{offset}"
    for directory in _directories(files):
        process.run(["mmd", "-i", place, f"::/{directory}"], env=env)
    for path, content in files.items():
        process.run(["mcopy", "-i", place, "-", f"::/{path}"], env=env, stdin=content)


def _directories(files: Mapping[str, bytes]) -> list[str]:
    """Those that have to be made, parents first."""
    parents = (str(parent) for path in files for parent in reversed(PurePosixPath(path).parents))
    return [parent for parent in dict.fromkeys(parents) if parent != "."]
