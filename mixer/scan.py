"""One pass over the root of a composition: what there is, with its hash and size.

Everything is listed and hashed exactly once, however many bundles have a path (hashing dominates a build in which
little changed). Mount points are entered: a root that is assembled from several file systems is one root.

Names that a manifest cannot express raise BuildError. Devices, fifos and sockets cannot be shipped; they are left out
with a warning each. Other names are taken as they are: the original skips every name with a backslash or a quote, and
so lost systemd's `…\\x2d….slice` units, although the manifest format has no difficulty with them.
"""

from __future__ import annotations

import os
import stat
from typing import NamedTuple

from mixer.composition import Composition, check_path
from mixer.errors import BuildError
from swupd.formats import filehash
from swupd.formats.manifest import FileType
from swupd.report import Report


class Record(NamedTuple):
    """What the root has at a path."""

    type: FileType
    hash: str
    size: int
    """Bytes that it counts in contentsize: of a link the length of its text, of a directory 0."""


def scan(composition: Composition, report: Report, *, workers: int = 0) -> dict[str, Record]:
    """Path -> Record for everything below the root and for the overlay; `workers` threads, 0 is one per core.

    Raises BuildError for names and files that cannot be published.
    """
    root = str(composition.root)
    names: list[str] = []
    places: list[str] = []
    kinds: list[tuple[FileType, int]] = []
    seen = ((found.name, found.path, found.status) for found in filehash.walk(root, one_file_system=False))
    beside = ((name, place, os.lstat(place)) for name, place in sorted(composition.overlay.items()))
    try:
        for listing in (seen, beside):
            for name, place, status in listing:
                kind = _kind(status)
                if kind is None:
                    report.warning(f"{name} is a device, fifo or socket and is left out")
                    continue
                names.append(check_path(name, source=root))
                places.append(place)
                kinds.append(kind)
        hashes = filehash.hash_paths(places, workers=workers)
    except OSError as error:
        raise BuildError(f"cannot read {error.filename or root}: {error.strerror}") from error
    records: dict[str, Record] = {}
    for name, (kind_type, size), file_hash in zip(names, kinds, hashes, strict=True):
        if file_hash in (filehash.ZERO_HASH, filehash.UNSUPPORTED):
            raise BuildError(
                f"{root}{name} changed while it was read", hint="let nothing write to the root and build again"
            )
        records[name] = Record(kind_type, file_hash, size)
    return records


def _kind(status: os.stat_result) -> tuple[FileType, int] | None:
    mode = status.st_mode
    if stat.S_ISREG(mode):
        return FileType.FILE, status.st_size
    if stat.S_ISDIR(mode):
        return FileType.DIRECTORY, 0
    if stat.S_ISLNK(mode):
        return FileType.LINK, status.st_size
    return None
