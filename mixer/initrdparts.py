"""What initrds are made of: a static busybox, and modules of a kernel in the order in which they are loaded.

Both come from a root on disk or from the tree of an image, of which a `Read` reads the files. Modules that a kernel
does not have, or has built in, are left out.
"""

from __future__ import annotations

import errno
import io
import os
from collections.abc import Callable, Collection, Iterable
from pathlib import Path

from mixer import elf
from mixer.errors import BuildError
from mixer.sources.dpkg import Canonical
from swupd.errors import ArchiveError
from swupd.formats.compression import Compression, decompressed, detect
from swupd.formats.kernels import MODULES

BUSYBOX = "/bin/busybox"
MAX_MODULE_BYTES = 1 << 28
"""Of a module as it is loaded."""

Read = Callable[[str], bytes]
"""Reads a file of a root by its absolute name; links are followed inside the root. Raises FileNotFoundError."""


def of_root(root: Path) -> Read:
    """Reads files of a root on disk."""
    canonical = Canonical(str(root))

    def read(name: str) -> bytes:
        found = canonical.target(name)
        if found is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)
        return Path(f"{root}{found}").read_bytes()

    return read


def busybox(read: Read) -> bytes:
    """The busybox of a root. Raises BuildError if there is none that runs without libraries."""
    hint = "name the package busybox-static in the bundle that has the kernel"
    try:
        data = read(BUSYBOX)
    except FileNotFoundError as error:
        raise BuildError(f"no initrd can be made: the root has no {BUSYBOX}", hint=hint) from error
    try:
        is_static = elf.read(data).is_static
    except ValueError as error:
        raise BuildError(f"no initrd can be made: {BUSYBOX} of the root is {error}", hint=hint) from error
    if not is_static:
        raise BuildError(f"no initrd can be made: {BUSYBOX} of the root needs libraries", hint=hint)
    return data


class Modules:
    """The modules of one kernel. Names are those in its list of dependencies: "kernel/fs/btrfs/btrfs.ko"."""

    def __init__(self, read: Read, release: str) -> None:
        """Raises BuildError if there is no list of dependencies."""
        self._read = read
        self._release = release
        try:
            self._dependencies = _dependencies(self._content("modules.dep").decode())
            self._built_in = {module_name(line) for line in self._content("modules.builtin").decode().splitlines()}
        except OSError as error:
            raise BuildError(
                f"no initrd can be made: cannot read {error.filename}: {error.strerror}",
                hint="kernel and modules must be in the root, with the lists that depmod makes of them",
            ) from error
        except UnicodeDecodeError as error:
            raise BuildError(f"no initrd can be made: the modules of {release} have names that are no text") from error

    def order(self, wanted: Iterable[str], *, essential: Collection[str] = ()) -> list[str]:
        """The modules that are wanted, each after those that it needs.

        Raises BuildError if the kernel does not have an essential one.
        """
        order: dict[str, None] = {}
        for name in wanted:
            if name in self._dependencies:
                order |= dict.fromkeys(self._dependencies[name])
            elif name in essential and name not in self._built_in:
                raise BuildError(
                    f"no initrd can be made: the kernel {self._release} has no module {name}",
                    hint="choose a kernel that has it, as a module or built in",
                )
        return list(order)

    def content(self, path: str) -> bytes:
        """A module as it is loaded; the kernel need not know how to decompress it, and zstd packs it better as it is.

        Raises BuildError.
        """
        try:
            data = self._content(path)
            if (detect(data) is Compression.NONE) != path.endswith(".ko"):
                raise ArchiveError("it is not compressed as its name says")
            return decompressed(io.BytesIO(data), limit=MAX_MODULE_BYTES).read()
        except OSError as error:
            raise BuildError(f"cannot read the module {error.filename}: {error.strerror}") from error
        except ArchiveError as error:
            raise BuildError(f"cannot decompress the module {path} of {self._release}: {error}") from error

    def _content(self, path: str) -> bytes:
        return self._read(f"/{MODULES}/{self._release}/{path}")


def module_name(path: str) -> str:
    """The name of a module."""
    return path.rpartition("/")[2].partition(".ko")[0].replace("-", "_")


def file_name(path: str) -> str:
    """What the file of a module is called in an initrd."""
    return f"{module_name(path)}.ko"


def _dependencies(text: str) -> dict[str, list[str]]:
    """The content of modules.dep: name -> paths of all modules that have to be loaded, in their order."""
    result = {}
    for line in text.splitlines():
        path, _, needed = line.partition(":")
        # depmod writes first what is loaded last.
        result[module_name(path)] = [*reversed(needed.split()), path]
    return result
