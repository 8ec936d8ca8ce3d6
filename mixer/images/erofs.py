"""An EROFS file system without compression, written into a file from a list of nodes: no root, no mount, no loop.

Why not the program that exists: the mkfs.erofs of Debian 12 (1.5) reads a directory only, and to give it the owners of
the files takes root. Here the bytes follow from the arguments alone.

* Blocks of 4 KiB; no optional feature that a reader has to know, so old kernels mount it too. The super block has its
  sum. `fsck.erofs` finds no fault in it.
* The content of a file begins at a block and lies in one piece ("flat plain"), so the kernel can map it with DAX.
  Directories and links stand beside their inode when they fit into its block.
* Files of the same hash that are not empty are one inode with several names. They could have been inodes of their own
  that share blocks; but with DAX a page belongs to one inode, and the kernel warns when a second one maps it.
* All times are the same, of the root too. An inode is compact, of 32 bytes, unless a number of it is too large.
* Where everything lies follows from the nodes, before any content is read; content is read file by file and goes
  straight to its place. The super block is written last: a write that ends early leaves no file system.

    block 0         the super block, 1024 bytes into it
    blocks 1 ...    inodes in the order of nodes, the root first, with what stands beside them; none crosses a block
    then            directories and links that are too large for that
    then            the content of files, in the order of nodes

The number of an inode, its nid, is where it lies in units of 32 bytes. A directory consists of blocks; each begins with
its entries (12 bytes: nid 8, where the name begins 2, type 1, nothing 1), and their names follow. Names are sorted by
their bytes, "." and ".." among them. Structures and names are those of the kernel's fs/erofs/erofs_fs.h.

With reading the files, 8,850 nodes of 581 MB take 1.6 seconds of the processor; 60,000 nodes without reading take 1.7.
"""

from __future__ import annotations

import os
import stat
import struct
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import BinaryIO
from uuid import UUID

from crc32c import crc32c

from mixer.errors import BuildError
from mixer.images.tree import Node
from swupd.formats.manifest import FileType

BLOCK = 4096
MAX_LABEL = 15
"""Bytes; older kernels want a zero behind it."""
MAX_NAME = 255
MAX_TARGET = BLOCK - 1
"""The kernel follows no longer links."""
MAX_BLOCKS = 2**32 - 1
"""Of a file system: 16 TiB."""

_SUPER_OFFSET = 1024
_MAGIC = 0xE0F5E1E2
_COMPAT = 1 << 0 | 1 << 1
"""SB_CHKSUM, MTIME: the super block has a sum, times are those of changes of content."""
_SUPER = struct.Struct("<IIIBBHQQIIII16s16sIHHHBBIQ24x")
_CHECKSUM_OFFSET = _SUPER_OFFSET + 4

_SLOT = 32
_FLAT_PLAIN, _FLAT_INLINE = 0, 2
_COMPACT, _EXTENDED = 0, 1
_COMPACT_INODE = struct.Struct("<HHHHI4xIIHH4x")
_EXTENDED_INODE = struct.Struct("<HHHHQIIIIQII16x")
_DIRENT = struct.Struct("<QHBx")

_KINDS = {FileType.FILE: (1, stat.S_IFREG), FileType.DIRECTORY: (2, stat.S_IFDIR), FileType.LINK: (7, stat.S_IFLNK)}
"""The type in a directory entry and in the mode."""
_ROOT = Node("/", FileType.DIRECTORY, 0o755, 0, 0, 0, "", "")
_PIECE = 64 << 10
"""Zeros of this many bytes, from a multiple of it on in a file, are left as a hole."""


def required(nodes: Sequence[Node]) -> int:
    """The bytes of the file system with these nodes; raises as `write` does."""
    return _lay_out(nodes).blocks * BLOCK


def write(
    file: BinaryIO,
    offset: int,
    nodes: Sequence[Node],
    content: Callable[[Node], bytes],
    *,
    uuid: UUID,
    label: str,
    time: int,
) -> int:
    """Write a file system at `offset` of a file; all its times are `time`, in seconds since 1970. Returns its bytes.

    There the file is all zeros, best as a hole, or not yet that long: then it gets the length. Nodes come parents
    before children, without "/", whose mode is 0755 and whose owner is root. The content of each inode is asked for
    once, in the order of nodes.

    Raises BuildError for what the format cannot express, and for content that has not the size that its node says;
    ValueError for nodes that make no file system, for a time before 1970 and for a label that is too long.
    """
    if len(label.encode()) > MAX_LABEL:
        raise ValueError(f"the label has more than {MAX_LABEL} bytes: {label}")
    if time < 0:
        raise ValueError(f"a time before 1970: {time}")
    layout = _lay_out(nodes)
    size = layout.blocks * BLOCK
    file.seek(offset + BLOCK)
    file.write(_metadata(layout, time))
    for inode in layout.inodes:
        if inode.has_content:
            file.seek(offset + inode.block * BLOCK)
            _write_content(file, inode, content(inode.node))
    if file.seek(0, os.SEEK_END) < offset + size:
        file.truncate(offset + size)
    file.seek(offset)
    file.write(_super_block(layout, uuid, label, time))
    return size


