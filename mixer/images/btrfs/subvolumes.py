"""Items become the trees of subvolumes: inodes, directory entries, and what the root tree says of each subvolume.

Inodes are numbered in the order of paths, subvolumes too. An inode of the tree of a subvolume consists of

    INODE_ITEM   mode, owner, size, times
    INODE_REF    the directory that it is in, its name and number there
    DIR_ITEM     one for each hash of a name in the directory: the entries with that hash
    DIR_INDEX    one for each entry of the directory, by its number
    EXTENT_DATA  one for each extent of the content, or the content itself

A directory entry that is a subvolume names the root instead of an inode; ROOT_REF and ROOT_BACKREF in the root tree say
where it hangs. The size of a directory is that of its names, counted twice.
"""

from __future__ import annotations

import os
import stat
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import count
from uuid import UUID, uuid5

from mixer.errors import BuildError
from mixer.images.btrfs.btree import Tree
from mixer.images.btrfs.data import Data
from mixer.images.btrfs.format import (
    ANY_OFFSET,
    DIR_START_INDEX,
    MAX_ITEM,
    NO_UUID,
    ROOT_SUBVOL_RDONLY,
    SECTORSIZE,
    DirType,
    Key,
    KeyType,
    ObjectId,
    TreeItem,
    dir_item,
    file_extent_inline,
    inode_item,
    inode_ref,
    name_hash,
    root_item,
    root_ref,
    round_up,
    uuid_item,
)
from mixer.images.btrfs.items import Item
from swupd.formats.manifest import FileType

_KINDS = {
    FileType.FILE: (DirType.REG_FILE, stat.S_IFREG),
    FileType.DIRECTORY: (DirType.DIR, stat.S_IFDIR),
    FileType.LINK: (DirType.SYMLINK, stat.S_IFLNK),
}
TOP = ObjectId.FIRST_FREE
"""The inode of the top directory of each subvolume."""


@dataclass(slots=True)
class Root:
    """A tree with files: a subvolume, or the one that the kernel moves data with."""

    objectid: int
    uuid: UUID
    time: int
    read_only: bool = False
    items: list[TreeItem] = field(
        default_factory=lambda: [TreeItem(Key(TOP, KeyType.INODE_REF, TOP), inode_ref(0, b".."))]
    )
    """Of its tree."""
    references: list[TreeItem] = field(default_factory=list)
    """The items of the root tree that say where it hangs; the top level hangs nowhere."""
    inodes: Iterator[int] = field(default_factory=lambda: count(TOP + 1))

    def tree(self) -> Tree:
        return Tree(self.objectid, self.items)

    def uuid_item(self) -> TreeItem:
        return uuid_item(self.uuid, self.objectid)

    def root_item(self, tree: Tree) -> TreeItem:
        """The item of the root tree for its tree, which has been placed."""
        flags = ROOT_SUBVOL_RDONLY if self.read_only else 0
        return tree_root_item(tree, root_dirid=TOP, flags=flags, uuid=self.uuid, time=self.time)


@dataclass(slots=True)
class _Directory:
    """A directory while its entries become known."""

    root: Root
    inode: int
    item: Item
    entries: list[tuple[Key, DirType, bytes]] = field(default_factory=list)

    def add_inode(self, item: Item) -> int:
        """Returns the number of the inode that the item gets."""
        inode = next(self.root.inodes)
        index = self._add(Key(inode, KeyType.INODE_ITEM, 0), item)
        self.root.items.append(TreeItem(Key(inode, KeyType.INODE_REF, self.inode), inode_ref(index, item.name)))
        return inode

    def add_subvolume(self, root: Root, item: Item) -> None:
        data = root_ref(self.inode, self._add(Key(root.objectid, KeyType.ROOT_ITEM, ANY_OFFSET), item), item.name)
        root.references += [
            TreeItem(Key(self.root.objectid, KeyType.ROOT_REF, root.objectid), data),
            TreeItem(Key(root.objectid, KeyType.ROOT_BACKREF, self.root.objectid), data),
        ]

    def _add(self, location: Key, item: Item) -> int:
        self.entries.append((location, _KINDS[item.type][0], item.name))
        return DIR_START_INDEX + len(self.entries) - 1

    def close(self) -> None:
        """Make the items that depend on all entries. Raises BuildError for too many names of the same hash."""
        size = 2 * sum(len(name) for _, _, name in self.entries)
        self.root.items.append(_inode(self.inode, self.item, size, 0, self.root.time))
        hashed: dict[int, bytes] = defaultdict(bytes)
        for index, entry in enumerate(self.entries, DIR_START_INDEX):
            data = dir_item(*entry)
            hashed[name_hash(entry[2])] += data
            self.root.items.append(TreeItem(Key(self.inode, KeyType.DIR_INDEX, index), data))
        for value, data in hashed.items():
            if len(data) > MAX_ITEM:
                raise BuildError(f"{self.item.path}: btrfs cannot hold so many names with the same hash in a directory")
            self.root.items.append(TreeItem(Key(self.inode, KeyType.DIR_ITEM, value), data))


