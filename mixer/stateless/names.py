"""The names of users and groups of a root by their ids."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mixer.sources import ids


@dataclass(frozen=True)
class Names:
    """Id -> name. The first of several names of an id counts."""

    users: Mapping[int, str]
    groups: Mapping[int, str]

    @classmethod
    def load(cls, etc: Path) -> Names:
        """Those of passwd and group in a directory. Raises SourceError."""
        found: list[dict[int, str]] = []
        for kind in (ids.USER, ids.GROUP):
            names: dict[int, str] = {}
            for entry in ids.entries(etc, kind):
                names.setdefault(int(entry[2]), entry[0])
            found.append(names)
        return cls(*found)

    def user(self, uid: int) -> str:
        """The name of a user, or the id of one that has none."""
        return self.users.get(uid, str(uid))

    def group(self, gid: int) -> str:
        return self.groups.get(gid, str(gid))
