"""A raw disk image that boots: GPT, an EFI system partition with systemd-boot, and one btrfs.

    ESP     /EFI/BOOT/BOOTX64.EFI, /loader/loader.conf, /loader/entries/os-<version>.conf, /os/vmlinuz-…, /os/initrd-…
    os      @/<version>     the tree, read-only
            @state          etc/upper, etc/work; var and home, subvolumes of their own; root, srv, opt, boot

That is the layout which the client finds and continues (swupd.nextboot). Loader, kernel and initrd come from the tree;
the entry has no counter and the deployment is marked as good, because there is none to return to.

* The same tree, size and time give the same bytes, whoever makes it, where and when. All identifiers follow from the
  hash of the MoM and the bundles.
* Nothing is mounted, no loop device is needed, and no root. The file is sparse.
* It is written as mixer.images.output says. Content passes one file at a time.
"""

from __future__ import annotations

import os
import time as clock
from collections.abc import Callable
from functools import partial
from pathlib import Path
from uuid import uuid5

from mixer.errors import BuildError
from mixer.images import boot, btrfs, esp, gpt, output, spdx, summary
from mixer.images.boot import Boot
from mixer.images.btrfs import Item, Subvolume
from mixer.images.summary import Summary
from mixer.images.tree import ImageTree, Node, Reader
from swupd.formats.bootentry import STATE, SUBVOLUMES
from swupd.formats.manifest import FileType
from swupd.report import Report, human_size

MIN_BYTES = 4 << 30
"""The least size of a disk whose size was not given."""
MAX_BYTES = 16 << 40
ESP_BYTES = 256 << 20
KERNELS_ON_ESP = 4
"""How many kernels with their initrds have room there: of the deployments that a machine keeps and the one it makes."""
DEPLOYMENTS = 3
"""How many times the root partition of a disk whose size was not given has room for the version."""
STATE_BYTES = 1 << 30
"""Room for the shared state there."""
GRANULE = 256 << 20
"""What that size is a multiple of."""

ESP_LABEL = "ESP"
ROOT_LABEL = "os"


def build(tree: ImageTree, target: Path, report: Report, *, size: int = 0, time: int) -> Summary:
    """Write the image. `size` in bytes, 0: what is needed and DEPLOYMENTS say; `time`, that of all files, in seconds.

    Raises BuildError for content or a place that does not do, CommandError if a program fails.
    """
    start = clock.monotonic()
    uuid = tree.uuid
    found = boot.find(tree, uuid)
    files = found.files()
    reader = Reader(tree, report)
    items = _items(tree, reader.content)
    esp_size = _esp_size(found)
    size = _disk_size(size, esp_size, btrfs.required(items))
    partitions = (gpt.Partition(ESP_LABEL, gpt.ESP, esp_size), gpt.Partition(ROOT_LABEL, gpt.ROOT_X86_64, 0))
    used = sum(map(len, files.values()))
    facts = {
        "uuid": str(uuid),
        "kernel_command_line": found.entry.options,
        "bytes": size,
        "esp_bytes": esp_size,
    }
    report.step("image", f"Writing version {tree.version} to {target}")
    with output.writing(target) as unfinished:
        part = unfinished.path
        with part.open("r+b") as file:
            file.truncate(size)
            # What programs will write is taken beforehand: here a full disk has a name, there it is some failure.
            os.posix_fallocate(file.fileno(), 0, gpt.ALIGNMENT + esp.OVERHEAD_BYTES + used)
        at_esp, at_root = gpt.write(part, partitions, uuid)
        serial = uuid5(uuid, ESP_LABEL).int & 0xFFFFFFFF
        esp.write(part, at_esp.offset, at_esp.size, files, label=ESP_LABEL, serial=serial, time=time)
        with part.open("r+b") as file:
            btrfs.write(file, at_root.offset, at_root.size, items, label=ROOT_LABEL, uuid=uuid, time=time)
        unfinished.facts = tree.facts("disk") | facts
        unfinished.sbom = spdx.document(tree, reader, name=target.name, time=time)
    return summary.of(
        tree,
        target,
        f"{human_size(size)}, {human_size(output.allocated(target))} on disk",
        start,
        rows=[("boot partition", human_size(used), "loader, kernel and initrd")],
    )


# -- the root partition ------------------------------------------------------------------------------------------------


def _items(tree: ImageTree, content: Callable[[Node], bytes]) -> list[Item]:
    root = f"{SUBVOLUMES}/{tree.version}"
    items = [_directory(""), _directory(SUBVOLUMES), _directory(root, subvolume=Subvolume(read_only=True))]
    items += [
        Item(
            path=root + node.path,
            type=node.type,
            mode=node.mode,
            uid=node.uid,
            gid=node.gid,
            target=node.target,
            size=node.size,
            content=partial(content, node) if node.type is FileType.FILE else None,
        )
        for node in tree.nodes
    ]
    return items + _state(tree.version)


def _state(version: int) -> list[Item]:
    good = f"{STATE}/boot/good"
    return [
        _directory(STATE, subvolume=Subvolume()),
        _directory(f"{STATE}/boot"),
        _directory(good),
        Item(path=f"{good}/{version}", type=FileType.FILE, mode=0o644, uid=0, gid=0, content=bytes),
        _directory(f"{STATE}/etc", 0o700),
        _directory(f"{STATE}/etc/upper"),
        _directory(f"{STATE}/etc/work", 0o700),
        _directory(f"{STATE}/home", subvolume=Subvolume()),
        _directory(f"{STATE}/opt"),
        _directory(f"{STATE}/root", 0o700),
        _directory(f"{STATE}/srv"),
        _directory(f"{STATE}/var", subvolume=Subvolume()),
    ]


def _directory(path: str, mode: int = 0o755, subvolume: Subvolume | None = None) -> Item:
    return Item(path=path, type=FileType.DIRECTORY, mode=mode, uid=0, gid=0, subvolume=subvolume)


# -- sizes -------------------------------------------------------------------------------------------------------------


def _esp_size(found: Boot) -> int:
    kernels = KERNELS_ON_ESP * (len(found.kernel) + len(found.initrd))
    return max(ESP_BYTES, _up(kernels + len(found.loader) + 2 * esp.OVERHEAD_BYTES, GRANULE))


def _disk_size(asked: int, esp_size: int, needed: int) -> int:
    """`asked` in bytes, 0 for the usual size; `needed` is what the version alone needs of the root partition."""
    fixed = esp_size + 2 * gpt.ALIGNMENT
    usual = max(MIN_BYTES, _up(DEPLOYMENTS * needed + STATE_BYTES + fixed, GRANULE))
    size = asked // gpt.ALIGNMENT * gpt.ALIGNMENT or usual
    if size < needed + fixed:
        raise BuildError(
            f"a disk of {asked >> 20} MiB is too small: the version alone needs {-(-(needed + fixed) >> 20)} MiB",
            hint=f"{usual >> 20} MiB have room for updates as well; that is what it has without --size",
        )
    return size


def _up(size: int, granule: int) -> int:
    return -(-size // granule) * granule
