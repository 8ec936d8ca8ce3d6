"""An image as a file or directory: complete or not there, with what is known about it beside it.

* TARGET is written as TARGET.part, and gets its name in one step when all of it is on disk. What was there before stays
  until then; after any failure it still is there, and nothing else is.
* TARGET.json says what is in it, and TARGET.spdx.json is its SBOM. They are never about another image than TARGET: the
  old ones go before TARGET is replaced, and the new ones, which are on disk by then, get their names after.
* A directory is replaced only by one of the same type, as its TARGET.json says.

One process at a time writes an image.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from mixer.errors import BuildError
from swupd.errors import is_disk_full
from swupd.fs import Directory

UNFINISHED = ".part"
FACTS = ".json"
SBOM = ".spdx.json"
FACTS_LIMIT = 16 << 20
"""Bytes of a TARGET.json that is read."""

Facts = Mapping[str, object]
"""What TARGET.json says: type of the image, version, bundles, hash of the MoM, sizes in bytes, kernel command line, and
what else a type has. The same image has the same facts."""


@dataclass
class Unfinished:
    """An image that is being written, and what the writer says about it."""

    path: Path
    """Where to write it."""
    facts: Facts = field(default_factory=dict)
    sbom: bytes = b""
    """An SPDX document; none if empty."""


@contextmanager
def writing(target: Path) -> Iterator[Unfinished]:
    """An empty file to write; it becomes `target`, with what is known about it beside it, if the block ends well.

    Raises BuildError if the target cannot be written, and for an OSError of the block.
    """
    if target.exists() and not target.is_file():
        raise BuildError(f"{target} is not a file", hint="name a file for the image with -o")
    with explained(target), _appearing(target) as unfinished:
        unfinished.path.open("xb").close()
        yield unfinished
        _sync(unfinished.path)


@contextmanager
def filling(target: Path, kind: str) -> Iterator[Unfinished]:
    """The same for a directory; `kind` is the type of the image."""
    if os.path.lexists(target) and not (target.is_dir() and read_facts(target).get("type") == kind):
        raise BuildError(
            f"{target} is there already, and is no image of the type {kind}",
            hint="remove it, or name another directory with -o",
        )
    with explained(target), _appearing(target) as unfinished:
        unfinished.path.mkdir()
        yield unfinished
        with Directory.open(unfinished.path) as directory:
            directory.sync()


@contextmanager
def describing(target: Path) -> Iterator[Unfinished]:
    """The same for an image that the block changes in place, or leaves as it is if it fails: only what is beside it is
    replaced. A process that is killed in the block leaves nothing beside it."""
    with explained(target):
        unfinished = Unfinished(target)
        documents = _Documents(target)
        former = documents.take()
        try:
            try:
                yield unfinished
            except BaseException:
                for path, content in former.items():
                    path.write_bytes(content)
                raise
            documents.write(unfinished)
            documents.appear()
        finally:
            documents.discard()


@contextmanager
def explained(target: Path) -> Iterator[None]:
    """An OSError of the block becomes a BuildError about the target."""
    try:
        yield
    except OSError as error:
        raise BuildError(
            f"cannot write {target}: {error.strerror or error}",
            hint="free some space, or write it to another file system" if is_disk_full(error) else "",
        ) from error


def read_facts(target: Path) -> Facts:
    """What TARGET.json says; nothing if there is none that can be read."""
    try:
        with _beside(target, FACTS).open("rb") as file:
            facts = json.loads(file.read(FACTS_LIMIT))
    except (OSError, ValueError, RecursionError):
        return {}
    return facts if isinstance(facts, dict) else {}


def allocated(path: Path) -> int:
    """Bytes that a file takes on disk; holes take none."""
    return path.stat().st_blocks * 512


class _Documents:
    """What lies beside an image."""

    def __init__(self, target: Path) -> None:
        self._target = target
        self._written: list[Path] = []
        self.discard()

    def write(self, unfinished: Unfinished) -> None:
        """Write them to the disk, under names of their own."""
        contents = {FACTS: f"{json.dumps(unfinished.facts, indent=2)}\n".encode(), SBOM: unfinished.sbom}
        for suffix, content in contents.items():
            if content:
                path = _beside(self._target, suffix)
                _part(path).write_bytes(content)
                _sync(_part(path))
                self._written.append(path)

    def remove(self) -> None:
        """Those of the former image."""
        for suffix in (FACTS, SBOM):
            _beside(self._target, suffix).unlink(missing_ok=True)

    def take(self) -> dict[Path, bytes]:
        """Remove those of the former image; their content."""
        paths = [_beside(self._target, suffix) for suffix in (FACTS, SBOM)]
        former = {path: path.read_bytes() for path in paths if path.is_file()}
        self.remove()
        return former

    def appear(self) -> None:
        for path in self._written:
            os.rename(_part(path), path)
        with Directory.open(self._target.parent) as directory:
            directory.sync_names()

    def discard(self) -> None:
        """What has not appeared."""
        for suffix in (FACTS, SBOM):
            _part(_beside(self._target, suffix)).unlink(missing_ok=True)


@contextmanager
def _appearing(target: Path) -> Iterator[Unfinished]:
    unfinished = Unfinished(_part(target))
    _remove(unfinished.path)
    documents = _Documents(target)
    try:
        yield unfinished
        documents.write(unfinished)
        documents.remove()
        _replace(unfinished.path, target)
        documents.appear()
    finally:
        documents.discard()
        _remove(unfinished.path)


def _replace(part: Path, target: Path) -> None:
    """Give an image its name; a former directory is exchanged for it and removed."""
    if target.is_dir():
        with Directory.open(target.parent) as directory:
            directory.exchange(part.name, target.name)
    else:
        os.rename(part, target)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _part(path: Path) -> Path:
    return path.with_name(path.name + UNFINISHED)


def _beside(target: Path, suffix: str) -> Path:
    return target.with_name(target.name + suffix)
