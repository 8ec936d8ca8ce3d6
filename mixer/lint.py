"""Whether a composed version is stateless, and safe to give to every machine: each violation of a rule is a Finding.

Only what bundles list counts, because nothing else ships. A path that several bundles list is told once, for the first
of those that do not have it by an include. A finding names the rule and the mend; RULES has them all.

Nothing is changed and nothing of the root is executed. Links are not followed. Equal compositions have equal findings,
in the order of bundles and paths.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from mixer.composition import Composition
from mixer.sources import ids
from mixer.sources.dpkg import Canonical
from mixer.sources.scrub import STATE_TREES, holds_private_key
from mixer.stateless import EMPTY_DIRECTORIES
from mixer.stateless.etc import FACTORY, FACTORY_ETC, is_never_shipped
from mixer.stateless.fragments import (
    GROUP_LINE,
    MEMBER_LINE,
    SYSUSERS,
    TMPFILES,
    UNSET,
    USER_LINE,
    SysusersLine,
    sysusers_lines,
    tmpfiles_lines,
)
from mixer.subtraction import subtracted

OS_DIRECTORIES = ("/boot", "/usr")
"""What the OS owns."""
MERGED = re.compile(r"/(?:bin|sbin|lib|lib32|lib64|libo32|libx32)")
"""Links of a merged /usr."""
LINK_TARGETS = (*OS_DIRECTORIES, "/etc", "/proc", "/run", "/var")
"""Links may lead to these and below them, and to /dev/null, which masks a unit."""

SETUID = frozenset(
    {
        "/usr/bin/bsd-write",
        "/usr/bin/chage",
        "/usr/bin/chfn",
        "/usr/bin/chsh",
        "/usr/bin/crontab",
        "/usr/bin/expiry",
        "/usr/bin/fusermount3",
        "/usr/bin/gpasswd",
        "/usr/bin/mount",
        "/usr/bin/newgrp",
        "/usr/bin/passwd",
        "/usr/bin/ping",
        "/usr/bin/ssh-agent",
        "/usr/bin/su",
        "/usr/bin/sudo",
        "/usr/bin/umount",
        "/usr/bin/wall",
        "/usr/bin/write",
        "/usr/lib/dbus-1.0/dbus-daemon-launch-helper",
        "/usr/lib/openssh/ssh-keysign",
        "/usr/sbin/unix_chkpwd",
    }
)
"""Files that may be setuid or setgid in every mix."""

_PRIVATE_PLACES = ("/etc/", f"{FACTORY}/", "/home/", "/root/", "/var/")
_PRIVATE_NAME = re.compile(r".*/(?:[^/]*\.(?:key|pem)|id_[a-z0-9]+)")
"""Files elsewhere that are searched for a key."""

RULES = {
    "outside-usr": "install it below /usr, defaults of /etc in /usr/share/factory/etc; tmpfiles.d makes what is state",
    "forbidden-file": "remove it: every machine makes it for itself",
    "private-key": "remove it: every machine would have the same secret",
    "usr-local": "install it below /usr: /usr/local belongs to the administrator",
    "setuid": "take the bit away, or name the path under setuid in builder.yaml",
    "world-writable": "take write permission from others; a directory may have the sticky bit instead",
    "link-outside": "let it lead to something below /usr, or make it relative",
    "unknown-owner": "give it to a user and a group that are in passwd and group of the version",
    "unknown-user": "add a package that makes the user or group, or correct the line",
    "id-conflict": "let both say the same id: files on running systems belong to it",
}
"""Rule -> how a violation is mended."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One violation."""

    bundle: str
    path: str
    rule: str
    detail: str = ""
    """What is meant in the file, or about it."""

    @property
    def mend(self) -> str:
        return RULES[self.rule]


def lint(composition: Composition, setuid: Collection[str] = ()) -> list[Finding]:
    """All findings; `setuid` are paths that may be setuid or setgid besides SETUID.

    Raises SourceError for damaged lists of users, OSError for what cannot be read (reading private files needs root).
    """
    return list(_Lint(composition, SETUID.union(setuid)).run())


