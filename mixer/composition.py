"""What `build bundles` leaves for `build update`: one root with everything, and which bundle has which path.

The two steps talk only through files (mixer specification, sections 2, 3.3 and 6), so a tree that somebody else
prepared is as good as one of ours. In the directory of a version:

    full/                 the merged root
    <bundle>-info         JSON: paths of the bundle, includes, status (the original's keys; arrays may be null)
    <bundle>/             instead of -info: a root with just this bundle's files; empty = the bundle's files go away
    <bundle>-includes     beside such a root: the included bundles, one a line
    groups.ini            one section for each bundle of the mix; os-core has to be among them
    packages.json         optional: the packages and their files, see mixer.packagelist

and optionally, there or in a directory shared by all versions, `groups.ini` and `<bundle>-extra-files` (absolute paths,
one a line, added to the bundle).

Guarantees: every name in a loaded Composition is a valid bundle name, every path is absolute, canonical, free of
control characters and short enough for a manifest line; whatever is not raises BuildError with the file and the bundle.
Nothing is written while loading: a prepared tree may be read-only. Equal paths of different bundles are one object in
memory, because a real mix lists each path ten times. A path that is listed but not in the root stays listed; it is
nobody's.

Files appear whole (each is written beside its name and renamed), but `save` as a whole is not atomic: groups.ini comes
last, and without it nothing can be loaded.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mixer import packagelist
from mixer.errors import BuildError
from mixer.packagelist import PackageList
from swupd.formats import filehash, layout
from swupd.formats.manifest import is_bundle_name
from swupd.fs import replace_file

GROUPS = "groups.ini"
ROOT = "full"
INFO_SUFFIX = "-info"
INCLUDES_SUFFIX = "-includes"
EXTRA_SUFFIX = "-extra-files"

ACTIVE = "Active"
EXPERIMENTAL = "Experimental"

MAX_BUNDLES = 100_000
"""Bundles of one mix."""
MAX_INFO_BYTES = 512 * 1024 * 1024
"""One -info file; a real one has 100 bytes a path."""
MAX_LIST_BYTES = 64 * 1024 * 1024
"""groups.ini, an -includes and an -extra-files file."""
MAX_PATHS = 4_000_000
"""Paths of one bundle, which is also what clients accept in one manifest."""
MAX_PATH_BYTES = 4095
"""One path: PATH_MAX without its NUL, so that a manifest line stays below the client's limit of 8192."""

_NOT_CANONICAL = re.compile(r"//|/\.\.?(?:/|$)|/$")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_SECTION = re.compile(r"\[([^\]]*)\]")


@dataclass(frozen=True, slots=True)
class ComposedBundle:
    """One bundle as its definition and the packages made it; nothing is subtracted yet."""

    name: str
    status: str = ACTIVE
    """STATUS of the definition; EXPERIMENTAL is the one that clients are told."""
    includes: tuple[str, ...] = ()
    """Direct mandatory includes in the order of the definition."""
    also_adds: tuple[str, ...] = ()
    files: Mapping[str, bool] = field(default_factory=dict)
    """Path -> exported, for the whole package closure, with all parent directories but "/"."""
    packages: tuple[str, ...] = ()
    """Names of the packages behind `files`."""
    description: str = ""

    @property
    def is_experimental(self) -> bool:
        return self.status == EXPERIMENTAL


@dataclass(frozen=True, slots=True)
class Composition:
    """One version before it has manifests."""

    version: int
    root: Path
    """The merged root of all bundles."""
    bundles: Mapping[str, ComposedBundle]
    overlay: Mapping[str, str] = field(default_factory=dict)
    """Path -> where it lies, for objects that only a bundle's own directory has."""
    packages: PackageList | None = None
    """What is known about the packages behind it; None for a prepared tree that does not say it."""

    def locate(self, path: str) -> str:
        """Where the object of a path lies on this machine."""
        return self.overlay.get(path) or f"{self.root}{path}"


def check_path(path: str, *, source: str) -> str:
    """The path itself if it can stand in a manifest; `source` says in messages where it was found.

    Raises BuildError.
    """
    if not path.startswith("/") or path == "/":
        raise BuildError(f"{source}: {path!r} is not an absolute path below /")
    if _CONTROL.search(path):
        raise BuildError(
            f"{source}: the name {path!r} contains a control character, which a manifest cannot express",
            hint="rename the file, or remove it from the root",
        )
    if _NOT_CANONICAL.search(path):
        raise BuildError(f"{source}: {path!r} is not canonical (it has an empty, '.' or '..' component)")
    if len(os.fsencode(path)) > MAX_PATH_BYTES:
        raise BuildError(f"{source}: the path {path[:80]!r}… is longer than {MAX_PATH_BYTES} bytes")
    return path


