"""How long the steps of a command took (option --time, specification section 6.1): a report around another one."""

from __future__ import annotations

import time
from collections.abc import Mapping

from swupd.report import Report


class TimedReport:
    """Passes everything on, and prints the seconds of each step at the end. Threads: like the report inside."""

    def __init__(self, inner: Report) -> None:
        self._inner = inner
        self._steps: list[tuple[str, float]] = []
        self._begun_at = time.monotonic()

    def start(self, section: str) -> None:
        self._begun_at = time.monotonic()
        self._inner.start(section)

    def end(self, status: int) -> None:
        self._print_times()
        self._inner.end(status)

    def hand_over(self) -> Mapping[str, str]:
        self._print_times()
        return self._inner.hand_over()

    def _print_times(self) -> None:
        now = time.monotonic()
        ends = [*(began for _, began in self._steps[1:]), now]
        for (name, began), ended in zip(self._steps, ends, strict=False):
            self._inner.info(f"{ended - began:9.3f} s  {name}")
        self._inner.info(f"{now - self._begun_at:9.3f} s  in all")

    def step(self, name: str, text: str, number: int = 0, total: int = 0) -> None:
        self._steps.append((name, time.monotonic()))
        self._inner.step(name, text, number, total)

    def progress(self, done: int, total: int, received: int = 0) -> None:
        self._inner.progress(done, total, received)

    def question(self, text: str) -> bool:
        return self._inner.question(text)

    def answer(self, text: str) -> None:
        self._inner.answer(text)

    def info(self, text: str) -> None:
        self._inner.info(text)

    def verbose(self, text: str) -> None:
        self._inner.verbose(text)

    def debug(self, text: str) -> None:
        self._inner.debug(text)

    def warning(self, text: str) -> None:
        self._inner.warning(text)

    def error(self, text: str, hint: str = "") -> None:
        self._inner.error(text, hint)
