"""Prepared roots as a source: what another program composed is published as it is (mixer specification, section 3.3).

`source: {type: tree, path: DIR}`: DIR/<V> is what `mixer.composition` describes, used in place and never written to.
groups.ini and -extra-files may stand in DIR itself as well, for all versions.
"""

from __future__ import annotations

from pathlib import Path

from mixer import composition
from mixer.composition import Composition
from mixer.errors import SourceError


def load(path: Path, version: int) -> Composition:
    """The composition of a version. Raises SourceError if the tree does not have it, BuildError if it is wrong."""
    directory = path / str(version)
    if not directory.is_dir():
        raise SourceError(
            f"the prepared tree has no version {version}: {directory} is not a directory",
            hint="source.path in builder.yaml says where trees are, `mixer versions` which version is built next",
        )
    return composition.load(directory, version, shared=path)
