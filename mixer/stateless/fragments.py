"""Lines of tmpfiles.d and sysusers.d: writing and reading them (tmpfiles.d(5), sysusers.d(5)).

Reading is lenient: a line that has too few fields does not count, and a quote that does not end is no quote. Fields
come back without quotes, escapes and doubled percent signs; other specifiers (%m) stay as they are written, because
only a running system knows what they stand for.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

TMPFILES = "/usr/lib/tmpfiles.d"
SYSUSERS = "/usr/lib/sysusers.d"

CREATING = frozenset("bCcdDfFLpqQv")
"""Types of tmpfiles lines that make what is not there."""
USER_LINE = "u"
GROUP_LINE = "g"
MEMBER_LINE = "m"
UNSET = frozenset({"", "-"})

_WORD = re.compile(r"""(?:[^\s"'\\]|\\.|"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')+""", re.ASCII)
_PIECE = re.compile(r"""\\(.)|(["'])|[^"'\\]+""")
_PLAIN = re.compile(r"[^\s\"'\\%#]+")


class TmpfilesLine(NamedTuple):
    """What is done at one path."""

    type: str
    """One letter; modifiers (!, -, +, =, ~, ^) are left out."""
    path: str
    user: str = "-"
    group: str = "-"


class SysusersLine(NamedTuple):
    """A user, a group or a membership."""

    type: str
    name: str
    id: str = "-"
    """Of a user `UID` or `UID:GID`, of a group the GID, of a membership the name of the group."""


def tmpfiles_lines(text: str) -> Iterator[TmpfilesLine]:
    """The lines of a fragment of tmpfiles.d."""
    for words in _words(text):
        if len(words) >= 2:
            user, group = (word.removeprefix(":") for word in (*words[3:5], "-", "-")[:2])
            yield TmpfilesLine(words[0][0], words[1].rstrip("/") or "/", user, group)


def sysusers_lines(text: str) -> Iterator[SysusersLine]:
    """The lines of a fragment of sysusers.d."""
    for words in _words(text):
        if len(words) >= 2:
            yield SysusersLine(words[0][0], words[1], *words[2:3])


def tmpfiles_line(kind: str, path: str, *, mode: str = "-", user: str = "-", group: str = "-", target: str = "") -> str:
    """A line for tmpfiles.d; `target` is the text of a link, of printable characters."""
    argument = f" {target.replace('%', '%%')}" if target else ""
    return f"{kind} {field(path)} {mode} {user} {group} -{argument}\n"


def field(text: str) -> str:
    """A text without control characters as a field, in quotes if it needs them.

    systemd 252 knows no escapes of bytes in these files, later versions do; quotes and doubled backslashes mean the
    same to all of them.
    """
    if _PLAIN.fullmatch(text):
        return text
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%") + '"'


def _words(text: str) -> Iterator[list[str]]:
    for line in text.split("\n"):
        if line.strip() and not line.lstrip().startswith("#"):
            yield [_plain(match[0]).replace("%%", "%") for match in _WORD.finditer(line)]


def _plain(word: str) -> str:
    """A word without its quotes and escapes."""
    result = ""
    quote = ""
    for piece in _PIECE.finditer(word):
        escape, mark = piece[1], piece[2]
        if escape is None and mark and quote in ("", mark):
            quote = "" if quote else mark
        else:
            result += escape or piece[0]
    return result
