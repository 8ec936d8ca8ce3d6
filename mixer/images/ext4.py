"""An ext4 file system for guests that only read it, written into a file from a list of nodes by mke2fs and debugfs.

Why not `mke2fs -d`: it reads a directory, and to give that the owners of its files takes root; times of the directory
get into the result. Here mke2fs makes an empty file system and debugfs fills it: no root, no mount, no loop device.

* Blocks of 4 KiB, and a file lies in one piece where a group of blocks has room for it, so the kernel can map it with
  DAX. No journal, no reserved blocks, no lost+found, nothing left to do at the first mount, and no feature that is
  younger than Linux 3.6. All metadata have sums. `e2fsck` finds no fault in it.
* It has the size that `required` says, which leaves a few blocks free. Blocks of zeros are holes in their file.
* Files of the same hash that are not empty are one inode with several names, so guests that map them share its pages.
* All times are the same. The bytes follow from the arguments and from the version of e2fsprogs (tried: 1.47.0).
* Content passes through memory, in batches of BATCH_BYTES and one file more; nothing else is written on the disk. The
  super block is there from the beginning on, so what a failure leaves is for the caller to remove.

What debugfs reports as an error on stderr while it goes on, and ends with status 0, is an error here. It looks names up
one by one: 10,000 files take about a second, 5,000 in one directory about two.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO
from uuid import UUID

from mixer.errors import BuildError
from mixer.images.programs import ENVIRONMENT
from mixer.images.tree import Node
from swupd import process
from swupd.formats.manifest import FileType

BLOCK = 4096
BATCH_BYTES = 64 << 20
BATCH_NODES = 400
"""A file of a batch takes a descriptor, and a process usually may have 1024."""
MAX_NAME = 255
MAX_WORD = 4090
"""Bytes of a path or a target, with quotes around it and in it doubled: debugfs reads lines of 8 KiB."""
MAX_BLOCKS = 2**32 - 1
"""Of a file system: 16 TiB."""
MAX_LINKS = 65_000
"""Names of a file; of a directory its name, its dot and its subdirectories."""
MAX_LABEL = 16
LAST_TIME = 2**34 - 2**31 - 1
"""In the year 2446."""

_KINDS = {FileType.FILE: stat.S_IFREG, FileType.DIRECTORY: stat.S_IFDIR}
_DIRECTORY_MODE = 0o755
_FEATURES = "none,extent,filetype,sparse_super,large_file,huge_file,dir_nlink,extra_isize,metadata_csum"
_INODE = 256
_RESERVED_INODES = 10
_GROUP = 8 * BLOCK
"""Blocks of a group: as many as a block has bits. Inodes of a group are no more."""
_DESCRIPTOR = 32
"""Bytes that describe a group."""
_LAST_GROUP = 50
"""Blocks for content that the last group has to have, lest mke2fs leave it out."""
_SPARE = 16
"""Blocks that lost+found has for a moment, and a few for files that lie in more than four pieces."""
_EXTENTS_PER_BLOCK = 340
_SHORT_TARGET = 59
"""Bytes of a target that stand in the inode."""
_TAIL = 12
"""Bytes at the end of a block of a directory, for its sum."""
_UNSPEAKABLE = "\n\r\0"
"""What debugfs takes for the end of a line."""
_OPTIONS = "?"
"""What stands between the name of a file and options, for debugfs."""


def required(nodes: Sequence[Node]) -> int:
    """The bytes of the file system with these nodes. Raises BuildError for what the format cannot express."""
    return _plan(nodes).blocks * BLOCK


def write(
    path: Path,
    offset: int,
    nodes: Sequence[Node],
    content: Callable[[Node], bytes],
    *,
    uuid: UUID,
    label: str,
    time: int,
) -> int:
    """Write a file system at `offset`, in bytes, of a file that is there; all its times are `time`, in seconds since
    1970, or the nearest that ext4 knows. Returns its bytes.

    The file holds zeros there, or ends before; then it gets the length. Nodes come parents before children, without
    "/", whose mode is 0755 and whose owner is root. The content of each inode is asked for once, in their order.

    Raises BuildError for what the format or debugfs cannot express, content that has not the size that its node says,
    a missing program, and what debugfs complains of; CommandError if a program fails; OSError, as for a full disk;
    ValueError for a label that is too long and an offset within a block.
    """
    if len(label.encode()) > MAX_LABEL:
        raise ValueError(f"the label has more than {MAX_LABEL} bytes: {label}")
    if offset % BLOCK:
        raise ValueError(f"the offset is not a multiple of {BLOCK}: {offset}")
    if _OPTIONS in str(path):
        raise BuildError(
            f"debugfs cannot write into {path}: it takes what comes before {_OPTIONS} for the whole name",
            hint=f"choose a place without {_OPTIONS} for the image",
        )
    for program in ("mke2fs", "debugfs"):
        if not shutil.which(program, path=ENVIRONMENT["PATH"]):
            raise BuildError(f"an ext4 file system is made by {program}, which is missing", hint="install e2fsprogs")
    plan = _plan(nodes)
    size = plan.blocks * BLOCK
    with path.open("r+b") as file:
        # What programs will write is taken beforehand: here a full disk has a name, there it is some failure.
        os.posix_fallocate(file.fileno(), offset, size)
    moment = _Moment(time)
    options = ["-O", _FEATURES, "-b", str(BLOCK), "-I", str(_INODE), "-N", str(plan.inodes), "-m", "0"]
    options += ["-U", str(uuid), "-L", label, "-e", "remount-ro"]
    extended = f"offset={offset},hash_seed={uuid},root_owner=0:0,lazy_itable_init=0,nodiscard"
    argv = ["mke2fs", "-q", "-F", *options, "-E", extended, "--", str(path), str(plan.blocks)]
    process.run(argv, env=moment.environment)
    place = f"{path}{_OPTIONS}offset={offset}"
    _debugfs(place, [b"rmdir /lost+found", *_grown("/", plan), *moment.commands(b'"/"')], moment)
    waiting = deque(nodes)
    while waiting:
        with ExitStack() as sources:
            _debugfs(place, list(_batch(waiting, content, plan, moment, sources)), moment)
    return size


# -- sizes -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Plan:
    """What is known before any content is read."""

    first: Mapping[str, str]
    """Path of a file that is not empty -> the path where its inode comes first."""
    links: Mapping[str, int]
    """That path -> how many names the inode has."""
    directories: Mapping[str, int]
    """Path of a directory -> the blocks that its names take."""
    inodes: int
    blocks: int
    """Of the file system."""


def _plan(nodes: Sequence[Node]) -> _Plan:
    for node in nodes:
        _check(node)
    first = dict(_first_paths(nodes))
    links = Counter(first.values())
    directories = _directories(nodes)
    subdirectories = Counter(_parent(node) for node in nodes if node.type is FileType.DIRECTORY)
    for path, count in subdirectories.items():
        if count > MAX_LINKS - 2:
            raise BuildError(f"{path} has {count} subdirectories: too many for ext4")
    # Those that mke2fs reserves, the root, and what is no further name of a file.
    inodes = _RESERVED_INODES + 1 + len(nodes) - (len(first) - len(links))
    needed = _SPARE + sum(directories.values())
    for node in nodes:
        if node.type is FileType.LINK:
            needed += len(os.fsencode(node.target)) > _SHORT_TARGET
        elif node.path in links:
            needed += _content_blocks(node.size)
    return _Plan(first, links, directories, inodes, _blocks(inodes, needed))


def _first_paths(nodes: Sequence[Node]) -> Iterator[tuple[str, str]]:
    latest: dict[str, tuple[str, int]] = {}
    for node in nodes:
        if node.type is FileType.FILE and node.size:
            path, links = latest.get(node.hash, (node.path, 0))
            if links == MAX_LINKS:
                path, links = node.path, 0
            latest[node.hash] = path, links + 1
            yield node.path, path


def _directories(nodes: Sequence[Node]) -> dict[str, int]:
    """Path of each directory -> its blocks. A name goes into the first block that has room, as debugfs does it."""
    first_block = BLOCK - _TAIL - _entry_size(b".") - _entry_size(b"..")
    room = {"/": [first_block], **{node.path: [first_block] for node in nodes if node.type is FileType.DIRECTORY}}
    for node in nodes:
        blocks, size = room[_parent(node)], _entry_size(_name(node))
        at = next((at for at, left in enumerate(blocks) if left >= size), len(blocks))
        if at == len(blocks):
            blocks.append(BLOCK - _TAIL)
        blocks[at] -= size
    return {path: len(blocks) for path, blocks in room.items()}


def _entry_size(name: bytes) -> int:
    """Bytes of a name in a directory: eight, and the name up to a multiple of four."""
    return 8 + -(-len(name) // 4) * 4


def _content_blocks(size: int) -> int:
    """The blocks of a file. More than four extents stand in a block of their own; holes pay for theirs themselves."""
    blocks = -(-size // BLOCK)
    groups = blocks // _GROUP
    return blocks + (1 + groups // _EXTENTS_PER_BLOCK if groups > 1 else 0)


def _blocks(inodes: int, needed: int) -> int:
    """The blocks of a file system with so many inodes and so many blocks for content, directories and targets."""
    groups = 0
    while True:
        groups += 1
        descriptors = -(-groups * _DESCRIPTOR // BLOCK)
        inodes_here = -(-inodes // groups)
        # Super block, descriptors of groups, two blocks of bits, inodes.
        metadata = 1 + descriptors + 2 + -(-inodes_here * _INODE // BLOCK)
        blocks = max(needed + groups * metadata, (groups - 1) * _GROUP + metadata + _LAST_GROUP)
        if blocks > MAX_BLOCKS:
            raise BuildError(f"{blocks * BLOCK >> 30} GiB are too large for ext4 with blocks of {BLOCK} bytes")
        if inodes_here <= _GROUP - BLOCK and blocks <= groups * _GROUP:
            return blocks


# -- filling -----------------------------------------------------------------------------------------------------------


class _Moment:
    """The one time of all that is made."""

    def __init__(self, time: int) -> None:
        self._time = min(max(time, 0), LAST_TIME)
        # What the programs take for now. To them 0 is the clock's time, and what comes after this they store wrongly.
        now = min(max(self._time, 1), 2**31 - 1)
        self._is_now = now == self._time
        self.environment = {**ENVIRONMENT, "MKE2FS_CONFIG": "/dev/null", "E2FSPROGS_FAKE_TIME": f"{now}"}

    def commands(self, name: bytes) -> list[bytes]:
        """Set the times of an inode, unless they are right from the beginning."""
        fields = () if self._is_now else (b"atime", b"mtime", b"ctime", b"crtime")
        return [b"sif %s %s @%d" % (name, field, self._time) for field in fields]


def _batch(
    waiting: deque[Node], content: Callable[[Node], bytes], plan: _Plan, moment: _Moment, sources: ExitStack
) -> Iterator[bytes]:
    """Commands for the next nodes, which are taken away; what they read lies in memory until `sources` is closed."""
    room = BATCH_BYTES
    for _ in range(min(BATCH_NODES, len(waiting))):
        node = waiting.popleft()
        name = _quoted(node.path)
        first = plan.first.get(node.path, node.path)
        if first != node.path:
            yield b"ln %s %s" % (_quoted(first), name)
            continue
        if node.type is FileType.DIRECTORY:
            yield b"mkdir " + name
            yield from _grown(node.path, plan)
        elif node.type is FileType.LINK:
            yield b"symlink %s %s" % (name, _quoted(node.target))
        else:
            source = sources.enter_context(_in_memory(node, content))
            yield b"write /proc/%d/fd/%d %s" % (os.getpid(), source.fileno(), name)
        yield from _fields(name, node, plan.links.get(node.path, 1))
        yield from moment.commands(name)
        room -= node.size
        if room <= 0:
            break


def _fields(name: bytes, node: Node, links: int) -> Iterator[bytes]:
    """Set what is not as debugfs makes it: owned by root, links 0777, directories 0755, files as their source."""
    if node.type is FileType.FILE or (node.type is FileType.DIRECTORY and node.mode != _DIRECTORY_MODE):
        yield b"sif %s mode 0%o" % (name, _KINDS[node.type] | node.mode)
    for field, number, usual in ((b"uid", node.uid, 0), (b"gid", node.gid, 0), (b"links_count", links, 1)):
        if number != usual:
            yield b"sif %s %s %d" % (name, field, number)


def _grown(path: str, plan: _Plan) -> list[bytes]:
    """Give a directory all its blocks at once: so they lie together, and `ln` takes only those that are there."""
    return [b"expand_dir " + _quoted(path)] * (plan.directories[path] - 1)


@contextmanager
def _in_memory(node: Node, content: Callable[[Node], bytes]) -> Iterator[BinaryIO]:
    data = content(node)
    if len(data) != node.size:
        raise BuildError(f"{node.path} has {len(data)} bytes, not {node.size}")
    with os.fdopen(os.memfd_create("content"), "wb") as file:
        file.write(data)
        file.flush()
        yield file


def _debugfs(place: str, commands: Sequence[bytes], moment: _Moment) -> None:
    done = process.run(["debugfs", "-w", "-f", "-", "--", place], env=moment.environment, stdin=b"\n".join(commands))
    # It says its name and version there, too.
    lines = done.stderr.decode(errors="replace").splitlines()
    if errors := [line for line in lines if line and not line.startswith("debugfs ")]:
        raise BuildError(f"debugfs cannot fill the file system: {errors[0].strip()}")


# -- what cannot be expressed ------------------------------------------------------------------------------------------


def _check(node: Node) -> None:
    for text in (node.path, node.target):
        if any(sign in text for sign in _UNSPEAKABLE) or len(_quoted(text)) > MAX_WORD:
            raise BuildError(
                f"debugfs cannot be told of {node.path!a}: path and target of a link are one line there, with at "
                f"most {MAX_WORD - 2} bytes",
                hint="leave it out of the image, or make one of another type",
            )
    if len(_name(node)) > MAX_NAME:
        raise BuildError(f"the name of {node.path} has more than {MAX_NAME} bytes: too long for ext4")


def _parent(node: Node) -> str:
    return node.path.rpartition("/")[0] or "/"


def _name(node: Node) -> bytes:
    return os.fsencode(node.path.rpartition("/")[2])


def _quoted(text: str) -> bytes:
    return b'"%s"' % os.fsencode(text).replace(b'"', b'""')
