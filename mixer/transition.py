"""What clients lack on the way from one published version to another: pure (mixer specification, sections 10.3, 10.4).

A *step* leads one bundle, or the whole OS, from the older version to the newer one. It names each object that a client
cannot have yet, once, with the file of the older version that it is best made from, if there is one:

* An object is lacking if its entry is newer than the bundle was and differs from the entry of the same path there.
* It can be made from a file that the client certainly has: one of the bundle itself, or of what it includes if that has
  the same content or path. (The original looks for pairs among all files and packs those that happen to be in the
  bundle, so it misses some.)
  For the whole OS, a pair within the bundle goes before one with another bundle's file.
* A bundle that the older version does not have has no step; its zero pack leads to it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
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

    def included(bundle: str) -> Iterator[Entry]:
        names = [bundle]
        for name in names:
            found = old_manifest(name)
            if found is not None:
                yield from found.entries if name != bundle else ()
                names += [other for other in found.includes if other not in names]

    steps = []
    for line in new.mom.entries:
        former = before.get(line.name)
        target = new.manifest(line.name) if line.is_present and former and former.version < line.version else None
        own = old_manifest(line.name) if target is not None else None
        if former is None or target is None or own is None:
            continue
        needs = _needs(own.entries, included(line.name), target.entries, former.version)
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


def _needs(own: Iterable[Entry], included: Iterable[Entry], new: Sequence[Entry], since: int) -> tuple[Need, ...]:
    before = {entry.name: entry for entry in own}
    lacking: dict[str, Entry] = {}
    for entry in new:
        if not entry.is_present or entry.version <= since or entry.hash in lacking:
            continue
        former = before.get(entry.name)
        if former is None or (former.hash, former.flags) != (entry.hash, entry.flags):
            lacking[entry.hash] = entry
    paths = {entry.name for entry in lacking.values()}
    old = [*before.values(), *(entry for entry in included if entry.hash in lacking or entry.name in paths)]
    sources = {pair.new.hash: pair.old for pair in pairs(old, new, since=since)} if lacking else {}
    return _by_path(
        Need(entry, sources.get(entry.hash) if entry.type is FileType.FILE else None) for entry in lacking.values()
    )


def _by_path(needs: Iterable[Need]) -> tuple[Need, ...]:
    return tuple(sorted(needs, key=lambda need: need.entry.name))
