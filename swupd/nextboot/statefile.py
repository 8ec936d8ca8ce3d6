"""A file of the shared state that says something about boots, as one JSON object: what `record` and `health` keep.

It is read as input from outside: of a file that is missing, too large or damaged nothing is known, links are not
followed, and whoever reads it picks out what is sound. It is replaced in one step.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, TypeGuard

from swupd.errors import UnsafePathError
from swupd.formats.bootentry import is_deployment_name
from swupd.fs import Directory

FILE_LIMIT = 8 << 20
"""Bytes: more than the limits of its users can add up to."""
TIME_LIMIT = 1 << 40
"""Seconds since 1970: what calendars know."""


def read(boot: Directory, name: str) -> dict[str, Any]:
    """The object in a file of the directory `boot` of the state; an empty one if there is none that can be read."""
    try:
        with boot.open_file(name) as file:
            raw = json.loads(file.read(FILE_LIMIT))
    except (OSError, UnsafePathError, ValueError, RecursionError):
        return {}
    return raw if isinstance(raw, dict) else {}


def write(boot: Directory, name: str, content: Mapping[str, Any]) -> None:
    """Replace the file; it is on disk when this returns. Raises OSError."""
    boot.replace_file(name, json.dumps(content, indent=1).encode() + b"\n")
    boot.sync_names()


def items(raw: Mapping[str, Any], key: str) -> list[Any]:
    """The list under a key; an empty one for anything else."""
    value = raw.get(key)
    return value if isinstance(value, list) else []


def objects(raw: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
    """The objects in such a list."""
    return [item for item in items(raw, key) if isinstance(item, dict)]


def is_name(value: Any) -> TypeGuard[str]:
    """Whether it is the name of a deployment."""
    return isinstance(value, str) and is_deployment_name(value)


def is_time(value: Any) -> TypeGuard[int]:
    """Whether it is a number of whole seconds since 1970."""
    return type(value) is int and 0 <= value < TIME_LIMIT


def one_line(text: str, limit: int) -> str:
    """The beginning of a text, so that it can be shown on any terminal."""
    return "".join(sign if sign.isprintable() else "?" for sign in text[:limit])
