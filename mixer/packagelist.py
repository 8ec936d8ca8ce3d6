"""What a version says about its packages: for the inventory of an image, and for what changed between two.

`image/<V>/packages.json` is written when a version is composed, and published as `<V>/packages.json.zst`:

    {"format": 1, "packages": [{"name": …, "version": …, "architecture": …, "source": …, "licence": …, "homepage": …,
                                "supplier": …, "purl": …, "bundles": […], "files": […]}, …]}

* `files` are the paths of its files and links in the version, after all that the builder renames. A path has one
  package or none: what content() trees bring and what the builder writes itself belongs to nobody. The updater's Python
  libraries are packages too, called "pypi:<name>" (mixer.pythonlist).
* `bundles` are those that have the package themselves, not by a bundle that they include.
* The same packages give the same bytes: the list has no time and no version of the mix.
* It is covered by the checksums of its version, which are signed; `load` verifies that, and that they are those of this
  version. It is an addition of ours: clients never ask for it, and a version without it (an older one, a prepared tree)
  is as good.
* Whatever is read is checked completely: text is without control characters, licences are SPDX expressions.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from mixer import checksums
from mixer.errors import BuildError
from swupd.errors import ArchiveError
from swupd.formats import compression, layout
from swupd.formats.manifest import is_bundle_name

if TYPE_CHECKING:
    from mixer.config import Config
    from mixer.store import PublishedTree

FORMAT = 1
FILE_NAME = "packages.json"
"""In the directory of a composition."""
LIMIT = 16 << 20
"""Bytes of a published list; one of 150 packages with 15,000 paths has 120 kB."""
CONTENT_LIMIT = 256 << 20
"""Bytes of one that is not compressed; that one has 1 MB."""
MAX_PACKAGES = 100_000
MAX_CHARACTERS = 10_000
"""Of one text."""
LEVEL = 19
"""zstd level."""

_TEXT = re.compile(r"[^\x00-\x1f\x7f\ud800-\udfff]*")
_PATH = re.compile(r"/[^\x00-\x1f\x7f]*")
_SHOWN_CHARACTERS = 40
_HINT = "restore it from a copy of the published tree, or build the version again"


@dataclass(frozen=True)
class Package:
    """A package of the distribution, as a version has it. A text that is not known is empty."""

    name: str
    version: str
    architecture: str = ""
    source: str = ""
    """Name and version of the package that it was built from."""
    licence: str = ""
    """An SPDX expression."""
    homepage: str = ""
    supplier: str = ""
    """Who made it: a name, an address in angle brackets."""
    purl: str = ""
    """The package URL."""
    bundles: tuple[str, ...] = ()
    files: tuple[str, ...] = ()


@dataclass(frozen=True)
class PackageList:
    """The packages of a version."""

    packages: tuple[Package, ...]
    """Sorted by name; no name and no path occurs twice."""

    def owner(self, path: str) -> Package | None:
        """Whose file or link is at a path; None if it is no package's, or a directory."""
        return self._owners.get(path)

    @cached_property
    def _owners(self) -> Mapping[str, Package]:
        return {path: package for package in self.packages for path in package.files}


def canonical_licence(text: str) -> str:
    """An SPDX licence expression in its usual form; empty if it is none."""
    from packaging.licenses import InvalidLicenseExpression, canonicalize_license_expression

    try:
        return str(canonicalize_license_expression(text))
    except InvalidLicenseExpression:
        return ""


def serialise(packages: PackageList) -> bytes:
    """The JSON text."""
    value = {"format": FORMAT, "packages": [asdict(package) for package in packages.packages]}
    return json.dumps(value, separators=(",", ":")).encode() + b"\n"


