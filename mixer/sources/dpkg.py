"""The package database of a Debian root: what is installed, who requires whom, who owns which path.

Read from the files that dpkg keeps below /var/lib/dpkg: `status`, `info/*.list`, `diversions`. Nothing is executed and
nothing is changed; the root must be complete (no package half installed).

* A requirement (Pre-Depends, Depends) is met by an installed package of the name and a fitting version or, failing
  that, by an installed provider (a versioned demand only by a fitting versioned Provides). The first alternative that
  is met decides. One that nothing meets is an error: package managers leave none.
* Paths are canonical: links in parent directories are resolved inside the root (merged /usr), the last component never.
  A path that another package has diverted stands for the place it was diverted to. What is listed but not there (left
  out by path-exclude) is skipped.
* A link that several packages list stands for a directory of theirs (/bin and its like): it belongs to nobody.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from debian.deb822 import Deb822, PkgRelation
from debian.debian_support import Version

from mixer.errors import SourceError

STATE = "var/lib/dpkg"
"""dpkg's directory, below the root."""

MAX_LINKS = 40
"""Symbolic links followed for one path, as the kernel does."""
MAX_STATUS_BYTES = 256 * 1024 * 1024
"""Size of dpkg's status file; one of a full desktop has 5 MB."""

_INSTALLED = "install ok installed"


@dataclass(frozen=True, slots=True)
class Installed:
    """One paragraph of the status file."""

    name: str
    version: str
    architecture: str
    essential: bool
    requires: tuple[str, ...]
    """Names of the installed packages that meet its requirements, sorted."""
    source: str = ""
    """Name and version of the source package."""
    maintainer: str = ""
    homepage: str = ""


def read_status(path: Path) -> dict[str, Installed]:
    """The installed packages by name, sorted. Raises SourceError."""
    try:
        size = path.stat().st_size
        if size > MAX_STATUS_BYTES:
            raise SourceError(f"{path} is larger than {MAX_STATUS_BYTES} bytes")
        with path.open("rb") as stream:
            return _installed(list(Deb822.iter_paragraphs(stream, use_apt_pkg=False)), path)
    except (OSError, ValueError) as error:
        raise SourceError(f"cannot read the package database {path}: {error}") from error


def base_packages(installed: Mapping[str, Installed]) -> frozenset[str]:
    """What no package has to declare a dependency on: the essential packages and all that they require."""
    found: set[str] = set()
    waiting = [package.name for package in installed.values() if package.essential]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting.extend(installed[name].requires)
    return frozenset(found)


def read_owners(root: Path, installed: Mapping[str, Installed]) -> dict[str, tuple[str, ...]]:
    """Canonical path -> the packages that own it, sorted; only a directory can have several. Raises SourceError."""
    state = root / STATE
    diverted = dict(_diversions(state / "diversions"))
    canonical = Canonical(str(root))
    lists: dict[str, list[str]] = {}
    for package in installed.values():
        for listed in _file_list(state / "info", package):
            place = diverted.get(listed)
            path = place[0] if place and place[1] != package.name else listed
            path = canonical(path)
            owners = lists.setdefault(path, [])
            if package.name not in owners:
                owners.append(package.name)
    return dict(_existing(str(root), lists))


class Canonical:
    """Canonical names of paths in a root: links in parent directories are followed inside the root.

    Remembers directories: links to directories must not change meanwhile.
    """

    def __init__(self, root: str) -> None:
        self._root = root.rstrip("/")
        self._directories: dict[str, str] = {"": ""}

    def __call__(self, path: str) -> str:
        """The canonical name of a path; it need not exist. `/` comes back as it is."""
        parent, _, name = path.rstrip("/").rpartition("/")
        if not name or name == ".":
            return "/"
        return f"{self._directory(parent, MAX_LINKS)}/{name}"

    def target(self, path: str) -> str | None:
        """Where a chain of links at `path` ends, canonical; None if it ends nowhere or turns in a circle."""
        for _ in range(MAX_LINKS):
            path = self(path)
            try:
                link = os.readlink(self._root + path)
            except OSError:
                return path if os.path.lexists(self._root + path) else None
            path = _join(path.rpartition("/")[0], link)
        return None

    def _directory(self, path: str, links: int) -> str:
        """Canonical name of a directory, "" for the root."""
        known = self._directories.get(path)
        if known is not None:
            return known
        parent, _, name = path.rpartition("/")
        result = f"{self._directory(parent, links)}/{name}"
        try:
            link = os.readlink(self._root + result)
        except OSError:
            pass
        else:
            if links == 0:
                raise SourceError(f"too many levels of symbolic links in the root at {path}")
            result = self._directory(_join(result.rpartition("/")[0], link).rstrip("/"), links - 1)
        self._directories[path] = result
        return result


