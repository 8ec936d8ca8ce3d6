"""What is on the disk against what should be there: the engine of diagnose and repair (specification, section 5.12).

Nothing is changed here. `check` and `find_extra` give findings as plain values; `settle` looks at the disk for a plan
and makes it definite; `swupd.staging` and `transaction.install` act on the result. Rules:

* A path counts as there only if all its parents are real directories: no link in a parent is followed, so that nothing
  outside of the root is read or taken for one of its files. Whoever exchanges directories while this runs can at most
  make a finding wrong, because the installer walks by descriptors and looks again.
* Protected paths (section 5.6) are missing or all right, never mismatched, extraneous or extra; ghosted entries are
  nothing at all; what only a boot manager may delete is not extraneous.
* In a snapshot for the next boot (`snapshot`) no path is protected, and nothing is left to a boot manager.
* Hashing runs on all cores, in slices, so that progress shows and memory does not grow with the number of files.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from enum import Enum, auto
from pathlib import Path
from typing import NamedTuple

from swupd.errors import IncompleteError
from swupd.formats.filehash import ZERO_HASH, hash_paths
from swupd.formats.manifest import Entry, FileType
from swupd.plan import FileList, Plan, removal_order, tree_order, write_order
from swupd.posixregex import compile_extended
from swupd.protected import is_protected, never_deleted
from swupd.report import Report

DEFAULT_PICKY_TREE = "/usr"
DEFAULT_PICKY_WHITELIST = "/usr/lib/modules|/usr/lib/kernel|/usr/local|/usr/src"

_SLICE = 1024
"""Files that are hashed between two reports of progress."""


class Extra(NamedTuple):
    """Something in the picky tree that no manifest knows."""

    name: str
    is_directory: bool

    @property
    def shown(self) -> str:
        """As it is printed: directories end in a slash."""
        return f"{self.name}/" if self.is_directory else self.name


@dataclass(frozen=True)
class Findings:
    """How a root differs from its manifests."""

    missing: tuple[Entry, ...] = ()
    """Present entries that are not there, directories before their content."""
    mismatched: tuple[Entry, ...] = ()
    """Present entries that are there and different, in the same order."""
    extraneous: tuple[str, ...] = ()
    """Names of deleted entries that exist, deepest first."""
    checked: int = 0
    """How many entries were looked at."""

    def __bool__(self) -> bool:
        return bool(self.missing or self.mismatched or self.extraneous)

    @property
    def to_install(self) -> tuple[Entry, ...]:
        """What puts the root right, except for removals."""
        return write_order(self.missing + self.mismatched)


def check(
    root: Path,
    files: FileList,
    report: Report,
    *,
    mounts: frozenset[str] = frozenset(),
    quick: bool = False,
    below: str = "",
    snapshot: bool = False,
) -> Findings:
    """Compare a root with the files that it should have.

    quick: only look for what is missing. below: only this name, or names below it. Raises IncompleteError if the
    system does not let us read something.
    """
    chosen = sorted((e for e in files.values() if _in_scope(e.name, below)), key=lambda entry: tree_order(entry.name))

    def protected(name: str) -> bool:
        return not snapshot and is_protected(name, mounts)

    disk = _Disk(root)
    missing: list[Entry] = []
    to_hash: list[Entry] = []
    extraneous: list[str] = []
    for entry in chosen:
        name = entry.name
        if entry.is_present:
            place = disk.place_of(name)
            if place is not _Place.REAL:
                if place is _Place.ABSENT or not protected(name):
                    missing.append(entry)
            elif not quick and not protected(name):
                to_hash.append(entry)
            elif not disk.exists(name):
                missing.append(entry)
        elif quick or not entry.is_deleted or protected(name) or (never_deleted(name) and not snapshot):
            continue
        elif disk.place_of(name) is _Place.REAL and disk.exists(name):
            extraneous.append(name)
    mismatched: list[Entry] = []
    for entry, found in disk.differing(to_hash, report):
        (missing if found == ZERO_HASH else mismatched).append(entry)
    return Findings(
        missing=tuple(sorted(missing, key=lambda entry: tree_order(entry.name))),
        mismatched=tuple(mismatched),
        extraneous=removal_order(extraneous),
        checked=len(chosen),
    )


def settle(plan: Plan, root: Path, wanted: FileList, report: Report) -> Plan:
    """Make a plan definite: what has to be rechecked or created is looked up, and is then either installed or left out;
    parent directories that have disappeared are installed as well, as `wanted` describes them.

    Raises IncompleteError if the system does not let us read something.
    """
    disk = _Disk(root)
    install = list(plan.install)
    there = [entry for entry in plan.recheck if disk.place_of(entry.name) is _Place.REAL]
    install += [entry for entry in plan.recheck if disk.place_of(entry.name) is not _Place.REAL]
    install += [entry for entry, _ in disk.differing(there, report)]
    for entry in plan.create:
        place = disk.place_of(entry.name)
        if place is _Place.ABSENT or (place is _Place.REAL and not disk.exists(entry.name)):
            install.append(entry)
    install += _missing_parents(disk, install, wanted)
    return replace(plan, install=write_order(install), recheck=(), create=())


def find_extra(
    root: Path,
    files: FileList,
    *,
    tree: str = DEFAULT_PICKY_TREE,
    whitelist: re.Pattern[str],
    mounts: frozenset[str] = frozenset(),
    snapshot: bool = False,
) -> tuple[Extra, ...]:
    """What lies in `tree` (a name below the root) and in no manifest, deepest first.

    Ghosted entries count as known. Whatever the whitelist matches, protected paths, the boot manager's files and other
    file systems are left alone with all that is below, and so is a directory that has anything in it that stays.
    """
    top = "/" + tree.strip("/")
    base = _base(root)
    if top == "/":
        top = ""
    elif _Disk(root).place_of(f"{top}/") is not _Place.REAL:
        return ()
    known = {name for name, entry in files.items() if not entry.is_deleted}
    found: list[Extra] = []

    def visit(directory: str, device: int) -> bool:
        """Collect what is extra below; whether anything stays."""
        stays = False
        with os.scandir(f"{base}{directory}" or "/") as entries:
            children = sorted(entries, key=lambda entry: entry.name, reverse=True)
        for child in children:
            name = f"{directory}/{child.name}"
            is_directory = child.is_dir(follow_symlinks=False)
            is_others = not snapshot and (is_protected(name, mounts) or never_deleted(name))
            if is_others or whitelist.fullmatch(name):
                stays = True
                continue
            inner_stays = False
            if is_directory:
                inner_stays = child.stat(follow_symlinks=False).st_dev != device or visit(name, device)
            if name in known or inner_stays:
                stays = True
            else:
                found.append(Extra(name, is_directory))
        return stays

    try:
        visit(top, os.lstat(f"{base}{top}" or "/").st_dev)
    except OSError as error:
        raise _unreadable(error) from error
    return tuple(found)


def compile_whitelist(pattern: str) -> re.Pattern[str]:
    """A POSIX extended regular expression over whole paths; UsageError if it is none that we understand."""
    return compile_extended(pattern, "the picky whitelist", example=DEFAULT_PICKY_WHITELIST)


class _Place(Enum):
    """What the parent directory of a path is."""

    REAL = auto()
    """A directory, reached without any link."""
    ABSENT = auto()
    """Not there, and could be made."""
    BLOCKED = auto()
    """A link, a file or something else is in the way."""


class _Disk:
    """One look at a root; what directories are is remembered."""

    def __init__(self, root: Path) -> None:
        self._base = _base(root)
        self._places = {"": _Place.REAL}

    def place_of(self, name: str) -> _Place:
        """What the parent directory of this name is."""
        return self._place(name.rpartition("/")[0])

    def exists(self, name: str) -> bool:
        return self._status(name) is not None

    def differing(self, entries: Sequence[Entry], report: Report) -> list[tuple[Entry, str]]:
        """The entries that the disk does not have as they should be, with the hashes that it has; parents are real."""
        differing: list[tuple[Entry, str]] = []
        for start in range(0, len(entries), _SLICE):
            report.progress(start, len(entries))
            part = entries[start : start + _SLICE]
            try:
                hashes = hash_paths([self._base + entry.name for entry in part])
            except OSError as error:
                raise _unreadable(error) from error
            differing += [(entry, found) for entry, found in zip(part, hashes, strict=True) if entry.hash != found]
        if entries:
            report.progress(len(entries), len(entries))
        return differing

    def _place(self, directory: str) -> _Place:
        place = self._places.get(directory)
        if place is None:
            place = self.place_of(directory)
            if place is _Place.REAL:
                status = self._status(directory)
                if status is None:
                    place = _Place.ABSENT
                elif not stat.S_ISDIR(status.st_mode):
                    place = _Place.BLOCKED
            self._places[directory] = place
        return place

    def _status(self, name: str) -> os.stat_result | None:
        try:
            return os.lstat(self._base + name)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise _unreadable(error) from error


def _missing_parents(disk: _Disk, entries: Iterable[Entry], wanted: FileList) -> list[Entry]:
    """Directories above the entries that are neither there nor among the entries."""
    seen = {entry.name for entry in entries}
    parents: list[Entry] = []
    for entry in entries:
        name = entry.name
        while (name := name.rpartition("/")[0]) and name not in seen:
            seen.add(name)
            if disk.place_of(f"{name}/") is _Place.REAL:
                break
            parent = wanted.get(name)
            if parent is not None and parent.is_present and parent.type is FileType.DIRECTORY:
                parents.append(parent)
    return parents


def _in_scope(name: str, below: str) -> bool:
    return not below or name == below or name.startswith(f"{below.rstrip('/')}/")


def _base(root: Path) -> str:
    """What a name is appended to."""
    return str(root).rstrip("/")


def _unreadable(error: OSError) -> IncompleteError:
    return IncompleteError(
        f"cannot read {error.filename or 'a file'}: {error.strerror}", hint="run this as root, and check the disk"
    )
