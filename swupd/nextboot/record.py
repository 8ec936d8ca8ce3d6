"""What is remembered about deployments, whatever becomes of them: which ones failed, or were left by `swupd rollback`,
so that their versions are not offered again; and which ones are to stay.

One JSON file, `record.json` in the directory `boot` of the shared state, outside of /var, so that a factory reset does
not forget it. What boots is decided by boot entries alone; a record that is damaged or lost costs knowledge only and is
read as an empty one. It is replaced in one step. Whoever holds the system's lock, or the only process of a boot that
assesses it, may write.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from swupd.formats.bootentry import version_of
from swupd.fs import Directory
from swupd.nextboot import statefile

FILE = "record.json"
MAX_FAILURES = 100
"""How many failures are remembered."""
TEXT_LIMIT = 1000
"""Characters of a reason."""
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
        return f"version {self.version} is held back since {moment(self.when)}: {self.why}"


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
    raw = statefile.read(boot, FILE)
    failures = [failure for item in statefile.objects(raw, "failures") if (failure := _failure(item)) is not None]
    pinned = filter(statefile.is_name, statefile.items(raw, "pinned"))
    return Record(tuple(failures[-MAX_FAILURES:]), frozenset(pinned))


def write(boot: Directory, record: Record) -> None:
    """Replace the record; it is on disk when this returns. Raises OSError."""
    raw = {
        "failures": [{"name": f.name, "when": f.when, "why": f.why[:TEXT_LIMIT]} for f in record.failures],
        "pinned": sorted(record.pinned),
    }
    statefile.write(boot, FILE, raw)


def moment(when: int) -> str:
    """Seconds since 1970, for people."""
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(when))


def _failure(raw: Mapping[str, Any]) -> Failure | None:
    name, when, why = (raw.get(key) for key in ("name", "when", "why"))
    if not (statefile.is_name(name) and statefile.is_time(when) and isinstance(why, str)):
        return None
    return Failure(name, when, statefile.one_line(why, TEXT_LIMIT))
