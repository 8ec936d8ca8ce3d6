"""The content of files: extents in the DATA chunks, their sums for the csum tree, their users for the extent tree."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence

from crc32c import crc32c

from mixer.images.btrfs.chunks import Chunk, Device
from mixer.images.btrfs.format import (
    MAX_CSUMS,
    MAX_EXTENT,
    SECTORSIZE,
    Key,
    KeyType,
    ObjectId,
    TreeItem,
    data_extent_item,
    file_extent_reg,
    round_up,
)


class Data:
    """The DATA chunks while they are filled one after the other; they have room for all that will be stored."""

    def __init__(self, device: Device, chunks: Sequence[Chunk]) -> None:
        self._device = device
        self._chunks = chunks
        self._filled = 0
        self._csums: list[list[int]] = [[] for _ in chunks]
        self.extent_items: list[TreeItem] = []

    def store(self, root: int, inode: int, content: bytes) -> Iterator[TreeItem]:
        """Write the content of an inode of the subvolume `root`; returns the items of that inode, one an extent."""
        view = memoryview(content)
        offset = 0
        while offset < len(view):
            while not self._chunks[self._filled].free:
                self._filled += 1
            chunk = self._chunks[self._filled]
            piece = view[offset : offset + min(MAX_EXTENT, chunk.free)]
            length = round_up(len(piece), SECTORSIZE)
            bytenr = chunk.allocate(length)
            padding = bytes(length - len(piece))
            self._device.write(chunk, bytenr, piece, padding)
            csums = self._csums[self._filled]
            csums += [crc32c(piece[start : start + SECTORSIZE]) for start in range(0, len(piece), SECTORSIZE)]
            csums[-1] = crc32c(padding, csums[-1])
            key = Key(bytenr, KeyType.EXTENT_ITEM, length)
            self.extent_items.append(TreeItem(key, data_extent_item(root, inode, offset)))
            yield TreeItem(Key(inode, KeyType.EXTENT_DATA, offset), file_extent_reg(bytenr, length))
            offset += length

    def csum_items(self) -> Iterator[TreeItem]:
        """The sums of all sectors, in items as large as the kernel makes them."""
        for chunk, csums in zip(self._chunks, self._csums, strict=True):
            for start in range(0, len(csums), MAX_CSUMS):
                part = csums[start : start + MAX_CSUMS]
                key = Key(ObjectId.EXTENT_CSUM, KeyType.EXTENT_CSUM, chunk.bytenr + start * SECTORSIZE)
                yield TreeItem(key, struct.pack(f"<{len(part)}I", *part))
