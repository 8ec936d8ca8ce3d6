"""The kernel that a root boots with, and what it is told: as the root's own files and the administrator say.

The rules are those of `swupd.formats.kernels`. What the administrator wrote below /etc/kernel comes before what the
root has below /usr/lib/kernel. Nothing is changed here; no link is followed to a kernel.
"""

from __future__ import annotations

import stat
from pathlib import Path

from swupd.errors import NextBootError, UnsafePathError
from swupd.formats import kernels
from swupd.formats.kernels import BOOT, COMMAND_LINE, MODULES, OPTIONS_LIMIT, TRIES, Kernel
from swupd.fs import Directory
from swupd.nextboot.bootentries import KERNEL_LIMIT

FILE_LIMIT = 1 << 16
"""Bytes of a file with a command line or a number."""


def find(root: Path) -> Kernel:
    """The newest kernel of a root that has an initrd and modules. Raises NextBootError if there is none, OSError."""
    with Directory.open(root) as top:
        found = kernels.newest_first(_names(top, BOOT))
        usable = next((kernel for kernel in found if _is_complete(top, kernel)), None)
    if usable is not None:
        return usable
    if found:
        raise NextBootError(
            f"the kernel {found[0].release} has no /{found[0].initrd}, or no /{found[0].modules}",
            hint="this version cannot boot; tell whoever publishes it",
        )
    raise NextBootError(f"there is no kernel in /{BOOT}", hint="add one with: swupd bundle-add kernel --next-boot")


def options(uuid: str, name: str, *, machine: Path, root: Path) -> str:
    """The kernel command line of the deployment `name`.

    uuid: of the file system. machine: where the administrator's /etc is. Raises NextBootError for one that no kernel
    would take.
    """
    own = machine / "etc" / COMMAND_LINE
    found = kernels.options(uuid, name, _first_of(own, root / "usr/lib" / COMMAND_LINE))
    if found is None:
        raise NextBootError(
            f"the kernel command line is longer than {OPTIONS_LIMIT} characters, or no text", hint=f"correct {own}"
        )
    return found


def tries(*, machine: Path, root: Path) -> int:
    """How often a deployment may try to boot."""
    return kernels.tries(_first_of(machine / "etc" / TRIES, root / "usr/lib" / TRIES))


def _is_complete(top: Directory, kernel: Kernel) -> bool:
    with top.descend(BOOT) as boot:
        for path in kernel.files:
            status = boot.lstat(path.removeprefix(f"{BOOT}/"))
            if status is None or not stat.S_ISREG(status.st_mode) or not 0 < status.st_size <= KERNEL_LIMIT:
                return False
    return kernel.release in _names(top, MODULES)


def _names(top: Directory, path: str) -> list[str]:
    try:
        with top.descend(path) as directory:
            return directory.names()
    except (FileNotFoundError, NotADirectoryError, UnsafePathError):
        return []


def _first_of(*paths: Path) -> str:
    """The beginning of the first of these files that can be read; empty if none can."""
    for path in paths:
        try:
            with path.open("rb") as file:
                return file.read(FILE_LIMIT).decode(errors="replace")
        except OSError:
            continue
    return ""
