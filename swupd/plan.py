"""What a command wants to change: (installed files, wanted files) -> Plan. Pure: nothing is read, asked or written.

The rules (swupd client specification, sections 5.5 to 5.7 and 5.10 to 5.12):

* Versions decide, hashes come second: a file that is not newer than its installed counterpart is left alone, one that
  is newer but identical is written only if the copy on the disk is not what the manifests say (`Plan.recheck`).
* Ghosted entries are never acted on. What belongs to the boot manager (kernels, modules) is never removed by us.
* Protected paths (configuration and state, mount points, and the directories themselves) are never changed or removed.
  What a command brings there for the first time is created if the disk holds nothing of that name (`Plan.create`).
  The original leaves these out of update and bundle-add, and so installs a server without its configuration.
* In a snapshot for the next boot (`snapshot`) nothing is the administrator's or the boot manager's: no path is
  protected, and all that goes is removed.
* Two bundles that disagree about a path are a mistake of the publisher: such a path is neither written nor removed.
  It takes part as a ghosted entry.
* The orders of a plan are safe to follow: a directory is written before what it contains and removed after it, and
  os-release, which names the version, is written last.

A plan becomes a list of changes for a real root in `swupd.verify.settle`, which looks at the disk.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from swupd import protected
from swupd.formats import layout
from swupd.formats.manifest import Entry, Manifest

FileList = dict[str, Entry]
"""Consolidated entries by name."""

_PRESENT = ".e"
_GHOSTED = "g"
# The letter of a status, read directly: the loops below run over every file of an operating system.

ZERO_PACK_FILES_PER_BUNDLE = 10
"""From how many files per bundle on whole packs are worth their bytes when nothing older is installed."""


@dataclass(frozen=True)
class PackNeed:
    """A pack that may shorten the way of a bundle from one version (0 = not installed) to another."""

    bundle: str
    from_version: int
    to_version: int
    hashes: frozenset[str] = field(repr=False)
    """The objects that the pack can provide."""

    @property
    def title(self) -> str:
        """For messages."""
        return f"the pack for {self.bundle}"

    @property
    def path(self) -> str:
        """Where it is published."""
        return layout.pack(self.to_version, self.bundle, self.from_version)

    @property
    def marker(self) -> str:
        """What says in the state directory that it was unpacked."""
        return layout.pack_marker(self.bundle, self.from_version, self.to_version)


@dataclass(frozen=True)
class Plan:
    """What is to be done; tuples are in the order in which it may be done."""

    install: tuple[Entry, ...] = ()
    """Present entries to write whatever the disk holds."""
    recheck: tuple[Entry, ...] = ()
    """Present entries to write if the disk holds something else."""
    create: tuple[Entry, ...] = ()
    """Present entries of protected paths, to write if the disk holds nothing there."""
    remove: tuple[str, ...] = ()
    """Names to remove, deepest first; missing ones are fine."""
    packs: tuple[PackNeed, ...] = ()
    skipped: tuple[str, ...] = ()
    """Protected paths that the manifests wanted to change; for messages."""

    @property
    def objects(self) -> frozenset[tuple[str, int]]:
        """The distinct (hash, version) of all that may have to be written."""
        return frozenset((e.hash, e.version) for part in (self.install, self.recheck, self.create) for e in part)

    @property
    def needs_boot_update(self) -> bool:
        """Whether the boot manager has to look at what certainly changes."""
        return any(map(protected.needs_boot_update, self._changed()))

    @property
    def needs_reexec(self) -> bool:
        """Whether systemd itself changes."""
        return any(map(protected.needs_reexec, self._changed()))

    def __bool__(self) -> bool:
        return bool(self.install or self.recheck or self.create or self.remove)

    def _changed(self) -> list[str]:
        return [entry.name for entry in self.install] + list(self.remove)


def consolidate(manifests: Iterable[Manifest], *, on_conflict: Callable[[str], None] | None = None) -> FileList:
    """One list of files from the manifests of several bundles (section 5.5).

    Present wins over deleted; of two equal present entries the lower version stays, because its fullfile exists for
    sure; of two deleted ones the higher. Present entries with different hashes are passed by name to `on_conflict` and
    become one ghosted entry.
    """
    files: FileList = {}
    conflicts: dict[str, int] = {}
    for manifest in manifests:
        for entry in manifest.entries:
            name = entry.name
            other = files.get(name)
            if other is None:
                files[name] = entry
            elif entry.flags[1] not in _PRESENT:
                if other.flags[1] not in _PRESENT and entry.version > other.version:
                    files[name] = entry
            elif other.flags[1] not in _PRESENT:
                files[name] = entry
            elif entry.hash != other.hash or entry.flags[0] != other.flags[0]:
                conflicts[name] = max(entry.version, other.version, conflicts.get(name, 0))
            elif entry.version < other.version:
                files[name] = entry
    for name, version in conflicts.items():
        files[name] = Entry.ghosted(version, name)
        if on_conflict is not None:
            on_conflict(name)
    return files


def pack_needs(current: Mapping[str, Manifest], target: Mapping[str, Manifest]) -> tuple[PackNeed, ...]:
    """The packs that lead from the manifests of the installed bundles to those of the wanted ones (by bundle name).

    A file that only has a higher version than before needs none.
    """
    needs = []
    for bundle, manifest in target.items():
        former = current.get(bundle)
        old = former.version if former is not None else 0
        if manifest.version > old:
            same = {(e.name, e.hash) for e in former.entries} if former is not None else set()
            hashes = frozenset(
                e.hash
                for e in manifest.entries
                if e.version > old and e.flags[1] in _PRESENT and (e.name, e.hash) not in same
            )
            needs.append(PackNeed(bundle, old, manifest.version, hashes))
    return tuple(needs)


def plan_update(
    current: FileList,
    target: FileList,
    *,
    mounts: frozenset[str] = frozenset(),
    packs: Iterable[PackNeed] = (),
    snapshot: bool = False,
) -> Plan:
    """From the installed files to those of another version (section 5.7, step 10)."""
    draft = _Draft(mounts, snapshot=snapshot)
    for name, entry in target.items():
        pair = current.get(name)
        present = entry.flags[1] in _PRESENT
        if pair is not None and present and pair.flags[1] not in _PRESENT:
            pair = None
        if pair is None:
            draft.write(entry, new=True) if present else draft.remove(entry)
        elif entry.version > pair.version:
            same = entry.hash == pair.hash and entry.flags[:2] == pair.flags[:2]
            if not present:
                draft.remove(entry)
            elif same:
                draft.recheck(entry)
            else:
                draft.write(entry)
    for name, entry in current.items():
        # A tombstone that nobody mentions any more says nothing about what lies there now.
        if name not in target and entry.flags[1] in _PRESENT:
            draft.remove(entry)
    return draft.plan(packs)


def plan_add(
    new: FileList,
    installed: FileList,
    *,
    mounts: frozenset[str] = frozenset(),
    packs: Iterable[PackNeed] = (),
    on_conflict: Callable[[str], None] | None = None,
    snapshot: bool = False,
) -> Plan:
    """The files of new bundles beside those of the installed ones, all of one version (section 5.10).

    What an installed bundle provides as well is only rechecked; where it provides something else, `on_conflict` is
    told the name and nothing happens there.
    """
    draft = _Draft(mounts, snapshot=snapshot)
    for name, entry in new.items():
        if entry.flags[1] not in _PRESENT:
            continue
        other = installed.get(name)
        if other is None or other.flags[1] not in _PRESENT:
            draft.write(entry, new=True)
        elif other.hash == entry.hash:
            draft.recheck(entry)
        elif on_conflict is not None:
            on_conflict(name)
    return draft.plan(worthwhile_zero_packs(packs, len(draft.writes)))


def plan_remove(
    removed: FileList, kept: FileList, *, mounts: frozenset[str] = frozenset(), snapshot: bool = False
) -> Plan:
    """The files of removed bundles that no remaining bundle needs (section 5.11)."""
    draft = _Draft(mounts, snapshot=snapshot)
    for name, entry in removed.items():
        other = kept.get(name)
        if entry.flags[1] in _PRESENT and (other is None or other.is_deleted):
            draft.remove(entry)
    return draft.plan(())


def plan_install(target: FileList, *, mounts: frozenset[str] = frozenset(), packs: Iterable[PackNeed] = ()) -> Plan:
    """A whole system into a root that is empty, or that an interrupted installation left (section 5.12, os-install)."""
    draft = _Draft(mounts)
    for entry in target.values():
        if entry.flags[1] in _PRESENT:
            draft.recheck(entry, new=True)
    return draft.plan(worthwhile_zero_packs(packs, len(draft.rechecks)))


def worthwhile_zero_packs(packs: Iterable[PackNeed], files: int) -> tuple[PackNeed, ...]:
    """The packs, unless so few files are wanted that fetching them one by one is cheaper (section 5.10)."""
    chosen = tuple(packs)
    return chosen if files > ZERO_PACK_FILES_PER_BUNDLE * len(chosen) else ()


def tree_order(name: str) -> str:
    """Sort key that puts a directory directly before all that it contains, so that each is visited once."""
    return name.replace("/", "\0")


def write_order(entries: Iterable[Entry]) -> tuple[Entry, ...]:
    """Directories before their content, os-release last."""
    ordered = sorted(entries, key=lambda entry: tree_order(entry.name))
    # Not by the sort key: a tuple for each of 450,000 entries would be the largest thing in memory.
    last = [entry for entry in ordered if entry.name == layout.OS_RELEASE]
    return tuple([*(entry for entry in ordered if entry.name != layout.OS_RELEASE), *last] if last else ordered)


def removal_order(names: Iterable[str]) -> tuple[str, ...]:
    """Deepest first, directories after their content."""
    return tuple(sorted(names, key=tree_order, reverse=True))


class _Draft:
    """A plan while it is made: the path rules of section 5.6 are applied here and nowhere else."""

    def __init__(self, mounts: frozenset[str], *, snapshot: bool = False) -> None:
        self._mounts = mounts
        self._is_snapshot = snapshot
        self.writes: list[Entry] = []
        self.rechecks: list[Entry] = []
        self._creates: list[Entry] = []
        self._removes: list[str] = []
        self._skipped: list[str] = []

    def write(self, entry: Entry, *, new: bool = False) -> None:
        if not self._shelter(entry, new=new):
            self.writes.append(entry)

    def recheck(self, entry: Entry, *, new: bool = False) -> None:
        if not self._shelter(entry, new=new):
            self.rechecks.append(entry)

    def remove(self, entry: Entry) -> None:
        if entry.flags[1] == _GHOSTED or (not self._is_snapshot and protected.never_deleted(entry.name)):
            return
        if not self._shelter(entry, new=False):
            self._removes.append(entry.name)

    def plan(self, packs: Iterable[PackNeed]) -> Plan:
        return Plan(
            install=write_order(self.writes),
            recheck=write_order(self.rechecks),
            create=write_order(self._creates),
            remove=removal_order(self._removes),
            packs=tuple(packs),
            skipped=tuple(sorted(self._skipped)),
        )

    def _shelter(self, entry: Entry, *, new: bool) -> bool:
        """Take a protected path out of the ordinary changes: if it is new to the system it may still be created."""
        if self._is_snapshot or (entry.name not in self._mounts and not protected.is_protected(entry.name)):
            return False
        if new:
            self._creates.append(entry)
        else:
            self._skipped.append(entry.name)
        return True
