"""What changed between two images, by bundle and by package, from the SPDX documents beside them.

Only the documents are read, not the images, which may be gone. What counts:

* Files, by their content, mode and owner; links and directories are not in the documents. The size of a file that
  changed counts as a whole, before and after.
* A file that several bundles list is counted for each of them, and once in the totals. One that went from one bundle or
  package to another is removed there and added here; in the totals it is not.
* Bundles and packages that are in both images are listed if they have another version or other files.

A document is from outside: it is one of ours (mixer.images.spdx) as far as it is needed here, or a BuildError.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from mixer.errors import BuildError
from mixer.images import output, spdx
from mixer.table import table
from swupd.report import human_size

LIMIT = 1 << 30
"""Bytes of a document; one of 15,000 files has 6 MB."""
NO_PACKAGE = "(no package)"
"""What files that are no package's are listed under."""

_TEXT = re.compile(r"[^\x00-\x1f\x7f\ud800-\udfff]*")
_COMMENT = re.compile(r"([0-9]{1,15}) bytes, .*")
_HINT = "it has to be the .spdx.json that `mixer build image` has written"

_Item = TypeVar("_Item")


@dataclass(frozen=True, slots=True)
class File:
    """A file of an image."""

    size: int
    what: str
    """Content, mode and owner: the same text stands for the same file."""


@dataclass(frozen=True)
class Part:
    """A bundle or a package of an image."""

    version: str
    files: Mapping[str, File]


@dataclass(frozen=True)
class Image:
    """What a document says."""

    name: str
    version: str
    files: Mapping[str, File]
    bundles: Mapping[str, Part]
    packages: Mapping[str, Part]
    """With NO_PACKAGE, which has no version."""


@dataclass(frozen=True)
class Change:
    """What became of some files; sizes in bytes."""

    added: int = 0
    added_bytes: int = 0
    removed: int = 0
    removed_bytes: int = 0
    changed: int = 0
    changed_bytes_before: int = 0
    changed_bytes: int = 0

    def __bool__(self) -> bool:
        return bool(self.added or self.removed or self.changed)

    @property
    def growth(self) -> int:
        """Bytes that the files have more than before."""
        return self.added_bytes - self.removed_bytes + self.changed_bytes - self.changed_bytes_before


@dataclass(frozen=True)
class PartChange:
    """What became of a bundle or package."""

    name: str
    old: str | None
    """Its version; None if the older image does not have it."""
    new: str | None
    files: Change = field(default_factory=Change)


@dataclass(frozen=True)
class Difference:
    """What changed from one image to another."""

    old: Image
    new: Image
    bundles: tuple[PartChange, ...]
    packages: tuple[PartChange, ...]
    total: Change


def compare(old: Image, new: Image) -> Difference:
    """Pure."""
    return Difference(
        old,
        new,
        tuple(_parts(old.bundles, new.bundles)),
        tuple(_parts(old.packages, new.packages)),
        _change(old.files, new.files),
    )


def _parts(old: Mapping[str, Part], new: Mapping[str, Part]) -> Iterable[PartChange]:
    nothing: dict[str, File] = {}
    for name in sorted({*old, *new}):
        before, after = old.get(name), new.get(name)
        versions = (before.version if before else None, after.version if after else None)
        files = _change(before.files if before else nothing, after.files if after else nothing)
        if versions[0] != versions[1] or files:
            yield PartChange(name, *versions, files)


def _change(old: Mapping[str, File], new: Mapping[str, File]) -> Change:
    added, removed = new.keys() - old.keys(), old.keys() - new.keys()
    changed = {path for path in new.keys() & old.keys() if new[path] != old[path]}
    return Change(
        added=len(added),
        added_bytes=sum(new[path].size for path in added),
        removed=len(removed),
        removed_bytes=sum(old[path].size for path in removed),
        changed=len(changed),
        changed_bytes_before=sum(old[path].size for path in changed),
        changed_bytes=sum(new[path].size for path in changed),
    )


# -- for people and scripts --------------------------------------------------------------------------------------------


def as_text(difference: Difference) -> str:
    """Tables of the bundles and packages that changed, and the totals."""
    old, new, total = difference.old, difference.new, difference.total
    lines = [f"{old.name}, version {old.version}  →  {new.name}, version {new.version}"]
    for what, parts in (("bundle", difference.bundles), ("package", difference.packages)):
        if parts:
            heading = (what, "before", "after", "added", "removed", "changed", "size")
            lines += ["", table([heading, *map(_row, parts)])]
    if not (difference.bundles or difference.packages or total):
        return "\n".join([*lines, "", "Nothing changed."])
    counts = ", ".join(
        f"{count} {word} ({human_size(size)})"
        for word, count, size in (
            ("added", total.added, total.added_bytes),
            ("removed", total.removed, total.removed_bytes),
            ("changed", total.changed, total.changed_bytes),
        )
    )
    return "\n".join([*lines, "", f"files: {counts}; {_growth(total)} in all"])


