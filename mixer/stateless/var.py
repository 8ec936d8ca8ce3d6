"""/var and the directories of users: what packages have there becomes lines for systemd-tmpfiles.

Each bundle gets one fragment with the lines for what it has beyond the bundles that it includes, so that a system makes
exactly the state directories of its bundles, at every boot whatever is missing:

    d  a directory, with mode and owner by names (ids may differ where a user took one)
    L  a link
    f  an empty file, such as a log
    C  any other file: a copy of the one that moves to /usr/share/factory, made if it is missing

No line is written where a fragment of a package makes the same path already: systemd would notice two that differ.

/usr/local belongs to the administrator and becomes a link to /var/usrlocal. It and /opt are only converted if there is
nothing but directories and links in them: a copy of a program would never be updated. `mixer lint` names such files.
"""

from __future__ import annotations

import os
import stat
from collections import defaultdict

from mixer.errors import BuildError
from mixer.stateless.draft import Draft
from mixer.stateless.etc import FACTORY
from mixer.stateless.fragments import CREATING, TMPFILES, tmpfiles_line, tmpfiles_lines
from mixer.stateless.names import Names
from swupd.formats import layout

STATE = ("/home", "/opt", "/root", "/srv", "/var")
LOCAL = "/usr/local"
LOCAL_STATE = "/var/usrlocal"
LOCAL_LINK = "../var/usrlocal"


def fragment(bundle: str) -> str:
    """The fragment of a bundle."""
    return f"{TMPFILES}/mix-{bundle}.conf"


def convert(draft: Draft, names: Names) -> int:
    """Make the lines and take their objects out of the root; how many lines there are. Raises BuildError."""
    _convert_local(draft)
    declared = _Declared(draft)
    lines: defaultdict[str, list[str]] = defaultdict(list)
    for tree in STATE:
        if tree == "/opt" and _has_files(draft, tree):
            continue
        for path, status in list(draft.below(tree)):
            line = _line(draft, path, status, names)
            for bundle in draft.owners(path):
                if not declared.by(bundle, path):
                    lines[bundle].append(line)
            if line.startswith("C"):
                draft.move(path, f"{FACTORY}{path}")
        draft.drop(tree)
    for bundle in sorted(lines):
        text = f"# The state of the bundle {bundle}, from its packages. Generated.\n{''.join(lines[bundle])}"
        draft.write(bundle, fragment(bundle), os.fsencode(text))
    return sum(map(len, lines.values()))


def _convert_local(draft: Draft) -> None:
    if _has_files(draft, LOCAL) or (draft.status(LOCAL) is not None and not draft.is_directory(LOCAL)):
        return
    if draft.is_directory(LOCAL):
        draft.move(LOCAL, LOCAL_STATE)
    else:
        draft.make_directories(LOCAL_STATE)
    draft.add_only(layout.OS_CORE, LOCAL_STATE)
    draft.make_directories("/usr")
    draft.link(layout.OS_CORE, LOCAL, LOCAL_LINK)


def _has_files(draft: Draft, directory: str) -> bool:
    return any(stat.S_ISREG(status.st_mode) for _, status in draft.below(directory))


def _line(draft: Draft, path: str, status: os.stat_result, names: Names) -> str:
    if stat.S_ISLNK(status.st_mode):
        text = os.readlink(draft.place(path))
        if not text.isprintable() or text != text.strip():
            raise BuildError(f"{path} is a link to {text!r}, which no line of tmpfiles.d can express")
        return tmpfiles_line("L", path, target=text)
    if stat.S_ISDIR(status.st_mode):
        kind = "d"
    elif stat.S_ISREG(status.st_mode):
        kind = "C" if status.st_size else "f"
    else:
        raise BuildError(f"{path} is neither a file nor a directory nor a link, and no version can have it")
    mode = f"{stat.S_IMODE(status.st_mode):04o}"
    return tmpfiles_line(kind, path, mode=mode, user=names.user(status.st_uid), group=names.group(status.st_gid))


class _Declared:
    """The paths that fragments of packages make."""

    def __init__(self, draft: Draft) -> None:
        self._draft = draft
        self._of_fragment = {
            path: {line.path for line in tmpfiles_lines(os.fsdecode(draft.read(path) or b"")) if line.type in CREATING}
            for path, _ in draft.below(TMPFILES)
            if path.endswith(".conf")
        }
        self._of_bundle: dict[str, set[str]] = {}

    def by(self, bundle: str, path: str) -> bool:
        """True if a system that has this bundle makes the path without us."""
        if bundle not in self._of_bundle:
            listed = self._draft.listed(bundle, TMPFILES)
            found = (paths for fragment, paths in self._of_fragment.items() if fragment in listed)
            self._of_bundle[bundle] = set().union(*found)
        return path in self._of_bundle[bundle]