def _join(directory: str, link: str) -> str:
    """The path that a link in a (canonical) directory stands for, `..` taken out; the root is its own parent."""
    parts: list[str] = []
    for part in (link if link.startswith("/") else f"{directory}/{link}").split("/"):
        if part == "..":
            del parts[-1:]
        elif part not in ("", "."):
            parts.append(part)
    return "/" + "/".join(parts)


def _installed(paragraphs: list[Any], path: Path) -> dict[str, Installed]:
    present = {}
    for paragraph in paragraphs:
        status = paragraph.get("Status", "")
        if status == _INSTALLED:
            present[str(paragraph["Package"])] = paragraph
        elif not status.endswith(("not-installed", "config-files")):
            raise SourceError(
                f"the package {paragraph.get('Package')} is not completely installed ({status}) in {path}"
            )
    providers = _providers(present)
    return {
        name: Installed(
            name=name,
            version=str(present[name]["Version"]),
            architecture=str(present[name]["Architecture"]),
            essential=present[name].get("Essential") == "yes",
            requires=tuple(sorted(set(_requirements(name, present, providers)) - {name})),
            source=_source(present[name]),
            maintainer=_line(present[name], "Maintainer"),
            homepage=_line(present[name], "Homepage"),
        )
        for name in sorted(present)
    }


def _source(paragraph: Mapping[str, Any]) -> str:
    """dpkg writes "name (version)", and leaves out what is as in the binary package."""
    name, _, version = (_line(paragraph, "Source") or str(paragraph["Package"])).partition(" (")
    return f"{name} {version.removesuffix(')') or paragraph['Version']}"


def _line(paragraph: Mapping[str, Any], field: str) -> str:
    """A field on one line, empty if it is not there."""
    return " ".join(str(paragraph.get(field, "")).split())


def _providers(present: Mapping[str, Any]) -> dict[str, list[tuple[str, str | None]]]:
    """Virtual name -> the packages that provide it, by name, each with the version that it provides, if any."""
    providers: dict[str, list[tuple[str, str | None]]] = {}
    for name in sorted(present):
        for group in _relations(present[name], "Provides"):
            for provided in group:
                version = provided["version"][1] if provided["version"] else None
                providers.setdefault(provided["name"], []).append((name, version))
    return providers


def _requirements(
    name: str, present: Mapping[str, Any], providers: Mapping[str, list[tuple[str, str | None]]]
) -> Iterator[str]:
    """The installed packages that meet each requirement of a package."""
    for field in ("Pre-Depends", "Depends"):
        for group in _relations(present[name], field):
            met = next((found for wanted in group if (found := _meets(wanted, present, providers))), None)
            if met is None:
                demanded = PkgRelation.str([group])
                raise SourceError(f"nothing installed meets what the package {name} requires: {demanded}")
            yield met


def _meets(
    wanted: Mapping[str, Any], present: Mapping[str, Any], providers: Mapping[str, list[tuple[str, str | None]]]
) -> str | None:
    name, demand = str(wanted["name"]), wanted["version"]
    if name in present and _fits(str(present[name]["Version"]), demand):
        return name
    return next((package for package, version in providers.get(name, ()) if _fits(version, demand)), None)


def _fits(version: str | None, demand: tuple[str, str] | None) -> bool:
    if demand is None:
        return True
    if version is None:
        return False
    relation, wanted = demand
    have, want = Version(version), Version(wanted)
    return {
        "<<": have < want,
        "<=": have <= want,
        "=": have == want,
        ">=": have >= want,
        ">>": have > want,
    }[relation]


def _relations(paragraph: Mapping[str, Any], field: str) -> list[list[Any]]:
    """A field of relations: groups of alternatives."""
    text = paragraph.get(field)
    return list(PkgRelation.parse_relations(text)) if text else []


def _diversions(path: Path) -> Iterator[tuple[str, tuple[str, str]]]:
    """Diverted path -> (where it goes, the package that diverts it)."""
    try:
        lines = os.fsdecode(path.read_bytes()).splitlines()
    except FileNotFoundError:
        return
    for original, place, package in zip(lines[0::3], lines[1::3], lines[2::3], strict=True):
        yield original, (place, package)


def _file_list(info: Path, package: Installed) -> Iterable[str]:
    for name in (package.name, f"{package.name}:{package.architecture}"):
        try:
            return os.fsdecode((info / f"{name}.list").read_bytes()).split("\n")[:-1]
        except FileNotFoundError:
            continue
    raise SourceError(f"the package {package.name} has no file list in {info}")


def _existing(root: str, lists: Mapping[str, list[str]]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Paths that are in the root with their owners; links that stand for a common directory left out."""
    for path, packages in lists.items():
        if path == "/":
            continue
        try:
            mode = os.lstat(root + path).st_mode
        except OSError:
            continue
        if len(packages) > 1 and not stat.S_ISDIR(mode):
            if stat.S_ISLNK(mode):
                continue
            raise SourceError(f"the packages {' and '.join(packages)} both own {path}")
        yield path, tuple(sorted(packages))
