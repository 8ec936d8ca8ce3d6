"""What of an update only comes into use with the next boot. Pure, except for a note in /run.

Everything else is restarted by the actions that follow an update, or used by the next program that begins.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from swupd.errors import UnsafePathError
from swupd.fs import Directory, replace_file

RUN = Path("/run")
NOTE = "swupd/reboot-needed"
"""Below /run, and so gone after the boot: a JSON list of what it will bring into use."""
NOTE_LIMIT = 1 << 16
"""Bytes."""

_LIBRARIES = r"/usr/lib(?:32|64|/[^/]+-linux-[^/]+)?"
_RULES = {
    "kernel": re.compile(r"/usr/lib/kernel/|/boot/|/usr/lib/modules/[^/]+/vmlinuz$"),
    "C library": re.compile(rf"{_LIBRARIES}/(?:libc(?:\.so\.6|-[0-9.]+\.so)|ld-linux[^/]*\.so[^/]*|ld-[0-9.]+\.so)$"),
    "systemd": re.compile(rf"/usr/lib/systemd/systemd$|{_LIBRARIES}/(?:systemd/)?libsystemd-(?:shared|core)[^/]*\.so$"),
    "D-Bus": re.compile(r"/usr/bin/(?:dbus-daemon|dbus-broker(?:-launch)?)$"),
}


def reasons(names: Iterable[str], kernel_release: str = "") -> tuple[str, ...]:
    """What needs a reboot after these paths have changed: "kernel", "C library" ...; empty if nothing does.

    kernel_release: of the running kernel (uname -r), whose modules may have been changed below it.
    """
    modules = f"/usr/lib/modules/{kernel_release}/"
    found: dict[str, None] = {}
    for name in names:
        found |= {what: None for what, rule in _RULES.items() if what not in found and rule.match(name)}
        if kernel_release and name.startswith(modules):
            found["modules of the running kernel"] = None
    return tuple(found)


def sentence(found: Iterable[str]) -> str:
    """For people; empty if no reboot is needed."""
    parts = [f"the new {what}" for what in found]
    return (
        f"A reboot is needed to use {', '.join(parts[:-1])}{' and ' if parts[1:] else ''}{parts[-1]}" if parts else ""
    )


def remember(found: Iterable[str], run: Path = RUN) -> None:
    """Note it until the next boot, beside what earlier updates noted. A note that cannot be written is no error."""
    together = list(dict.fromkeys([*remembered(run), *found]))
    directory, _, _ = NOTE.partition("/")
    with suppress(OSError, UnsafePathError):
        with Directory.open(run) as top, suppress(FileExistsError):
            top.make_directory(directory)
        replace_file(run / NOTE, json.dumps(together).encode() + b"\n")


def remembered(run: Path = RUN) -> tuple[str, ...]:
    """What updates since the last boot have noted."""
    try:
        with (run / NOTE).open("rb") as file:
            noted = json.loads(file.read(NOTE_LIMIT))
    except (OSError, ValueError, RecursionError):
        return ()
    return (
        tuple(what for what in noted if isinstance(what, str) and what.isprintable()) if isinstance(noted, list) else ()
    )
