"""What a 3rd-party repository would do outside of its prefix, or to its users (specification section 7.4).

* An exported program is a file or a link that the manifest marks with `x`, in /bin, /usr/bin or /usr/local/bin or below
  them, which on the disk leads to an executable file inside the prefix. Its file name becomes a command of the system.
* Files with setuid, setgid or sticky bits give rights away: `dangerous` finds those that an installation would bring,
  unless the file of that name has the same bits already.

Only reads.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from swupd.errors import ExportError, ProjectError
from swupd.formats.manifest import Entry, FileType
from swupd.fs import Directory
from swupd.settings import below
from swupd.thirdparty.wrappers import Program, wrappers

DIRECTORIES = ("/bin/", "/usr/bin/", "/usr/local/bin/")
_BITS = ((stat.S_ISUID, "setuid"), (stat.S_ISGID, "setgid"), (stat.S_ISVTX, "sticky"))
_ALL_BITS = stat.S_ISUID | stat.S_ISGID | stat.S_ISVTX


def exported(entries: Iterable[Entry]) -> list[str]:
    """The paths that manifests want to be commands of the system, in order."""
    return sorted(
        entry.name
        for entry in entries
        if entry.is_exported
        and entry.is_present
        and entry.type in (FileType.FILE, FileType.LINK)
        and entry.name.startswith(DIRECTORIES)
        and "\n" not in entry.name
    )


def programs(prefix: Path, paths: Iterable[str]) -> dict[str, str]:
    """Those of `paths` that are programs on the disk, by the name of the command; the first of equal names counts."""
    found: dict[str, str] = {}
    for path in paths:
        if _is_program(prefix, path):
            found.setdefault(path.rpartition("/")[2], path)
    return found


def check_exports(root: Path, repository: str, paths: Iterable[str]) -> None:
    """Raise ExportError if a command that would be made for one of `paths` is there already, or wanted twice."""
    there = wrappers(root)
    for path in paths:
        name = path.rpartition("/")[2]
        program = Program(repository, path)
        owner = there.setdefault(name, program)
        if owner != program:
            whose = f"{owner.path} of repository {owner.repository}" if owner else "a file that is not from swupd"
            raise ExportError(
                f"{path} of repository {repository} cannot become the command {name}: that is {whose}",
                hint="remove the one that you do not need",
            )


def dangerous(entries: Iterable[Entry], staged: Directory, prefix: Path) -> list[str]:
    """What of `entries` would newly have setuid, setgid or sticky bits: lines for people, "/usr/bin/su (setuid)"."""
    found = []
    for entry in entries:
        status = staged.lstat(entry.hash)
        if status is None or stat.S_ISLNK(status.st_mode) or not status.st_mode & _ALL_BITS:
            continue
        old = _mode(prefix, entry.name)
        before = old if stat.S_IFMT(old) == stat.S_IFMT(status.st_mode) else 0
        gained = [name for bit, name in _BITS if status.st_mode & bit and not before & bit]
        if gained:
            found.append(f"{entry.name} ({', '.join(gained)})")
    return sorted(found)


def _is_program(prefix: Path, path: str) -> bool:
    """Links count if they lead to a program without leaving the prefix."""
    real = os.path.realpath(below(prefix, path))
    if not real.startswith(f"{os.path.realpath(prefix)}/"):
        return False
    try:
        mode = os.stat(real).st_mode
    except OSError:
        return False
    return stat.S_ISREG(mode) and bool(mode & 0o111)


def _mode(prefix: Path, path: str) -> int:
    """Type and mode of what is there; 0 if nothing is, or only by way of a link."""
    directory, _, name = path.rpartition("/")
    with suppress(OSError, ProjectError), Directory.open(prefix) as root, root.descend(directory) as parent:
        status = parent.lstat(name)
        return status.st_mode if status is not None else 0
    return 0
