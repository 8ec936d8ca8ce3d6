"""The on-disk format of btrfs: its numbers, keys and structures, each in one place.

Names are those of the format (`btrfs_inode_item` is `inode_item` here). All numbers are little-endian, all structures
packed. A *bytenr* is a logical address; chunks map it to the device. A node of a tree takes NODESIZE bytes:

    header   csum 32 | fsid 16 | bytenr 8 | flags 8 | chunk_tree_uuid 16 | generation 8 | owner 8 | nritems 4 | level 1
    leaf     header | item 0 | item 1 | ...            free            ... | data of item 1 | data of item 0
             item     objectid 8 | type 1 | offset 8 | offset of its data behind the header 4 | size of its data 4
    inner    header | key_ptr 0 | key_ptr 1 | ...                                                           free
             key_ptr  objectid 8 | type 1 | offset 8 | blockptr 8 | generation 8

Everything that is written has the same generation: it is the work of a single transaction.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from enum import IntEnum, IntFlag
from typing import NamedTuple
from uuid import UUID, uuid5

from crc32c import crc32c

SECTORSIZE = 4096
NODESIZE = 16384
STRIPE_LEN = 65536
GENERATION = 1
DEVID = 1
NO_UUID = UUID(int=0)

MAX_INLINE = 2048
"""Content up to this size is kept in the leaf, as the kernel does it unless told otherwise."""
MAX_EXTENT = 128 << 20
MAX_NAME = 255
MAX_TARGET = 4095
MAX_LABEL = 255

SUPER_OFFSETS = (64 << 10, 64 << 20, 256 << 30)
"""Where the super block and its mirrors lie on the device."""


class ObjectId(IntEnum):
    """Trees, and objects with a number of their own."""

    ROOT_TREE = 1
    EXTENT_TREE = 2
    CHUNK_TREE = 3
    DEV_TREE = 4
    FS_TREE = 5
    ROOT_TREE_DIR = 6
    CSUM_TREE = 7
    UUID_TREE = 9
    FREE_SPACE_TREE = 10
    DATA_RELOC_TREE = 2**64 - 9
    EXTENT_CSUM = 2**64 - 10
    DEV_ITEMS = 1
    FIRST_CHUNK_TREE = 256
    FIRST_FREE = 256
    """The first subvolume; in the tree of a subvolume, its top directory."""


class KeyType(IntEnum):
    """What an item is."""

    INODE_ITEM = 1
    INODE_REF = 12
    DIR_ITEM = 84
    DIR_INDEX = 96
    EXTENT_DATA = 108
    EXTENT_CSUM = 128
    ROOT_ITEM = 132
    ROOT_BACKREF = 144
    ROOT_REF = 156
    EXTENT_ITEM = 168
    METADATA_ITEM = 169
    TREE_BLOCK_REF = 176
    EXTENT_DATA_REF = 178
    BLOCK_GROUP_ITEM = 192
    FREE_SPACE_INFO = 198
    FREE_SPACE_EXTENT = 199
    DEV_EXTENT = 204
    DEV_ITEM = 216
    CHUNK_ITEM = 228
    UUID_KEY_SUBVOL = 251


class BlockGroup(IntFlag):
    """What a chunk is for, and its profile; single is no flag."""

    DATA = 1
    SYSTEM = 2
    METADATA = 4
    DUP = 32


class DirType(IntEnum):
    """What a directory entry names."""

    REG_FILE = 1
    DIR = 2
    SYMLINK = 7


HEADER_WRITTEN = 1
"""A flag of nodes and of super blocks."""
ROOT_SUBVOL_RDONLY = 1
DIR_START_INDEX = 2
"""Entries of a directory are numbered from here; 0 and 1 stand for "." and ".."."""
ANY_OFFSET = 2**64 - 1
"""The offset in a key that points to a root, whatever the offset of its ROOT_ITEM is."""

_MIXED_BACKREF_REV = 1 << 56
_EXTENT_DATA = 1
_EXTENT_TREE_BLOCK = 2
_FILE_EXTENT_INLINE = 0
_FILE_EXTENT_REG = 1
_INODE_ROOT_ITEM_INIT = 1 << 31
"""Without it the kernel takes the flags of a root item for garbage and clears them."""
_S_IFDIR = 0o040000

_HEADER = struct.Struct("<32x16sQQ16sQQIB")
_ITEM = struct.Struct("<QBQII")
_KEY_PTR = struct.Struct("<QBQQQ")

ITEM_SIZE = _ITEM.size
LEAF_DATA_SIZE = NODESIZE - _HEADER.size
"""What the items of a leaf and their data may take."""
MAX_ITEM = LEAF_DATA_SIZE - ITEM_SIZE
"""The data that a single item can have."""
NODE_POINTERS = LEAF_DATA_SIZE // _KEY_PTR.size
CSUM_SIZE = 4
MAX_CSUMS = (LEAF_DATA_SIZE - 2 * ITEM_SIZE) // CSUM_SIZE - 1
"""Sums in one item of the csum tree, the kernel's limit."""


