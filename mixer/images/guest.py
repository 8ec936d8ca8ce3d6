"""The root file system of virtual guests: one read-only image, which all of them share.

    plain           the file system, from the first byte on; with `verity` its hash tree follows
    with `dax`      what Kata Containers expects around it (mixer.images.dax); the hash tree is the second partition

* The same tree, options and time give the same bytes. Nothing is mounted, and no root is needed.
* The size of a plain image is a multiple of 2 MiB, so that it can be a persistent memory device (virtio-pmem).
* Files are mapped as they lie there: both file systems are uncompressed, and their data begin at whole pages. (A guest
  that checks them by a hash tree reads them through the device mapper, without DAX.)
* It is written as mixer.images.output says.
"""

from __future__ import annotations

import time as clock
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from uuid import UUID, uuid5

from mixer.images import dax, erofs, ext4, output, spdx, summary, verity
from mixer.images.init import init_of
from mixer.images.summary import Summary
from mixer.images.tree import ImageTree, Node, Reader
from swupd.report import Report, human_size

LABEL = "guest"
ALIGNMENT = 2 << 20
"""Of the size of a plain image, in bytes."""
PERSISTENT_MEMORY = ("/dev/pmem0", "/dev/pmem0p1", "/dev/pmem0p2")
DISK = ("/dev/vda", "/dev/vda1", "/dev/vda2")
"""Where a guest finds an image: all of it, and the partitions of one with `dax`."""
BLOCK = 4096


class FileSystem(StrEnum):
    """A file system that guests are made of."""

    EROFS = "erofs"
    EXT4 = "ext4"

    def required(self, nodes: Sequence[Node]) -> int:
        """Bytes that a tree takes."""
        return ext4.required(nodes) if self is FileSystem.EXT4 else erofs.required(nodes)

    def write(self, path: Path, offset: int, tree: ImageTree, reader: Reader, *, uuid: UUID, time: int) -> int:
        """Write a tree into a file; bytes of the file system."""
        if self is FileSystem.EXT4:
            return ext4.write(path, offset, tree.nodes, reader.content, uuid=uuid, label=LABEL, time=time)
        with path.open("r+b") as file:
            return erofs.write(file, offset, tree.nodes, reader.content, uuid=uuid, label=LABEL, time=time)


def build(
    tree: ImageTree,
    target: Path,
    report: Report,
    *,
    system: FileSystem,
    time: int,
    with_dax: bool = False,
    with_verity: bool = False,
) -> Summary:
    """Write the image; `time`, that of all files, in seconds since 1970.

    Raises BuildError for content or a place that does not do, CommandError if a program fails.
    """
    start = clock.monotonic()
    kind = f"guest-{system}"
    init = init_of(tree)
    reader = Reader(tree, report)
    places = _places(system.required(tree.nodes), with_dax=with_dax, with_verity=with_verity)
    report.step("image", f"Writing version {tree.version} to {target}")
    with output.writing(target) as unfinished:
        with unfinished.path.open("r+b") as file:
            file.truncate(places.size)
            if places.header is not None:
                dax.write_header(file, places.header)
        uuid = uuid5(tree.uuid, kind)
        size = system.write(unfinished.path, places.data, tree, reader, uuid=uuid, time=time)
        hashes = None
        if places.hashes:
            salt = uuid5(tree.uuid, "verity").bytes * 2
            hashes = verity.append(unfinished.path, places.data, size, places.hashes, salt=salt)
        if hashes is None:
            where = root_parameters(system, partitioned=with_dax, mapped=True)
        else:
            where = f"root=/dev/dm-0 rootfstype={system} ro"
        command_line = f"{where} init={init}"
        unfinished.facts = tree.facts(kind) | {
            "bytes": places.size,
            "filesystem": system,
            "filesystem_offset": places.data,
            "filesystem_bytes": size,
            "uuid": str(uuid),
            "dax": with_dax,
            "init": init,
            "kernel_command_line": command_line,
            **({"verity": hashes.facts()} if hashes else {}),
        }
        unfinished.sbom = spdx.document(tree, reader, name=target.name, time=time)
    size_text = f"{human_size(places.size)}, {human_size(output.allocated(target))} on disk"
    lines = {"kernel command line": command_line, **(_parameters(places, hashes) if hashes else {})}
    return summary.of(tree, target, size_text, start, lines=lines)


@dataclass(frozen=True)
class _Places:
    """Where things lie in an image, in bytes."""

    data: int
    hashes: int
    """0: no hash tree."""
    size: int
    header: dax.Layout | None = None


def _places(needed: int, *, with_dax: bool, with_verity: bool) -> _Places:
    hash_bytes = verity.size(needed) if with_verity else 0
    if with_dax:
        header = dax.layout([needed, hash_bytes] if with_verity else [needed])
        hashes = header.partitions[1].offset if with_verity else 0
        return _Places(header.partitions[0].offset, hashes, header.size, header)
    end = needed + hash_bytes
    return _Places(0, needed if with_verity else 0, -(-end // ALIGNMENT) * ALIGNMENT)


def root_parameters(system: str, *, partitioned: bool, mapped: bool) -> str:
    """What names the root file system on a kernel's command line; `mapped`: it is persistent memory, used by DAX."""
    if mapped:
        return f"root={PERSISTENT_MEMORY[partitioned]} rootfstype={system} rootflags=dax=always ro"
    return f"root={DISK[partitioned]} rootfstype={system} ro"


def _parameters(places: _Places, hashes: verity.Verity) -> dict[str, str]:
    whole, *partitions = PERSISTENT_MEMORY
    data, tree = partitions if places.header else (whole, whole)
    start = 0 if places.header else places.hashes // BLOCK
    return {
        "root hash": hashes.root_hash,
        "for the kernel": hashes.for_kernel(data, tree, start=start),
        "for Kata Containers": hashes.for_kata,
    }
