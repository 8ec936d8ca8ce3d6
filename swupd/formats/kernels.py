"""The kernels of a root file system, and what they are told: one set of rules for the builder's images and the client.

A root has its kernels as `/boot/vmlinuz-<release>`, each with `/boot/initrd-<release>` and a directory
`/usr/lib/modules/<release>`. It boots with the newest one that has both. `kernel/cmdline` and `kernel/tries`, in
/usr/lib or in the administrator's /etc, say with which command line, and how often a new version may try.

Pure functions of names and texts from outside.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from swupd.formats.bootentry import MAX_TRIES, kernel_options

BOOT = "boot"
KERNEL = "vmlinuz-"
"""The names of kernels in BOOT begin with it."""
MODULES = "usr/lib/modules"
COMMAND_LINE = "kernel/cmdline"
TRIES = "kernel/tries"
DEFAULT_TRIES = 3
OPTIONS_LIMIT = 2048
"""Characters of a kernel command line: what x86 kernels accept."""

_INITRD = "initrd-"
_RELEASE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+~-]{0,200}")


@dataclass(frozen=True)
class Kernel:
    """A kernel of a root; its parts by their names below the root."""

    release: str
    """As `uname -r` tells it."""

    @property
    def kernel(self) -> str:
        return f"{BOOT}/{KERNEL}{self.release}"

    @property
    def initrd(self) -> str:
        return f"{BOOT}/{_INITRD}{self.release}"

    @property
    def files(self) -> tuple[str, str]:
        return self.kernel, self.initrd

    @property
    def modules(self) -> str:
        return f"{MODULES}/{self.release}"


def newest_first(names: Iterable[str]) -> list[Kernel]:
    """The kernels among the names of what is in /boot, whatever else there is of them."""
    releases = {name.removeprefix(KERNEL) for name in names if name.startswith(KERNEL)}
    return [Kernel(release) for release in sorted(filter(_RELEASE.fullmatch, releases), key=_natural, reverse=True)]


def is_boot_file(name: str) -> bool:
    """Whether a name as manifests have it is that of a kernel or an initrd."""
    return name.startswith((f"/{BOOT}/{KERNEL}", f"/{BOOT}/{_INITRD}"))


def options(uuid: str, name: str, text: str) -> str | None:
    """The kernel command line of the deployment `name`; None if no kernel would take it.

    uuid: of its file system. text: of a file with the command line, in which lines that begin with # are comments.
    """
    lines = (line for line in text.splitlines() if not line.lstrip().startswith("#"))
    found = kernel_options(uuid, name, " ".join(lines))
    return found if len(found) <= OPTIONS_LIMIT and found.isprintable() else None


def tries(text: str) -> int:
    """How often a deployment may try to boot, by the text of a file that begins with the number."""
    match = re.match(r"\s*([0-9]{1,9})\b", text)
    return min(max(int(match[1]), 1), MAX_TRIES) if match else DEFAULT_TRIES


def _natural(release: str) -> list[tuple[int, int, str]]:
    """A key that sorts 6.1.0-9 before 6.1.0-10."""
    parts = re.findall(r"[0-9]+|[^0-9]+", release)
    return [(1, int(part), "") if part.isdigit() else (0, 0, part) for part in parts]
