"""The super block: where a reader begins, at a fixed place of the device and again at its mirrors."""

from __future__ import annotations

import struct

from mixer.images.btrfs.format import (
    GENERATION,
    HEADER_WRITTEN,
    NODESIZE,
    SECTORSIZE,
    Identity,
    ObjectId,
    TreeItem,
    with_csum,
)

SUPER_SIZE = 4096
_MAGIC = b"_BHRfS_M"
_CSUM_TYPE_CRC32C = 0
_COMPAT_RO_FREE_SPACE_TREE = 1 << 0 | 1 << 1
"""There is a free space tree, and it is valid."""
_INCOMPAT = 1 << 0 | 1 << 5 | 1 << 6 | 1 << 8 | 1 << 9
"""MIXED_BACKREF, BIG_METADATA (nodes larger than a page), EXTENDED_IREF, SKINNY_METADATA, NO_HOLES."""

_SYS_CHUNK_ARRAY = 811
"""Where it begins in the super block; what is before and behind it and not packed here is zero."""

_KEY = struct.Struct("<QBQ")
_SUPER = struct.Struct("<32x16sQQ8sQQQQQQQQQIIIIIQQQQHBBB98s256sQQ")


def super_block(
    identity: Identity,
    at: int,
    *,
    label: bytes,
    total_bytes: int,
    bytes_used: int,
    root: tuple[int, int],
    chunk_root: tuple[int, int],
    dev_item: bytes,
    sys_chunk: TreeItem,
) -> bytes:
    """The super block for this offset `at` of the device; `root` and `chunk_root`: bytenr and level."""
    sys_chunk_array = _KEY.pack(*sys_chunk.key) + sys_chunk.data
    head = _SUPER.pack(
        identity.fsid.bytes,
        at,
        HEADER_WRITTEN,
        _MAGIC,
        GENERATION,
        root[0],
        chunk_root[0],
        0,  # log_root
        0,  # log_root_transid
        total_bytes,
        bytes_used,
        ObjectId.ROOT_TREE_DIR,
        1,  # num_devices
        SECTORSIZE,
        NODESIZE,
        NODESIZE,  # leafsize
        SECTORSIZE,  # stripesize
        len(sys_chunk_array),
        GENERATION,  # chunk_root_generation
        0,  # compat_flags
        _COMPAT_RO_FREE_SPACE_TREE,
        _INCOMPAT,
        _CSUM_TYPE_CRC32C,
        root[1],
        chunk_root[1],
        0,  # log_root_level
        dev_item,
        label,
        0,  # cache_generation
        GENERATION,  # uuid_tree_generation
    )
    return with_csum((head.ljust(_SYS_CHUNK_ARRAY, b"\0") + sys_chunk_array).ljust(SUPER_SIZE, b"\0"))
