"""Wrapper scripts: the programs of 3rd-party repositories as commands of the system (specification section 7.4).

`/opt/3rd-party/bin/<program>` runs a program below its repository's prefix, with the prefix in front of the search
paths for programs, libraries and data.

* A script says in its second line which program of which repository it is for. What does not say so is somebody
  else's: it is neither replaced nor removed. The last line of the original client's scripts says it too.
* A script finds its prefix from its own place, so that the same root works as `/` and below another path.
* File names are quoted: whatever a repository calls its programs, the shell sees one word.
* Each script is replaced in one step. `refresh` writes the template last, so that it is repeated until it is through.
* Links are not followed: where `/opt/3rd-party/bin` is one, UnsafePathError.
"""

from __future__ import annotations

import os
import re
import shlex
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from swupd.errors import UnsafePathError
from swupd.fs import Directory, replace_file
from swupd.report import Report
from swupd.settings import below
from swupd.thirdparty.place import OWN, open_below

PROGRAMS = f"{OWN}/bin"
TEMPLATE_FILE = f"{OWN}/script.template"
SCRIPT_LIMIT = 1 << 16
"""Bytes of a script; what is larger is none of ours."""
TEMPLATE = """\
#!/bin/bash
# 3rd-party repository @REPOSITORY@: @PROGRAM@
# Written by swupd, which replaces or removes this file together with the program.
here=$(readlink -f -- "${BASH_SOURCE[0]}")
prefix=${here%/bin/*}/bundles/@REPOSITORY@
export PATH="$prefix/bin:$prefix/usr/bin:$prefix/usr/local/bin:$PATH"
export LD_LIBRARY_PATH="$prefix/usr/lib64:$prefix/usr/local/lib64${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
export XDG_DATA_DIRS="$prefix/usr/share:$prefix/usr/local/share:${XDG_DATA_DIRS:-/usr/local/share:/usr/share}"
export XDG_CONFIG_DIRS="$prefix/etc:${XDG_CONFIG_DIRS:-/etc/xdg}"
exec "$prefix"@QUOTED_PROGRAM@ "$@"
"""
_MODE = 0o755
_PLACEHOLDER = re.compile(r"@(REPOSITORY|PROGRAM|QUOTED_PROGRAM)@")
_OURS = re.compile(r"#!/bin/bash\n# 3rd-party repository ([^\n:]+): (/[^\n]+)\n")
_OF_THE_ORIGINAL = re.compile(r'(?:.*\n)*[^\n#]*/opt/3rd-party/bundles/([^/\n]+)(/[^\n"]+)"? +"\$@"\s*')


class Program(NamedTuple):
    """An exported program."""

    repository: str
    path: str
    """As in manifests: below the repository's prefix."""


def script(program: Program) -> bytes:
    """The wrapper of a program."""
    values = {
        "REPOSITORY": program.repository,
        "PROGRAM": program.path,
        "QUOTED_PROGRAM": shlex.quote(program.path),
    }
    return os.fsencode(_PLACEHOLDER.sub(lambda match: values[match[1]], TEMPLATE))


def program_of(data: bytes) -> Program | None:
    """The program that a script is the wrapper of; None for a file that is none of ours."""
    text = os.fsdecode(data)
    match = _OURS.match(text) or _OF_THE_ORIGINAL.fullmatch(text)
    return Program(match[1], match[2]) if match else None


def wrappers(root: Path) -> dict[str, Program | None]:
    """All names in the directory of wrappers, with their programs; None for what is somebody else's."""
    try:
        directory = open_below(root, PROGRAMS)
    except (FileNotFoundError, NotADirectoryError):
        return {}
    with directory:
        return {name: program_of(_read(directory, name)) for name in sorted(directory.names())}


def synchronise(root: Path, repository: str, wanted: Mapping[str, str], report: Report) -> None:
    """Make the wrappers of a repository those of `wanted`: paths of programs by the name of the command.

    A command that somebody else has is left to him, with a warning.
    """
    there = wrappers(root)
    if not wanted and not there:
        return
    with open_below(root, PROGRAMS, make=True) as directory:
        for name, path in sorted(wanted.items()):
            program = Program(repository, path)
            owner = there.get(name, program)
            if owner is None or owner.repository != repository:
                whose = f"repository {owner.repository}" if owner else "somebody else"
                report.warning(f"{path} of repository {repository} gets no command {name}: {whose} has it")
            elif not _is_right(directory, name, program):
                replace_file(below(root, PROGRAMS) / name, script(program), mode=_MODE)
        for name, owner in there.items():
            if owner is not None and owner.repository == repository and name not in wanted:
                directory.unlink(name)


def refresh(root: Path) -> None:
    """Write all wrappers anew if there are any and they were made from another template."""
    ours = {name: program for name, program in wrappers(root).items() if program is not None}
    if not ours:
        return
    with open_below(root, OWN) as own:
        template = TEMPLATE.encode()
        if _read(own, TEMPLATE_FILE.rpartition("/")[2]) == template:
            return
    for name, program in ours.items():
        replace_file(below(root, PROGRAMS) / name, script(program), mode=_MODE)
    replace_file(below(root, TEMPLATE_FILE), template)


def _is_right(directory: Directory, name: str, program: Program) -> bool:
    status = directory.lstat(name)
    return (
        status is not None
        and stat.S_IMODE(status.st_mode) == _MODE
        and status.st_uid == os.geteuid()
        and _read(directory, name) == script(program)
    )


def _read(directory: Directory, name: str) -> bytes:
    """The content of a small regular file; empty for anything else."""
    try:
        with directory.open_file(name) as file:
            data = file.read(SCRIPT_LIMIT + 1)
    except (OSError, UnsafePathError):
        return b""
    return data if len(data) <= SCRIPT_LIMIT else b""
