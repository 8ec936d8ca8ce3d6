"""A reboot at a time that somebody chose, by systemd's `shutdown`, which also tells whoever is logged in.

Only the running system is rebooted. A time is `now`, `+MINUTES`, or `HH:MM`: the next such time of the day.
"""

from __future__ import annotations

import re
from argparse import ArgumentTypeError
from pathlib import Path

from swupd import process
from swupd.errors import CommandError, UsageError

SHUTDOWN = Path("/usr/sbin/shutdown")
MAX_MINUTES = 7 * 24 * 60
"""A week."""

_CLOCK = re.compile(r"([01]?[0-9]|2[0-3]):([0-5][0-9])", re.ASCII)
_MINUTES = re.compile(r"\+([0-9]{1,5})", re.ASCII)


def parse_time(text: str) -> str:
    """A time as `shutdown` takes it; a type of an option's value. Raises ArgumentTypeError."""
    clock, minutes = _CLOCK.fullmatch(text), _MINUTES.fullmatch(text)
    if clock is not None:
        return f"{int(clock[1]):02}:{clock[2]}"
    if minutes is not None and int(minutes[1]) <= MAX_MINUTES:
        return f"+{int(minutes[1])}"
    if text == "now":
        return text
    raise ArgumentTypeError(f"'{text}' is not now, HH:MM, or +MINUTES (up to {MAX_MINUTES}, a week)")


def check(root: Path | None, *, next_boot: bool) -> None:
    """Raise UsageError if there is no reason to reboot, or `root` is not that of the running system (None is)."""
    if not next_boot:
        raise UsageError("--reboot-at is for updates that become active on the next boot", hint="add --next-boot")
    if root is not None and root.resolve() != Path("/"):
        raise UsageError("only the running system can be rebooted", hint="leave out --reboot-at or --path")


def schedule(when: str, *, shutdown: Path = SHUTDOWN) -> None:
    """Reboot at a time that `parse_time` gave. Raises CommandError: what was installed stays."""
    try:
        process.run(
            [shutdown, "-r", when, "The system reboots into the version that was installed"], env=process.ENVIRONMENT
        )
    except CommandError as error:
        raise CommandError(
            f"everything is installed, but no reboot could be arranged: {error}", hint="reboot by hand"
        ) from error
