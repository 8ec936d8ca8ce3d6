"""How fast we download: no more than so many bytes per second, all downloads together.

Bytes are booked after they have come, and whoever booked them waits for as long as they take at the rate: so the
average holds whatever the number of threads and the size of pieces, and nobody waits for another's piece. What was not
used for a while is not made up for, except for `BURST_SECONDS`. Thread-safe; the clock is monotonic.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

BURST_SECONDS = 0.1
"""So much of the rate may be used at once after a pause."""
LEAST_PIECE = 512
MOST_PIECE = 1 << 17
"""Bytes that are read before there is a wait."""


class RateLimit:
    """A limit of `rate` bytes per second."""

    def __init__(self, rate: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate = rate
        self._clock = clock
        self._lock = threading.Lock()
        self._booked_until = clock()

    @property
    def piece(self) -> int:
        """Bytes to read at a time, so that waits are short."""
        return min(max(self._rate // 10, LEAST_PIECE), MOST_PIECE)

    def book(self, count: int) -> float:
        """`count` bytes have come: the seconds to wait before more are read."""
        with self._lock:
            now = self._clock()
            self._booked_until = max(self._booked_until, now - BURST_SECONDS) + count / self._rate
            return max(0.0, self._booked_until - now)
