"""What clients lack on the way from one published version to another: pure (mixer specification, sections 10.3, 10.4).

A *step* leads one bundle, or the whole OS, from the older version to the newer one. It names each object that a client
cannot have yet, once, with the file of the older version that it is best made from, if there is one:

* An object is lacking if its entry is newer than the bundle was and differs from the entry of the same path there.
* It can be made from any file that the client certainly has: those of the bundle itself, and of all that it includes.
  (The original looks for pairs among all files and packs those that happen to be in the bundle, so it misses some.)
  For the whole OS, a pair within the bundle goes before one with another bundle's file.
* A bundle that the older version does not have has no step; its zero pack leads to it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from mixer.pairs import pairs
from swupd.formats.manifest import Entry, FileType, Manifest


class Version(Protocol):
    """A published version."""

    @property
    def mom(self) -> Manifest: ...

    def manifest(self, bundle: str) -> Manifest | None: ...


@dataclass(frozen=True, slots=True)
class Need:
    """An object that clients lack."""

    entry: Entry
    """Its first path in the newer version."""
    source: Entry | None
    """The file of the older version that it is made from."""


@dataclass(frozen=True, slots=True)
class Step:
    """The way of one bundle; or of the whole OS, whose name is empty."""

    bundle: str
    from_version: int
    """The bundle's own versions, not those of the OS."""
    to_version: int
    needs: tuple[Need, ...]
    """Sorted by path."""


def bundle_steps(old: Version, new: Version) -> list[Step]:
    """The steps of all bundles that differ, in the order of the newer MoM."""
    before = {entry.name: entry for entry in old.mom.entries if entry.is_present}
    loaded: dict[str, Manifest] = {}

    def old_manifest(bundle: str) -> Manifest | None:
        if bundle in before and bundle not in loaded:
            found = old.manifest(bundle)
            if found is not None:
                loaded[bundle] = found
        return loaded.get(bundle)

    def old_files(bundle: str) -> list[Entry]:
        names = [bundle]
        files: list[Entry] = []
        for name in names:
            found = old_manifest(name)
            if found is not None:
                files += found.entries
                names += [included for included in found.includes if included not in names]
        return files

    steps = []
    for line in new.mom.entries:
        former = before.get(line.name)
        target = new.manifest(line.name) if line.is_present and former and former.version < line.version else None
        own = old_manifest(line.name) if target is not None else None
        if former is None or target is None or own is None:
            continue
        needs = _needs(own.entries, old_files(line.name), target.entries, former.version)
        steps.append(Step(line.name, former.version, line.version, needs))
    return steps


def os_step(steps: Iterable[Step], from_version: int, to_version: int) -> Step:
    """All steps as one: each object once, made from a file if that is possible for any bundle."""
    needs: dict[str, Need] = {}
    for step in steps:
        for need in step.needs:
            known = needs.get(need.entry.hash)
            if known is None or (known.source is None and need.source is not None):
                needs[need.entry.hash] = need
    return Step("", from_version, to_version, _by_path(needs.values()))


def _needs(own: Iterable[Entry], old: Iterable[Entry], new: Iterable[Entry], since: int) -> tuple[Need, ...]:
    new = list(new)
    sources = {pair.new.hash: pair.old for pair in pairs(old, new, since=since)}
    before = {entry.name: entry for entry in own}
    needs: dict[str, Need] = {}
    for entry in new:
        if not entry.is_present or entry.version <= since or entry.hash in needs:
            continue
        former = before.get(entry.name)
        if former is not None and (former.hash, former.flags) == (entry.hash, entry.flags):
            continue
        source = sources.get(entry.hash) if entry.type is FileType.FILE else None
        needs[entry.hash] = Need(entry, source)
    return _by_path(needs.values())


def _by_path(needs: Iterable[Need]) -> tuple[Need, ...]:
    return tuple(sorted(needs, key=lambda need: need.entry.name))
