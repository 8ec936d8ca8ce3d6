"""Manifests of a mix of the size of Clear Linux: the second version of 1,100 bundles over 450,000 paths.

Pure: no root, only what a scan of one would have found. Every bundle lists the packages of os-core besides its own, as
a closure over dependencies does, so that a path is listed ten times on average; and every twentieth path has changed,
so that no bundle keeps its manifest. As in a real build the former manifests are bytes, parsed when they are needed.

The memory is that of the whole process, which is one of its own and made the first version as well.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from hashlib import sha256
from pathlib import Path

from mixer.composition import ComposedBundle, Composition
from mixer.manifests import BuiltManifests, build_manifests
from mixer.scan import Record
from swupd.formats import layout
from swupd.formats.manifest import FileType, Manifest, parse
from tests.bench.measure import Usage, cpu_seconds, load_average, peak_memory, say
from tests.bench.rows import MB, Row

PATHS = 450_000
BUNDLES = 1_100
PACKAGE_FILES = 99
"""Files of a package, which all lie in one directory."""
CORE_PACKAGES = 40
CHANGED_EACH = 20
FILE_BYTES = 10_000

GOAL_CPU, GOAL_MB = 60, 1500

_SHARED = ("/usr", "/usr/share", "/usr/share/clear", layout.TRACKING)
_DIRECTORY = Record(FileType.DIRECTORY, "d" * 64, 0)


class Former:
    """A published version in memory."""

    def __init__(self, built: BuiltManifests | None = None) -> None:
        self.mom = built.mom.manifest if built else None
        self._texts = {name: bundle.data for name, bundle in built.bundles.items()} if built else {}
        if built:
            self._texts[layout.FULL] = built.full.data

    def manifest(self, bundle: str) -> Manifest | None:
        return parse(self._texts[bundle], name=bundle) if bundle in self._texts else None


def rows(data: Path) -> list[Row]:
    """What the second version costs. Needs a process of its own (tests.bench.measure)."""
    say("Making a synthetic mix")
    bundles, records = _mix()
    former = Former(_build(10, bundles, records, Former()))
    for path in list(records)[::CHANGED_EACH]:
        records[path] = records[path]._replace(hash=_hash(f"{path} changed"))
    say("Making the manifests of its second version")
    wall, cpu = time.perf_counter(), cpu_seconds()
    built = _build(20, bundles, records, former)
    usage = Usage(time.perf_counter() - wall, cpu_seconds() - cpu, peak_memory())
    listed = sum(len(bundle.files) for bundle in bundles.values())
    written = sum(len(bundle.manifest.entries) for bundle in built.bundles.values())
    size = len(built.full.data) + sum(len(bundle.data) for bundle in built.bundles.values())
    return [
        Row("bundles", len(bundles), "", note=f"{listed:,} listed paths, {len(records):,} in the root"),
        Row("second version: wall time", usage.wall, "s", note=load_average()),
        Row("second version: CPU", usage.cpu, "CPU s", GOAL_CPU, "goal"),
        Row("second version: memory", usage.memory / MB, "MB", GOAL_MB, "goal"),
        Row("manifests that it writes", len(built.bundles), "", note=f"{written:,} entries, {size / MB:.0f} MB"),
    ]


def _build(
    version: int, bundles: Mapping[str, ComposedBundle], records: Mapping[str, Record], former: Former
) -> BuiltManifests:
    composed = Composition(version, Path("/nowhere"), bundles)
    return build_manifests(composed, records, former, format=30, timestamp=1_700_000_000 + version)


def _mix() -> tuple[dict[str, ComposedBundle], dict[str, Record]]:
    """Bundles, and what the root has."""
    names = [layout.OS_CORE, *(f"bundle-{number}" for number in range(1, BUNDLES))]
    count = (PATHS - len(_SHARED) - BUNDLES) // (PACKAGE_FILES + 1)
    packages = [list(_package(number)) for number in range(count)]
    core, others = packages[:CORE_PACKAGES], packages[CORE_PACKAGES:]
    bundles = {}
    for number, name in enumerate(names):
        own = others[number - 1 :: BUNDLES - 1] if number else []
        paths = [*_SHARED, layout.marker(name), *(path for package in (*core, *own) for path in package)]
        includes = (layout.OS_CORE,) if number else ()
        bundles[name] = ComposedBundle(name, includes=includes, files=dict.fromkeys(paths, False))
    records = dict.fromkeys(_SHARED, _DIRECTORY)
    records |= {layout.marker(name): Record(FileType.FILE, _hash(""), 0) for name in names}
    for directory, *files in packages:
        records[directory] = _DIRECTORY
        records |= {path: Record(FileType.FILE, _hash(path), FILE_BYTES) for path in files}
    return bundles, records


def _package(number: int) -> Iterator[str]:
    """Its paths, the directory first."""
    directory = f"/usr/share/package-{number}"
    yield directory
    for file in range(PACKAGE_FILES):
        yield f"{directory}/some-file-of-it-{file}"


def _hash(text: str) -> str:
    return sha256(text.encode()).hexdigest()
