"""What is remembered about deployments, whatever becomes of them: which ones failed, or were left by `swupd rollback`,
so that their versions are not offered again; and which ones are to stay.

One JSON file, `record.json` in the directory `boot` of the shared state, outside of /var, so that a factory reset does
not forget it. What boots is decided by boot entries alone; a record that is damaged or lost costs knowledge only and is
read as an empty one. It is replaced in one step. Whoever holds the system's lock, or the only process of a boot that
assesses it, may write.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from swupd.errors import UnsafePathError
from swupd.formats.bootentry import is_deployment_name, version_of
from swupd.fs import Directory

FILE = "record.json"
FILE_LIMIT = 1 << 20
"""Bytes."""
MAX_FAILURES = 100
"""How many failures are remembered."""
TEXT_LIMIT = 1000
"""Characters of a reason."""
TIME_LIMIT = 1 << 40
"""Seconds since 1970: what calendars know."""
SET_ASIDE = "it was set aside by 'swupd rollback'"
"""The reason for those that somebody went back from."""


@dataclass(frozen=True)
class Failure:
    """A deployment that is not to be tried again."""

    name: str
    when: int
    """Seconds since 1970, when it was noticed."""
    why: str

    @property
    def version(self) -> int:
        return version_of(self.name)

    @property
    def is_set_aside(self) -> bool:
        return self.why == SET_ASIDE

    @property
    def sentence(self) -> str:
        """Why the version is not offered."""
        when = time.strftime("%Y-%m-%d %H:%M", time.localtime(self.when))
        return f"version {self.version} is held back since {when}: {self.why}"


@dataclass(frozen=True)
class Record:
    failures: tuple[Failure, ...] = ()
    """The oldest first, one for each deployment."""
    pinned: frozenset[str] = field(default_factory=frozenset)
    """Names of deployments that no policy removes."""

    def failure(self, name: str) -> Failure | None:
        return next((failure for failure in self.failures if failure.name == name), None)

    def failed_version(self, version: int) -> Failure | None:
        """The last failure of any deployment of this version."""
        return next((failure for failure in reversed(self.failures) if failure.version == version), None)

    def with_failure(self, failure: Failure) -> Record:
        others = [other for other in self.failures if other.name != failure.name]
        return replace(self, failures=(*others, failure)[-MAX_FAILURES:])

    def without_failures(self, version: int) -> Record:
        """With a clean slate for a version."""
        return replace(self, failures=tuple(other for other in self.failures if other.version != version))

    def without_failure(self, name: str) -> Record:
        """With a clean slate for a deployment."""
        return replace(self, failures=tuple(other for other in self.failures if other.name != name))

    def with_pinned(self, names: Iterable[str]) -> Record:
        return replace(self, pinned=frozenset(names))


def read(boot: Directory) -> Record:
    """The record in the directory `boot` of the state; an empty one if there is none that can be read."""
    try:
        with boot.open_file(FILE) as file:
            raw = json.loads(file.read(FILE_LIMIT))
    except (OSError, UnsafePathError, ValueError, RecursionError):
        return Record()
    if not isinstance(raw, dict):
        return Record()
    failures = [failure for item in _items(raw, "failures") if (failure := _failure(item)) is not None]
    pinned = (name for name in _items(raw, "pinned") if isinstance(name, str) and is_deployment_name(name))
    return Record(tuple(failures[-MAX_FAILURES:]), frozenset(pinned))


def load(boot_state: Path) -> Record:
    """The same by the path of that directory."""
    try:
        with Directory.open(boot_state) as boot:
            return read(boot)
    except OSError:
        return Record()


def write(boot: Directory, record: Record) -> None:
    """Replace the record; it is on disk when this returns. Raises OSError."""
    raw = {
        "failures": [{"name": f.name, "when": f.when, "why": f.why[:TEXT_LIMIT]} for f in record.failures],
        "pinned": sorted(record.pinned),
    }
    boot.replace_file(FILE, json.dumps(raw, indent=1).encode() + b"\n", mode=0o644)
    boot.sync_names()


def _items(raw: dict[str, Any], key: str) -> list[Any]:
    value = raw.get(key)
    return value if isinstance(value, list) else []


def _failure(raw: Any) -> Failure | None:
    if not isinstance(raw, dict):
        return None
    name, when, why = raw.get("name"), raw.get("when"), raw.get("why")
    if not isinstance(name, str) or not is_deployment_name(name) or not isinstance(why, str):
        return None
    if type(when) is not int or not 0 <= when < TIME_LIMIT:
        return None
    return Failure(name, when, "".join(sign if sign.isprintable() else "?" for sign in why[:TEXT_LIMIT]))
