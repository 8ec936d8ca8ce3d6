"""What a version boots with: loader, kernel, initrd and the entry that names them, found in its tree.

Kernel and command line are chosen by the rules of `swupd.formats.kernels`, as the client does it. Whatever is missing
is a BuildError whose hint names the bundle that has it.
"""

from __future__ import annotations

import hashlib
import re
import shlex
from dataclasses import dataclass
from uuid import UUID

from mixer.errors import BuildError
from mixer.images.tree import ImageTree
from swupd.formats import bootentry, kernels, layout
from swupd.formats.bootentry import ENTRIES, KERNELS, BootEntry
from swupd.formats.kernels import OPTIONS_LIMIT, Kernel
from swupd.formats.manifest import FileType

LOADER = "/usr/lib/systemd/boot/efi/systemd-bootx64.efi"
COMMAND_LINE = f"/usr/lib/{kernels.COMMAND_LINE}"
USERS = "/usr/share/factory/etc/passwd"
"""Without it our initrd does not start a system."""
LOADER_CONFIGURATION = "timeout 0\neditor no\n"
TITLE_LIMIT = 100
"""Characters."""

_PRETTY_NAME = re.compile(r"^\s*PRETTY_NAME=(.*)$", re.MULTILINE)
_STATELESS = "set stateless: convert in builder.yaml, and build a version"


@dataclass(frozen=True)
class Boot:
    """What is on the boot partition of a disk."""

    loader: bytes
    kernel: bytes
    initrd: bytes
    entry: BootEntry

    def files(self) -> dict[str, bytes]:
        """Path on the partition -> content; the entry last."""
        return {
            "EFI/BOOT/BOOTX64.EFI": self.loader,
            "loader/loader.conf": LOADER_CONFIGURATION.encode(),
            f"{KERNELS}/{self.entry.kernel}": self.kernel,
            f"{KERNELS}/{self.entry.initrd}": self.initrd,
            f"{ENTRIES}/{self.entry.file_name}": self.entry.text().encode(),
        }


def find(tree: ImageTree, uuid: UUID) -> Boot:
    """What a tree boots with, as the first deployment in the btrfs with this UUID: it has no counter.

    Raises BuildError.
    """
    chosen = _kernel(tree)
    kernel, initrd = _content(tree, "kernel", f"/{chosen.kernel}"), _content(tree, "initrd", f"/{chosen.initrd}")
    loader = _content(tree, "boot loader", LOADER)
    if tree.find(USERS) is None:
        raise lacking(tree, "users", USERS, otherwise=_STATELESS)
    name = str(tree.version)
    entry = BootEntry(
        name=name,
        title=_title(tree),
        sequence=1,
        kernel=bootentry.kernel_name(hashlib.sha256(kernel).hexdigest()),
        initrd=bootentry.initrd_name(hashlib.sha256(initrd).hexdigest()),
        options=_options(tree, str(uuid), name),
    )
    return Boot(loader, kernel, initrd, entry)


def _kernel(tree: ImageTree) -> Kernel:
    """The newest kernel that can be used; raises BuildError for what the newest one lacks if none can."""
    found = newest_first(tree)
    for kernel in found:
        if not _missing(tree, kernel):
            return kernel
    raise lacking(tree, *_missing(tree, found[0])[0])


def newest_first(tree: ImageTree) -> list[Kernel]:
    """The kernels of a tree: at least one. Raises BuildError."""
    boot = f"/{kernels.BOOT}/"
    found = kernels.newest_first(node.path.removeprefix(boot) for node in tree.nodes if node.path.startswith(boot))
    if not found:
        raise lacking(tree, "kernel", boot + kernels.KERNEL)
    return found


def _missing(tree: ImageTree, kernel: Kernel) -> list[tuple[str, str]]:
    """What a kernel needs and the tree has not: what it is, and its path."""
    parts = (("initrd", f"/{kernel.initrd}"), ("modules", f"/{kernel.modules}"))
    return [(what, path) for what, path in parts if tree.find(path) is None]


def _content(tree: ImageTree, what: str, path: str) -> bytes:
    node = tree.find(path)
    if node is None or node.type is not FileType.FILE:
        raise lacking(tree, what, path)
    return tree.content(node)


def lacking(tree: ImageTree, what: str, path: str, *, otherwise: str = "") -> BuildError:
    """The error for something that has to be in the tree; the hint names the bundle that has it."""
    bundles = tree.bundles_with(path)
    if bundles:
        hint = f"bundle {' or '.join(bundles)} has it: give --bundles {bundles[0]},…"
    else:
        hint = otherwise or "no bundle of this version has it: add the bundle kernel to the mix, and build a version"
    return BuildError(f"the bundles {', '.join(tree.bundles)} have no {what} ({path})", hint=hint)


def _options(tree: ImageTree, uuid: str, name: str) -> str:
    options = kernels.options(uuid, name, tree.text(COMMAND_LINE))
    if options is None:
        raise BuildError(
            f"{COMMAND_LINE} of version {tree.version} is not a line of text that a kernel takes",
            hint=f"with what names the root it may have {OPTIONS_LIMIT} characters",
        )
    return options


def _title(tree: ImageTree) -> str:
    found = _PRETTY_NAME.search(tree.text(layout.OS_RELEASE))
    try:
        words = shlex.split(found[1]) if found else []
    except ValueError:
        words = []
    title = "".join(sign for sign in words[0] if sign.isprintable())[:TITLE_LIMIT] if words else ""
    return title or f"Version {tree.version}"
