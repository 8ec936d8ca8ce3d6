"""Where content comes from: the values and the protocol that every source of packages answers with.

A source does two things. `resolve` turns names into the exact set of package files that would be installed, fast and
without changing anything; its key stands for everything that decides what the root will be. `install` makes that root
and tells who owns which path in it. The rest of the builder knows nothing of package managers.

Packages are resolved and installed once for the whole mix, so that all bundles agree on one solution; what a bundle
gets is the closure of its packages in the database of that one root.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

from swupd.report import Report


class PackageFile(NamedTuple):
    """One package file: its name, which tells name, version and architecture, and the SHA-256 of its content."""

    name: str
    sha256: str


@dataclass(frozen=True, slots=True)
class Resolution:
    """What would be installed for a list of packages."""

    key: str
    """SHA-256 in hex over everything that decides the root."""
    files: tuple[PackageFile, ...]
    """All packages with their dependencies, sorted."""
    requested: tuple[str, ...]
    """The packages that were asked for, sorted."""


@dataclass(frozen=True, slots=True)
class Package:
    """An installed package."""

    name: str
    version: str
    files: tuple[str, ...]
    """The paths that it owns in the root, canonical and sorted; directories may have several owners."""
    requires: tuple[str, ...]
    """The installed packages that it needs directly, alternatives and virtual names resolved."""
    essential: bool = False
    architecture: str = ""
    source: str = ""
    """The source package that it was built from, and its version: "gcc-12 12.2.0-14"."""
    licence: str = ""
    """An SPDX expression; empty if it is not known."""
    homepage: str = ""
    maintainer: str = ""
    """Who made the package: a name, an address in angle brackets."""
    purl: str = ""
    """The package URL, which names it for all programs that look for known faults of packages."""


@dataclass(frozen=True, slots=True)
class PackageDatabase:
    """What is installed in a root."""

    packages: Mapping[str, Package]
    base: frozenset[str]
    """Packages that every system has without naming them; they belong to os-core."""
    unowned: tuple[str, ...]
    """Paths of the root that belong to no package, sorted; they belong to os-core."""

    def closure(self, names: Iterable[str]) -> frozenset[str]:
        """The packages named and all that they require, directly or not. KeyError for one that is not installed."""
        found: set[str] = set()
        waiting = list(names)
        while waiting:
            name = waiting.pop()
            if name not in found:
                found.add(name)
                waiting.extend(self.packages[name].requires)
        return frozenset(found)


class PackageSource(Protocol):
    """A distribution's packages."""

    def resolve(self, packages: Sequence[str], report: Report) -> Resolution:
        """What installing these packages means today.

        Raises UnknownPackageError with all names that do not exist, SourceError if the source cannot be reached, is
        not signed by a trusted key, or says that the packages cannot be installed together.
        """

    def install(self, resolution: Resolution, root: Path, report: Report) -> PackageDatabase:
        """Make a root at `root`, which must not exist, with exactly these packages and nothing that must not ship.

        Two calls with the same key give the same root. On failure nothing is left behind. Raises SourceError.
        """
