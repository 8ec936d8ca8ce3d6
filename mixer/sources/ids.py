"""User and group ids that stay the same for the whole life of a mix.

Maintainer scripts take the next free number for a new user or group, so a package that is added shifts the numbers of
all that are created after it: files of unrelated packages would change in the update, and files that users own on
running systems would change hands. The mix therefore keeps one append-only table, name -> id, and every finished root
is renumbered to it: passwd, group, and the owners of all files. That works whatever tool made the user.

* A name in the table gets the id from there. A new name keeps the id that it got if that is free and one of 100..599,
  else it gets the lowest free one of these; it is appended.
* 600..999 is left to machines: an administrator's own system users get ids there (login.defs and adduser.conf of a
  stateless version say so, and systemd-sysusers begins at 999 downwards). So no user of a machine ever has the id that
  a later version gives to one of the image. Names that a table pinned there before this rule keep their ids.
* Ids outside of the dynamic range are given out by the distribution, the same everywhere. If one of them changes, it is
  an error; if a name of the dynamic range gets one, it keeps the id that the mix gave it before.
* Names that went out of the mix stay in the table. Their ids are never given to others.

The table is a text file, one `user NAME ID` or `group NAME ID` a line, `#` begins a comment.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from mixer.errors import BuildError, SourceError
from swupd.formats import filehash
from swupd.fs import replace_file

USER = "user"
GROUP = "group"

DYNAMIC_FIRST = 100
DYNAMIC_LAST = 999
"""The range that distributions take ids for system users and groups from."""
MACHINE_FIRST = 600
"""From here on the dynamic range is left to the machine that runs the system."""
MAX_ID = 2**31 - 1
_MAX_DIGITS = 10
MAX_TABLE_BYTES = 4 * 1024 * 1024

_HEADER = """\
# User and group ids of this mix. Append-only; keep it with the mix: it is as lasting as the published versions.
"""
_FILES = {USER: "passwd", GROUP: "group"}
_WORDS = {USER: "users", GROUP: "groups"}

Accounts = Mapping[str, Mapping[str, int]]
"""Kind (USER, GROUP) -> name -> id."""


@dataclass(frozen=True)
class IdTable:
    """The ids of a mix."""

    ids: Accounts = field(default_factory=lambda: {USER: {}, GROUP: {}})

    @classmethod
    def load(cls, path: Path) -> IdTable:
        """Read the table; a file that does not exist is an empty one. Raises BuildError for one that is damaged."""
        try:
            with path.open("rb") as stream:
                data = stream.read(MAX_TABLE_BYTES + 1)
        except FileNotFoundError:
            return cls()
        if len(data) > MAX_TABLE_BYTES:
            raise BuildError(f"{path} is larger than {MAX_TABLE_BYTES} bytes")
        ids: dict[str, dict[str, int]] = {USER: {}, GROUP: {}}
        for number, line in enumerate(data.decode(errors="replace").splitlines(), start=1):
            words = line.split("#", 1)[0].split()
            if not words:
                continue
            if len(words) != 3 or words[0] not in ids or not is_id(words[2]):
                raise BuildError(f"{path}: line {number}: expected `user NAME ID` or `group NAME ID`", hint=_RESTORE)
            kind, name, value = words[0], words[1], int(words[2])
            if ids[kind].setdefault(name, value) != value:
                raise BuildError(f"{path}: line {number}: the {kind} {name} has two ids", hint=_RESTORE)
        return cls(ids)

    def save(self, path: Path) -> None:
        """Write the table, in the order of the ids."""
        lines = [
            f"{kind} {name} {value}\n"
            for kind in (USER, GROUP)
            for name, value in sorted(self.ids[kind].items(), key=lambda item: (item[1], item[0]))
        ]
        replace_file(path, (_HEADER + "".join(lines)).encode())

    def admits(self, accounts: Accounts) -> bool:
        """True if these ids are in the table or could be appended to it as they are."""
        return all(
            self.ids[kind].get(name, value) == value
            and (name in self.ids[kind] or (value not in taken and not _is_of_machine(value)))
            for kind, taken in ((kind, set(self.ids[kind].values())) for kind in (USER, GROUP))
            for name, value in accounts[kind].items()
        )

    def assigned(self, accounts: Accounts) -> dict[str, dict[str, int]]:
        """The ids that these names must have. Raises BuildError if a fixed id is not that of the table."""
        return {kind: self._assigned(kind, accounts[kind]) for kind in (USER, GROUP)}

    def extended(self, accounts: Accounts) -> IdTable:
        """The table with these names appended; they must be admitted."""
        return IdTable({kind: {**self.ids[kind], **accounts[kind]} for kind in (USER, GROUP)})

    def _assigned(self, kind: str, built: Mapping[str, int]) -> dict[str, int]:
        pinned = self.ids[kind]
        result = {}
        taken = {*pinned.values(), *(value for value in built.values() if not _is_dynamic(value))}
        for name, value in built.items():
            wanted = pinned.get(name)
            if wanted is None and (not _is_dynamic(value) or (value not in taken and not _is_of_machine(value))):
                wanted = value
            elif wanted is None:
                wanted = next((free for free in range(DYNAMIC_FIRST, MACHINE_FIRST) if free not in taken), None)
                if wanted is None:
                    raise BuildError(f"no id is left for the {kind} {name}: all of the table are in use")
            elif wanted != value and not _is_dynamic(wanted):
                raise BuildError(
                    f"the {kind} {name} had the fixed id {wanted} when this mix began, and now has {value}",
                    hint="files on running systems belong to the old id; correct the table of ids only for a new mix",
                )
            result[name] = wanted
            taken.add(wanted)
        return result


def read_accounts(root: Path) -> dict[str, dict[str, int]]:
    """The users and groups of a root. Raises SourceError."""
    return {kind: {entry[0]: int(entry[2]) for entry in entries(root / "etc", kind)} for kind in (USER, GROUP)}


def entries(etc: Path, kind: str) -> Iterator[list[str]]:
    """The fields of each line of passwd or group in a directory. Raises SourceError."""
    path = etc / _FILES[kind]
    try:
        lines = os.fsdecode(path.read_bytes()).splitlines()
    except OSError as error:
        raise SourceError(f"the root has no list of {_WORDS[kind]}: {error}") from error
    for line in lines:
        entry = line.split(":")
        if len(entry) < 4 or not is_id(entry[2]) or (kind == USER and not is_id(entry[3])):
            raise SourceError(f"{path} has a line that is no {kind}: {line!r}")
        yield entry


def renumber(root: Path, wanted: Accounts) -> int:
    """Give the users and groups of a root the ids in `wanted`; the number of files whose owner changed.

    Raises SourceError if two names share an id in the root but not in `wanted`.
    """
    built = read_accounts(root)
    changes = {kind: _changes(kind, built[kind], wanted[kind]) for kind in (USER, GROUP)}
    if not changes[USER] and not changes[GROUP]:
        return 0
    _rewrite(root, USER, {2: changes[USER], 3: changes[GROUP]})
    _rewrite(root, GROUP, {2: changes[GROUP]})
    changed = 0
    for found in filehash.walk(str(root)):
        status = found.status
        uid = changes[USER].get(status.st_uid, status.st_uid)
        gid = changes[GROUP].get(status.st_gid, status.st_gid)
        if (uid, gid) != (status.st_uid, status.st_gid):
            os.lchown(found.path, uid, gid)
            if not stat.S_ISLNK(status.st_mode):
                os.chmod(found.path, stat.S_IMODE(status.st_mode))  # chown clears setuid and setgid
            changed += 1
    return changed


def _changes(kind: str, built: Mapping[str, int], wanted: Mapping[str, int]) -> dict[int, int]:
    """Old id -> new id, for those that change."""
    mapping: dict[int, int] = {}
    for name, value in built.items():
        if mapping.setdefault(value, wanted[name]) != wanted[name]:
            raise SourceError(f"two {_WORDS[kind]} of the root share the id {value}; one of them is {name}")
    return {old: new for old, new in mapping.items() if old != new}


def _rewrite(root: Path, kind: str, columns: Mapping[int, Mapping[int, int]]) -> None:
    """Replace ids in the given columns of passwd or group; the file keeps its mode and owner."""
    lines = []
    etc = root / "etc"
    for entry in entries(etc, kind):
        for column, changes in columns.items():
            entry[column] = str(changes.get(int(entry[column]), entry[column]))
        lines.append(":".join(entry) + "\n")
    (etc / _FILES[kind]).write_bytes(os.fsencode("".join(lines)))


def _is_dynamic(value: int) -> bool:
    return DYNAMIC_FIRST <= value <= DYNAMIC_LAST


def _is_of_machine(value: int) -> bool:
    return MACHINE_FIRST <= value <= DYNAMIC_LAST


def is_id(text: str) -> bool:
    """True for a number that can be a user's or a group's."""
    return text.isascii() and text.isdigit() and len(text) <= _MAX_DIGITS and int(text) <= MAX_ID


_RESTORE = "restore it from a backup; a lost line may give a user another id in the next version"
