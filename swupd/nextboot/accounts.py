"""Whether the users and groups of another version get along with those that the administrator has added.

A version brings its accounts with fixed ids, in /usr/lib/sysusers.d/00-mix.conf. An account that is new in it and whose
name or id is taken on the machine would get another id there, and in the worst case the group of a stranger
(`specs/stateless.md`, section 4): so such a version is not made ready to boot. Accounts that the machine's version has
as well were settled before. Nothing is changed here.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from swupd.errors import NextBootError

FRAGMENT = "usr/lib/sysusers.d/00-mix.conf"
FILE_LIMIT = 16 << 20
"""Bytes of a file with accounts."""
_SHOWN = 3


class Account(NamedTuple):
    kind: str
    """"user" or "group"."""
    name: str
    number: int
    """Its uid or gid."""


def check(machine: Path, old: Path, new: Path) -> None:
    """Raise NextBootError if the root `new` brings accounts beside those of `old` that clash with the machine's."""
    found = clashes(
        sysusers(_text(new / FRAGMENT)) - sysusers(_text(old / FRAGMENT)),
        {"user": passwd(_text(machine / "etc/passwd")), "group": passwd(_text(machine / "etc/group"))},
    )
    if found:
        more = f"; and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
        raise NextBootError(
            f"the new version brings accounts that clash with yours: {'; '.join(found[:_SHOWN])}{more}",
            hint="give your own accounts other ids (usermod -u, groupmod -g), or remove them",
        )


def clashes(new: frozenset[Account], there: Mapping[str, Mapping[str, int]]) -> list[str]:
    """What is wrong with new accounts, one sentence each; `there` has the ids by kind and name."""
    found = []
    for kind, name, number in sorted(new):
        numbers = there[kind]
        if name in numbers:
            if numbers[name] != number:
                found.append(f"{kind} {name} has the id {numbers[name]}, but {number} there")
            continue
        found += [f"{kind} {other} has the id {number} of {name}" for other, its in numbers.items() if its == number]
    return found


def sysusers(text: str) -> frozenset[Account]:
    """The accounts with fixed ids of a sysusers.d file; other lines are left out."""
    found = set()
    for line in text.splitlines():
        fields = line.split(None, 3)
        if len(fields) < 3 or fields[0] not in ("u", "u!", "g"):
            continue
        kind = "group" if fields[0] == "g" else "user"
        number = _number(fields[2].partition(":")[0])
        if number is not None:
            found.add(Account(kind, fields[1], number))
    return frozenset(found)


def passwd(text: str) -> dict[str, int]:
    """The ids by name of a passwd or group file; lines that are none are left out."""
    found = {}
    for line in text.splitlines():
        fields = line.split(":")
        if len(fields) > 2 and (number := _number(fields[2])) is not None:
            found[fields[0]] = number
    return found


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 10 else None


def _text(path: Path) -> str:
    """What can be read of a file."""
    try:
        with path.open("rb") as file:
            return file.read(FILE_LIMIT).decode(errors="replace")
    except OSError:
        return ""
