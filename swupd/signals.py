"""Being asked to end: by Ctrl-C, by systemd at a shutdown, by a terminal that closes.

The first such signal interrupts a command, which tidies up as after any error; further ones are ignored meanwhile,
because tidying up must not be interrupted. What is better done than half done keeps them back until it is through
(`undisturbed`). SIGQUIT and SIGKILL still end the process at once.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

_USUAL = {
    signal.SIGINT: signal.default_int_handler,
    signal.SIGTERM: signal.SIG_DFL,
    signal.SIGHUP: signal.SIG_DFL,
}
"""The signals, and what they do by themselves."""
_SIGNALLED = 128
"""Exit status after a signal, without the signal's number, as shells have it."""


class Ended(KeyboardInterrupt):
    """A signal has asked us to end."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


@contextmanager
def endings_raised() -> Iterator[Callable[[], None]]:
    """Inside, the first signal raises Ended. Gives a function after which none does: the command is over.

    Main thread only. What is ignored already (nohup, a background job) stays so.
    """
    before = {number: signal.getsignal(number) for number in _USUAL}
    ours = [number for number, usual in _USUAL.items() if before[number] is usual]

    def ignore() -> None:
        for number in ours:
            signal.signal(number, signal.SIG_IGN)

    def end(number: int, frame: FrameType | None) -> NoReturn:  # noqa: ARG001 (what signal handlers are given)
        ignore()
        raise Ended(number)

    for number in ours:
        signal.signal(number, end)
    try:
        yield ignore
    finally:
        for number in ours:
            signal.signal(number, before[number])


@contextmanager
def undisturbed() -> Iterator[None]:
    """Inside, the signals are kept back; the first one that came takes effect afterwards. Blocks may contain others."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may set handlers, and only it is interrupted by them
        return
    received: list[int] = []

    def remember(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 (what signal handlers are given)
        received.append(number)

    before = {number: signal.signal(number, remember) for number in _USUAL}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        if received:
            signal.raise_signal(received[0])


def exit_status(interrupt: KeyboardInterrupt) -> int:
    """What the process returns after an interruption."""
    return _SIGNALLED + (interrupt.number if isinstance(interrupt, Ended) else signal.SIGINT)
