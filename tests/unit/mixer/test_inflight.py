"""Batches in flight, on a pool of threads whose workers can be lost at will."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from threading import Event

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixer import inflight
from mixer.errors import BuildError
from mixer.inflight import MAX_LOSSES, Batch, Result, batched, map_in_flight

WAIT_SECONDS = 30
"""How long a test waits for what is sure to come."""


class LostError(Exception):
    pass


class Threads:
    lost = LostError

    def __init__(self, limit: int = 4) -> None:
        self.most = limit
        self._threads = ThreadPoolExecutor(4)

    def limit(self) -> int:
        return self.most

    def submit(self, function: Callable[[Batch], Result], batch: Batch) -> Future[Result]:
        return self._threads.submit(function, batch)

    def close(self) -> None:
        self._threads.shutdown()


@pytest.fixture
def threads() -> Iterator[Threads]:
    pool = Threads()
    yield pool
    pool.close()


@settings(max_examples=50, deadline=None)
@given(losses=st.lists(st.integers(0, MAX_LOSSES - 1), max_size=20), limit=st.integers(1, 8))
def test_every_batch_gives_one_result_however_many_workers_it_loses(losses: list[int], limit: int) -> None:
    tries: Counter[int] = Counter()

    def work(number: int) -> int:
        tries[number] += 1
        if tries[number] <= losses[number]:
            raise LostError
        return number

    pool = Threads(limit)
    try:
        assert sorted(map_in_flight(pool, work, range(len(losses)))) == list(range(len(losses)))
    finally:
        pool.close()
    assert [tries[number] for number in range(len(losses))] == [lost + 1 for lost in losses]


def lose(reason: str, batch: int) -> int:
    raise LostError(reason, batch)


def test_a_batch_that_loses_every_worker_is_given_up_with_the_name_of_the_function(threads: Threads) -> None:
    with pytest.raises(BuildError, match="dying while they run lose"):
        list(map_in_flight(threads, partial(lose, "out of memory"), [1]))


def test_results_that_nobody_took_count_as_in_flight(threads: Threads) -> None:
    taken: list[int] = []
    threads.most = 3

    def batches() -> Iterator[int]:
        for number in range(10):
            taken.append(number)
            yield number

    results = map_in_flight(threads, abs, batches())
    for given_out in range(1, 8):
        next(results)
        assert len(taken) == given_out + 3


def test_workers_that_come_later_get_batches(threads: Threads, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inflight, "POLL_SECONDS", 0.01)
    second = Event()

    def work(number: int) -> bool:
        if number == 2:
            second.set()
        threads.most = 2
        return second.wait(WAIT_SECONDS)

    threads.most = 1
    assert list(map_in_flight(threads, work, [1, 2])) == [True, True]


def test_a_pool_without_hope_ends_the_mapping_while_batches_wait(
    threads: Threads, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inflight, "POLL_SECONDS", 0.01)
    begun, over = Event(), Event()

    def limit() -> int:
        if begun.is_set():
            raise BuildError("no workers")
        return 4

    def work(number: int) -> bool:
        begun.set()
        return over.wait(WAIT_SECONDS)

    monkeypatch.setattr(threads, "limit", limit)
    with pytest.raises(BuildError, match="no workers"):
        list(map_in_flight(threads, work, [1]))
    over.set()


def test_items_become_batches_by_size_and_by_number() -> None:
    sizes = [5, 5, 1, 1, 1, 20, 1]

    assert list(batched(sizes, int, limit=10, count=3)) == [[5, 5], [1, 1, 1], [20], [1]]
    assert list(batched([], int, limit=10, count=3)) == []


def test_items_are_taken_when_their_batch_is_asked_for() -> None:
    taken: list[int] = []

    def items() -> Iterator[int]:
        for item in range(6):
            taken.append(item)
            yield item

    found = batched(items(), lambda _: 0, limit=10, count=2)

    assert next(found) == [0, 1]
    assert taken == [0, 1]
