"""What was done to a system, when, and what came of it: the file `history` in the data directory.

One event a line, as a JSON object, the oldest first; everybody may read it. Rules:

* Writing never fails: no change of a system is given up because it cannot be remembered.
* The file is replaced in one step, so that a reader sees whole events only, and holds the last EVENTS of them.
* Reading believes nothing: lines that are no event are skipped, unknown keys too, so that the format can grow.

Only whoever holds the system's lock may append; reading needs nothing.
"""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from swupd.errors import UnsafePathError
from swupd.fs import Directory, replace_file

FILE = "history"
EVENTS = 1000
"""How many events are kept."""
FILE_LIMIT = 4 << 20
"""Bytes; of a longer file only the end is read."""
TEXT_LIMIT = 1000
"""Characters of a text in an event."""
NUMBER_LIMIT = 1 << 53
"""What a number may be, so that every reader of JSON has it exactly."""

DONE = "done"
FAILED = "failed"


@dataclass(frozen=True)
class Event:
    """One change of the system, or the attempt."""

    when: int
    """Seconds since 1970, of its end."""
    command: str
    """As a person would call it: "update", "bundle-add editors"."""
    outcome: str
    """"done", "failed"; of an installation that was interrupted "undone", "finished later"; "rolled back"."""
    from_version: int = 0
    to_version: int = 0
    installed: int = 0
    replaced: int = 0
    removed: int = 0
    received: int = 0
    """Bytes that were downloaded."""
    seconds: float = 0
    detail: str = ""
    """Why it failed, for example."""


_FIELDS = {field.name: field.type for field in fields(Event)}
_REQUIRED = {"when", "command", "outcome"}


def append(data_dir: Path, event: Event) -> None:
    """Add an event, without ever raising an error of the system."""
    with suppress(OSError, UnsafePathError):
        event = replace(event, command=_printable(event.command), detail=_printable(event.detail))
        lines = [*_lines(data_dir)[-EVENTS + 1 :], json.dumps(asdict(event)).encode()]
        replace_file(data_dir / FILE, b"".join(line + b"\n" for line in lines), mode=0o644)


def read(data_dir: Path) -> list[Event]:
    """All events that can be read, the oldest first; none if there is no history. Raises OSError."""
    try:
        lines = _lines(data_dir)
    except (FileNotFoundError, NotADirectoryError, UnsafePathError):
        return []
    return [event for line in lines if (event := parse(line)) is not None]


def parse(line: bytes) -> Event | None:
    """The event of one line; None if it is none."""
    try:
        raw = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(raw, dict) or not raw.keys() >= _REQUIRED:
        return None
    values = {name: _value(raw[name], type_) for name, type_ in _FIELDS.items() if name in raw}
    return None if None in values.values() else Event(**values)


def _value(raw: Any, type_: object) -> Any:
    """A value of the type that a field has; None if it is something else."""
    if type_ == "str":
        return _printable(raw) if isinstance(raw, str) else None
    allowed = (int,) if type_ == "int" else (int, float)
    return raw if type(raw) in allowed and 0 <= raw <= NUMBER_LIMIT else None


def _printable(text: str) -> str:
    """A text of one line that any terminal can show."""
    return "".join(sign if sign.isprintable() else "?" for sign in text[:TEXT_LIMIT])


def _lines(data_dir: Path) -> list[bytes]:
    with Directory.open(data_dir) as directory:
        status = directory.lstat(FILE)
        if status is None:
            return []
        with directory.open_file(FILE) as file:
            file.seek(max(0, status.st_size - FILE_LIMIT))
            return file.read(FILE_LIMIT).splitlines()