def as_json(difference: Difference) -> str:
    """One object; the fields are those of the classes above."""
    value = {
        "old": {"name": difference.old.name, "version": difference.old.version},
        "new": {"name": difference.new.name, "version": difference.new.version},
        "bundles": [asdict(part) for part in difference.bundles],
        "packages": [asdict(part) for part in difference.packages],
        "total": asdict(difference.total),
    }
    return json.dumps(value, indent=2)


def _row(part: PartChange) -> tuple[str, ...]:
    files = part.files
    counts = (f"{count or '-'}" for count in (files.added, files.removed, files.changed))
    return (part.name, part.old or "-", part.new or "-", *counts, _growth(files) if files else "-")


def _growth(files: Change) -> str:
    return f"{'-' if files.growth < 0 else '+'}{human_size(abs(files.growth))}"


# -- reading -----------------------------------------------------------------------------------------------------------


def read(path: Path) -> Image:
    """The document of an image; `path` is the image or the document itself. Raises BuildError."""
    path = path.absolute()
    document = path if path.name.endswith(output.SBOM) else Path(f"{path}{output.SBOM}")
    try:
        with document.open("rb") as file:
            data = file.read(LIMIT + 1)
    except OSError as error:
        raise BuildError(
            f"cannot read {document}: {error.strerror}",
            hint="name an image that `mixer build image` has written, or the .spdx.json beside it",
        ) from error
    if len(data) > LIMIT:
        raise BuildError(f"{document} has more than {LIMIT} bytes", hint=_HINT)
    try:
        return parse(data)
    except BuildError as error:
        raise BuildError(f"{document} cannot be used: {error}", hint=_HINT) from error


def parse(data: bytes) -> Image:
    """What a document says. Raises BuildError."""
    try:
        top = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise BuildError(f"it is not JSON: {error}") from error
    if not isinstance(top, dict) or top.get("spdxVersion") != spdx.VERSION:
        raise BuildError(f"it is not an {spdx.VERSION} document")
    files = dict(_by_id(top, "files", lambda raw: (_text(raw, "fileName").removeprefix("."), _file(raw))))
    packages = dict(_by_id(top, "packages", lambda raw: (_text(raw, "name"), _text(raw, "versionInfo"))))
    contained = _contained(top)
    described = contained.get((spdx.DOCUMENT, spdx.DESCRIBES), [])
    if len(described) != 1 or described[0] not in packages:
        raise BuildError("it does not describe an image")
    image = described[0]
    of_image: dict[str, File] = dict(files.values())
    bundles: dict[str, Part] = {}
    parts: dict[str, Part] = {}
    without: dict[str, File] = {}
    for bundle in contained.get((image, spdx.CONTAINS), []):
        listed: dict[str, File] = {}
        for element in contained.get((bundle, spdx.CONTAINS), []):
            if element in files:
                path, file = files[element]
                without[path] = listed[path] = file
            elif element in packages:
                name, version = packages[element]
                members = contained.get((element, spdx.CONTAINS), [])
                part = Part(version, dict(files[member] for member in members if member in files))
                parts[name] = part
                listed |= part.files
        if bundle not in packages:
            raise BuildError(f"it does not have {_cut(bundle)}, which the image contains")
        name, version = packages[bundle]
        bundles[name] = Part(version, listed)
    if without:
        parts[NO_PACKAGE] = Part("", without)
    name, version = packages[image]
    return Image(name, version, of_image, bundles, parts)


def _by_id(
    top: Mapping[str, Any], key: str, value: Callable[[Mapping[str, Any]], _Item]
) -> Iterable[tuple[str, _Item]]:
    for raw in _objects(top, key):
        yield _text(raw, "SPDXID"), value(raw)


def _contained(top: Mapping[str, Any]) -> dict[tuple[str, str], list[str]]:
    """(Element, kind of relationship) -> related elements."""
    found: dict[tuple[str, str], list[str]] = {}
    for raw in _objects(top, "relationships"):
        key = (_text(raw, "spdxElementId"), _text(raw, "relationshipType"))
        found.setdefault(key, []).append(_text(raw, "relatedSpdxElement"))
    return found


def _file(raw: Mapping[str, Any]) -> File:
    comment = _text(raw, "comment")
    match = _COMMENT.fullmatch(comment)
    if match is None:
        raise BuildError(f"it does not say how large {_cut(_text(raw, 'fileName'))} is")
    sums = {_text(sum_, "algorithm"): _text(sum_, "checksumValue") for sum_ in _objects(raw, "checksums")}
    return File(int(match[1]), f"{sums.get('SHA256')}, {comment}")


def _objects(raw: Mapping[str, Any], key: str) -> list[Mapping[str, Any]]:
    value = raw.get(key)
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise BuildError(f"its {key} are not a list of objects")
    return value


def _text(raw: Mapping[str, Any], key: str) -> str:
    value = raw.get(key)
    if not isinstance(value, str) or not _TEXT.fullmatch(value):
        raise BuildError(f"something in it has no {key}, or one that is not text of one line")
    return value


def _cut(text: str) -> str:
    return repr(text[:80])
