"""How things are measured: processes with all their children, and functions in processes of their own.

* CPU seconds are those of the system and the user, of a process and of all children that it waited for.
* Memory is the largest resident size that any single one of these processes ever had.
* Linux lets a new process begin with the largest size of the one that started it. So nothing that needs much memory may
  run in a process that measures others: such functions go through `in_fresh_process`.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import TypeVar

from swupd.errors import CommandError, ProjectError

PROGRAMS = Path(sys.executable).parent
"""Where the commands `mixer` and `swupd` are."""

_TAIL_LINES = 5
_KILOBYTE = 1024
"""Unit of ru_maxrss."""

Result = TypeVar("Result")


class BenchError(ProjectError):
    """Something cannot be measured here."""


@dataclass(frozen=True)
class Usage:
    """What something cost."""

    wall: float
    cpu: float
    """Seconds."""
    memory: int
    """Bytes of the largest process."""


@dataclass(frozen=True)
class Finished:
    """A process that ended well."""

    usage: Usage
    lines: tuple[tuple[float, str], ...]
    """What it printed: seconds since it was started, line."""

    def seconds_until(self, beginning: str) -> float:
        """When it printed the first line that begins so."""
        for seconds, line in self.lines:
            if line.startswith(beginning):
                return seconds
        raise BenchError(f"no line of the output begins with {beginning!r}")


def run(argv: Sequence[str | Path]) -> Finished:
    """Run a program, the projects' own by their names, to its end. Raises CommandError if it fails."""
    arguments = [str(argument) for argument in argv]
    if (PROGRAMS / arguments[0]).exists():
        arguments[0] = str(PROGRAMS / arguments[0])
    say(f"$ {' '.join(map(str, argv))}")
    start = time.perf_counter()
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        lines = tuple((time.perf_counter() - start, line.rstrip("\n")) for line in process.stdout)
        _, status, used = os.wait4(process.pid, 0)
        wall = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        tail = " | ".join(line for _, line in lines[-_TAIL_LINES:])
        raise CommandError(f"{' '.join(arguments)} ended with status {process.returncode}: {tail}")
    return Finished(Usage(wall, used.ru_utime + used.ru_stime, used.ru_maxrss * _KILOBYTE), lines)


def cpu_seconds() -> float:
    """CPU seconds of this process and of all its children that ended."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def peak_memory() -> int:
    """The largest size that this process, or a child of it that ended, ever had; bytes."""
    kinds = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return max(resource.getrusage(kind).ru_maxrss for kind in kinds) * _KILOBYTE


def in_fresh_process(function: Callable[..., Result], *arguments: object) -> Result:
    """What the function returns; function, arguments and result have to be picklable."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def total_bytes(paths: Iterable[Path]) -> int:
    """Size of files."""
    return sum(path.lstat().st_size for path in paths)


def load_average() -> str:
    """How busy the machine was during the last minute, for notes."""
    return f"load average {os.getloadavg()[0]:.1f}"


def say(text: str) -> None:
    """Progress, on standard error."""
    print(text, file=sys.stderr, flush=True)
