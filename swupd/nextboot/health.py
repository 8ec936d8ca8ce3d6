"""The health checks of a boot: which there are, what came of them, and the report that stays.

* A check is an executable in /usr/lib/swupd/health.d or /etc/swupd/health.d; status 0 means well. One in /etc replaces
  the one of the same name in /usr, and a link to /dev/null there switches it off, as in the directories of systemd.
  They run one after the other in the order of their names.
* `no-failed-unit` is built in: no unit of systemd has failed. It is replaced and switched off in the same way.
* A check gets an environment of two variables, no input, the root directory to work in, and TIME_LIMIT_SECONDS; then it
  is killed, with all that it began. The last line that it prints is its reason.
* All together get TOTAL_SECONDS. What cannot be run any more has failed: there is a report in any case.
* The report is a file of the shared state, `health.json`, with the last boot of each of the last deployments, so that
  what was wrong with one is still known when another has taken its place. It is replaced in one step; what cannot be
  read in it is left out.

Only the one process of a boot that assesses it writes the report.
"""

from __future__ import annotations

import os
import signal
import stat
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from swupd import process
from swupd.fs import Directory
from swupd.nextboot import statefile
from swupd.system import runs_systemd

DIRECTORIES = ("usr/lib/swupd/health.d", "etc/swupd/health.d")
"""Below the root; what the later ones have replaces what the earlier ones have."""
NO_FAILED_UNIT = "no-failed-unit"
TIME_LIMIT_SECONDS = 60
"""Of one check."""
TOTAL_SECONDS = 240
"""Of all of them: less than the five minutes that systemd gives to swupd-health.service."""
MAX_CHECKS = 100
NAME_LIMIT = 100
"""Characters of the name of a check."""
OUTPUT_LIMIT = 1 << 14
"""Bytes, the last of what a check prints."""
REASON_LIMIT = 300
"""Characters."""
FILE = "health.json"
MAX_REPORTS = 10
"""Of so many deployments the report knows the last boot."""

_SWITCHED_OFF = "/dev/null"
_SYSTEMCTL = "usr/bin/systemctl"
_FAILED_UNITS = ("list-units", "--state=failed", "--plain", "--no-legend", "--no-pager", "--full")


class Outcome(Enum):
    PASSED = "passed"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True)
class Check:
    """Something to be checked."""

    name: str
    path: Path | None
    """The program; None for what is built in."""


@dataclass(frozen=True)
class Result:
    """What came of a check."""

    name: str
    outcome: Outcome
    reason: str = ""
    """Why it did not pass, in one line."""
    seconds: float = 0


@dataclass(frozen=True)
class Health:
    """What came of the checks of one boot."""

    deployment: str
    when: int
    """Seconds since 1970."""
    checks: tuple[Result, ...]

    @property
    def failed(self) -> tuple[Result, ...]:
        return tuple(result for result in self.checks if result.outcome is Outcome.FAILED)

    @property
    def is_good(self) -> bool:
        return not self.failed


def find_checks(root: Path) -> list[Check]:
    """The checks of a root, by name. Raises OSError for a directory that cannot be read."""
    found: dict[str, Check | None] = {NO_FAILED_UNIT: Check(NO_FAILED_UNIT, None)}
    for relative in DIRECTORIES:
        for path in _programs(root / relative):
            off = path.is_symlink() and os.readlink(path) == _SWITCHED_OFF
            found[path.name] = None if off else Check(path.name, path)
    return [check for _, check in sorted(found.items()) if check is not None][:MAX_CHECKS]


def perform(
    root: Path, checks: Sequence[Check], *, seconds: float = TIME_LIMIT_SECONDS, total_seconds: float = TOTAL_SECONDS
) -> Iterator[Result]:
    """Carry out checks one after the other. Programs of the root are run: a command must have been asked to."""
    until = time.monotonic() + total_seconds
    for check in checks:
        begun = time.monotonic()
        limit = min(seconds, until - begun)
        if limit <= 0:
            outcome, reason = Outcome.FAILED, "it was not run: the time for all checks was over"
        elif check.path is not None:
            outcome, reason = _run(check.path, root, limit)
        else:
            outcome, reason = _no_failed_unit(root, limit)
        yield Result(check.name, outcome, reason, round(time.monotonic() - begun, 1))


def read(boot: Directory) -> dict[str, Health]:
    """The last report of each deployment, in the directory `boot` of the state; the latest comes last."""
    raw = statefile.read(boot, FILE)
    reports = [report for item in statefile.objects(raw, "reports") if (report := _health(item)) is not None]
    return {report.deployment: report for report in reports[-MAX_REPORTS:]}


