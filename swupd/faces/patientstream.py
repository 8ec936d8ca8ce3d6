"""Standard output and error that never interrupt a command in the middle of a change.

Writing never raises: the first failure (a closed pipe, a full disk) is kept, everything after it goes nowhere, and
`close` turns it into an exit status. A sign that the terminal's encoding lacks becomes a question mark.
"""

from __future__ import annotations

import errno
import os
import sys
from io import TextIOWrapper
from typing import TextIO

from swupd.errors import ExitCode


class PatientStream:
    """What a report needs of a text stream."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.encoding = stream.encoding
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")
        self._failure: OSError | None = None

    def write(self, text: str) -> int:
        if self._failure is None:
            try:
                return self._stream.write(text)
            except OSError as error:
                self._fail(error)
        return len(text)

    def flush(self) -> None:
        if self._failure is None:
            try:
                self._stream.flush()
            except OSError as error:
                self._fail(error)

    def isatty(self) -> bool:
        return self._stream.isatty()

    def close(self, status: int) -> int:
        """The exit status of the process; a reader who went away is no failure, lost output is one."""
        self.flush()
        if self._failure is None or self._failure.errno == errno.EPIPE:
            return status
        sys.stderr.write(f"Error: cannot write the output: {self._failure.strerror}\n")
        return status or ExitCode.CANNOT_WRITE_FILE

    def _fail(self, error: OSError) -> None:
        self._failure = error
        # What is still buffered goes nowhere, so that the interpreter's own flush at exit stays silent.
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), self._stream.fileno())
