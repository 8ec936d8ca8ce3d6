"""The type `kernel`: a directory with what starts a guest, made of the newest kernel of a version.

    vmlinuz     the kernel as it ships, a bzImage
    vmlinux     the same uncompressed, an ELF file
    initrd      what mounts an image and starts its init (mixer.images.guestinitrd)

DIR.json has the command line that goes before the one of an image. The same tree gives the same bytes. Written as
mixer.images.output says.
"""

from __future__ import annotations

import time as clock
from collections.abc import Set
from dataclasses import dataclass, replace
from pathlib import Path

from mixer.images import guestinitrd, output, spdx, vmlinux
from mixer.images.boot import lacking, newest_first
from mixer.images.tree import ImageTree, Node, Reader
from mixer.table import table
from swupd.formats.kernels import Kernel
from swupd.report import Report, human_size

KIND = "kernel"
VMLINUZ = "vmlinuz"
VMLINUX = "vmlinux"
INITRD = "initrd"
OPTIONS = "console=ttyS0 quiet panic=-1 reboot=t no_timer_check swiotlb=noforce"
"""For every guest. It ends at once when it restarts or fails. There are no buffers for devices that cannot reach all
memory, which no guest has: as soon as there is persistent memory, they would take 64 MiB."""
EMULATED = "tsc_early_khz=2000000"
"""Without KVM kernels cannot find out by themselves how fast the clock of the processor goes."""


@dataclass(frozen=True)
class Made:
    """What was made."""

    path: Path
    release: str
    version: int
    sizes: dict[str, int]
    """File -> bytes."""
    seconds: float

    def table(self) -> str:
        """The summary for people."""
        return table(
            [
                ("kernel", str(self.path), self.release),
                ("version", f"{self.version}", ""),
                *((name, human_size(size), "") for name, size in self.sizes.items()),
                ("command line", OPTIONS, "before that of an image"),
                ("without KVM", EMULATED, "as well"),
                ("seconds", f"{self.seconds:.1f}", ""),
            ]
        )


def build(tree: ImageTree, target: Path, report: Report, *, time: int) -> Made:
    """Make the directory. `time`, when it is said to be made, in seconds since 1970. Raises BuildError."""
    start = clock.monotonic()
    kernel = _newest(tree)
    report.step("kernel", f"Writing the kernel {kernel.release} of version {tree.version} to {target}")
    reader = Reader(tree, report)
    used: set[str] = set()

    def content(node: Node) -> bytes:
        used.add(node.path)
        return reader.content(node)

    read = guestinitrd.of_tree(tree, content)
    vmlinuz = read(f"/{kernel.kernel}")
    contents = {
        VMLINUZ: vmlinuz,
        VMLINUX: vmlinux.extract(vmlinuz),
        INITRD: guestinitrd.build(read, kernel.release),
    }
    part = _part(tree, used)
    sizes = {name: len(data) for name, data in contents.items()}
    with output.filling(target, KIND) as unfinished:
        for name, data in contents.items():
            (unfinished.path / name).write_bytes(data)
        unfinished.facts = part.facts(KIND) | {
            "release": kernel.release,
            "kernel_command_line": OPTIONS,
            "kernel_command_line_without_kvm": EMULATED,
            "bytes": sizes,
        }
        unfinished.sbom = spdx.document(part, reader, name=target.name, time=time)
    return Made(target, kernel.release, tree.version, sizes, clock.monotonic() - start)


def _part(tree: ImageTree, paths: Set[str]) -> ImageTree:
    """The files of a tree that something was made of."""
    layers = (replace(layer, paths=tuple(path for path in layer.paths if path in paths)) for layer in tree.layers)
    return replace(tree, nodes=tuple(node for node in tree.nodes if node.path in paths), layers=tuple(layers))


def _newest(tree: ImageTree) -> Kernel:
    """The newest kernel with modules; raises BuildError for what the newest one lacks if none has them."""
    found = newest_first(tree)
    usable = [kernel for kernel in found if tree.find(f"/{kernel.modules}") is not None]
    if not usable:
        raise lacking(tree, "modules", f"/{found[0].modules}")
    return usable[0]
