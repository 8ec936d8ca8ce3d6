"""Files of versions as they lie on a disk: content with mode and owner, to be reflinked or hard-linked from.

`cache/files/<first two digits>/<swupd hash>`, each made from its object when it is first used. Rules:

* Before a file is given out its content, mode and owner are compared with its hash, and that nothing else gives it more
  rights. One that is not right any more (it may have further names, and was changed by one of them) is made again; the
  further names keep what they have.
* Only root can give files to others. Without `owners` all is the caller's, setuid and setgid are left out, and he can
  always read the files and change the directories; content is what the hash says all the same.
* Nobody else gets into the directory: files of earlier versions keep their setuid bits in it.
* It can be removed at any time. It is filled as mixer.cache says, by one process at a time; one thread.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable
from pathlib import Path

from mixer.cache import Cache
from mixer.images.tree import Node
from swupd.formats.filehash import PIECE_BYTES, ContentHasher
from swupd.formats.manifest import FileType
from swupd.fs import chunks_of

DIRECTORY_MODE = 0o700
GRANTING = frozenset({"security.capability", "system.posix_acl_access"})
"""Extended attributes that give a file, or others to it, more rights than its mode does."""

_OPEN_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class FileCache:
    """The files below one directory."""

    def __init__(self, directory: Path, *, owners: bool) -> None:
        self._directory = directory
        self._cache = Cache(directory)
        self._owners = owners

    def path(self, node: Node) -> Path:
        """Where a file lies after `fill`."""
        return self._cache.path(node.hash)

    def fill(self, nodes: Iterable[Node], content: Callable[[Node], bytes]) -> int:
        """Make the files that are missing or damaged; returns how many. Raises OSError, BuildError of `content`."""
        self._directory.mkdir(mode=DIRECTORY_MODE, parents=True, exist_ok=True)
        self._directory.chmod(DIRECTORY_MODE)
        wanted = {node.hash: node for node in nodes}
        lacking = [node for node in wanted.values() if not self._is_right(node)]
        with self._cache.filling() as filler:
            for node in lacking:
                with filler.place(node.hash).open("xb") as file:
                    file.write(content(node))
                    file.flush()
                    mode, owner = attributes(node, owners=self._owners)
                    # The mode comes last: what is written and a new owner clear setuid.
                    os.fchown(file.fileno(), *owner)
                    os.fchmod(file.fileno(), mode)
                filler.done(node.hash, node.size)
        return len(lacking)

    def _is_right(self, node: Node) -> bool:
        try:
            descriptor = os.open(self.path(node), _OPEN_FLAGS)
        except OSError:
            # Missing; or what it is comes out when it is replaced.
            return False
        with open(descriptor, "rb", buffering=0) as file:
            status = os.fstat(descriptor)
            mode, owner = attributes(node, owners=self._owners)
            found = (status.st_mode, status.st_size, (status.st_uid, status.st_gid))
            if found != (stat.S_IFREG | mode, node.size, owner) or not GRANTING.isdisjoint(os.listxattr(descriptor)):
                return False
            hasher = ContentHasher(stat.S_IFREG | node.mode, node.uid, node.gid, node.size)
            for piece in chunks_of(file, PIECE_BYTES):
                hasher.update(piece)
            return hasher.hexdigest() == node.hash


def attributes(node: Node, *, owners: bool) -> tuple[int, tuple[int, int]]:
    """Mode, and user and group, that a node gets on this machine."""
    if owners:
        return node.mode, (node.uid, node.gid)
    needed = stat.S_IRWXU if node.type is FileType.DIRECTORY else stat.S_IRUSR
    return node.mode & ~(stat.S_ISUID | stat.S_ISGID) | needed, (os.geteuid(), os.getegid())