class _Lint:
    """The rules, with what they need to know about the version."""

    def __init__(self, composition: Composition, setuid: Collection[str]) -> None:
        self._composition = composition
        self._setuid = setuid
        self._canonical = Canonical(str(composition.root))
        self._accounts = _Accounts(composition)

    def run(self) -> Iterator[Finding]:
        above = {name: frozenset(others) for name, others in subtracted(self._composition.bundles).items()}
        holders: dict[str, set[str]] = {}
        for name, bundle in self._composition.bundles.items():
            for path in bundle.files:
                holders.setdefault(path, set()).add(name)
        told: set[str] = set()
        for name, bundle in self._composition.bundles.items():
            for path in sorted(bundle.files, key=os.fsencode):
                if path not in told and not holders[path] & above[name]:
                    told.add(path)
                    yield from (Finding(name, path, rule, detail) for rule, detail in self._object(path))

    def _object(self, path: str) -> Iterator[tuple[str, str]]:
        place = self._composition.locate(path)
        if path not in self._composition.overlay and self._canonical(path) != path:
            return  # listed behind a link, where nothing ships from
        try:
            status = os.lstat(place)
        except (FileNotFoundError, NotADirectoryError):
            return  # listed, but nobody's
        mode = status.st_mode
        is_file = stat.S_ISREG(mode)
        rule = _misplaced(path, is_directory=stat.S_ISDIR(mode), is_link=stat.S_ISLNK(mode))
        if rule:
            yield rule, ""
        if is_file and mode & (stat.S_ISUID | stat.S_ISGID) and path not in self._setuid:
            yield "setuid", stat.filemode(mode)
        if mode & stat.S_IWOTH and (is_file or (stat.S_ISDIR(mode) and not mode & stat.S_ISVTX)):
            yield "world-writable", stat.filemode(mode)
        if stat.S_ISLNK(mode) and (target := _leads_out(path, os.readlink(place))):
            yield "link-outside", target
        if unknown := self._accounts.unknown_owner(status):
            yield "unknown-owner", unknown
        if is_file and rule != "forbidden-file" and _may_hold_key(path) and holds_private_key(place):
            yield "private-key", ""
        if is_file and path.endswith(".conf"):
            yield from self._accounts.fragment(path, place)


def _misplaced(path: str, *, is_directory: bool, is_link: bool) -> str:
    """The rule against which an object is where it is; empty if none."""
    etc = next((root for root in ("/etc/", f"{FACTORY_ETC}/") if path.startswith(root)), "")
    if (etc and is_never_shipped(path.removeprefix(etc))) or _at_or_below(path, STATE_TREES):
        return "forbidden-file"
    if path.startswith("/usr/local/"):
        return "usr-local"
    if _at_or_below(path, OS_DIRECTORIES) or (is_directory and path in EMPTY_DIRECTORIES):
        return ""
    return "" if is_link and MERGED.fullmatch(path) else "outside-usr"


def _leads_out(path: str, text: str) -> str:
    """Where a link leads if that is none of the OS's places; else empty. One of the factory is seen in /etc."""
    seen = "/etc" + path.removeprefix(FACTORY_ETC) if path.startswith(f"{FACTORY_ETC}/") else path
    target = os.path.normpath(text if text.startswith("/") else f"{seen.rpartition('/')[0]}/{text}")
    target = "/" + target.lstrip("/")
    if target == "/dev/null" or _at_or_below(target, LINK_TARGETS) or MERGED.fullmatch(f"/{target.split('/')[1]}"):
        return ""
    return target


def _may_hold_key(path: str) -> bool:
    return path.startswith(_PRIVATE_PLACES) or bool(_PRIVATE_NAME.fullmatch(path))


def _at_or_below(path: str, directories: Collection[str]) -> bool:
    return any(path == directory or path.startswith(f"{directory}/") for directory in directories)


