"""The Python libraries that the updater brings (mixer.updater), as packages of a version.

They are no package of the distribution, and yet programs of others, whose faults become known. Each is called
"pypi:<name>", so that its name is none of a distribution's package. Which libraries there are is what the metadata in
the root say; which files are theirs, by the names directly in PYTHON, is what the builder's environment says, where
they come from. Pure but for reading.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from urllib.parse import quote

from mixer.composition import ComposedBundle
from mixer.packagelist import Package, canonical_licence
from mixer.updater import PYTHON


def libraries(root: Path, bundles: Mapping[str, ComposedBundle]) -> Iterator[Package]:
    """The libraries in a root, with the files and the bundles that have them."""
    holders: dict[str, list[str]] = {}
    for bundle, composed in bundles.items():
        for path in composed.files:
            if path.startswith(f"{PYTHON}/") and not os.path.isdir(f"{root}{path}"):
                holders.setdefault(path, []).append(bundle)
    for found in metadata.distributions(path=[f"{root}{PYTHON}"]):
        name, version, said = found.metadata["Name"], found.version, found.metadata.json
        own = _names(name)
        files = [path for path in holders if path.removeprefix(f"{PYTHON}/").partition("/")[0] in own]
        if files:
            yield Package(
                name=f"pypi:{name.lower()}",
                version=version,
                licence=canonical_licence(str(said.get("license_expression") or said.get("license", ""))),
                purl=f"pkg:pypi/{quote(name.lower().replace('_', '-'), safe='')}@{quote(version, safe='')}",
                bundles=tuple(sorted({bundle for path in files for bundle in holders[path]})),
                files=tuple(sorted(files, key=os.fsencode)),
            )


def _names(library: str) -> set[str]:
    """What a library has directly in its directory."""
    try:
        files = metadata.distribution(library).files or ()
    except metadata.PackageNotFoundError:
        return set()
    return {file.parts[0] for file in files} - {"..", "__pycache__"}
