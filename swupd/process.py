"""The one way to run another program.

Argument lists only, never a shell; standard input is empty and the environment is exactly what the caller gives, so
that nothing of the user's surroundings leaks into a helper. A failing command is shown so that it can be pasted into
a terminal, with the last lines that it printed.
"""

from __future__ import annotations

import os
import select
import shlex
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import IO, NoReturn, cast

from swupd.errors import CommandError, ProgramMissingError

ENVIRONMENT: Mapping[str, str] = MappingProxyType({"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"})
"""For programs of the system that start others themselves, or tell something in words."""

_TAIL_LINES = 5
"""How much of a failed program's output an error repeats."""
_PIPE_BYTES = 1 << 20
"""More than a pipe holds."""


def run(
    argv: Sequence[str | Path],
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    stdin: bytes = b"",
    check: bool = True,
) -> subprocess.CompletedProcess[bytes]:
    """Run a program to its end and return its captured output (stderr apart from stdout).

    Raises CommandError if the program cannot be started or, with `check`, if its exit status is not 0.
    """
    arguments = [str(argument) for argument in argv]
    try:
        done = subprocess.run(arguments, env=dict(env or {}), cwd=cwd, input=stdin, capture_output=True, check=False)
    except OSError as error:
        raise CommandError(
            f"cannot run {arguments[0]}: {error.strerror}", hint=f"install the program {arguments[0]}"
        ) from error
    if check and done.returncode != 0:
        raise failure(arguments, done.returncode, done.stderr or done.stdout)
    return done


@dataclass(frozen=True)
class Attempt:
    """What came of a program that had a time limit."""

    status: int | None
    """Its exit status, the negative number of the signal that ended it, or None: it took too long."""
    tail: bytes
    """The end of what it printed."""


def attempt(
    argv: Sequence[str | Path],
    *,
    env: Mapping[str, str],
    seconds: float,
    tail_bytes: int,
    cwd: Path | None = None,
) -> Attempt:
    """Run a program that nobody vouches for: in a process group of its own, which is killed when the program has ended
    or its time is over, so that nothing of it stays. However much it prints, only the last bytes of it are kept.

    Raises OSError if it cannot be started.
    """
    program = subprocess.Popen(
        [str(argument) for argument in argv],
        env=dict(env),
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        bufsize=0,
        start_new_session=True,
    )
    with cast("IO[bytes]", program.stdout) as output:
        try:
            ended, tail = _follow(program.pid, output.fileno(), time.monotonic() + seconds, tail_bytes)
        finally:
            # It has not been waited for yet, so the number of its group is still its own.
            with suppress(ProcessLookupError):
                os.killpg(program.pid, signal.SIGKILL)
            status = program.wait()
    return Attempt(status if ended else None, tail)


def _follow(pid: int, output: int, until: float, tail_bytes: int) -> tuple[bool, bytes]:
    """Read what a process prints; whether it ended in time, and the last bytes. A child of it that goes on printing, or
    only keeps its output open, is not waited for."""
    os.set_blocking(output, False)
    tail = b""
    ended = False
    watched = select.poll()
    watched.register(output, select.POLLIN)
    process = os.pidfd_open(pid)
    try:
        watched.register(process, select.POLLIN)
        while not ended and (left := until - time.monotonic()) > 0:
            ready = [descriptor for descriptor, _ in watched.poll(1000 * left)]
            ended = process in ready
            if output in ready:
                # A pipe holds no more than this at the moment of its end.
                data = os.read(output, _PIPE_BYTES)
                tail = (tail + data)[-tail_bytes:]
                if not data:
                    watched.unregister(output)
    finally:
        os.close(process)
    return ended, tail


def become(argv: Sequence[str | Path], *, hint: str) -> NoReturn:
    """Let another program take the place of this process, with the user's environment and terminal.

    Raises ProgramMissingError, with the hint, if it cannot be started.
    """
    usual = signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    try:
        os.execv(argv[0], [str(argument) for argument in argv])  # noqa: S606 (an argument list, no shell)
    except OSError as error:
        signal.signal(signal.SIGPIPE, usual)
        raise ProgramMissingError(f"cannot run {argv[0]}: {error.strerror}", hint=hint) from error


def failure(argv: Sequence[str], status: int, output: bytes) -> CommandError:
    """The error for a program that ended with a bad status."""
    tail = " | ".join(output.decode(errors="replace").strip().splitlines()[-_TAIL_LINES:])
    return CommandError(
        f"{argv[0]} failed with status {status}: {tail or 'it printed nothing'}",
        hint=f"to see it again: {shlex.join(argv)}",
    )
