"""The update index: what the ways to a version cost (docs/update-pack.md, section 4).

JSON that the publisher signs, because an update pack is only checked by what stands here. `parse` believes nothing
else either: it returns an index whose numbers are all within their limits and whose names are bundle names, or raises
UpdateIndexError. Keys that it does not know are skipped, so that the format can grow; another format number is refused.
`serialise` gives the same bytes for the same index.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from swupd.errors import UpdateIndexError
from swupd.formats.manifest import VERSION_LIMIT, is_bundle_name

FORMAT = 1
INDEX_BYTES_LIMIT = 16 << 20
"""Bytes of an index; of a hundred bundles and ten older versions it has about 80 kB."""
SIZE_LIMIT = 1 << 50
"""Bytes that an index may say something has."""

_SHA256 = re.compile(r"[0-9a-f]{64}")
_SHOWN_CHARACTERS = 40


@dataclass(frozen=True)
class PackFile:
    """An update pack as it lies on the server."""

    bytes: int
    sha256: str
    """64 lower-case hex digits."""


@dataclass(frozen=True)
class BundleCost:
    """What one bundle needs; sizes in bytes."""

    from_version: int
    """The bundle's version in the MoM of the older version; 0 if it was not there."""
    pack: int | None
    """Size of its pack from that version; None if there is none."""
    fullfiles: int
    """Size of the fullfiles of all objects that are newer than that version."""


@dataclass(frozen=True)
class Update:
    """The ways from one older version."""

    from_version: int
    pack: PackFile | None
    """The update pack, if there is one."""
    bundles: Mapping[str, BundleCost]
    """Every bundle of the target version whose manifest is newer than in the older one."""


@dataclass(frozen=True)
class UpdateIndex:
    """The ways to one version, from each version that the publisher has prepared."""

    version: int
    updates: tuple[Update, ...]

    def update_from(self, version: int) -> Update | None:
        return next((update for update in self.updates if update.from_version == version), None)


def parse(data: bytes) -> UpdateIndex:
    """Read an index. Raises UpdateIndexError."""
    if len(data) > INDEX_BYTES_LIMIT:
        raise UpdateIndexError(f"the update index has {len(data)} bytes, more than the {INDEX_BYTES_LIMIT} it may have")
    try:
        top = json.loads(data.decode())
    except (ValueError, RecursionError) as error:
        raise UpdateIndexError(f"the update index is not JSON: {error}") from error
    number = _field(top, "format", "at the top")
    if type(number) is not int or number != FORMAT:
        raise UpdateIndexError(f"the update index has the format {_shown(number)}, which this program does not know")
    version = _number(top, "version", "at the top", 1, VERSION_LIMIT)
    listed = _field(top, "updates", "at the top")
    if not isinstance(listed, list):
        raise UpdateIndexError(f"the updates of the update index are not a list: {_shown(listed)}")
    updates = tuple(_update(item, version) for item in listed)
    if len({update.from_version for update in updates}) != len(updates):
        raise UpdateIndexError("the update index has two updates from the same version")
    return UpdateIndex(version, updates)


def serialise(index: UpdateIndex) -> bytes:
    """The bytes of an index."""
    updates = sorted(index.updates, key=lambda update: update.from_version)
    top = {"format": FORMAT, "version": index.version, "updates": [_raw(update) for update in updates]}
    return json.dumps(top, indent=1, sort_keys=True).encode() + b"\n"


def _raw(update: Update) -> dict[str, Any]:
    pack = None if update.pack is None else {"bytes": update.pack.bytes, "sha256": update.pack.sha256}
    bundles = {
        name: {"from": cost.from_version, "pack": cost.pack, "fullfiles": cost.fullfiles}
        for name, cost in update.bundles.items()
    }
    return {"from": update.from_version, "pack": pack, "bundles": bundles}


def _update(raw: object, version: int) -> Update:
    from_version = _number(raw, "from", "in an update", 1, version - 1)
    where = f"in the update from {from_version}"
    pack = _field(raw, "pack", where)
    bundles = _field(raw, "bundles", where)
    if not isinstance(bundles, dict):
        raise UpdateIndexError(f"the update index has no bundles {where}: {_shown(bundles)}")
    return Update(
        from_version,
        None if pack is None else _pack_file(pack, where),
        {name: _bundle_cost(name, cost, from_version) for name, cost in bundles.items()},
    )


def _pack_file(raw: object, where: str) -> PackFile:
    sha256 = _field(raw, "sha256", where)
    if not isinstance(sha256, str) or not _SHA256.fullmatch(sha256):
        raise UpdateIndexError(f"the update index has no checksum {where}: {_shown(sha256)}")
    return PackFile(_number(raw, "bytes", where, 0, SIZE_LIMIT), sha256)


def _bundle_cost(name: str, raw: object, from_version: int) -> BundleCost:
    if not is_bundle_name(name):
        raise UpdateIndexError(f"the update index names a bundle {_shown(name)}, which no bundle may be called")
    where = f"for bundle {name}"
    pack = None if _field(raw, "pack", where) is None else _number(raw, "pack", where, 0, SIZE_LIMIT)
    return BundleCost(
        _number(raw, "from", where, 0, from_version), pack, _number(raw, "fullfiles", where, 0, SIZE_LIMIT)
    )


def _field(raw: object, key: str, where: str) -> object:
    if not isinstance(raw, dict) or key not in raw:
        raise UpdateIndexError(f"the update index has no '{key}' {where}")
    value: object = raw[key]
    return value


def _number(raw: object, key: str, where: str, low: int, high: int) -> int:
    value = _field(raw, key, where)
    if type(value) is not int or not low <= value <= high:
        raise UpdateIndexError(
            f"the update index: '{key}' {where} is not a number from {low} to {high}: {_shown(value)}"
        )
    return value


def _shown(value: object) -> str:
    """A value from outside, for a message: short, one line."""
    text = f"a {type(value).__name__}" if isinstance(value, list | dict) else ascii(value)
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}..."