def parse(data: bytes, shown: str) -> PackageList:
    """Read the JSON text. Raises BuildError, which names the file as `shown`."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise BuildError(f"{shown} is not JSON: {error}") from error
    if not isinstance(value, dict) or value.get("format") != FORMAT:
        raise BuildError(f"{shown} is no list of packages of format {FORMAT}", hint="use a newer mixer")
    listed = value.get("packages")
    if not isinstance(listed, list) or len(listed) > MAX_PACKAGES:
        raise BuildError(f"{shown} does not list packages, or more than {MAX_PACKAGES}")
    packages = tuple(_package(raw, shown) for raw in listed)
    names = [package.name for package in packages]
    if names != sorted(set(names)):
        raise BuildError(f"{shown}: the packages are not in the order of their names, or one is there twice")
    paths = [path for package in packages for path in package.files]
    if len(paths) != len(set(paths)):
        raise BuildError(f"{shown}: two packages have the same path")
    return PackageList(packages)


def compressed(packages: PackageList) -> bytes:
    """As it is published."""
    return compression.compress(serialise(packages), LEVEL)


def decompressed(data: bytes, shown: str) -> PackageList:
    """Read what was published. Raises BuildError."""
    try:
        content = compression.decompressed(io.BytesIO(data), limit=CONTENT_LIMIT).read()
    except ArchiveError as error:
        raise BuildError(f"{shown} is damaged: {error}", hint=_HINT) from error
    return parse(content, shown)


def load(published: PublishedTree, version: int, config: Config, *, signed: bool = True) -> PackageList | None:
    """What a published version says about its packages; None if it says nothing.

    Signatures are left out if not `signed`, or if the mix has no certificate. Raises BuildError for a list that is not
    what was published, SignatureError for a certificate that cannot be used.
    """
    name, mom = layout.packages(version), layout.manifest(version, layout.MOM)
    if not published.has(name):
        return None
    contents = {name: published.read(name, limit=LIMIT), mom: published.read(mom)}
    listed = layout.checksums(version)
    data = published.read(listed, limit=checksums.SIZE_LIMIT)
    if signed and config.certificate.exists():
        published.verify(listed, data, config.certificate)
    sums = checksums.parse(data, f"{published.shown}/{listed}")
    for file, content in contents.items():
        if sums.get(file.partition("/")[2]) != checksums.of(content):
            raise BuildError(f"{published.shown}/{file} is not what the checksums of the version say", hint=_HINT)
    return decompressed(contents[name], f"{published.shown}/{name}")


def _package(raw: object, shown: str) -> Package:
    if not isinstance(raw, dict):
        raise BuildError(f"{shown}: {_cut(raw)} is no package")
    name = _text(raw, "name", shown)
    where = f"{shown}: the package {name}"
    package = Package(
        name=name,
        version=_text(raw, "version", where),
        architecture=_text(raw, "architecture", where),
        source=_text(raw, "source", where),
        licence=_text(raw, "licence", where),
        homepage=_text(raw, "homepage", where),
        supplier=_text(raw, "supplier", where),
        purl=_text(raw, "purl", where),
        bundles=_texts(raw, "bundles", where, _TEXT),
        files=_texts(raw, "files", where, _PATH),
    )
    if not name or not package.version:
        raise BuildError(f"{where} has no name or no version")
    if package.licence and not canonical_licence(package.licence):
        raise BuildError(f"{where}: {_cut(package.licence)} is no SPDX licence expression")
    for bundle in package.bundles:
        if not is_bundle_name(bundle):
            raise BuildError(f"{where}: {_cut(bundle)} is not the name of a bundle")
    return package


def _text(raw: Mapping[str, Any], key: str, where: str) -> str:
    return _checked(raw.get(key, ""), f"{where}: its {key}", _TEXT)


def _texts(raw: Mapping[str, Any], key: str, where: str, pattern: re.Pattern[str]) -> tuple[str, ...]:
    value = raw.get(key, [])
    if not isinstance(value, list):
        raise BuildError(f"{where}: its {key} are not a list")
    return tuple(_checked(item, f"{where}: one of its {key}", pattern) for item in value)


def _checked(value: object, what: str, pattern: re.Pattern[str]) -> str:
    if not isinstance(value, str) or len(value) > MAX_CHARACTERS or not pattern.fullmatch(value):
        raise BuildError(f"{what} cannot be {_cut(value)}")
    return value


def _cut(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}…"
