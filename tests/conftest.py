"""What all tests need."""

from __future__ import annotations

import signal


def pytest_configure() -> None:
    """What a shell runs in the background ignores SIGINT, and so does all that is started there; but tests interrupt
    programs with it."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
