"""Which old file a new file is made from, when a machine goes from one version to another (mixer specification, 10.4).

What is guaranteed of the pairs:

* `new` is a regular file that is newer than the from-version, and its content is not what its path had before; `old` is
  a regular file of the from-version.
* Each new content comes once, because deltas are named by hashes: with the first path of those that serve equally well.
* They follow from the entries alone, whatever their order is, and are sorted by the path of the new file.

In this order a new file is made from

1. any file with the same content, so that nothing is fetched that a machine has already under another name;
2. the old file of its path;
3. an old file whose path is gone, if the two paths are equal without digits and dots (`python3.11`, `6.1.0-47`); or
   also without the letters a to f (build identifiers); or, for files that moved, if the base names are equal without
   digits and dots. In each of these steps an old file serves one new file, in the order of their paths.

Manifests know no sizes: that a file is too small or too large for a delta is for the caller to say. Pure.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Iterable
from itertools import chain
from operator import attrgetter, itemgetter
from typing import NamedTuple

from swupd.formats.manifest import Entry, FileType, Status

_PRESENT_FILE = frozenset({FileType.FILE + Status.PRESENT, FileType.FILE + Status.EXPERIMENTAL})
"""The first two flags."""


class Pair(NamedTuple):
    """A new file and the old one that it is made from."""

    old: Entry
    new: Entry


def pairs(old: Iterable[Entry], new: Iterable[Entry], *, since: int) -> list[Pair]:
    """The pairs for a machine that goes on from version `since`.

    `old` are the entries of all manifests that the machine is known to have, `new` those of what it gets; absent
    entries and other types may be among them. If manifests contradict each other, the higher version of a path counts.
    """
    before, after = _regular_files(old), _regular_files(new)
    content = {entry.hash: entry for entry in reversed(before.values())}
    changed = [
        entry
        for name, entry in after.items()
        if entry.version > since and not (name in before and before[name].hash == entry.hash)
    ]
    found: dict[str, Pair] = {}
    for entry in changed:
        if entry.hash in content:
            found.setdefault(entry.hash, Pair(content[entry.hash], entry))
    for entry in changed:
        if entry.name in before:
            found.setdefault(entry.hash, Pair(before[entry.name], entry))

    gone = [entry for name, entry in before.items() if name not in after and entry.hash not in found]
    for key in (_without_numbers, _without_hexadecimals, _base_without_numbers):
        changed = [entry for entry in changed if entry.hash not in found]
        gone = _add_renames(found, gone, changed, key)
    return sorted(found.values(), key=lambda pair: pair.new.name)


def _regular_files(entries: Iterable[Entry]) -> dict[str, Entry]:
    """The present regular files by path, in the order of their paths."""
    files = [entry for entry in entries if entry.flags[:2] in _PRESENT_FILE]
    files.sort(key=itemgetter(3, 2, 1, 0))  # name, version, hash, flags
    return {entry.name: entry for entry in files}


def _add_renames(
    found: dict[str, Pair], gone: list[Entry], changed: list[Entry], key: Callable[[str], str]
) -> list[Entry]:
    """Pair old and new files of the same key, one to one in order, and return the old files that are left.

    A key that is empty says nothing.
    """
    waiting: defaultdict[str, deque[Entry]] = defaultdict(deque)
    for entry in gone:
        waiting[key(entry.name)].append(entry)
    for entry in changed:
        name = key(entry.name)
        if name and entry.hash not in found and waiting.get(name):
            found[entry.hash] = Pair(waiting[name].popleft(), entry)
    return sorted(chain.from_iterable(waiting.values()), key=attrgetter("name"))


_NUMBERS = str.maketrans("", "", ".0123456789")
_HEXADECIMALS = str.maketrans("", "", ".0123456789abcdef")


def _without_numbers(name: str) -> str:
    return name.translate(_NUMBERS)


def _without_hexadecimals(name: str) -> str:
    return name.translate(_HEXADECIMALS)


def _base_without_numbers(name: str) -> str:
    return _without_numbers(name.rpartition("/")[2])