class Key(NamedTuple):
    """Objectid, type, offset: items of a tree are sorted by it."""

    objectid: int
    type: KeyType
    offset: int


class TreeItem(NamedTuple):
    key: Key
    data: bytes


class Identity(NamedTuple):
    """What tells this file system, its device and its chunk tree from all others."""

    fsid: UUID
    device: UUID
    chunk_tree: UUID

    @classmethod
    def of(cls, fsid: UUID) -> Identity:
        return cls(fsid, uuid5(fsid, "device"), uuid5(fsid, "chunk tree"))


def round_up(number: int, unit: int) -> int:
    return -(-number // unit) * unit


def with_csum(block: bytes) -> bytes:
    """A node or super block with the sum over all but its first 32 bytes, where the sum goes."""
    return crc32c(memoryview(block)[32:]).to_bytes(4, "little") + block[4:]


def name_hash(name: bytes) -> int:
    """The offset of the DIR_ITEM that has the name: its CRC-32C from the seed ~1, not inverted at the end."""
    return crc32c(name, 1) ^ 0xFFFFFFFF


# Nodes of trees


def _header(identity: Identity, bytenr: int, owner: int, nritems: int, level: int) -> bytes:
    flags = HEADER_WRITTEN | _MIXED_BACKREF_REV
    place = (identity.fsid.bytes, bytenr, flags, identity.chunk_tree.bytes)
    return _HEADER.pack(*place, GENERATION, owner, nritems, level)


def leaf(identity: Identity, bytenr: int, owner: int, items: Sequence[TreeItem]) -> bytes:
    head = [_header(identity, bytenr, owner, len(items), 0)]
    end = LEAF_DATA_SIZE
    for key, data in items:
        end -= len(data)
        head.append(_ITEM.pack(*key, end, len(data)))
    tail = b"".join(data for _, data in reversed(items))
    return with_csum(b"".join(head).ljust(NODESIZE - len(tail), b"\0") + tail)


def inner_node(identity: Identity, bytenr: int, owner: int, level: int, children: Sequence[tuple[Key, int]]) -> bytes:
    """`children`: the first key below each, and its bytenr."""
    head = _header(identity, bytenr, owner, len(children), level)
    pointers = b"".join(_KEY_PTR.pack(*key, blockptr, GENERATION) for key, blockptr in children)
    return with_csum((head + pointers).ljust(NODESIZE, b"\0"))


# The tree of a subvolume

_INODE_ITEM = struct.Struct("<QQQQQIIIIQQQ32xQIQIQIQI")


def inode_item(
    *, size: int, nbytes: int, mode: int, time: int, uid: int = 0, gid: int = 0, nlink: int = 1, flags: int = 0
) -> bytes:
    """`mode` with the type of the file; all four times are `time`, in seconds."""
    block_group = rdev = sequence = 0
    times = (time, 0) * 4
    return _INODE_ITEM.pack(
        *(GENERATION, GENERATION, size, nbytes, block_group, nlink, uid, gid, mode, rdev, flags, sequence, *times)
    )


_INODE_REF = struct.Struct("<QH")


def inode_ref(index: int, name: bytes) -> bytes:
    return _INODE_REF.pack(index, len(name)) + name


_DIR_ITEM = struct.Struct("<QBQQHHB")


def dir_item(location: Key, kind: DirType, name: bytes) -> bytes:
    """The data of a DIR_ITEM or DIR_INDEX; names with the same hash stand one after the other in one DIR_ITEM."""
    return _DIR_ITEM.pack(*location, GENERATION, 0, len(name), kind) + name


_FILE_EXTENT = struct.Struct("<QQ4xB")
"""Four bytes say that nothing is compressed, encrypted or encoded."""
_FILE_EXTENT_REG_DISK = struct.Struct("<QQQQ")


def file_extent_inline(content: bytes) -> bytes:
    return _FILE_EXTENT.pack(GENERATION, len(content), _FILE_EXTENT_INLINE) + content


def file_extent_reg(bytenr: int, length: int) -> bytes:
    """A whole extent of data, used from its first byte to its last."""
    head = _FILE_EXTENT.pack(GENERATION, length, _FILE_EXTENT_REG)
    return head + _FILE_EXTENT_REG_DISK.pack(bytenr, length, 0, length)


# The root tree

_ROOT_ITEM = struct.Struct("<160sQQQQQQQI17xBBQ16s16x16xQQQQQIQIQIQI64x")


def root_item(*, bytenr: int, level: int, bytes_used: int, root_dirid: int, flags: int, uuid: UUID, time: int) -> bytes:
    """`root_dirid` is 0 for a tree without files, `uuid` NO_UUID for one that is no subvolume."""
    inode = inode_item(size=3, nbytes=NODESIZE, mode=_S_IFDIR | 0o755, time=0, flags=_INODE_ROOT_ITEM_INIT)
    byte_limit = last_snapshot = drop_level = 0
    refs = 1
    position = (GENERATION, root_dirid, bytenr, byte_limit, bytes_used, last_snapshot, flags, refs, drop_level, level)
    transids = (GENERATION, GENERATION, 0, 0)  # changed, made; sent and received never
    times = (time, 0, time, 0, 0, 0, 0, 0)
    return _ROOT_ITEM.pack(inode, *position, GENERATION, uuid.bytes, *transids, *times)


_ROOT_REF = struct.Struct("<QQH")


def root_ref(dirid: int, index: int, name: bytes) -> bytes:
    """Where a subvolume hangs: the entry `index` of the directory `dirid` of its parent. Data of both directions."""
    return _ROOT_REF.pack(dirid, index, len(name)) + name


_UUID_HALVES = struct.Struct("<QQ")


def uuid_item(uuid: UUID, subvolume: int) -> TreeItem:
    first, second = _UUID_HALVES.unpack(uuid.bytes)
    return TreeItem(Key(first, KeyType.UUID_KEY_SUBVOL, second), subvolume.to_bytes(8, "little"))


# The extent tree and the free space tree

_EXTENT_ITEM = struct.Struct("<QQQ")
_TREE_BLOCK_REF = struct.Struct("<BQ")


def tree_block_item(owner: int) -> bytes:
    return _EXTENT_ITEM.pack(1, GENERATION, _EXTENT_TREE_BLOCK) + _TREE_BLOCK_REF.pack(KeyType.TREE_BLOCK_REF, owner)


_EXTENT_DATA_REF = struct.Struct("<BQQQI")


def data_extent_item(root: int, inode: int, offset: int) -> bytes:
    """An extent with one user: the inode of a subvolume, at this offset in the file."""
    reference = _EXTENT_DATA_REF.pack(KeyType.EXTENT_DATA_REF, root, inode, offset, 1)
    return _EXTENT_ITEM.pack(1, GENERATION, _EXTENT_DATA) + reference


_BLOCK_GROUP_ITEM = struct.Struct("<QQQ")


def block_group_item(used: int, flags: BlockGroup) -> bytes:
    return _BLOCK_GROUP_ITEM.pack(used, ObjectId.FIRST_CHUNK_TREE, flags)


_FREE_SPACE_INFO = struct.Struct("<II")


def free_space_info(extents: int) -> bytes:
    return _FREE_SPACE_INFO.pack(extents, 0)


# Chunks and the device

_DEV_EXTENT = struct.Struct("<QQQQ16s")


def dev_extent(identity: Identity, bytenr: int, length: int) -> bytes:
    chunk_tree = identity.chunk_tree.bytes
    return _DEV_EXTENT.pack(ObjectId.CHUNK_TREE, ObjectId.FIRST_CHUNK_TREE, bytenr, length, chunk_tree)


_DEV_ITEM = struct.Struct("<QQQIII30x16s16s")


def dev_item(identity: Identity, total_bytes: int, bytes_used: int) -> bytes:
    sizes = (total_bytes, bytes_used, SECTORSIZE, SECTORSIZE, SECTORSIZE)
    return _DEV_ITEM.pack(DEVID, *sizes, identity.device.bytes, identity.fsid.bytes)


_CHUNK = struct.Struct("<QQQQIIIHH")
_STRIPE = struct.Struct("<QQ16s")


def chunk_item(identity: Identity, length: int, flags: BlockGroup, stripes: Sequence[int]) -> bytes:
    """`stripes`: where each copy begins on the device."""
    owner = ObjectId.EXTENT_TREE
    sub_stripes = 1
    io = (STRIPE_LEN, STRIPE_LEN, SECTORSIZE)
    head = _CHUNK.pack(length, owner, STRIPE_LEN, flags, *io, len(stripes), sub_stripes)
    return head + b"".join(_STRIPE.pack(DEVID, offset, identity.device.bytes) for offset in stripes)
