"""The initrd of every kernel in a root: what finds a deployment on the disk and mounts it (mixer/osfiles/initrd).

It consists of a static busybox, two scripts, the modules that disks, btrfs and overlay need, and the order in which
they are loaded. Everything is taken from the root (mixer.initrdparts), but the scripts, which are part of the builder;
a link at /boot is followed inside the root. Reproducible: the same root gives the same bytes.

Sizes with Debian's kernel for clouds, 6.1: 9.6 MB unpacked, 2.5 MB as it ships (zstd, level 19; 3 seconds). Without
btrfs or overlay it is an error.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

from mixer.images import cpio
from mixer.initrdparts import Modules, busybox, file_name, of_root
from mixer.sources.dpkg import Canonical
from swupd.formats.kernels import BOOT, newest_first
from swupd.fs import replace_file

APPLETS = (
    *("cat", "chmod", "dd", "find", "findfs", "head", "hexdump", "insmod", "mkdir"),
    *("mount", "mv", "reboot", "rm", "sh", "sleep", "switch_root", "sync"),
)
"""What the scripts use; what a shell has built in is not among it."""
CHECKSUMS = ("crc32c_generic", "crc32c_intel", "xxhash_generic", "sha256_generic", "blake2b_generic")
"""What btrfs asks the kernel for by the name of the algorithm, which no list of dependencies shows."""
ESSENTIAL = ("btrfs", "overlay")
FIRST = (*CHECKSUMS, *ESSENTIAL, "virtio_pci", "virtio_mmio", "virtio_blk", "virtio_rng")
"""What is loaded at once. A kernel says in many lines that a module is not for its machine, so these are few."""
LATER = (
    *("nvme", "sd_mod", "virtio_scsi", "ahci", "ata_piix", "hv_storvsc", "xen_blkfront", "xhci_pci"),
    *("usb_storage", "uas", "sdhci_pci", "sdhci_acpi", "mmc_block"),
)
"""What is loaded if the disk is not there then."""
DIRECTORIES = ("bin", "dev", "modules", "proc", "run", "sys", "sysroot")
COMPRESSION_LEVEL = 19


def make(root: Path) -> dict[str, str]:
    """Write /boot/initrd-KVER for each /boot/vmlinuz-KVER of the root; {initrd: kernel}, as names in the root.

    Raises BuildError if busybox, or a module without which nothing can be mounted, is missing.
    """
    made = {}
    boot = Path(f"{root}{Canonical(str(root)).target(f'/{BOOT}') or f'/{BOOT}'}")
    for kernel in newest_first(path.name for path in boot.glob("*")):
        replace_file(boot / Path(kernel.initrd).name, build(root, kernel.release))
        made[f"/{kernel.initrd}"] = f"/{kernel.kernel}"
    return made


def build(root: Path, kernel_version: str) -> bytes:
    """The initrd of one kernel, compressed. Raises BuildError."""
    import zstandard

    return zstandard.ZstdCompressor(level=COMPRESSION_LEVEL).compress(cpio.write(_members(root, kernel_version)))


def _members(root: Path, kernel_version: str) -> Iterator[cpio.Member]:
    scripts = files("mixer") / "osfiles" / "initrd"
    read = of_root(root)
    modules = Modules(read, kernel_version)
    first = modules.order(FIRST, essential=ESSENTIAL)
    later = [path for path in modules.order(LATER) if path not in first]
    for name in DIRECTORIES:
        yield cpio.directory(name)
    yield cpio.file("bin/busybox", busybox(read), 0o755)
    for name in APPLETS:
        yield cpio.link(f"bin/{name}", "busybox")
    # Without it the first program has no standard output.
    yield cpio.character_device("dev/console", 5, 1)
    yield cpio.file("init", (scripts / "init").read_bytes(), 0o755)
    yield cpio.file("state", (scripts / "state").read_bytes())
    for path in (*first, *later):
        yield cpio.file(f"modules/{file_name(path)}", modules.content(path))
    for name, paths in (("first", first), ("later", later)):
        yield cpio.file(f"modules/{name}", "".join(f"{file_name(path)}\n" for path in paths).encode())