def write(boot: Directory, reports: Mapping[str, Health]) -> None:
    """Replace the reports; they are on disk when this returns. Raises OSError."""
    raw = [
        {
            "deployment": report.deployment,
            "when": report.when,
            "checks": [asdict(result) | {"outcome": result.outcome.value} for result in report.checks],
        }
        for report in list(reports.values())[-MAX_REPORTS:]
    ]
    statefile.write(boot, FILE, {"reports": raw})


def add(boot: Directory, report: Health) -> None:
    """Add a report; it takes the place of an earlier one of the same deployment. Raises OSError."""
    others = {name: other for name, other in read(boot).items() if name != report.deployment}
    write(boot, others | {report.deployment: report})


def _programs(directory: Path) -> list[Path]:
    try:
        names = sorted(os.listdir(directory))
    except (FileNotFoundError, NotADirectoryError):
        return []
    return [directory / name for name in names if _is_name(name)]


def _is_name(name: str) -> bool:
    """Hidden files and backups of editors are no checks."""
    return name.isprintable() and len(name) <= NAME_LIMIT and not name.startswith(".") and not name.endswith("~")


def _run(path: Path, root: Path, seconds: float) -> tuple[Outcome, str]:
    try:
        status = os.stat(path)
    except OSError as error:
        return Outcome.FAILED, f"it cannot be run: {error.strerror}"
    if not stat.S_ISREG(status.st_mode) or not status.st_mode & 0o111:
        return Outcome.SKIPPED, "it is no executable file"
    why, _ = _attempt([path], root, seconds)
    return (Outcome.FAILED, why) if why else (Outcome.PASSED, "")


def _no_failed_unit(root: Path, seconds: float) -> tuple[Outcome, str]:
    if not runs_systemd(root):
        return Outcome.SKIPPED, "systemd does not run here"
    why, lines = _attempt([root / _SYSTEMCTL, *_FAILED_UNITS], root, seconds)
    if why:
        return Outcome.FAILED, f"systemctl: {why}"
    units = [line.split()[0] for line in lines if line]
    return (Outcome.FAILED, _one_line(f"failed: {', '.join(units)}")) if units else (Outcome.PASSED, "")


def _attempt(argv: Sequence[Path | str], root: Path, seconds: float) -> tuple[str, list[str]]:
    """Why a program did not end well (empty if it did), and the lines that it printed."""
    try:
        done = process.attempt(argv, env=process.ENVIRONMENT, cwd=root, seconds=seconds, tail_bytes=OUTPUT_LIMIT)
    except FileNotFoundError:
        return "it cannot be run: it, or its interpreter, is missing", []
    except OSError as error:
        return f"it cannot be run: {error.strerror}", []
    lines = [line.strip() for line in done.tail.decode(errors="replace").splitlines()]
    return ("" if done.status == 0 else _reason(done.status, lines, seconds)), lines


def _reason(status: int | None, lines: Sequence[str], seconds: float) -> str:
    """Why a program did not end well: its last line, or how it ended."""
    said = next((line for line in reversed(lines) if line), "")
    if status is None:
        return _one_line(f"it took longer than {seconds:.3g} s{': ' if said else ''}{said}")
    if said:
        return _one_line(said)
    if status < 0:
        return f"it was ended by {_signal(-status)}"
    return f"it ended with status {status} and printed nothing"


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _one_line(text: str) -> str:
    return statefile.one_line(text, REASON_LIMIT)


def _health(raw: Mapping[str, Any]) -> Health | None:
    deployment, when = raw.get("deployment"), raw.get("when")
    if not (statefile.is_name(deployment) and statefile.is_time(when)):
        return None
    checks = statefile.objects(raw, "checks")[:MAX_CHECKS]
    return Health(deployment, when, tuple(result for check in checks if (result := _result(check)) is not None))


def _result(raw: Mapping[str, Any]) -> Result | None:
    name, outcome, reason, seconds = (raw.get(key) for key in ("name", "outcome", "reason", "seconds"))
    if not isinstance(name, str) or not _is_name(name) or not isinstance(reason, str):
        return None
    known = next((member for member in Outcome if member.value == outcome), None)
    if known is None or not (type(seconds) is int or type(seconds) is float) or not 0 <= seconds < statefile.TIME_LIMIT:
        return None
    return Result(name, known, _one_line(reason), seconds)
