"""The builder's rules for manifests against versions 10 and 20 that the original's own tools made.

The composition is reconstructed from the published manifests: what a bundle and its includes have is what its
definition must have listed. The fixture's mixer did not leave out directories yet, and its sizes are not in the
manifests, so files and links are compared, not directories and contentsize.
"""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest

from mixer.composition import ComposedBundle, Composition
from mixer.manifests import BuiltManifests, build_manifests
from mixer.scan import Record
from swupd.formats.manifest import Entry, FileType, Manifest, parse

ARCHIVE = Path(__file__).parent / "example.tar.xz"
VERSIONS = (10, 20)


class Rebuilt:
    """Both versions by our rules, each after the other."""

    def __init__(self, published: dict[str, Manifest]) -> None:
        self.published = published
        self.versions: dict[int, BuiltManifests] = {}
        self.mom: Manifest | None = None
        self._manifests: dict[str, Manifest] = {}
        for version in VERSIONS:
            self._build(version)

    def original(self, version: int) -> dict[str, Manifest]:
        """Bundle -> its manifest, as the MoM of a version names it."""
        lines = self.published[f"{version}/Manifest.MoM"].entries
        return {line.name: self.published[f"{line.version}/Manifest.{line.name}"] for line in lines}

    def manifest(self, bundle: str) -> Manifest | None:
        return self._manifests.get(bundle)

    def _build(self, version: int) -> None:
        mom = self.published[f"{version}/Manifest.MoM"]
        own = self.original(version)
        records: dict[str, Record] = {}
        bundles: dict[str, ComposedBundle] = {}
        for line in mom.entries:
            manifest = own[line.name]
            present = [entry for name in _closure(line.name, own) for entry in own[name].entries if entry.is_present]
            records |= {entry.name: Record(entry.type, entry.hash, 0) for entry in present}
            bundles[line.name] = ComposedBundle(
                line.name,
                "Experimental" if line.is_experimental else "Active",
                manifest.includes,
                files={entry.name: entry.is_exported for entry in present},
            )
        built = build_manifests(
            Composition(version, Path("/nowhere"), bundles),
            dict(sorted(records.items())),
            self,
            format=30,
            timestamp=mom.timestamp,
        )
        self.versions[version] = built
        self.mom = built.mom.manifest
        self._manifests |= {name: bundle.manifest for name, bundle in built.bundles.items()}


def _closure(name: str, manifests: dict[str, Manifest]) -> set[str]:
    found = {name}
    for include in manifests[name].includes:
        found |= _closure(include, manifests)
    return found


@pytest.fixture(scope="module")
def rebuilt() -> Rebuilt:
    published: dict[str, Manifest] = {}
    with tarfile.open(ARCHIVE) as tar:
        for member in tar:
            directory, _, name = member.name.removeprefix("./").removeprefix("web-dir/").rpartition("/")
            if name.startswith("Manifest.") and not name.endswith((".tar", ".sig")):
                file = tar.extractfile(member)
                assert file is not None
                data = file.read()
                bundle = name.removeprefix("Manifest.")
                published[f"{directory}/{name}"] = parse(data, name=bundle, is_mom=bundle == "MoM")
    return Rebuilt(published)


def without_directories(manifest: Manifest) -> list[Entry]:
    return [entry for entry in manifest.entries if entry.flags[0] != FileType.DIRECTORY]


@pytest.mark.parametrize("version", VERSIONS)
def test_every_file_has_the_entry_that_the_original_gave_it(rebuilt: Rebuilt, version: int) -> None:
    original = rebuilt.original(version)
    built = rebuilt.versions[version].bundles

    assert built.keys() == {name for name, manifest in original.items() if manifest.version == version}
    for name, bundle in built.items():
        assert without_directories(bundle.manifest) == without_directories(original[name])
        assert bundle.manifest.includes == original[name].includes
        assert bundle.manifest.previous == original[name].previous


@pytest.mark.parametrize("version", VERSIONS)
def test_the_mom_has_the_lines_of_the_original(rebuilt: Rebuilt, version: int) -> None:
    original = rebuilt.published[f"{version}/Manifest.MoM"]
    built = rebuilt.versions[version].mom.manifest

    assert [(e.flags, e.version, e.name) for e in built.entries] == [
        (e.flags, e.version, e.name) for e in original.entries
    ]
    assert built.previous == original.previous
