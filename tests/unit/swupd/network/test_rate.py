"""Downloads keep to a rate."""

from __future__ import annotations

import threading
import time

from hypothesis import given
from hypothesis import strategies as st

from swupd.network.rate import BURST_SECONDS, LEAST_PIECE, MOST_PIECE, RateLimit


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@given(st.lists(st.tuples(st.integers(1, 5000), st.floats(0, 3)), min_size=1, max_size=50), st.integers(1, 10_000))
def test_the_average_never_exceeds_the_rate(pieces: list[tuple[int, float]], rate: int) -> None:
    clock = Clock()
    limit = RateLimit(rate, clock)
    begin, received = clock.now, 0
    for count, pause in pieces:
        clock.now += pause
        wait = limit.book(count)
        received += count
        clock.now += wait
        assert received <= rate * (clock.now - begin + BURST_SECONDS) * 1.000001


def test_nobody_waits_longer_than_the_rate_demands() -> None:
    clock = Clock()
    limit = RateLimit(1000, clock)
    clock.now += 50
    assert limit.book(100) == 0
    assert round(limit.book(1000), 3) == 1


def test_pieces_are_small_where_the_rate_is() -> None:
    assert [RateLimit(rate).piece for rate in (1, 100_000, 10**9)] == [LEAST_PIECE, 10_000, MOST_PIECE]


def test_threads_share_one_rate() -> None:
    limit = RateLimit(1_000_000)
    begin = time.monotonic()

    def read() -> None:
        for _ in range(20):
            time.sleep(limit.book(10_000))

    threads = [threading.Thread(target=read) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 0.85 < time.monotonic() - begin < 1.5
