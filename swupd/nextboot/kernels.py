"""The kernel that a root boots with, and what it is told: as the root's own files and the administrator say.

A root has its kernels as `/boot/vmlinuz-<release>`, each with `/boot/initrd-<release>` and a directory
`/usr/lib/modules/<release>`. What the administrator wrote below /etc/kernel comes before what the root has below
/usr/lib/kernel. Nothing is changed here; no link is followed to a kernel.
"""

from __future__ import annotations

import re
import stat
from dataclasses import dataclass
from pathlib import Path

from swupd.errors import NextBootError, UnsafePathError
from swupd.formats import bootentry
from swupd.formats.bootentry import MAX_TRIES, OPTIONS_LIMIT
from swupd.fs import Directory
from swupd.nextboot.bootentries import KERNEL_LIMIT

DEFAULT_TRIES = 3
FILE_LIMIT = 1 << 16
"""Bytes of a file with a command line or a number."""

_BOOT = "boot"
_KERNEL = "vmlinuz-"
_INITRD = "initrd-"
_MODULES = "usr/lib/modules"
_RELEASE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+~-]{0,200}")
_COMMAND_LINE = "kernel/cmdline"
_TRIES = "kernel/tries"


@dataclass(frozen=True)
class Kernel:
    """A kernel of a root, by names below it."""

    release: str
    """As `uname -r` tells it."""

    @property
    def kernel(self) -> str:
        return f"{_BOOT}/{_KERNEL}{self.release}"

    @property
    def initrd(self) -> str:
        return f"{_BOOT}/{_INITRD}{self.release}"

    @property
    def files(self) -> tuple[str, str]:
        return self.kernel, self.initrd


def is_boot_file(name: str) -> bool:
    """Whether a name as manifests have it is that of a kernel or an initrd."""
    return name.startswith((f"/{_BOOT}/{_KERNEL}", f"/{_BOOT}/{_INITRD}"))


def find(root: Path) -> Kernel:
    """The newest kernel of a root that has an initrd and modules. Raises NextBootError if there is none, OSError."""
    with Directory.open(root) as top:
        found = [name.removeprefix(_KERNEL) for name in _names(top, _BOOT) if name.startswith(_KERNEL)]
        usable = [release for release in found if _RELEASE.fullmatch(release) and _is_complete(top, Kernel(release))]
    if usable:
        return Kernel(max(usable, key=_release_order))
    if found:
        release = max(found, key=_release_order)
        raise NextBootError(
            f"the kernel {release} has no /{_BOOT}/{_INITRD}{release}, or no /{_MODULES}/{release}",
            hint="this version cannot boot; tell whoever publishes it",
        )
    raise NextBootError(f"there is no kernel in /{_BOOT}", hint="add one with: swupd bundle-add kernel --next-boot")


def options(uuid: str, name: str, *, machine: Path, root: Path) -> str:
    """The kernel command line of the deployment `name`.

    uuid: of the file system. machine: where the administrator's /etc is. Raises NextBootError for one that no kernel
    would take.
    """
    text = _first_of(machine / "etc" / _COMMAND_LINE, root / "usr/lib" / _COMMAND_LINE) or ""
    lines = (line for line in text.splitlines() if not line.lstrip().startswith("#"))
    result = bootentry.kernel_options(uuid, name, " ".join(lines))
    if len(result) > OPTIONS_LIMIT or not result.isprintable():
        raise NextBootError(
            f"the kernel command line is longer than {OPTIONS_LIMIT} characters, or no text",
            hint=f"correct {machine / 'etc' / _COMMAND_LINE}",
        )
    return result


def tries(*, machine: Path, root: Path) -> int:
    """How often a deployment may try to boot."""
    text = _first_of(machine / "etc" / _TRIES, root / "usr/lib" / _TRIES) or ""
    match = re.match(r"\s*([0-9]{1,9})\b", text)
    return min(max(int(match[1]), 1), MAX_TRIES) if match else DEFAULT_TRIES


def _is_complete(top: Directory, kernel: Kernel) -> bool:
    with top.descend(_BOOT) as boot:
        for path in kernel.files:
            status = boot.lstat(path.removeprefix(f"{_BOOT}/"))
            if status is None or not stat.S_ISREG(status.st_mode) or not 0 < status.st_size <= KERNEL_LIMIT:
                return False
    return kernel.release in _names(top, _MODULES)


def _names(top: Directory, path: str) -> list[str]:
    try:
        with top.descend(path) as directory:
            return directory.names()
    except (FileNotFoundError, NotADirectoryError, UnsafePathError):
        return []


def _release_order(release: str) -> list[tuple[int, int, str]]:
    """Sorts 6.1.0-9 before 6.1.0-10."""
    parts = re.findall(r"[0-9]+|[^0-9]+", release)
    return [(1, int(part), "") if part.isdigit() else (0, 0, part) for part in parts]


def _first_of(*paths: Path) -> str | None:
    """The beginning of the first of these files that can be read."""
    for path in paths:
        try:
            with path.open("rb") as file:
                return file.read(FILE_LIMIT).decode(errors="replace")
        except OSError:
            continue
    return None
