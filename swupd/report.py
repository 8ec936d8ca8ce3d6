"""What the user sees: one interface, several faces.

Commands speak to a `Report` and never print. The levels are those of the original client (specification 6.6):
`answer` is the result that a script reads and is always printed; `info` and progress go away with --quiet; warnings and
errors go to standard error.

* `TextReport` writes plain lines. Below them a terminal has a bar (`faces.progressbar`) while a step takes its time;
  everywhere else, and on a terminal that can only print lines (TERM=dumb), a long step says now and then how far it is.
* `JsonReport` writes the stream of section 6.7: one JSON array, one object a line, also across `hand_over`.

Not thread-safe except `progress`, which workers may call; faces keep no other state than the current step.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol, TextIO

from swupd.errors import ProjectError

if TYPE_CHECKING:
    from swupd.faces.progressbar import Bar

_BAR_SECONDS = 0.2
"""How long a step takes before it gets a bar."""
_LINE_SECONDS = 10.0
"""Least time between two lines that say how far a step is."""
_ERASE_LINE_ABOVE = "\033[A\r\033[2K"
CONTINUES = "SWUPD_JSON_CONTINUES"
"""Environment variable of a program that takes over in this process: `PID SECTION`, the array that it goes on with."""

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

    def progress(self, done: int, total: int, received: int = 0) -> None:
        """How far the current step is: `done` of `total` in any unit (total 0 = not known yet), and the bytes that have
        come over the network in this step (0 = not known, or none)."""

    def question(self, text: str) -> bool:
        """Show a question and leave the line open for the answer; False if nobody would see it: nothing is shown."""

    def hand_over(self) -> Mapping[str, str]:
        """Another program takes over in this process (exec) and speaks on; returns what its environment needs."""


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
    """Plain lines, and below them on a terminal the bar of the current step. A bar that is complete stays as the line
    of its step."""

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
        self._has_bars = self._out.isatty() and os.environ.get("TERM", "dumb") not in ("dumb", "unknown")
        self._lock = threading.Lock()
        self._bar: Bar | None = None
        self._step = ""
        self._step_is_last = False
        self._shown_at = 0.0

    def start(self, section: str) -> None:
        pass

    def end(self, status: int) -> None:  # noqa: ARG002 (part of the interface)
        with self._lock:
            self._close_bar()
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
        with self._lock:
            # What failed goes no further: the bar stays as it is, the error stands below it.
            self._close_bar()
        self._write(self._err, f"Error: {text}")
        if hint:
            self._write(self._err, f"Hint: {hint}")

    def step(self, name: str, text: str, number: int = 0, total: int = 0) -> None:  # noqa: ARG002 (for JSON)
        with self._lock:
            self._close_bar()
            self._step = text
            self._shown_at = time.monotonic()
        self.info(text)
        self._step_is_last = True

    def progress(self, done: int, total: int, received: int = 0) -> None:
        if not self._show_progress:
            return
        with self._lock:
            if self._bar is not None:
                self._bar.show(done, total, received)
                return
            now = time.monotonic()
            if now - self._shown_at < (_BAR_SECONDS if self._has_bars else _LINE_SECONDS):
                return
            self._shown_at = now
            if self._has_bars:
                from swupd.faces.progressbar import Bar

                if self._step_is_last:
                    self._out.write(_ERASE_LINE_ABOVE)
                self._bar = Bar(self._out, self._step)
                self._bar.show(done, total, received)
            elif total > 0:
                self._out.write(f"  {100 * done // total:3d} %  {self._step}\n")
                self._out.flush()

    def question(self, text: str) -> bool:
        if self._quiet or not self._out.isatty():
            return False
        with self._lock:
            self._close_bar()
            self._out.write(_printable(text))
            self._out.flush()
        return True

    def hand_over(self) -> Mapping[str, str]:
        self.end(0)
        return {}

    def _close_bar(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _write(self, stream: TextIO, text: str) -> None:
        with self._lock:
            if self._bar is not None and self._bar.is_complete:
                self._close_bar()
            elif self._bar is not None:
                self._bar.hide()
            self._step_is_last = False
            stream.write(_printable(text) + "\n")
            stream.flush()


class JsonReport:
    """The JSON stream; messages outside of start and end are dropped, as the original does.

    continues: the section of the array that another program began in this process (`hand_over`), to go on with it.
    """

    def __init__(
        self, out: TextIO | None = None, *, verbose: bool = False, debug: bool = False, continues: str = ""
    ) -> None:
        self._out = out or sys.stdout
        self._verbose = verbose or debug
        self._debug = debug
        self._section = continues
        self._step: tuple[str, int, int] = ("", 0, 0)
        self._percent = -1
        self._lock = threading.Lock()

    def start(self, section: str) -> None:
        if not self._section:
            self._section = section
            self._out.write("[\n")
            self._emit({"type": "start", "section": section})

    def end(self, status: int) -> None:
        if self._section:
            self._emit({"type": "end", "section": self._section, "status": status}, "\n]\n")
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

    def progress(self, done: int, total: int, received: int = 0) -> None:  # noqa: ARG002 (for people)
        percent = 100 * done // total if total > 0 else -1
        if percent != self._percent:
            self._percent = percent
            self._emit_step(percent)

    def question(self, text: str) -> bool:  # noqa: ARG002 (for people)
        return False

    def hand_over(self) -> Mapping[str, str]:
        self._out.flush()
        return {CONTINUES: f"{os.getpid()} {self._section}"} if self._section else {}

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
        text = " ".join(_printable(text).splitlines()).rstrip()
        if text:
            self._emit({"type": kind, "msg": text})

    def _emit(self, record: dict[str, str | int], ending: str = ",\n") -> None:
        if not self._section:
            return
        with self._lock:
            # Whole lines, so that a reader has an event when it happens.
            self._out.write(json.dumps(record, ensure_ascii=False) + ending)
            self._out.flush()


def _printable(text: str) -> str:
    """Paths are bytes; what is no valid text is shown with replacement signs rather than not at all."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