def plant(items: Iterable[Item], data: Data, fsid: UUID, time: int) -> list[Root]:
    """The subvolumes with all that their trees hold. Items come in order; files are read and stored one by one.

    Raises BuildError for a file whose content has not the size that its item says, and for a directory with too many
    names of the same hash.
    """
    roots: list[Root] = []
    directories: dict[str, _Directory] = {}
    for item in items:
        if item.subvolume or not item.path:
            objectid = ObjectId.FIRST_FREE + len(roots) - 1 if roots else ObjectId.FS_TREE
            read_only = item.subvolume is not None and item.subvolume.read_only
            root = Root(objectid, subvolume_uuid(fsid, item.path), time, read_only)
            if roots:
                directories[item.parent].add_subvolume(root, item)
            roots.append(root)
            inode = int(TOP)
        else:
            root = directories[item.parent].root
            inode = directories[item.parent].add_inode(item)
        if item.type is FileType.DIRECTORY:
            directories[item.path] = _Directory(root, inode, item)
        else:
            root.items += _content(root.objectid, inode, item, data, time)
    for directory in directories.values():
        directory.close()
    return roots


def relocation_root(time: int) -> Root:
    """The tree that the kernel moves data with: an empty directory."""
    root = Root(ObjectId.DATA_RELOC_TREE, NO_UUID, time)
    _Directory(root, TOP, Item("", FileType.DIRECTORY, 0o755, 0, 0)).close()
    return root


def subvolume_uuid(fsid: UUID, path: str) -> UUID:
    """Names are bytes and need not be text, which uuid5 wants: their hexadecimal digits are."""
    return uuid5(fsid, os.fsencode(path).hex())


def tree_root_item(tree: Tree, *, root_dirid: int = 0, flags: int = 0, uuid: UUID = NO_UUID, time: int = 0) -> TreeItem:
    """The item of the root tree for a tree, which has been placed."""
    data = root_item(
        bytenr=tree.root,
        level=tree.level,
        bytes_used=tree.size,
        root_dirid=root_dirid,
        flags=flags,
        uuid=uuid,
        time=time,
    )
    return TreeItem(Key(tree.objectid, KeyType.ROOT_ITEM, 0), data)


def _content(root: int, inode: int, item: Item, data: Data, time: int) -> Iterator[TreeItem]:
    """The items of a file or link."""
    content = item.content() if item.content else os.fsencode(item.target)
    if item.type is FileType.FILE and len(content) != item.size:
        raise BuildError(f"{item.path}: the content has {len(content)} bytes, not the {item.size} that were announced")
    if not item.is_inline:
        yield from data.store(root, inode, content)
    elif content:
        yield TreeItem(Key(inode, KeyType.EXTENT_DATA, 0), file_extent_inline(content))
    nbytes = len(content) if item.is_inline else round_up(len(content), SECTORSIZE)
    yield _inode(inode, item, len(content), nbytes, time)


def _inode(inode: int, item: Item, size: int, nbytes: int, time: int) -> TreeItem:
    mode = _KINDS[item.type][1] | item.mode
    data = inode_item(size=size, nbytes=nbytes, mode=mode, uid=item.uid, gid=item.gid, time=time)
    return TreeItem(Key(inode, KeyType.INODE_ITEM, 0), data)
