"""The manifests of a published version prove themselves, and the files that lead to it (a part of mixer.check).

* The latest files are numbers of versions that are there, not older than this one, and signed.
* A manifest is published twice, plain and in an archive. Each copy is judged by itself, by signature or hash, so that
  the damaged one is named and the check goes on with the other.
* What a bundle includes is in the MoM; nothing is newer than the manifest that it is in.
* Manifest.full is named by nobody. At each path that a bundle has, it has the same object, and not an older version of
  it; what it has besides is no bundle's.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from mixer.check.files import Files
from mixer.check.findings import Findings
from mixer.manifests import manifest_hash
from mixer.store import MAX_NUMBER_BYTES
from swupd.formats import archive, layout
from swupd.formats.manifest import Entry, Level, Manifest, parse
from swupd.report import counted


@dataclass
class Manifests:
    """What a version says of itself, as far as it could be read; a `mixer.transition.Version`."""

    mom: Manifest
    present: dict[str, tuple[Entry, ...]] = field(default_factory=dict)
    """Bundle (or layout.FULL) -> its present entries, those for other processors among them."""
    _manifests: dict[str, Manifest] = field(default_factory=dict)

    def manifest(self, bundle: str) -> Manifest | None:
        """The manifest of a bundle; None if it is missing or damaged."""
        return self._manifests.get(bundle)

    def add(self, bundle: str, manifest: Manifest, data: bytes) -> None:
        entries = dict.fromkeys(manifest.entries)
        if len(entries) < data.partition(b"\n\n")[2].count(b"\n"):
            for level in Level:
                entries |= dict.fromkeys(parse(data, name=bundle, levels=frozenset({level})).entries)
        self._manifests[bundle] = manifest
        self.present[bundle] = tuple(entry for entry in entries if entry.is_present)


class ManifestCheck:
    """Checks the manifests of one version; what is wrong goes to the findings."""

    def __init__(self, files: Files, version: int, findings: Findings) -> None:
        self._files = files
        self._version = version
        self._findings = findings

    def latest(self, mom: Manifest | None) -> None:
        """The files by which clients find the version; without a MoM nobody knows its format."""
        files = [layout.latest_overall()]
        if mom is not None:
            files.append(layout.latest(mom.format))
            self._first(mom.format)
        for file in files:
            # Clients take a latest file also when its certificate's time is over.
            data, _ = self._files.read_signed(file, limit=MAX_NUMBER_BYTES, tolerate_expired=True)
            if data is None:
                continue
            number = _number(data)
            if number is None:
                self._findings.problem(file, "is not a number")
            elif number < self._version:
                self._findings.problem(file, f"is {number}: no client finds version {self._version}")
            elif not self._files.tree.has(layout.manifest(number, layout.MOM)):
                self._findings.problem(file, f"is {number}, a version that is not there")

    def _first(self, format_number: int) -> None:
        """The original does not write this one."""
        file = str(Path(layout.latest(format_number)).with_name("first"))
        if self._files.tree.has(file):
            data = self._files.read(file, limit=MAX_NUMBER_BYTES)
            if data is not None and not 1 <= (_number(data) or 0) <= self._version:
                self._findings.problem(file, "is not the number of a version up to this one")

    def mom(self) -> Manifest | None:
        """The MoM. One without a good signature is better than none to go on with."""
        file, tar = layout.manifest(self._version, layout.MOM), layout.manifest_tar(self._version, layout.MOM)
        name = layout.manifest_name(layout.MOM)
        beside = self._files.read(file), self._files.read_signature(file)
        archived = self._archived(self._version, layout.MOM)
        # The original's archives may be without the signature; clients ask for the one beside it.
        inside = archived.get(name), archived.get(layout.signature(name), beside[1])
        found = []
        for shown, what, (data, der), by in (
            (file, file, beside, layout.signature(file)),
            (tar, "the manifest in it", inside, tar),
        ):
            if data is None:
                continue
            self._findings.checked.manifests += 1
            is_signed = self._files.verify(by, der, what, data)
            with self._findings.about(shown):
                mom = parse(data, name=layout.MOM, is_mom=True)
                if mom.version != self._version:
                    self._findings.problem(shown, f"belongs to version {mom.version}")
                else:
                    found.append((is_signed, mom))
        if len(found) == 2 and found[0][0] is found[1][0] and beside != inside:
            self._findings.problem(tar, "does not hold the same manifest and signature that lie beside it")
        return max(found, key=lambda item: item[0])[1] if found else None

    def format(self, mom: Manifest) -> None:
        """The file from which clients learn the format of a version."""
        file = layout.format_file(self._version)
        data = self._files.read(file, limit=MAX_NUMBER_BYTES)
        if data is not None and _number(data) != mom.format:
            self._findings.problem(file, f"is not the format of the version, {mom.format}")

    def manifests(self, mom: Manifest) -> Manifests:
        """Those of all bundles, and Manifest.full."""
        found = Manifests(mom)
        for line in mom.entries:
            if line.version > self._version:
                what = f"has bundle {line.name} in the later version {line.version}"
                self._findings.problem(layout.manifest(self._version, layout.MOM), what)
                continue
            right = []
            for file, data in self._copies(line.version, line.name):
                if manifest_hash(data) == line.hash:
                    right.append((file, data))
                else:
                    self._findings.problem(file, f"is not the one that Manifest.MoM of version {self._version} names")
            if right:
                self._add(found, line.name, line.version, *right[0])
        self._full(found)
        return found

    def _full(self, found: Manifests) -> None:
        file, tar = layout.manifest(self._version, layout.FULL), layout.manifest_tar(self._version, layout.FULL)
        if self._files.size(file) is None and self._files.size(tar) is None:
            self._findings.note(file, "is missing: the next version makes all fullfiles again")
            return
        copies = self._copies(self._version, layout.FULL)
        if len({data for _, data in copies}) > 1:
            self._findings.problem(tar, f"does not hold the same as {file}")
        for shown, data in copies:
            if layout.FULL not in found.present:
                self._add(found, layout.FULL, self._version, shown, data)
        full = {(entry.name, entry.flags[2]): entry for entry in found.present.get(layout.FULL, ())}
        for bundle, entries in found.present.items() if full else ():
            lacking: list[str] = []
            other: list[str] = []
            older: list[str] = []
            for entry in entries:
                same = full.get((entry.name, entry.flags[2]))
                if same is None:
                    lacking.append(entry.name)
                elif (same.hash, same.type) != (entry.hash, entry.type):
                    other.append(entry.name)
                elif same.version < entry.version:
                    older.append(entry.name)
            for what, paths in (("lacks", lacking), ("has other objects at", other), ("has old versions of", older)):
                if paths:
                    number = counted(len(paths), "path")
                    self._findings.problem(file, f"{what} {number} of bundle {bundle}, such as {paths[0]}")

    def _add(self, found: Manifests, bundle: str, version: int, file: str, data: bytes) -> None:
        with self._findings.about(file):
            manifest = parse(data, name=bundle)
            if manifest.version != version:
                self._findings.problem(file, f"belongs to version {manifest.version}")
            for name in set(manifest.includes).difference(line.name for line in found.mom.entries):
                self._findings.problem(file, f"includes bundle {name}, which version {self._version} does not have")
            later = [entry.name for entry in manifest.entries if entry.version > manifest.version]
            if later:
                self._findings.problem(file, f"has {counted(len(later), 'path')} of later versions, such as {later[0]}")
            found.add(bundle, manifest, data)

    def _copies(self, version: int, bundle: str) -> list[tuple[str, bytes]]:
        """The plain manifest and the one in the archive, as far as they can be read."""
        plain = layout.manifest(version, bundle), self._files.read(layout.manifest(version, bundle))
        inside = self._archived(version, bundle).get(layout.manifest_name(bundle))
        copies = [
            (file, data) for file, data in (plain, (layout.manifest_tar(version, bundle), inside)) if data is not None
        ]
        self._findings.checked.manifests += len(copies)
        return copies

    def _archived(self, version: int, bundle: str) -> dict[str, bytes]:
        """What the archive of a manifest holds; nothing if it is unusable."""
        file = layout.manifest_tar(version, bundle)
        data = self._files.read(file)
        if data is not None:
            with self._findings.about(file):
                return archive.read_manifest_tar(data, bundle)
        return {}


def _number(data: bytes) -> int | None:
    text = data.strip()
    return int(text) if text.isdigit() else None
