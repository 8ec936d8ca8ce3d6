"""Users and groups of a stateless system: complete lists in the factory, and one fragment for lists that users changed.

The factory's passwd, group, shadow and gshadow have the users and groups of the whole mix, so that bundles that are
added later need no new ones. They belong to os-core. Where an administrator has changed one of these files, his file
hides the factory's; FRAGMENT, of which systemd-sysusers makes whatever is missing at every boot, gives such a system
the users that later versions bring. It replaces the fragments of packages: those say the same with less (no id, or a
conflict with ours, about which systemd would warn at every boot). A fragment that names somebody who is not in the
lists stays, such as one that content() brings.

The ids come from the table of the mix (mixer.sources.ids), and the machine's own system users get others: login.defs
and adduser.conf of the factory begin with the first id that the mix never gives out.

root's password is the hash that is given. Without one nobody can log in as root with a password.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from mixer.errors import BuildError, ConfigError
from mixer.sources import ids
from mixer.stateless.draft import Draft
from mixer.stateless.fragments import (
    GROUP_LINE,
    MEMBER_LINE,
    SYSUSERS,
    USER_LINE,
    SysusersLine,
    field,
    sysusers_lines,
)
from swupd.formats import layout

FRAGMENT = f"{SYSUSERS}/00-mix.conf"
FILES = ("/etc/passwd", "/etc/group", "/etc/shadow", "/etc/gshadow", "/etc/subuid", "/etc/subgid")
NO_PASSWORD = "*"  # noqa: S105  a hash that no password has
MAX_PASSWORD_BYTES = 512
"""A file with a hash of crypt(3), which has at most 384 bytes."""

_HASH = re.compile(r"\$(?:y|gy|7|2[aby]|6|5)\$[!-9;-~]{16,}")
"""The prefixes of crypt(5) that are still thought to be strong; a colon would end the field in shadow."""
_HEADER = """\
# The users and groups of this mix with their ids, for a system whose /etc/passwd was changed. Generated.
"""
_RANGES = (
    ("/etc/login.defs", ("SYS_UID_MIN", "SYS_GID_MIN"), ("SYS_UID_MAX", "SYS_GID_MAX"), "{} {}"),
    (
        "/etc/adduser.conf",
        ("FIRST_SYSTEM_UID", "FIRST_SYSTEM_GID"),
        ("LAST_SYSTEM_UID", "LAST_SYSTEM_GID"),
        "{}={}",
    ),
)


def read_password(path: Path) -> str:
    """The hash in a file that builder.yaml names as root_password. Raises ConfigError."""
    hint = "a file with one line, as `openssl passwd -6` or `mkpasswd` prints it"
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_PASSWORD_BYTES + 1)
    except OSError as error:
        raise ConfigError(path, 0, f"root_password cannot be read: {error.strerror}", hint=hint) from error
    text = data.decode(errors="replace").removesuffix("\n")
    if len(data) > MAX_PASSWORD_BYTES or not _HASH.fullmatch(text):
        raise ConfigError(path, 0, "root_password is not the hash of a password", hint=hint)
    return text


def convert(draft: Draft, root_password: str) -> tuple[int, int]:
    """Complete the lists in /etc and write the fragment; how many users and groups there are.

    Raises BuildError if the root has no users, SourceError for lists that are damaged.
    """
    if draft.read("/etc/passwd") is None or draft.read("/etc/group") is None:
        raise BuildError(
            "the root has no /etc/passwd or no /etc/group, without which no system starts",
            hint="packages such as base-passwd bring them",
        )
    _set_password(draft, root_password or NO_PASSWORD)
    for path in FILES:
        if draft.read(path) is not None:
            draft.add_only(layout.OS_CORE, path)
    etc = draft.root / "etc"
    users = sorted(ids.entries(etc, ids.USER), key=_by_id)
    groups = sorted(ids.entries(etc, ids.GROUP), key=_by_id)
    known = {(USER_LINE, user[0]) for user in users} | {(GROUP_LINE, group[0]) for group in groups}
    known |= {(MEMBER_LINE, f"{member} {group[0]}") for group in groups for member in group[3].split(",")}
    for path, _ in list(draft.below(SYSUSERS)):
        if known.issuperset(map(_subject, sysusers_lines(os.fsdecode(draft.read(path) or b"")))):
            draft.drop(path)
    draft.write(layout.OS_CORE, FRAGMENT, os.fsencode(_fragment(users, groups)))
    for path, first, last, form in _RANGES:
        _set_values(draft, path, form, dict.fromkeys(first, ids.MACHINE_FIRST) | dict.fromkeys(last, ids.DYNAMIC_LAST))
    return len(users), len(groups)


def _subject(line: SysusersLine) -> tuple[str, str]:
    """Of whom a line speaks."""
    return line.type, f"{line.name} {line.id}" if line.type == MEMBER_LINE else line.name


def _set_password(draft: Draft, password: str) -> None:
    """Put root's hash into shadow; a root without shadow has it in passwd."""
    path = "/etc/shadow" if draft.read("/etc/shadow") is not None else "/etc/passwd"
    lines = os.fsdecode(draft.read(path) or b"").splitlines()
    for number, line in enumerate(lines):
        name, colon, rest = line.partition(":")
        if name == "root":
            lines[number] = f"root:{password}{colon}{rest.partition(':')[2]}"
    draft.rewrite(path, os.fsencode("\n".join(lines) + "\n"))


def _fragment(users: list[list[str]], groups: list[list[str]]) -> str:
    """Groups first: users name theirs by its id."""
    lines = [f"g {name} {gid} -" for name, _, gid, *_ in groups]
    for user in users:
        name, _, uid, gid, gecos, home, shell = (*user, "", "", "")[:7]
        # root's line must not name its group: systemd then leaves root out of a passwd that it makes from nothing.
        number = uid if name == "root" else f"{uid}:{gid}"
        lines.append(f"u {name} {number} {field(gecos)} {field(home)} {field(shell)}")
    known = {user[0] for user in users}
    for name, _, _, members, *_ in groups:
        lines += [f"m {member} {name}" for member in sorted(filter(None, members.split(","))) if member in known]
    return _HEADER + "\n".join(lines) + "\n"


def _set_values(draft: Draft, path: str, form: str, values: dict[str, int]) -> None:
    """Set values of a configuration file, wherever they stand or stand as a comment; a missing file stays missing."""
    data = draft.read(path)
    if data is None:
        return
    text = os.fsdecode(data).removesuffix("\n") + "\n"
    for name, value in values.items():
        line = form.format(name, value)
        text, found = re.subn(rf"^[ \t]*#?{name}(?=[\s=]).*$", line, text, flags=re.MULTILINE)
        if not found:
            text += f"{line}\n"
    draft.rewrite(path, os.fsencode(text))


def _by_id(entry: list[str]) -> tuple[int, str]:
    return int(entry[2]), entry[0]