# -- layout ------------------------------------------------------------------------------------------------------------


@dataclass(slots=True, eq=False)
class _Inode:
    """An inode, what it is made of and where it lies."""

    node: Node
    """The first that it stands for."""
    size: int
    links: int = 1
    dirents: list[list[tuple[bytes, _Inode]]] = field(default_factory=list)
    """Of a directory: names and what they name, block by block."""
    start: int = 0
    """Where it lies, in bytes."""
    block: int = 0
    """Where its content begins, unless that stands beside it or there is none."""

    @property
    def nid(self) -> int:
        return self.start // _SLOT

    @property
    def is_extended(self) -> bool:
        node = self.node
        return max(node.uid, node.gid, self.links) >= 1 << 16 or self.size >= 1 << 32

    @property
    def header_size(self) -> int:
        return _EXTENDED_INODE.size if self.is_extended else _COMPACT_INODE.size

    @property
    def has_content(self) -> bool:
        """Whether it is a file that is not empty."""
        return self.node.type is FileType.FILE and self.size > 0

    @property
    def is_inline(self) -> bool:
        return self.node.type is not FileType.FILE and self.header_size + self.size <= BLOCK


@dataclass(frozen=True, slots=True)
class _Layout:
    inodes: Sequence[_Inode]
    """In the order of nodes, the root first."""
    metadata_end: int
    """The block where the content of files begins."""
    blocks: int


def _lay_out(nodes: Sequence[Node]) -> _Layout:
    inodes = _inodes(nodes)
    end = BLOCK
    for inode in inodes:
        beside = inode.size if inode.is_inline else 0
        end += -end % _SLOT
        if end % BLOCK + inode.header_size + beside > BLOCK:
            end += -end % BLOCK
        inode.start = end
        end += inode.header_size + beside
    block = _blocks(end)
    for inode in inodes:
        if inode.node.type is not FileType.FILE and not inode.is_inline:
            inode.block = block
            block += _blocks(inode.size)
    metadata_end = block
    for inode in inodes:
        if inode.has_content:
            inode.block = block
            block += _blocks(inode.size)
            if block > MAX_BLOCKS:
                raise _impossible(inode.node, f"a file of {inode.size} bytes here, it ends at 16 TiB")
    return _Layout(inodes, metadata_end, block)


def _inodes(nodes: Sequence[Node]) -> list[_Inode]:
    """The inodes in the order of nodes, the root first, with their names, sizes and numbers of links."""
    root = _Inode(_ROOT, 0)
    inodes = [root]
    directories = {"": root}
    names: dict[str, dict[bytes, _Inode]] = defaultdict(dict)
    same: dict[str, _Inode] = {}
    for node in nodes:
        _check(node)
        parent, _, name = node.path.rpartition("/")
        if parent not in directories or os.fsencode(name) in names[parent]:
            raise ValueError(f"{node.path!r} has no directory, or it is there twice")
        inode = same.get(node.hash) if node.type is FileType.FILE and node.size else None
        if inode:
            inode.links += 1
        else:
            inode = _Inode(node, len(os.fsencode(node.target)) if node.type is FileType.LINK else node.size)
            inodes.append(inode)
        if inode.has_content:
            same[node.hash] = inode
        elif node.type is FileType.DIRECTORY:
            directories[node.path] = inode
        names[parent][os.fsencode(name)] = inode
    for path, inode in directories.items():
        _fill(inode, directories[path.rpartition("/")[0]], names[path])
    return inodes


def _fill(directory: _Inode, parent: _Inode, names: dict[bytes, _Inode]) -> None:
    blocks = directory.dirents = _in_blocks({b".": directory, b"..": parent, **names})
    directory.size = (len(blocks) - 1) * BLOCK + sum(_DIRENT.size + len(name) for name, _ in blocks[-1])
    directory.links = 2 + sum(inode.node.type is FileType.DIRECTORY for inode in names.values())


def _check(node: Node) -> None:
    name = os.fsencode(node.path.rpartition("/")[2])
    target = os.fsencode(node.target)
    impossible = name in (b"", b".", b"..") or b"\0" in name or node.path[:1] != "/"
    if impossible or node.type not in _KINDS or bool(target) != (node.type is FileType.LINK):
        raise ValueError(f"{node.path!r} is no file, directory or link of a file system")
    if node.mode & ~0o7777 or node.size < 0 or not 0 <= node.uid < 1 << 32 or not 0 <= node.gid < 1 << 32:
        raise ValueError(f"{node.path!r} has a mode, a size or an owner that is none")
    if len(name) > MAX_NAME:
        raise _impossible(node, f"a name of {len(name)} bytes, {MAX_NAME} is the most")
    if len(target) > MAX_TARGET:
        raise _impossible(node, f"a link to {len(target)} bytes, {MAX_TARGET} is the most")


