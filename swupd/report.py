"""What the user sees: one interface, several faces.

Commands speak to a `Report` and never print. The levels are those of the original client (specification 6.6):
`answer` is the result that a script reads and is always printed; `info` and progress go away with --quiet; warnings and
errors go to standard error. `JsonReport` writes the stream of section 6.7: one JSON array, one object a line.

Not thread-safe except `progress`, which workers may call; faces keep no other state than the current step.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from typing import Protocol, TextIO

from swupd.errors import ProjectError

_TERMINAL_SECONDS = 0.2
_LOG_SECONDS = 10.0
"""Least time between two signs of progress: on a terminal, where the line is rewritten, and elsewhere."""


_UNITS = ("bytes", "kB", "MB", "GB")


class Report(Protocol):
    """Where a command tells what it does."""

    def start(self, section: str) -> None:
        """A command begins; `section` is its name in the JSON stream."""

    def end(self, status: int) -> None:
        """The command is over, with this exit status."""

    def answer(self, text: str) -> None:
        """The result proper: printed even with --quiet."""

    def info(self, text: str) -> None: ...

    def verbose(self, text: str) -> None: ...

    def debug(self, text: str) -> None: ...

    def warning(self, text: str) -> None: ...

    def error(self, text: str, hint: str = "") -> None: ...

    def step(self, name: str, text: str, number: int = 0, total: int = 0) -> None:
        """A step begins: `name` for the JSON stream, `text` for people, its number of the total (0 = not counted)."""

    def progress(self, done: int, total: int) -> None:
        """How far the current step is; any unit."""


def counted(number: int, noun: str) -> str:
    """A number of things: "1 file", "2 files"."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def human_size(size: float) -> str:
    """Bytes for people: "512 bytes", "1.5 kB", "23.0 MB"."""
    unit = 0
    while size >= 1000 and unit < len(_UNITS) - 1:
        size /= 1000
        unit += 1
    return f"{size:.1f} {_UNITS[unit]}" if unit else f"{size:.0f} {_UNITS[0]}"


def show_error(report: Report, error: ProjectError) -> None:
    """The one place where an error becomes visible."""
    report.error(str(error), error.hint)


class TextReport:
    """Plain lines. Below the line of a step, a terminal has one that counts up in place and goes away; elsewhere a long
    step says now and then how far it is."""

    def __init__(
        self,
        *,
        out: TextIO | None = None,
        err: TextIO | None = None,
        quiet: bool = False,
        verbose: bool = False,
        debug: bool = False,
        show_progress: bool = True,
    ) -> None:
        self._out = out or sys.stdout
        self._err = err or sys.stderr
        self._quiet = quiet and not debug
        self._verbose = verbose or debug
        self._debug = debug
        self._show_progress = show_progress and not self._quiet
        self._terminal = self._out.isatty()
        self._lock = threading.Lock()
        self._shown_at = 0.0
        self._line_open = False
        self._step = ""

    def start(self, section: str) -> None:
        pass

    def end(self, status: int) -> None:  # noqa: ARG002 (part of the interface)
        self._close_line()
        self._out.flush()

    def answer(self, text: str) -> None:
        self._write(self._out, text)

    def info(self, text: str) -> None:
        if not self._quiet:
            self._write(self._out, text)

    def verbose(self, text: str) -> None:
        if self._verbose and not self._quiet:
            self._write(self._out, text)

    def debug(self, text: str) -> None:
        if self._debug:
            self._write(self._out, f"Debug: {time.strftime('%H:%M:%S')} {text}")

    def warning(self, text: str) -> None:
        if not self._quiet:
            self._write(self._err, f"Warning: {text}")

    def error(self, text: str, hint: str = "") -> None:
        self._write(self._err, f"Error: {text}")
        if hint:
            self._write(self._err, f"Hint: {hint}")

    def step(self, name: str, text: str, number: int = 0, total: int = 0) -> None:  # noqa: ARG002 (for JSON)
        self._step = text
        self._shown_at = time.monotonic()
        self.info(text)

    def progress(self, done: int, total: int) -> None:
        now = time.monotonic()
        pause = _TERMINAL_SECONDS if self._terminal else _LOG_SECONDS
        last = self._line_open and done >= total
        if not self._show_progress or total <= 0 or (now - self._shown_at < pause and not last):
            return
        percent = f"  {100 * done // total:3d} %"
        with self._lock:
            self._shown_at = now
            self._out.write(f"\r{percent}" if self._terminal else f"{percent}  {self._step}\n")
            self._out.flush()
            self._line_open = self._terminal
        if last:
            self._close_line()

    def _close_line(self) -> None:
        with self._lock:
            if self._line_open:
                self._out.write("\r\033[K")
                self._line_open = False

    def _write(self, stream: TextIO, text: str) -> None:
        self._close_line()
        with self._lock:
            # Paths are bytes; what is no valid text is shown with replacement signs rather than not at all.
            stream.write(text.encode("utf-8", "surrogateescape").decode("utf-8", "replace") + "\n")
            stream.flush()


class JsonReport:
    """The JSON stream; messages outside of start and end are dropped, as the original does."""

    def __init__(self, out: TextIO | None = None, *, verbose: bool = False, debug: bool = False) -> None:
        self._out = out or sys.stdout
        self._verbose = verbose or debug
        self._debug = debug
        self._section = ""
        self._first = True
        self._step: tuple[str, int, int] = ("", 0, 0)
        self._percent = -1
        self._lock = threading.Lock()

    def start(self, section: str) -> None:
        self._section = section
        self._out.write("[\n")
        self._emit({"type": "start", "section": section})

    def end(self, status: int) -> None:
        if self._section:
            self._emit({"type": "end", "section": self._section, "status": status})
            self._out.write("\n]\n")
            self._out.flush()
            self._section = ""

    def answer(self, text: str) -> None:
        self._message("info", text)

    def info(self, text: str) -> None:
        self._message("info", text)

    def verbose(self, text: str) -> None:
        if self._verbose:
            self._message("info", text)

    def debug(self, text: str) -> None:
        if self._debug:
            self._message("debug", text)

    def warning(self, text: str) -> None:
        self._message("warning", text)

    def error(self, text: str, hint: str = "") -> None:
        self._message("error", f"{text} ({hint})" if hint else text)

    def step(self, name: str, text: str, number: int = 0, total: int = 0) -> None:  # noqa: ARG002 (for people)
        self._step = (name, number, total)
        self._percent = -1
        self._emit_step(-1)

    def progress(self, done: int, total: int) -> None:
        percent = 100 * done // total if total > 0 else -1
        if percent != self._percent:
            self._percent = percent
            self._emit_step(percent)

    def _emit_step(self, percent: int) -> None:
        name, number, total = self._step
        self._emit(
            {
                "type": "progress",
                "currentStep": number,
                "totalSteps": total,
                "stepCompletion": percent,
                "stepDescription": name,
            }
        )

    def _message(self, kind: str, text: str) -> None:
        text = " ".join(text.encode("utf-8", "surrogateescape").decode("utf-8", "replace").splitlines()).rstrip()
        if text:
            self._emit({"type": kind, "msg": text})

    def _emit(self, record: dict[str, str | int]) -> None:
        if not self._section:
            return
        with self._lock:
            self._out.write(("" if self._first else ",\n") + json.dumps(record, ensure_ascii=False))
            self._first = False
            self._out.flush()
