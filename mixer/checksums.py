"""The checksums of a version: one line for each of its files, as `sha256sum` writes and checks them.

`<version>/checksums` lies in the directory of the version beside its signature, and names everything else there, so
that a mirror proves itself with stock tools (`sha256sum --quiet -c checksums`), and `mixer check` names a file of which
any byte is not what was published. It is an addition of ours: clients of the original never ask for it.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

from mixer.errors import BuildError
from swupd.formats import layout

SIZE_LIMIT = 1 << 30
"""Bytes of a checksums file that is read; a line has some 150."""

_PIECE_BYTES = 1 << 20
_NAME = Path(layout.checksums(1)).name
_OWN_NAMES = frozenset({_NAME, layout.signature(_NAME)})
_LINE = re.compile(r"([0-9a-f]{64})  ([^/\x00-\x1f][^\x00-\x1f]*)")


def of_files(directory: Path) -> dict[str, str]:
    """Name -> SHA-256 of all files below a directory, except for checksums themselves."""
    found: dict[str, str] = {}
    for parent, _, names in os.walk(directory):
        for name in names:
            path = Path(parent, name)
            relative = str(path.relative_to(directory))
            if not is_own(relative):
                found[relative] = of(path)
    return found


def of(content: Path | bytes) -> str:
    """SHA-256 of the content of a file, or of bytes."""
    if isinstance(content, bytes):
        return hashlib.sha256(content).hexdigest()
    with content.open("rb") as file:
        return of_stream(file)


def of_stream(source: BinaryIO) -> str:
    """SHA-256 of what is left to be read."""
    digest = hashlib.sha256()
    while piece := source.read(_PIECE_BYTES):
        digest.update(piece)
    return digest.hexdigest()


def is_own(name: str) -> bool:
    """Whether a file of a version is its checksums or their signature."""
    return name in _OWN_NAMES


def serialise(checksums: Mapping[str, str]) -> bytes:
    return "".join(f"{checksums[name]}  {name}\n" for name in sorted(checksums)).encode()


def parse(data: bytes, shown: str) -> dict[str, str]:
    """Name -> SHA-256; raises BuildError, which names the file as `shown`, for anything but such lines."""
    checksums: dict[str, str] = {}
    try:
        lines = data.decode().removesuffix("\n").split("\n") if data else []
    except UnicodeDecodeError as error:
        raise BuildError(f"{shown} is not text") from error
    for number, line in enumerate(lines, start=1):
        match = _LINE.fullmatch(line)
        if match is None or match[2] in checksums or ".." in match[2].split("/"):
            raise BuildError(f"{shown}: line {number} is not a checksum", hint="publish the version again")
        checksums[match[2]] = match[1]
    return checksums