def save(composition: Composition, directory: Path) -> None:
    """Write the -info files, packages.json and groups.ini of a composition whose root is `directory`/full already.

    -info files of bundles that are not part of it are removed. Raises BuildError for paths that could not be loaded.
    """
    for stale in directory.glob(f"*{INFO_SUFFIX}"):
        if stale.name.removesuffix(INFO_SUFFIX) not in composition.bundles:
            stale.unlink()
    checked: set[str] = set()
    for bundle in composition.bundles.values():
        for path in bundle.files.keys() - checked:
            checked.add(check_path(path, source=f"bundle {bundle.name}"))
        text = json.dumps(_info(bundle), indent=1, sort_keys=False) + "\n"
        replace_file(directory / f"{bundle.name}{INFO_SUFFIX}", text.encode())
    packages = directory / packagelist.FILE_NAME
    if composition.packages is None:
        packages.unlink(missing_ok=True)
    else:
        replace_file(packages, packagelist.serialise(composition.packages))
    groups = "".join(f"[{name}]\ngroup={name}\n\n" for name in sorted(composition.bundles))
    replace_file(directory / GROUPS, groups.encode())


def load(directory: Path, version: int, *, shared: Path | None = None) -> Composition:
    """Read what `directory` says about `version`; `shared` is looked in for what all versions have in common.

    Raises BuildError for everything that is missing or wrong.
    """
    root = directory / ROOT
    if not root.is_dir():
        raise BuildError(f"version {version} has no root: {root} is not a directory")
    places = [directory] if shared is None else [directory, shared]
    loader = _Loader(directory, places, root)
    bundles = {name: loader.bundle(name) for name in _groups(places)}
    packages = directory / packagelist.FILE_NAME
    listed = None
    if packages.exists():
        listed = packagelist.parse(_read(packages, packagelist.CONTENT_LIMIT), str(packages))
    return Composition(version, root, bundles, loader.overlay, listed)


class _Loader:
    """Reads the bundles of one version; remembers each path once."""

    def __init__(self, directory: Path, places: Iterable[Path], root: Path) -> None:
        self._directory = directory
        self._places = list(places)
        self._root = str(root)
        self._known: dict[str, str] = {}
        self.overlay: dict[str, str] = {}

    def bundle(self, name: str) -> ComposedBundle:
        info = self._directory / f"{name}{INFO_SUFFIX}"
        if info.exists():
            bundle = self._from_info(name, info)
        elif (self._directory / name).is_dir():
            bundle = self._from_directory(name, self._directory / name)
        else:
            raise BuildError(
                f"bundle {name} has neither {info} nor a directory {self._directory / name}",
                hint=f"write one of them, or remove {name} from {GROUPS}",
            )
        extra = self._extra_files(name)
        if not extra:
            return bundle
        return ComposedBundle(
            name,
            bundle.status,
            bundle.includes,
            bundle.also_adds,
            {**extra, **bundle.files},
            bundle.packages,
            bundle.description,
        )

    def _from_info(self, name: str, path: Path) -> ComposedBundle:
        source = f"{path} (bundle {name})"
        try:
            info = json.loads(_read(path, MAX_INFO_BYTES))
        except (ValueError, RecursionError) as error:
            raise BuildError(f"{source} is not JSON: {error}") from error
        if not isinstance(info, dict):
            raise BuildError(f"{source} is not a JSON object")
        header = _mapping(info, "Header", source)
        files: dict[str, bool] = {}
        listed = _mapping(info, "Files", source)
        if len(listed) > MAX_PATHS:
            raise BuildError(f"{source} lists more than {MAX_PATHS} paths")
        for listed_path, exported in listed.items():
            if not isinstance(exported, bool):
                raise BuildError(f"{source}: the export flag of {listed_path!r} is neither true nor false")
            files[self._path(listed_path, source)] = exported
        return ComposedBundle(
            name=name,
            status=str(header.get("Status") or ACTIVE),
            includes=_bundle_names(_strings(info, "DirectIncludes", source), source),
            also_adds=_bundle_names(_strings(info, "OptionalIncludes", source), source),
            files=files,
            packages=tuple(sorted(str(package) for package in _mapping(info, "AllPackages", source))),
            description=str(header.get("Description") or ""),
        )

    def _from_directory(self, name: str, directory: Path) -> ComposedBundle:
        """A bundle that brings its own root: what `full` lacks is taken from there, what it has is left alone."""
        source = f"{directory} (bundle {name})"
        files: dict[str, bool] = {}
        for found in filehash.walk(str(directory), one_file_system=False):
            path = self._path(found.name, source)
            files[path] = False
            if not os.path.lexists(f"{self._root}{path}"):
                self.overlay.setdefault(path, found.path)
        listing = self._directory / f"{name}{INCLUDES_SUFFIX}"
        includes = _bundle_names(_lines(listing), str(listing)) if listing.exists() else ()
        return ComposedBundle(name, includes=includes, files=files)

    def _extra_files(self, name: str) -> dict[str, bool]:
        extra: dict[str, bool] = {}
        for place in self._places:
            listing = place / f"{name}{EXTRA_SUFFIX}"
            if listing.exists():
                extra.update((self._path(line, f"{listing} (bundle {name})"), False) for line in _lines(listing))
        return extra

    def _path(self, path: str, source: str) -> str:
        known = self._known.get(path)
        if known is None:
            known = self._known[path] = check_path(path, source=source)
        return known


