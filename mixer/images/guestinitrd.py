"""The initrd of a guest: mounts an image as the root of a virtual machine, and starts the init in it.

A static busybox, a script (mixer/osfiles/guest-initrd) and the modules of one kernel that virtual devices and the file
systems of images need. All of it is below /guest, but for /init and the directories that every root has, so that it can
also be unpacked over an image that is an initrd itself. It is not compressed: a guest is in user space a fifth of a
second earlier, and the file has 4 MB. Reproducible: the same tree gives the same bytes.
"""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Callable, Iterator
from importlib.resources import files

from mixer.images import cpio
from mixer.images.tree import ImageTree, Node
from mixer.initrdparts import Modules, Read, busybox, file_name
from swupd.formats.manifest import FileType

APPLETS = ("cat", "insmod", "mkdir", "mount", "mv", "reboot", "rm", "sh", "sleep", "switch_root")
"""What the script uses; what a shell has built in is not among it."""
LISTS = {
    "base": ("virtio_pci", "virtio_mmio", "virtio_console", "virtio_rng", "overlay"),
    "pmem": ("nfit", "nd_pmem", "virtio_pmem"),
    "block": ("virtio_blk",),
    "erofs": ("crc32c_generic", "erofs"),
    "ext4": ("crc32c_generic", "ext4"),
    "share": ("virtiofs",),
}
"""Modules that are loaded together: always, for a kind of root device, for a type of file system, for a share."""
MAX_LINKS = 40
"""Links that are followed on the way to one file."""


def build(read: Read, release: str) -> bytes:
    """The initrd of a kernel. Raises BuildError if busybox or the modules are missing."""
    return cpio.write(_members(read, release))


def recipe() -> str:
    """A hash over what decides the bytes besides the tree."""
    return hashlib.sha256(repr((_script(), APPLETS, LISTS)).encode()).hexdigest()


def of_tree(tree: ImageTree, content: Callable[[Node], bytes]) -> Read:
    """Reads files of a tree by `content`, following links."""

    def read(name: str) -> bytes:
        path, waiting, links = "", name.split("/")[::-1], 0
        while waiting:
            part = waiting.pop()
            if part in ("", "."):
                continue
            if part == "..":
                path = path.rpartition("/")[0]
                continue
            node = tree.find(f"{path}/{part}")
            if node is None or links > MAX_LINKS:
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)
            if node.type is FileType.LINK:
                links += 1
                path = "" if node.target.startswith("/") else path
                waiting += node.target.split("/")[::-1]
            else:
                path = node.path
        node = tree.find(path)
        if node is None or node.type is not FileType.FILE:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)
        return content(node)

    return read


def _members(read: Read, release: str) -> Iterator[cpio.Member]:
    modules = Modules(read, release)
    lists = {name: modules.order(wanted) for name, wanted in LISTS.items()}
    for name in ("dev", "proc", "run", "sys", "guest", "guest/bin", "guest/modules", "guest/root"):
        yield cpio.directory(name)
    # Without it the first program has no standard output.
    yield cpio.character_device("dev/console", 5, 1)
    yield cpio.file("guest/bin/busybox", busybox(read), 0o755)
    for name in APPLETS:
        yield cpio.link(f"guest/bin/{name}", "busybox")
    yield cpio.file("guest/init", _script(), 0o755)
    yield cpio.link("init", "guest/init")
    for path in dict.fromkeys(path for order in lists.values() for path in order):
        yield cpio.file(f"guest/modules/{file_name(path)}", modules.content(path))
    for name, order in lists.items():
        yield cpio.file(f"guest/modules/{name}", "".join(f"{file_name(path)}\n" for path in order).encode())


def _script() -> bytes:
    return (files("mixer") / "osfiles/guest-initrd/init").read_bytes()
