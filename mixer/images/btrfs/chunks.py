"""Where everything lies on the device: chunks of logical addresses, and the bytes of the device behind them.

    device   0      1 MiB                                                       total_bytes
             | super | SYSTEM | SYSTEM copy | METADATA | METADATA copy | DATA 0 | DATA 1 | ... free ... |
                         no chunk lies over a mirror of the super block (64 MiB, 256 GiB)

SYSTEM holds the chunk tree, METADATA all other trees; both are written twice (profile DUP). DATA holds the content of
files, one after the other in chunks of a gigabyte, as the kernel makes them, so that a balance can move each of them.
What lies in a chunk fills it from its start without a gap.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from mixer.images.btrfs.format import (
    DEVID,
    SECTORSIZE,
    STRIPE_LEN,
    SUPER_OFFSETS,
    BlockGroup,
    Identity,
    Key,
    KeyType,
    ObjectId,
    TreeItem,
    block_group_item,
    chunk_item,
    dev_extent,
    dev_item,
    free_space_info,
    round_up,
)

MIB = 1 << 20
_RESERVED = MIB
"""The kernel keeps the beginning of a device free of chunks."""
_SYSTEM_LENGTH = 8 * MIB
_DATA_LENGTH = 1 << 30
_SMALLEST = 256 * MIB
"""Below this a kernel that writes soon finds no room for new chunks."""


@dataclass(slots=True)
class Chunk:
    """A range of logical addresses; `stripes` tells where each copy begins on the device."""

    flags: BlockGroup
    bytenr: int
    length: int
    stripes: tuple[int, ...]
    used: int = 0
    """Bytes from the start that are taken."""

    @property
    def free(self) -> int:
        return self.length - self.used

    def allocate(self, size: int) -> int:
        """The bytenr of the next `size` bytes."""
        if size > self.free:
            raise AssertionError(f"{self.flags!r}: {size} bytes are wanted, {self.free} are free")
        self.used += size
        return self.bytenr + self.used - size

    def item(self, identity: Identity) -> TreeItem:
        """Its item in the chunk tree, and the SYSTEM chunk's one in the super block."""
        key = Key(ObjectId.FIRST_CHUNK_TREE, KeyType.CHUNK_ITEM, self.bytenr)
        return TreeItem(key, chunk_item(identity, self.length, self.flags, self.stripes))

    def block_group_item(self) -> TreeItem:
        key = Key(self.bytenr, KeyType.BLOCK_GROUP_ITEM, self.length)
        return TreeItem(key, block_group_item(self.used, self.flags))

    def free_space_items(self) -> Iterator[TreeItem]:
        info = Key(self.bytenr, KeyType.FREE_SPACE_INFO, self.length)
        yield TreeItem(info, free_space_info(1 if self.free else 0))
        if self.free:
            yield TreeItem(Key(self.bytenr + self.used, KeyType.FREE_SPACE_EXTENT, self.free), b"")


class Layout:
    """The chunks for so many bytes of metadata and of data, from the start of the device on."""

    def __init__(self, metadata: int, data: int) -> None:
        self._logical = self._physical = _RESERVED
        self.system = self._chunk(BlockGroup.SYSTEM | BlockGroup.DUP, _SYSTEM_LENGTH)
        self.metadata = self._chunk(BlockGroup.METADATA | BlockGroup.DUP, metadata)
        lengths = [min(_DATA_LENGTH, data - start) for start in range(0, data, _DATA_LENGTH)]
        self.data = [self._chunk(BlockGroup.DATA, length) for length in lengths]
        self.size = max(self._physical, _SMALLEST)
        """The bytes that the device needs at least."""

    @property
    def chunks(self) -> list[Chunk]:
        return [self.system, self.metadata, *self.data]

    def _chunk(self, flags: BlockGroup, length: int) -> Chunk:
        length = round_up(length, MIB)
        copies = 2 if flags & BlockGroup.DUP else 1
        made = Chunk(flags, self._logical, length, tuple(self._place(length) for _ in range(copies)))
        self._logical += length
        return made

    def _place(self, length: int) -> int:
        for mirror in SUPER_OFFSETS:
            if self._physical < mirror + STRIPE_LEN and mirror < self._physical + length:
                self._physical = round_up(mirror + STRIPE_LEN, MIB)
        self._physical += length
        return self._physical - length

    def dev_extents(self, identity: Identity) -> Iterator[TreeItem]:
        """The items of the device tree."""
        for chunk in self.chunks:
            for offset in chunk.stripes:
                data = dev_extent(identity, chunk.bytenr, chunk.length)
                yield TreeItem(Key(DEVID, KeyType.DEV_EXTENT, offset), data)

    def dev_item(self, identity: Identity, total_bytes: int) -> bytes:
        bytes_used = sum(chunk.length * len(chunk.stripes) for chunk in self.chunks)
        return dev_item(identity, total_bytes, bytes_used)


class Device:
    """The part of a file that is the device."""

    def __init__(self, file: BinaryIO, offset: int, size: int) -> None:
        self._file = file
        self._offset = offset
        self.total_bytes = size // SECTORSIZE * SECTORSIZE
        if file.seek(0, 2) < offset + size:
            file.truncate(offset + size)

    def write(self, where: Chunk, bytenr: int, *pieces: bytes | memoryview) -> None:
        """Write the pieces, one after the other, from this bytenr of a chunk on, to each of its copies."""
        for stripe in where.stripes:
            self._file.seek(self._offset + stripe + bytenr - where.bytenr)
            for piece in pieces:
                self._file.write(piece)

    def write_super(self, at: int, block: bytes) -> None:
        self._file.seek(self._offset + at)
        self._file.write(block)
