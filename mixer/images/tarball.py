"""A tar archive of nodes of a tree: the type `tar`, and the layers of OCI images.

* The same nodes, content and time give the same bytes. Nothing else gets in: owners are numbers without names.
* Names are relative, without "./" ("usr/bin/ls"); there is no member for the root directory.
* A header is POSIX's ustar where that can express it. A pax header stands before it for longer names and link texts,
  larger owners and sizes; names that are not UTF-8 keep their bytes.
* Content passes one file at a time. Each node is a member of its own, also where two are the same object: as hard links
  they would be one file, and whoever changes one of them would change both.

`file` takes the archive as it is; who compresses it stands between.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import BinaryIO

from mixer.errors import BuildError
from mixer.images.tree import Node
from swupd.formats.archive import END_OF_ARCHIVE, Member, ObjectType, pack_header
from swupd.formats.manifest import FileType
from swupd.formats.tarheader import padding


def write(file: BinaryIO, nodes: Iterable[Node], content: Callable[[Node], bytes], *, time: int | None) -> None:
    """Write the archive; parents come before what is in them. `time`, that of all members, is in seconds since 1970;
    None: each has its own.

    Raises BuildError if a file's content has not the size that its node says.
    """
    for node in nodes:
        file.write(pack_header(_member(node, time)))
        if node.type is FileType.FILE:
            data = content(node)
            if len(data) != node.size:
                raise BuildError(f"the content of {node.path} has {len(data)} bytes instead of {node.size}")
            file.write(data)
            file.write(padding(node.size))
    file.write(END_OF_ARCHIVE)


def _member(node: Node, time: int | None) -> Member:
    name, kind = node.path.removeprefix("/"), ObjectType(node.type)
    mtime = node.time if time is None else time
    return Member(name, kind, node.mode, node.uid, node.gid, node.size, mtime, node.target)