def _info(bundle: ComposedBundle) -> dict[str, Any]:
    """The JSON of one bundle. Names that are not UTF-8 survive as lone surrogates, which JSON can escape."""
    return {
        "Name": bundle.name,
        "Filename": bundle.name,
        "Header": {
            "Title": bundle.name,
            "Description": bundle.description,
            "Status": bundle.status,
            "Capabilities": "",
            "Maintainer": "",
        },
        "DirectIncludes": list(bundle.includes),
        "OptionalIncludes": list(bundle.also_adds),
        "DirectPackages": {},
        "AllPackages": dict.fromkeys(sorted(bundle.packages), True),
        "Files": {path: bundle.files[path] for path in sorted(bundle.files)},
    }


def _groups(places: list[Path]) -> list[str]:
    """The bundles of the mix, os-core first, then by name."""
    path = next((place / GROUPS for place in places if (place / GROUPS).exists()), None)
    if path is None:
        raise BuildError(
            f"there is no {GROUPS} in {' or '.join(map(str, places))}",
            hint="it names the bundles of the mix, one [section] each",
        )
    names: set[str] = set()
    for line in _lines(path):
        match = _SECTION.fullmatch(line)
        if match:
            names.update(_bundle_names([match[1].strip()], str(path)))
        elif line.startswith("["):
            raise BuildError(f"{path}: {line!r} is not a section")
    if layout.OS_CORE not in names:
        raise BuildError(f"{path} does not name {layout.OS_CORE}", hint="every mix has the bundle os-core")
    if len(names) > MAX_BUNDLES:
        raise BuildError(f"{path} names more than {MAX_BUNDLES} bundles")
    return [layout.OS_CORE, *sorted(names - {layout.OS_CORE})]


def _bundle_names(names: Iterable[str], source: str) -> tuple[str, ...]:
    found = tuple(names)
    for name in found:
        if not is_bundle_name(name):
            raise BuildError(f"{source}: {name!r} is not a bundle name")
    return found


def _mapping(info: Mapping[str, Any], key: str, source: str) -> Mapping[str, Any]:
    value = info.get(key)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise BuildError(f"{source}: {key} is not an object")
    return value


def _strings(info: Mapping[str, Any], key: str, source: str) -> list[str]:
    value = info.get(key)
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise BuildError(f"{source}: {key} is not a list of strings")
    return value


def _lines(path: Path) -> list[str]:
    """The lines of a list, without blanks at their ends, empty lines and comments."""
    text = os.fsdecode(_read(path, MAX_LIST_BYTES))
    lines = (line.strip() for line in text.split("\n"))
    return [line for line in lines if line and not line.startswith(("#", ";"))]


def _read(path: Path, limit: int) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except OSError as error:
        raise BuildError(f"cannot read {path}: {error.strerror}") from error
    if len(data) > limit:
        raise BuildError(f"{path} is larger than {limit} bytes")
    return data
