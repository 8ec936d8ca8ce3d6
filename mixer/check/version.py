"""`mixer check`: a published version proves itself, with what is published and the certificate of the mix alone.

A version without a problem is one of which all of this is true:

* Clients find it, its MoM is signed, and every manifest is the one that the MoM names, in whatever version's directory
  it lies; see mixer.check.manifests.
* Every present file of every bundle has its fullfile, and every pack and delta in the version's directory gives what it
  is named for; see mixer.check.content.
* A delta manifest gives the manifest of the version.
* The update index is signed, and right about versions, packs and their sizes.
* What it says about its packages, if it says anything, can be read.
* Each file of the version's directory has the SHA-256 that the checksums say, and these are signed. A version without
  checksums (they are an extension) can have changed where no client looks.

Packs in the directories of older versions are the business of those. Files that nobody asks for are noted, and are no
problem. Everything wrong is listed, nothing is changed. The workspace is not locked: if somebody publishes meanwhile,
check again.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from mixer import checksums, packagelist
from mixer.check.content import READERS, ContentCheck, Fullfile, Pack
from mixer.check.files import Files
from mixer.check.findings import CheckResult, Findings, reason
from mixer.check.manifests import ManifestCheck, Manifests
from mixer.check.older import OlderVersions
from mixer.engine import Engine
from mixer.errors import BuildError
from mixer.store import PublishedTree
from mixer.transition import os_step
from swupd.errors import ProjectError
from swupd.formats import delta, filehash, layout, updateindex
from swupd.formats.updateindex import Update
from swupd.report import Report, counted

STEPS = 3

_MANIFEST_DELTA = re.compile(r"Manifest-(.+)-delta-from-([1-9][0-9]*)")
_PACK = re.compile(r"pack-(.+)-from-(0|[1-9][0-9]*)\.tar")
_UPDATE_PACK = re.compile(r"(update)-from-([1-9][0-9]*)\.tar")
_FULLFILE = re.compile(r"files/([0-9a-f]{64})\.tar")
_UNCHECKED = ("mixer-src-version", "upstreamurl", "upstreamver")
"""Files that no client asks for, and that say nothing that could be compared."""


def check_version(
    tree: PublishedTree, version: int, certificate_pem: bytes | None, engine: Engine, report: Report
) -> CheckResult:
    """Check a version; without a certificate, signatures are left out.

    Raises BuildError if the version is not there or the place or the engine fails, SignatureError for the certificate.
    """
    return _Check(tree, version, certificate_pem, engine, report).run()


class _Check:
    """One check."""

    def __init__(
        self, tree: PublishedTree, version: int, certificate_pem: bytes | None, engine: Engine, report: Report
    ) -> None:
        self._tree = tree
        self._version = version
        self._engine = engine
        self._report = report
        self._findings = Findings()
        self._files = Files(tree, certificate_pem, self._findings)
        self._names = self._files.sizes(version)
        if not self._names:
            what = f"version {version} is not" if version else "nothing is published"
            raise BuildError(f"{what} in {tree.shown}", hint="name a version that was published")

    def run(self) -> CheckResult:
        self._report.step("manifests", f"Checking the manifests of version {self._version}", 1, STEPS)
        check = ManifestCheck(self._files, self._version, self._findings)
        mom = check.mom()
        check.latest(mom)
        if mom is not None:
            check.format(mom)
            manifests = check.manifests(mom)
            older = OlderVersions(self._tree, mom)
            self._delta_manifests(manifests, older)
            self._index(manifests, older)
            self._report.step("content", "Unpacking fullfiles and packs", 2, STEPS)
            self._content(manifests, older)
        self._packages()
        self._report.step("checksums", "Comparing checksums", 3, STEPS)
        self._checksums()
        if mom is not None:
            self._strangers()
        return self._findings.result(self._version)

    def _strangers(self) -> None:
        """Note what was not looked at, a line for each directory: the original leaves objects beside fullfiles."""
        strangers: dict[str, list[str]] = {}
        for file in sorted(self._names.keys() - self._files.asked):
            directory, _, name = file.rpartition("/")
            if name not in _UNCHECKED:
                self._report.verbose(f"{file} is nothing that clients ask for")
                strangers.setdefault(directory, []).append(name)
        for directory, names in strangers.items():
            count = counted(len(names), "file")
            self._findings.note(directory, f"{count} that no client of this version asks for, such as {names[0]!r}")

    def _matching(self, pattern: re.Pattern[str]) -> Iterator[tuple[str, str, int]]:
        """Files of the version that lead to it from an older one: name, what they are of, older version."""
        for file in sorted(self._names):
            match = pattern.fullmatch(file.partition("/")[2])
            if match is not None and int(match[2]) < self._version:
                yield file, match[1], int(match[2])

    # -- manifests and packs ---------------------------------------------------------------------------------------

    def _delta_manifests(self, manifests: Manifests, older: OlderVersions) -> None:
        hashes = {line.name: line.hash for line in manifests.mom.entries if line.version == self._version}
        for file, bundle, since in self._matching(_MANIFEST_DELTA):
            if bundle not in hashes:
                continue
            data, before = self._files.read(file), older.version(since)
            old = before.text(bundle) if before is not None else None
            if old is None:
                self._findings.note(file, "not applied: the old manifest is not in the tree")
            elif data is not None:
                with self._findings.about(file):
                    new, header = delta.apply(old, data)
                    self._findings.checked.deltas += 1
                    if filehash.hash_content(header.mode, header.uid, header.gid, new) != hashes[bundle]:
                        self._findings.problem(file, "gives another manifest than that of the version")

    def _content(self, manifests: Manifests, older: OlderVersions) -> None:
        """All fullfiles that clients of the version may ask for, and those that lie in its directory besides."""
        fullfiles: dict[str, Fullfile] = {}
        for bundle, entries in manifests.present.items():
            for entry in entries:
                file = layout.fullfile(entry.version, entry.hash)
                if file not in fullfiles and self._files.size(file) is None:
                    self._findings.problem(file, f"is missing: {entry.name} of bundle {bundle}")
                fullfiles[file] = Fullfile(file, entry.hash)
        self._files.asked |= fullfiles.keys()
        for file in self._names:
            if match := _FULLFILE.fullmatch(file.partition("/")[2]):
                fullfiles[file] = Fullfile(file, match[1])
        there = [fullfile for file, fullfile in sorted(fullfiles.items()) if self._files.size(file) is not None]
        packs = list(self._packs(manifests, older))
        directory = f"{self._version}/{layout.DELTA_DIRECTORY}/"
        deltas = [
            file
            for file in sorted(self._names)
            if file.startswith(directory) and layout.parse_delta_name(file.removeprefix(directory))
        ]
        self._files.asked |= {*(pack.file for pack in packs), *deltas}
        ContentCheck(self._files, older, self._findings, self._engine, self._report).run(there, packs, deltas)

    def _packs(self, manifests: Manifests, older: OlderVersions) -> Iterator[Pack]:
        """Those that clients ask for."""
        lines = {line.name: line.version for line in manifests.mom.entries}
        objects = {
            bundle: {entry.hash: entry.name for entry in entries} for bundle, entries in manifests.present.items()
        }
        for file, bundle, since in self._matching(_PACK):
            if lines.get(bundle) != self._version:
                continue
            if bundle not in objects:
                self._findings.note(file, "not checked: the manifest of the bundle is damaged")
            elif since == 0:
                yield Pack(file, since, False, objects[bundle], objects[bundle])
            else:
                steps = (step for step in older.steps(since, manifests) if step.bundle == bundle)
                needed = {need.entry.hash: need.entry.name for step in steps for need in step.needs}
                yield Pack(file, since, False, objects[bundle], needed)
        everything = {file_hash: path for each in objects.values() for file_hash, path in each.items()}
        for file, _, since in self._matching(_UPDATE_PACK):
            step = os_step(older.steps(since, manifests), since, self._version)
            yield Pack(file, since, True, everything, {need.entry.hash: need.entry.name for need in step.needs})

    # -- index and checksums ---------------------------------------------------------------------------------------

    def _index(self, manifests: Manifests, older: OlderVersions) -> None:
        file = layout.update_index(self._version)
        if file not in self._names and layout.signature(file) not in self._names:
            return
        data, _ = self._files.read_signed(file, limit=updateindex.INDEX_BYTES_LIMIT)
        if data is None:
            return
        with self._findings.about(file):
            index = updateindex.parse(data)
            if index.version != self._version:
                self._findings.problem(file, f"is of version {index.version}")
            for update in index.updates:
                for what in self._wrong_costs(update, manifests, older):
                    self._findings.problem(file, f"update from {update.from_version}: {what}")

    def _wrong_costs(self, update: Update, manifests: Manifests, older: OlderVersions) -> Iterator[str]:
        """What the index says wrongly of the ways from one older version."""
        pack = layout.update_pack(self._version, update.from_version)
        said = update.pack.bytes if update.pack is not None else None
        if said != self._names.get(pack):
            yield f"{pack} has {_bytes(self._names.get(pack))}, not {_bytes(said)}"
        elif update.pack is not None and (what := self._differs(pack, update.pack.sha256)):
            yield f"{pack} {what}"
        lines = {line.name: line.version for line in manifests.mom.entries}
        before = older.version(update.from_version)
        if before is not None:
            former = {line.name: line.version for line in before.mom.entries}
            newer = {name: former.get(name, 0) for name, version in lines.items() if version > former.get(name, 0)}
            if {name: cost.from_version for name, cost in update.bundles.items()} != newer:
                yield "its bundles and their versions are not those that changed"
        for name, cost in update.bundles.items():
            pack = layout.pack(lines.get(name, self._version), name, cost.from_version)
            if cost.pack != self._files.size(pack):
                yield f"{pack} has {_bytes(self._files.size(pack))}, not {_bytes(cost.pack)}"

    def _packages(self) -> None:
        file = layout.packages(self._version)
        if file not in self._names:
            return
        data = self._files.read(file, limit=packagelist.LIMIT)
        if data is not None:
            with self._findings.about(file):
                packagelist.decompressed(data, file)

    def _checksums(self) -> None:
        file = layout.checksums(self._version)
        signature = layout.signature(file)
        if file not in self._names and signature not in self._names:
            return
        data, is_signed = self._files.read_signed(file, limit=checksums.SIZE_LIMIT)
        if data is None or not is_signed:
            return
        with self._findings.about(file):
            sums = {f"{self._version}/{name}": digest for name, digest in checksums.parse(data, file).items()}
            for name in sums.keys() - self._names.keys():
                self._findings.problem(name, "is missing, but in the checksums")
            for name in self._names.keys() - sums.keys() - {file, signature}:
                self._findings.problem(name, "is not in the checksums")
            self._compare({name: sums[name] for name in sorted(sums.keys() & self._names.keys())})

    def _compare(self, sums: dict[str, str]) -> None:
        total, done = sum(self._names[name] for name in sums), 0
        with ThreadPoolExecutor(READERS, thread_name_prefix="checksums") as pool:
            for name, what in zip(sums, pool.map(self._differs, sums, sums.values()), strict=True):
                if what:
                    self._findings.problem(name, what)
                done += self._names[name]
                self._report.progress(done, total)
        self._findings.checked.checksums += len(sums)

    def _differs(self, file: str, expected: str) -> str:
        """What is wrong with a file that should have this SHA-256; empty if nothing is."""
        try:
            with self._tree.open(file) as source:
                actual = checksums.of_stream(source)
        except (ProjectError, OSError) as error:
            return reason(error, file)
        return "" if actual == expected else "has another SHA-256 than it should have"


def _bytes(size: int | None) -> str:
    return "no bytes at all" if size is None else counted(size, "byte")