class _Accounts:
    """The users and groups of a version: those of passwd and group, and those that its fragments make."""

    def __init__(self, composition: Composition) -> None:
        etc = _directory_of_users(composition)
        self._listed: Mapping[str, Mapping[str, int]] = {ids.USER: {"root": 0}, ids.GROUP: {"root": 0}}
        if etc is not None:
            self._listed = {
                kind: {entry[0]: int(entry[2]) for entry in ids.entries(etc, kind)} for kind in (ids.USER, ids.GROUP)
            }
        self._made = {kind: set(self._listed[kind]) for kind in self._listed}
        """Names that exist on a running system."""
        self._ids = {kind: set(self._listed[kind].values()) for kind in self._listed}
        for bundle in composition.bundles.values():
            for path in bundle.files:
                if _is_fragment(path, SYSUSERS):
                    for line in sysusers_lines(_text(composition.locate(path))):
                        self._add(line)

    def unknown_owner(self, status: os.stat_result) -> str:
        """The owner that nobody knows, in words; empty if both are known."""
        pairs = ((ids.USER, status.st_uid), (ids.GROUP, status.st_gid))
        return ", ".join(f"{kind} {number}" for kind, number in pairs if number not in self._ids[kind])

    def fragment(self, path: str, place: str) -> Iterator[tuple[str, str]]:
        """What is wrong in a fragment of tmpfiles.d or sysusers.d."""
        if _is_fragment(path, TMPFILES):
            for line in tmpfiles_lines(_text(place)):
                for kind, name in ((ids.USER, line.user), (ids.GROUP, line.group)):
                    if not self._knows(kind, name):
                        yield "unknown-user", f"the {kind} {name} of {line.path}"
        elif _is_fragment(path, SYSUSERS):
            for entry in sysusers_lines(_text(place)):
                yield from self._entry(entry)

    def _entry(self, line: SysusersLine) -> Iterator[tuple[str, str]]:
        if line.type == MEMBER_LINE:
            for kind, name in ((ids.USER, line.name), (ids.GROUP, line.id)):
                if not self._knows(kind, name):
                    yield "unknown-user", f"the {kind} {name}"
            return
        uid, colon, gid = line.id.partition(":")
        if line.type == USER_LINE and colon and not self._knows(ids.GROUP, gid):
            yield "unknown-user", f"the group {gid} of the user {line.name}"
        kind = ids.GROUP if line.type == GROUP_LINE else ids.USER
        listed = self._listed[kind].get(line.name)
        if line.type in (USER_LINE, GROUP_LINE) and listed is not None and ids.is_id(uid) and int(uid) != listed:
            yield "id-conflict", f"the {kind} {line.name} is {uid} here and {listed} in the list of {kind}s"

    def _add(self, line: SysusersLine) -> None:
        uid, _, gid = line.id.partition(":")
        made = {USER_LINE: ((ids.USER, uid), (ids.GROUP, gid or uid)), GROUP_LINE: ((ids.GROUP, uid),)}
        for kind, number in made.get(line.type, ()):
            if kind == ids.USER or not gid:
                self._made[kind].add(line.name)
            if ids.is_id(number):
                self._ids[kind].add(int(number))

    def _knows(self, kind: str, name: str) -> bool:
        if name in UNSET or "%" in name:
            return True
        return int(name) in self._ids[kind] if ids.is_id(name) else name in self._made[kind]


def _directory_of_users(composition: Composition) -> Path | None:
    """Where passwd and group lie together, be it in the root of a bundle; None if there are none."""
    places = (Path(composition.locate(f"{etc}/passwd")).parent for etc in (FACTORY_ETC, "/etc"))
    return next((place for place in places if (place / "passwd").is_file() and (place / "group").is_file()), None)


def _is_fragment(path: str, directory: str) -> bool:
    return path.rpartition("/")[0] == directory and path.endswith(".conf")


def _text(place: str) -> str:
    """The text of a fragment; a link or a directory of that name has none."""
    if os.path.islink(place) or not os.path.isfile(place):
        return ""
    return os.fsdecode(Path(place).read_bytes())
