"""What the manifests of many bundles say, without holding them: their headers, and which of them have a path.

A version may have a thousand bundles with half a million paths. Manifests are therefore looked at one at a time, as
they come out of the cache or off the network (`Server.each_bundle`), and only what was asked for is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, replace

from swupd.errors import ProjectError
from swupd.formats.manifest import FileType, Manifest
from swupd.posixregex import compile_extended
from swupd.server import Server

BINARIES = "/usr/bin/"
LIBRARIES = "/usr/lib"
"""Where programs and libraries lie: the second is also the beginning of /usr/lib64."""

_EXAMPLE = "lib(gtk|qt).*\\.so$"
_SEARCHED = f"{FileType.FILE}{FileType.LINK}"

PathFilter = Callable[[str], bool]


@dataclass(frozen=True)
class Found:
    """What a search has found in one bundle: paths in alphabetical order."""

    bundle: str
    size: int
    """Bytes of the bundle's files."""
    paths: tuple[str, ...]


def headers(server: Server, mom: Manifest, names: Iterable[str]) -> dict[str, Manifest]:
    """The manifests of bundles without their entries.

    Raises UnknownBundleError for a bundle that the MoM does not have, and why one cannot be had.
    """
    found: dict[str, Manifest] = {}

    def keep(name: str, manifest: Manifest) -> None:
        found[name] = replace(manifest, entries=())

    for error in server.each_bundle(mom, names, keep).values():
        raise error
    return found


def closure(server: Server, mom: Manifest, name: str) -> dict[str, Manifest]:
    """The headers of a bundle and of all that it depends on, optionally as well, as far as the MoM has them.

    Raises as `headers` does.
    """
    available = {entry.name for entry in mom.entries if entry.is_present}
    found: dict[str, Manifest] = {}
    level = {name}
    while level:
        loaded = headers(server, mom, level)
        found |= loaded
        needed = {other for manifest in loaded.values() for other in (*manifest.includes, *manifest.also_add)}
        level = (needed & available).difference(found)
    return found


def paths(server: Server, mom: Manifest, names: Iterable[str]) -> list[str]:
    """All that bundles have together, directories as well, in alphabetical order. Raises as `headers` does."""
    found: set[str] = set()

    def collect(_name: str, manifest: Manifest) -> None:
        found.update(entry.name for entry in manifest.entries if entry.is_present)

    for error in server.each_bundle(mom, names, collect).values():
        raise error
    return sorted(found)


def path_filter(term: str, *, regexp: bool = False, prefixes: Collection[str] = ()) -> PathFilter:
    """What tells whether a path is looked for: it contains the term, in upper or lower case, and begins with one of the
    prefixes if there are any.

    regexp: the term is a POSIX extended regular expression; UsageError if it is none.
    """
    find = compile_extended(term, "the term", example=_EXAMPLE, ignore_case=True).search if regexp else None
    folded = term.casefold()
    begins = tuple(prefixes) or ("",)

    def matches(path: str) -> bool:
        return path.startswith(begins) and (folded in path.casefold() if find is None else find(path) is not None)

    return matches


def search(
    server: Server, mom: Manifest, names: Iterable[str], wanted: PathFilter
) -> tuple[list[Found], dict[str, ProjectError]]:
    """The files and links of bundles that are looked for, bundles in alphabetical order; and the bundles whose manifest
    cannot be had, with the reason."""
    found: list[Found] = []

    def look(name: str, manifest: Manifest) -> None:
        paths = [
            entry.name
            for entry in manifest.entries
            if entry.flags[0] in _SEARCHED and entry.is_present and wanted(entry.name)
        ]
        if paths:
            found.append(Found(name, manifest.contentsize, tuple(sorted(paths))))

    missing = server.each_bundle(mom, names, look)
    return sorted(found, key=lambda one: one.bundle), missing
