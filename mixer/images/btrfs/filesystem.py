"""The parts put together: what is to be written is laid out, its trees placed, described and written."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import BinaryIO
from uuid import UUID

from mixer.errors import BuildError
from mixer.images.btrfs.btree import Tree
from mixer.images.btrfs.chunks import MIB, Chunk, Device, Layout
from mixer.images.btrfs.data import Data
from mixer.images.btrfs.format import (
    ANY_OFFSET,
    DEVID,
    MAX_LABEL,
    NODESIZE,
    SUPER_OFFSETS,
    DirType,
    Identity,
    Key,
    KeyType,
    ObjectId,
    TreeItem,
    dir_item,
    inode_item,
    inode_ref,
    name_hash,
    tree_block_item,
)
from mixer.images.btrfs.items import Item, data_size, in_order, metadata_size
from mixer.images.btrfs.subvolumes import Root, plant, relocation_root, tree_root_item
from mixer.images.btrfs.superblock import SUPER_SIZE, super_block


def required(items: Iterable[Item]) -> int:
    """The bytes that a file system with these items needs at least; raises ValueError as `write` does."""
    return _layout(in_order(items)).size


def write(file: BinaryIO, offset: int, size: int, items: Iterable[Item], *, label: str, uuid: UUID, time: int) -> None:
    """Write a file system of `size` bytes at `offset` of a file; all its times are `time`, in seconds since 1970.

    There the file is all zeros, best as a hole, or not yet that long: then it gets the length. The content of each file
    is asked for once, in the order of paths.

    Raises BuildError if `size` is less than `required`, for a file whose content has not the size that its item says,
    and for a directory with dozens of names that have the same hash; ValueError for items that make no file system and
    for a label that is too long.
    """
    if len(label.encode()) > MAX_LABEL:
        raise ValueError(f"the label has more than {MAX_LABEL} bytes: {label}")
    ordered = in_order(items)
    layout = _layout(ordered)
    if size < layout.size:
        needed = -(-layout.size // MIB)
        raise BuildError(
            f"a file system of {size // MIB} MiB is too small for {len(ordered)} files: {needed} MiB are needed"
        )
    device = Device(file, offset, size)
    identity = Identity.of(uuid)
    data = Data(device, layout.data)
    roots = [*plant(ordered, data, uuid, time), relocation_root(time)]

    dev_item = layout.dev_item(identity, device.total_bytes)
    chunk_items = [chunk.item(identity) for chunk in layout.chunks]
    key = Key(ObjectId.DEV_ITEMS, KeyType.DEV_ITEM, DEVID)
    chunk_tree = Tree(ObjectId.CHUNK_TREE, [TreeItem(key, dev_item), *chunk_items])
    _place([chunk_tree], layout.system)
    trees = [
        *(root.tree() for root in roots),
        Tree(ObjectId.CSUM_TREE, data.csum_items()),
        Tree(ObjectId.DEV_TREE, layout.dev_extents(identity)),
        Tree(ObjectId.UUID_TREE, [root.uuid_item() for root in roots if root.uuid.int]),
    ]
    describing = _describe(trees, chunk_tree, layout, data.extent_items, roots)

    for chunk, within in ((layout.metadata, [*trees, *describing]), (layout.system, [chunk_tree])):
        for tree in within:
            for bytenr, block in tree.blocks(identity):
                device.write(chunk, bytenr, block)
    root_tree = describing[0]
    for at in SUPER_OFFSETS:
        if at + SUPER_SIZE <= device.total_bytes:
            block = super_block(
                identity,
                at,
                label=label.encode(),
                total_bytes=device.total_bytes,
                bytes_used=sum(chunk.used for chunk in layout.chunks),
                root=(root_tree.root, root_tree.level),
                chunk_root=(chunk_tree.root, chunk_tree.level),
                dev_item=dev_item,
                sys_chunk=layout.system.item(identity),
            )
            device.write_super(at, block)


def _layout(items: Sequence[Item]) -> Layout:
    return Layout(metadata_size(items), data_size(items))


def _place(trees: Iterable[Tree], chunk: Chunk) -> None:
    chunk.used = 0
    for tree in trees:
        tree.start = chunk.allocate(tree.size)


def _describe(
    trees: Sequence[Tree],
    chunk_tree: Tree,
    layout: Layout,
    data_extents: Sequence[TreeItem],
    roots: Iterable[Root],
) -> list[Tree]:
    """The root tree and the other trees that say where all trees lie, themselves included; all get their places.

    They are made again until they take as much room as they say.
    """
    subvolumes = {root.objectid: root for root in roots}
    describing: list[Tree] = []
    shapes = None
    while shapes != [tree.shape for tree in describing]:
        shapes = [tree.shape for tree in describing]
        every = [*trees, *describing]
        _place(every, layout.metadata)
        describing = [
            Tree(ObjectId.ROOT_TREE, _root_items(every, subvolumes)),
            Tree(ObjectId.FREE_SPACE_TREE, (item for chunk in layout.chunks for item in chunk.free_space_items())),
            Tree(ObjectId.EXTENT_TREE, [*data_extents, *_extent_items([*every, chunk_tree], layout)]),
        ]
    _place([*trees, *describing], layout.metadata)
    return describing


def _root_items(trees: Iterable[Tree], subvolumes: dict[int, Root]) -> Iterator[TreeItem]:
    """The items of the root tree: all other trees but the chunk tree, and the directory that names the default one."""
    for tree in trees:
        if root := subvolumes.get(tree.objectid):
            yield root.root_item(tree)
            yield from root.references
        elif tree.objectid != ObjectId.ROOT_TREE:
            yield tree_root_item(tree)
    top = ObjectId.ROOT_TREE_DIR
    directory = inode_item(size=0, nbytes=NODESIZE, mode=0o040755, time=subvolumes[ObjectId.FS_TREE].time)
    default = dir_item(Key(ObjectId.FS_TREE, KeyType.ROOT_ITEM, ANY_OFFSET), DirType.DIR, b"default")
    yield TreeItem(Key(top, KeyType.INODE_ITEM, 0), directory)
    yield TreeItem(Key(top, KeyType.INODE_REF, top), inode_ref(0, b".."))
    yield TreeItem(Key(top, KeyType.DIR_ITEM, name_hash(b"default")), default)
    yield TreeItem(Key(ObjectId.FS_TREE, KeyType.INODE_REF, top), inode_ref(0, b"default"))


def _extent_items(trees: Iterable[Tree], layout: Layout) -> Iterator[TreeItem]:
    """The items of the extent tree for the nodes of trees and for block groups."""
    for tree in trees:
        data = tree_block_item(tree.objectid)
        for bytenr, level in tree.nodes():
            yield TreeItem(Key(bytenr, KeyType.METADATA_ITEM, level), data)
    for chunk in layout.chunks:
        yield chunk.block_group_item()
