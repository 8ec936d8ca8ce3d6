"""The versions before the one that is checked, as far as they are there.

Deltas lead from their files, so they are needed to prove a newer version, but they are not what is checked: a version
or a manifest of theirs that is missing (old versions may be retired) or damaged counts as not there. Each is read when
it is asked for, and once.
"""

from __future__ import annotations

from mixer.errors import BuildError
from mixer.store import PublishedTree, PublishedVersion
from mixer.transition import Step, Version, bundle_steps
from swupd.formats import layout
from swupd.formats.manifest import FileType, Manifest


class OlderVersion:
    """One of them; a damaged manifest is None."""

    def __init__(self, version: PublishedVersion) -> None:
        self._version = version
        self.mom = version.mom

    def manifest(self, bundle: str) -> Manifest | None:
        try:
            return self._version.manifest(bundle)
        except BuildError:
            return None

    def text(self, bundle: str) -> bytes | None:
        """A bundle's manifest as it was published; None also for a bundle that the version does not have."""
        try:
            return self._version.text(bundle)
        except (BuildError, KeyError):
            return None


class OlderVersions:
    """Those before version `newer` (which is described by its MoM)."""

    def __init__(self, tree: PublishedTree, newer: Manifest) -> None:
        self._tree = tree
        self._next = newer.previous
        """The version in which files are looked for next; each leads to the one before it."""
        self._seen: set[int] = set()
        """Those whose files are known."""
        self._versions: dict[int, OlderVersion | None] = {}
        self._fullfiles: dict[str, str] = {}
        self._steps: dict[int, list[Step]] = {}

    def version(self, number: int) -> OlderVersion | None:
        if number not in self._versions:
            try:
                self._versions[number] = OlderVersion(self._tree.version(number))
            except BuildError:
                self._versions[number] = None
        return self._versions[number]

    def steps(self, number: int, newer: Version) -> list[Step]:
        """What clients lack on the way from an older version; nothing is known, so nothing lacking, if it is gone."""
        if number not in self._steps:
            older = self.version(number)
            self._steps[number] = bundle_steps(older, newer) if older is not None else []
        return self._steps[number]

    def fullfile(self, file_hash: str, since: int) -> str | None:
        """Where the regular file with this hash is published that some version from `since` on has."""
        self._look_into(since)
        while file_hash not in self._fullfiles and self._next >= max(since, 1):
            self._next = self._look_into(self._next)
        return self._fullfiles.get(file_hash)

    def _look_into(self, number: int) -> int:
        """Take down the files of a version; returns the one before it, 0 if there is none."""
        older = self.version(number)
        if older is None:
            return 0
        for line in older.mom.entries if number not in self._seen else ():
            found = older.manifest(line.name)
            for entry in found.entries if found is not None else ():
                if entry.type is FileType.FILE:
                    self._fullfiles.setdefault(entry.hash, layout.fullfile(entry.version, entry.hash))
        self._seen.add(number)
        return older.mom.previous if older.mom.previous < number else 0
