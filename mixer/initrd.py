"""The initrd of every kernel in a root: what finds a deployment on the disk and mounts it (mixer/osfiles/initrd).

It consists of a static busybox, two scripts, the modules that disks, btrfs and overlay need, and the order in which
they are loaded. Everything is taken from the root, but the scripts, which are part of the builder; links to /boot and
busybox are followed inside the root. Reproducible: the same root gives the same bytes.

Sizes with Debian's kernel for clouds, 6.1: 9.6 MB unpacked, 2.5 MB as it ships (zstd, level 19; 3 seconds). Modules
that a kernel does not have, or has built in, are left out; without btrfs or overlay it is an error.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from importlib.resources import files
from pathlib import Path

from mixer import elf
from mixer.errors import BuildError
from mixer.images import cpio
from mixer.sources.dpkg import Canonical
from swupd.errors import ArchiveError
from swupd.formats.compression import Compression, decompressed, detect
from swupd.formats.kernels import BOOT, newest_first
from swupd.fs import replace_file

BUSYBOX = "/bin/busybox"
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
MAX_MODULE_BYTES = 1 << 28
"""Of a module as it is loaded."""


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
    directory = root / "usr/lib/modules" / kernel_version
    first = load_order(directory, FIRST)
    later = [path for path in load_order(directory, LATER) if path not in first]
    for name in DIRECTORIES:
        yield cpio.directory(name)
    yield cpio.file("bin/busybox", _busybox(root), 0o755)
    for name in APPLETS:
        yield cpio.link(f"bin/{name}", "busybox")
    # Without it the first program has no standard output.
    yield cpio.character_device("dev/console", 5, 1)
    yield cpio.file("init", (scripts / "init").read_bytes(), 0o755)
    yield cpio.file("state", (scripts / "state").read_bytes())
    for path in (*first, *later):
        yield cpio.file(f"modules/{_file_name(path)}", _content(path))
    for name, paths in (("first", first), ("later", later)):
        yield cpio.file(f"modules/{name}", "".join(f"{_file_name(path)}\n" for path in paths).encode())


def _busybox(root: Path) -> bytes:
    hint = "name the package busybox-static in the bundle that has the kernel"
    found = Canonical(str(root)).target(BUSYBOX)
    if found is None:
        raise BuildError(f"no initrd can be made: the root has no {BUSYBOX}", hint=hint)
    data = Path(f"{root}{found}").read_bytes()
    try:
        is_static = elf.read(data).is_static
    except ValueError as error:
        raise BuildError(f"no initrd can be made: {BUSYBOX} of the root is {error}", hint=hint) from error
    if not is_static:
        raise BuildError(f"no initrd can be made: {BUSYBOX} of the root needs libraries", hint=hint)
    return data


def load_order(directory: Path, wanted: Iterable[str]) -> list[Path]:
    """The files of modules that are wanted, of those in a directory of modules, each after those that it needs.

    Raises BuildError if there is no list of dependencies, or no btrfs or overlay.
    """
    try:
        dependencies = _dependencies((directory / "modules.dep").read_text())
        built_in = {_module(line) for line in (directory / "modules.builtin").read_text().splitlines()}
    except OSError as error:
        raise BuildError(
            f"no initrd can be made: cannot read {error.filename}: {error.strerror}",
            hint="kernel and modules must be in the root, with the lists that depmod makes of them",
        ) from error
    order: dict[str, None] = {}
    for name in wanted:
        if name in dependencies:
            order |= dict.fromkeys(dependencies[name])
        elif name in ESSENTIAL and name not in built_in:
            raise BuildError(
                f"no initrd can be made: the kernel {directory.name} has no module {name}",
                hint="choose a kernel that has it, as a module or built in",
            )
    return [directory / path for path in order]


def _dependencies(text: str) -> dict[str, list[str]]:
    """The content of modules.dep: name -> paths of all modules that have to be loaded, in their order."""
    result = {}
    for line in text.splitlines():
        path, _, needed = line.partition(":")
        # depmod writes first what is loaded last.
        result[_module(path)] = [*reversed(needed.split()), path]
    return result


def _module(path: str) -> str:
    """The name of a module."""
    return path.rpartition("/")[2].partition(".ko")[0].replace("-", "_")


def _file_name(path: Path) -> str:
    """What the file of a module is called in an initrd."""
    return f"{_module(path.name)}.ko"


def _content(path: Path) -> bytes:
    """A module as it is loaded; the kernel need not know how to decompress it, and zstd packs it better as it is."""
    data = path.read_bytes()
    try:
        if (detect(data) is Compression.NONE) != (path.suffix == ".ko"):
            raise ArchiveError("it is not compressed as its name says")
        return decompressed(io.BytesIO(data), limit=MAX_MODULE_BYTES).read()
    except ArchiveError as error:
        raise BuildError(f"cannot decompress the module {path}: {error}") from error
