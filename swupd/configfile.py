"""The configuration files (swupd client specification, section 6.4).

A file named `config` in each of the directories is read in order. The grammar is strict and the original's: lines end
in LF; `[section]`; `key=value` without any trimming and without a second `=`; `;` and `#` begin a comment line. A line
that is none of these is an error with file and line, because half a configuration is not what the administrator
wanted. Keys are long option names with `_` for `-`; whether a key is known, and what type its value has, is for the
command line to say.

Later settings override earlier ones, over all files, whether they stand in the section of the command or are global.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from swupd.errors import UsageError

DIRECTORIES = (Path("/usr/share/defaults/swupd"), Path("/run/swupd"), Path("/etc/swupd"))
"""Of the host, never below --path; the later ones override."""
PATH_VARIABLE = "SWUPD_CONFIG_PATH"
"""Environment variable with directories, separated by colons, that replaces the list."""
FILE_NAME = "config"
FILE_LIMIT = 1 << 20
"""Bytes of one file."""
GLOBAL = "global"


class Setting(NamedTuple):
    """One `key=value` line. Section and key are in lower case."""

    section: str
    key: str
    value: str
    where: str
    """File and line, for messages."""


@dataclass(frozen=True)
class ConfigFile:
    """All settings of all files, in the order in which they override each other."""

    settings: tuple[Setting, ...] = ()

    def settings_for(self, command: str) -> dict[str, Setting]:
        """What holds for a command, by key. `command` is its name; for 3rd-party ones "3rd-party-<sub>"."""
        return {setting.key: setting for setting in self.settings if setting.section in (GLOBAL, command.lower())}


def directories(environ: Mapping[str, str]) -> tuple[Path, ...]:
    """Where to look: the directories of the environment variable if it is set, else the built-in ones."""
    if PATH_VARIABLE not in environ:
        return DIRECTORIES
    return tuple(Path(part) for part in environ[PATH_VARIABLE].split(":") if part)


def load(places: Iterable[Path]) -> ConfigFile:
    """Read `config` in each directory that has one; UsageError for a file that cannot be read or understood."""
    settings: list[Setting] = []
    for place in places:
        path = place / FILE_NAME
        try:
            with path.open("rb") as file:
                data = file.read(FILE_LIMIT + 1)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            raise UsageError(f"cannot read {path}: {error.strerror}", hint="check the file's permissions") from error
        settings += parse(data, str(path))
    return ConfigFile(tuple(settings))


def parse(data: bytes, name: str) -> list[Setting]:
    """The settings of one file; `name` is for messages."""
    if len(data) > FILE_LIMIT:
        raise UsageError(f"{name} is larger than {FILE_LIMIT} bytes", hint="this is no configuration file")
    *lines, rest = os.fsdecode(data).split("\n")
    if rest:
        raise _bad_line(name, len(lines) + 1, "the last line has no line end", "end it with a newline")
    settings = []
    section = GLOBAL
    for number, line in enumerate(lines, start=1):
        if not line or line[0] in ";#":
            continue
        if line[0] == "[":
            if len(line) < 3 or line[-1] != "]":
                raise _bad_line(name, number, f"'{line}' is no section", "write [section] and nothing after it")
            section = line[1:-1].lower()
            continue
        key, equals, value = line.partition("=")
        if not key or not equals or "=" in value:
            raise _bad_line(name, number, f"'{line}' is no setting", "write key=value with exactly one '='")
        settings.append(Setting(section, key.lower(), value, f"{name}:{number}"))
    return settings


def _bad_line(name: str, number: int, what: str, hint: str) -> UsageError:
    return UsageError(f"{name}:{number}: {what}", hint=hint)