def _impossible(node: Node, what: str) -> BuildError:
    return BuildError(
        f"{node.path}: an erofs file system cannot have {what}", hint="leave out the bundle that this comes with"
    )


def _in_blocks(entries: dict[bytes, _Inode]) -> list[list[tuple[bytes, _Inode]]]:
    """The entries of a directory, sorted, as many in each block as fit."""
    blocks: list[list[tuple[bytes, _Inode]]] = []
    free = 0
    for entry in sorted(entries.items()):
        needed = _DIRENT.size + len(entry[0])
        if needed > free:
            blocks.append([])
            free = BLOCK
        blocks[-1].append(entry)
        free -= needed
    return blocks


def _blocks(size: int) -> int:
    return -(-size // BLOCK)


# -- what is written ---------------------------------------------------------------------------------------------------


def _metadata(layout: _Layout, time: int) -> bytes:
    """All blocks from the one behind the super block to the content of files."""
    metadata = bytearray((layout.metadata_end - 1) * BLOCK)
    for number, inode in enumerate(layout.inodes, start=1):
        start = inode.start - BLOCK
        header = _header(inode, number, time)
        metadata[start : start + len(header)] = header
        start = start + len(header) if inode.is_inline else (inode.block - 1) * BLOCK
        if inode.node.type is FileType.LINK:
            metadata[start : start + inode.size] = os.fsencode(inode.node.target)
        for entries in inode.dirents:
            block = _directory_block(entries)
            metadata[start : start + len(block)] = block
            start += BLOCK
    return bytes(metadata)


def _header(inode: _Inode, number: int, time: int) -> bytes:
    """The inode itself. Its `number` counts; what a running system shows is its nid, unless it has 32 bits."""
    node = inode.node
    mode = _KINDS[node.type][1] | node.mode
    layout = _FLAT_INLINE if inode.is_inline else _FLAT_PLAIN
    common = (inode.block, number, node.uid, node.gid)
    if inode.is_extended:
        format_ = _EXTENDED | layout << 1
        return _EXTENDED_INODE.pack(format_, 0, mode, 0, inode.size, *common, time, 0, inode.links)
    return _COMPACT_INODE.pack(_COMPACT | layout << 1, 0, mode, inode.links, inode.size, *common)


def _directory_block(entries: Sequence[tuple[bytes, _Inode]]) -> bytes:
    dirents: list[bytes] = []
    name_offset = len(entries) * _DIRENT.size
    for name, inode in entries:
        dirents.append(_DIRENT.pack(inode.nid, name_offset, _KINDS[inode.node.type][0]))
        name_offset += len(name)
    return b"".join((*dirents, *(name for name, _ in entries)))


def _write_content(file: BinaryIO, inode: _Inode, content: bytes) -> None:
    """Write the content of a file where `file` stands; zeros are passed over."""
    if len(content) != inode.size:
        raise BuildError(
            f"{inode.node.path}: the content has {len(content)} bytes, not the {inode.size} that were announced"
        )
    for is_hole, piece in _pieces(content):
        if is_hole:
            file.seek(len(piece), os.SEEK_CUR)
        else:
            file.write(piece)


def _pieces(content: bytes) -> Iterator[tuple[bool, bytes]]:
    """The parts of content, and whether each is all zeros."""
    zeros = bytes(_PIECE)
    for start in range(0, len(content), _PIECE):
        piece = content[start : start + _PIECE]
        yield piece == zeros[: len(piece)], piece


def _super_block(layout: _Layout, uuid: UUID, label: str, time: int) -> bytes:
    """The first block."""
    block = bytearray(BLOCK)
    _SUPER.pack_into(
        block,
        _SUPER_OFFSET,
        _MAGIC,
        0,  # checksum
        _COMPAT,
        BLOCK.bit_length() - 1,  # blkszbits
        0,  # sb_extslots
        layout.inodes[0].nid,
        len(layout.inodes),
        time,  # build_time, of all compact inodes
        0,  # build_time_nsec
        layout.blocks,
        0,  # meta_blkaddr: what nids count from
        0,  # xattr_blkaddr
        uuid.bytes,
        label.encode(),
        0,  # feature_incompat
        0,  # lz4_max_distance
        0,  # extra_devices
        0,  # devt_slotoff
        0,  # dirblkbits
        0,  # xattr_prefix_count
        0,  # xattr_prefix_start
        0,  # packed_nid
    )
    # The sum of what follows, without the inversion at the end that others make.
    checksum = crc32c(block[_SUPER_OFFSET:]) ^ 0xFFFFFFFF
    struct.pack_into("<I", block, _CHECKSUM_OFFSET, checksum)
    return bytes(block)
