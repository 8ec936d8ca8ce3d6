"""What a plan costs: files by kind, bytes to download, bytes on the disk, seconds. Pure.

All sizes but those of the update index are estimates, because manifests do not give the sizes of files. What they are
made from, the first that there is:

* the size of the file that has the name now, or of one that is about to go and whose name differs only in digits
  (a library, a kernel, a directory of modules of another version);
* the average size of the files of a bundle that has the object.

The shares below are what a server OS of 350 MB measures (docs/performance.md).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from swupd import history
from swupd.formats.manifest import Entry, FileType, Manifest
from swupd.history import Event
from swupd.plan import FileList, Plan
from swupd.report import counted
from swupd.route import Way

COMPRESSED_SHARE = 0.35
"""Compressed size of an object, as part of its own."""
DELTA_SHARE = 0.1
"""The same of an object in a pack for a bundle that is installed, most of whose objects are deltas."""
BLOCK_BYTES = 4096
"""What file systems round sizes up to."""

BYTES_PER_SECOND = 5e6
FILES_PER_SECOND = 1500.0
START_SECONDS = 1.0
"""How fast updates are as long as none has been done: downloading, installing, and all that is always the same."""
REMEMBERED_UPDATES = 5
"""How many of the last updates correct these rates."""
LARGEST_CORRECTION = 20.0
"""An update that took longer than this many times its prediction waited for something that will not come again."""

_DIGITS = re.compile("[0-9]+")
_FILE, _LINK = FileType.FILE.value, FileType.LINK.value


@dataclass(frozen=True)
class Kinds:
    """Paths by the kind of what is there."""

    files: int = 0
    links: int = 0
    directories: int = 0

    def __str__(self) -> str:
        parts = ((self.files, "file"), (self.links, "link"))
        shown = [counted(number, noun) for number, noun in parts if number]
        if self.directories:
            shown.append(f"{self.directories} director{'y' if self.directories == 1 else 'ies'}")
        return ", ".join(shown) or "none"

    @property
    def total(self) -> int:
        return self.files + self.links + self.directories


@dataclass(frozen=True)
class Changes:
    """What will become of the paths of a root."""

    added: Kinds
    changed: Kinds
    removed: Kinds
    left_alone: int
    """Paths that belong to the administrator."""

    @property
    def total(self) -> int:
        return self.added.total + self.changed.total + self.removed.total


def changes_of(plan: Plan, current: FileList) -> Changes:
    """What a definite plan changes. `current` are the files that manifests say to be there."""
    there = {entry.name for entry in plan.install if entry.name in current and current[entry.name].is_present}
    return Changes(
        added=_kinds(entry for entry in plan.install if entry.name not in there),
        changed=_kinds(entry for entry in plan.install if entry.name in there),
        removed=_kinds(current[name] for name in plan.remove if name in current and current[name].is_present),
        left_alone=len(plan.skipped),
    )


def _kinds(entries: Iterable[Entry]) -> Kinds:
    letters = [entry.flags[0] for entry in entries]
    files, links = letters.count(_FILE), letters.count(_LINK)
    return Kinds(files, links, len(letters) - files - links)


def sizes_of(entries: Iterable[Entry], on_disk: Mapping[str, int], manifests: Iterable[Manifest]) -> dict[str, int]:
    """Estimated sizes, in bytes, of the objects of `entries`, by hash.

    on_disk: sizes of files that are there now and will be replaced or go, by name. manifests: those that `entries` come
    from.
    """
    similar: dict[str, int] = {}
    for name, size in on_disk.items():
        pattern = _DIGITS.sub("#", name)
        similar[pattern] = max(size, similar.get(pattern, 0))
    sizes: dict[str, int] = {}
    unknown = set()
    for entry in entries:
        if entry.flags[0] != _FILE:
            sizes[entry.hash] = 0
        elif entry.name in on_disk:
            sizes[entry.hash] = on_disk[entry.name]
        elif similar and (pattern := _DIGITS.sub("#", entry.name)) in similar:
            sizes[entry.hash] = similar[pattern]
        else:
            unknown.add(entry.hash)
    for manifest in manifests if unknown else ():
        files = [entry.hash for entry in manifest.entries if entry.is_present and entry.flags[0] == _FILE]
        for file_hash in unknown.intersection(files):
            sizes.setdefault(file_hash, manifest.contentsize // len(files))
    return sizes


def on_disk(size: int) -> int:
    """What a file of this size takes of a file system."""
    return -(-size // BLOCK_BYTES) * BLOCK_BYTES


@dataclass(frozen=True)
class Download:
    """What has to come over the network."""

    objects: int
    bytes: int
    is_known: bool
    """Whether the publisher says so; otherwise it is an estimate."""
    staged: int
    """Bytes that the objects take in the state directory."""


def download_of(missing: Collection[str], way: Way, sizes: Mapping[str, int]) -> Download:
    """What `missing` objects cost on this way. `sizes` by hash; an object without one counts nothing."""
    deltas = {file_hash for pack in way.packs if pack.from_version for file_hash in pack.hashes}
    guessed = sum(
        sizes.get(file_hash, 0) * (DELTA_SHARE if file_hash in deltas else COMPRESSED_SHARE)
        for file_hash in way.unpriced
    )
    return Download(
        objects=len(missing),
        bytes=way.content + int(guessed),
        is_known=not way.unpriced,
        staged=sum(on_disk(sizes.get(file_hash, 0)) for file_hash in missing),
    )


def seconds_of(received: int, files: int, events: Sequence[Event]) -> float:
    """How long an update of this size takes: a simple rule, corrected by how far it was from the last updates."""
    from statistics import median

    rule = _rule(received, files)
    ratios = [
        event.seconds / _rule(event.received, event.installed + event.replaced + event.removed)
        for event in events
        if event.command == "update" and event.outcome == history.DONE
    ]
    sane = [ratio for ratio in ratios if 0 < ratio <= LARGEST_CORRECTION][-REMEMBERED_UPDATES:]
    return rule * median(sane) if sane else rule


def _rule(received: int, files: int) -> float:
    return START_SECONDS + received / BYTES_PER_SECOND + files / FILES_PER_SECOND
