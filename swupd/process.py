"""The one way to run another program.

Argument lists only, never a shell; standard input is empty and the environment is exactly what the caller gives, so
that nothing of the user's surroundings leaks into a helper. A failing command is shown so that it can be pasted into
a terminal, with the last lines that it printed.
"""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from swupd.errors import CommandError, ProgramMissingError

_TAIL_LINES = 5
"""How much of a failed program's output an error repeats."""


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
