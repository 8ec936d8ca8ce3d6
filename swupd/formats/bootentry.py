"""A boot entry: which deployment a boot loader starts, with which kernel, and what became of it so far.

Entries are those of the Boot Loader Specification, type 1, with boot counting, as systemd-boot reads and renames them:

    os-20+3.conf       on trial: three tries are left; the loader makes it +2-1 before the first of them
    os-20.conf         good: no counter any more
    os-20+0-3.conf     failed: all tries were used up
    os-20+0.conf       set aside by somebody who went back from it; never made by the loader

A *deployment* is one root file system that can be booted, a subvolume `@/<name>`. Its name is the version of the OS; a
further one of the same version has a number behind a dot: 20, 20.1, 20.2.

Kernels and initrds lie in /os of the EFI system partition under the beginning of their SHA-256, so entries share them.

Pure functions of texts. What was read from a partition is input from outside: `parse` gives a BootEntry in which every
value was checked, or None for anything that is no entry of ours.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace

SUBVOLUMES = "@"
"""The directory of the btrfs top level with one subvolume for each deployment."""
STATE = "@state"
"""The subvolume that all deployments share."""
ENTRIES = "loader/entries"
KERNELS = "os"
"""Directories of the EFI system partition."""
ENTRY_LIMIT = 1 << 14
"""Bytes of an entry."""
MAX_TRIES = 99
MAX_SEQUENCE = 1 << 53

_NAME = r"[1-9][0-9]{0,9}(?:\.[1-9][0-9]{0,3})?"
_DEPLOYMENT = re.compile(_NAME)
_FILE = re.compile(rf"os-({_NAME})(?:\+([0-9]{{1,2}})(?:-([0-9]{{1,2}}))?)?\.conf")
_KERNEL_FILE = re.compile(rf"/{KERNELS}/((?:vmlinuz|initrd)-[0-9a-f]{{16}})")
_SORT_KEY = "swupd"
_HASH_DIGITS = 16


@dataclass(frozen=True)
class BootEntry:
    """One entry."""

    name: str
    """Of the deployment."""
    title: str
    sequence: int
    """Grows with every entry of a machine: the loader prefers the newest, whatever version it is."""
    kernel: str
    """File names in KERNELS."""
    initrd: str
    options: str
    tries_left: int | None = None
    """None: no counting, it has booted well."""
    tries_done: int = 0

    @property
    def file_name(self) -> str:
        """In ENTRIES."""
        counter = "" if self.tries_left is None else f"+{self.tries_left}"
        done = f"-{self.tries_done}" if counter and self.tries_done else ""
        return f"os-{self.name}{counter}{done}.conf"

    @property
    def is_good(self) -> bool:
        return self.tries_left is None

    @property
    def is_on_trial(self) -> bool:
        return bool(self.tries_left)

    @property
    def is_failed(self) -> bool:
        return self.tries_left == 0 and self.tries_done > 0

    @property
    def is_set_aside(self) -> bool:
        return self.tries_left == 0 and self.tries_done == 0

    def text(self) -> str:
        """The content of the file."""
        return (
            f"title {self.title}\n"
            f"sort-key {_SORT_KEY}\n"
            f"version {self.sequence}\n"
            f"linux /{KERNELS}/{self.kernel}\n"
            f"initrd /{KERNELS}/{self.initrd}\n"
            f"options {self.options}\n"
        )

    def good(self) -> BootEntry:
        """The same without counting."""
        return replace(self, tries_left=None, tries_done=0)

    def set_aside(self) -> BootEntry:
        """The same, to be taken only if nothing else is left."""
        return replace(self, tries_left=0, tries_done=0)


def is_deployment_name(text: str) -> bool:
    return _DEPLOYMENT.fullmatch(text) is not None


def version_of(name: str) -> int:
    """The version of the OS in a deployment."""
    return int(name.partition(".")[0])


def free_name(version: int, taken: Iterable[str]) -> str:
    """The name of a new deployment of this version, beside those that are taken."""
    others = [name for name in taken if version_of(name) == version]
    if not others:
        return str(version)
    return f"{version}.{1 + max(int(name.partition('.')[2] or 0) for name in others)}"


def kernel_name(sha256: str) -> str:
    """The file name in KERNELS of a kernel with this SHA-256."""
    return f"vmlinuz-{sha256[:_HASH_DIGITS]}"


def initrd_name(sha256: str) -> str:
    """The file name in KERNELS of an initrd with this SHA-256."""
    return f"initrd-{sha256[:_HASH_DIGITS]}"


def kernel_names(sha256: str) -> tuple[str, str]:
    """What a file with this SHA-256 may be called in KERNELS."""
    return kernel_name(sha256), initrd_name(sha256)


def is_kernel_file(name: str) -> bool:
    """Whether a name in KERNELS is one that we give."""
    return _KERNEL_FILE.fullmatch(f"/{KERNELS}/{name}") is not None


def kernel_options(uuid: str, name: str, base: str) -> str:
    """The kernel command line of a deployment; `base` is what the version or the administrator says."""
    return f"root=UUID={uuid} rootflags=subvol={SUBVOLUMES}/{name} {' '.join(base.split())}".rstrip()


def deployment_of_file(file_name: str) -> str:
    """The deployment that a file in ENTRIES is about, whatever it contains; empty if it is not one of ours."""
    match = _FILE.fullmatch(file_name)
    return match[1] if match else ""


def parse(file_name: str, text: str) -> BootEntry | None:
    """An entry of ours; None for a file that is none."""
    match = _FILE.fullmatch(file_name)
    if match is None or len(text) > ENTRY_LIMIT:
        return None
    values: dict[str, str] = {}
    for line in text.splitlines():
        key, _, value = line.strip().partition(" ")
        values.setdefault(key, value.strip())
    kernel = _KERNEL_FILE.fullmatch(values.get("linux", ""))
    initrd = _KERNEL_FILE.fullmatch(values.get("initrd", ""))
    sequence = values.get("version", "")
    if kernel is None or initrd is None or values.get("sort-key") != _SORT_KEY:
        return None
    if not (sequence.isascii() and sequence.isdigit() and len(sequence) < 17 and int(sequence) < MAX_SEQUENCE):
        return None
    return BootEntry(
        name=match[1],
        title="".join(sign for sign in values.get("title", "") if sign.isprintable()),
        sequence=int(sequence),
        kernel=kernel[1],
        initrd=initrd[1],
        options=values.get("options", ""),
        tries_left=None if match[2] is None else int(match[2]),
        tries_done=int(match[3] or 0),
    )


def loader_order(entries: Iterable[BootEntry]) -> list[BootEntry]:
    """As the boot loader sorts them: the first is what it starts. The newest come first, those without tries last."""
    return sorted(entries, key=lambda entry: (entry.tries_left == 0, -entry.sequence))
