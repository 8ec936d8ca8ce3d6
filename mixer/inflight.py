"""Batches in flight: how an engine that has workers maps a function over batches, whoever the workers are.

* Batches are asked for one by one, and never more than the pool's limit are waiting, running, or done without anybody
  having taken the result: each holds its content in memory.
* A batch whose worker died is given to the pool again. One that cost MAX_LOSSES workers is a BuildError.
* Whichever way the mapping is left, batches that have not begun are cancelled.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from itertools import islice
from typing import Any, Protocol, TypeVar

from mixer.errors import BuildError

IN_FLIGHT = 2
"""Batches for each worker: one that it works on, and one that is there when it has finished."""
MAX_LOSSES = 3
"""Workers that die over the same batch before it is given up."""
POLL_SECONDS = 1.0
"""How often the pool is asked for its limit while nothing is finished."""

Batch = TypeVar("Batch")
Result = TypeVar("Result")
Item = TypeVar("Item")


class Pool(Protocol):
    """Workers that take batches."""

    @property
    def lost(self) -> type[Exception]:
        """What a future raises whose worker died."""

    def limit(self) -> int:
        """How many batches may be in flight now. Raises BuildError if there is no hope for those that are."""

    def submit(self, function: Callable[[Batch], Result], batch: Batch) -> Future[Result]: ...


def map_in_flight(pool: Pool, function: Callable[[Batch], Result], batches: Iterable[Batch]) -> Iterator[Result]:
    """The results in the order in which they are finished. Raises what the function or the pool raises; BuildError."""
    source = iter(batches)
    running: dict[Future[Result], tuple[Batch, int]] = {}

    def fill() -> None:
        for batch in islice(source, max(0, pool.limit() - len(running))):
            running[pool.submit(function, batch)] = batch, 0

    try:
        fill()
        while running:
            done = wait(running, POLL_SECONDS, FIRST_COMPLETED).done
            if not done:
                fill()  # a cluster may have more workers by now, or none
                continue
            future = done.pop()
            batch, losses = running.pop(future)
            try:
                result = future.result()
            except pool.lost as error:
                if losses + 1 == MAX_LOSSES:
                    raise _hopeless(function) from error
                running[pool.submit(function, batch)] = batch, losses + 1
                continue
            del batch, future, done  # whoever works on the result may need the memory
            fill()
            yield result
    finally:
        for future in running:
            future.cancel()


def batched(items: Iterable[Item], size: Callable[[Item], int], *, limit: int, count: int) -> Iterator[list[Item]]:
    """Items in their order, as lists that end with the item that makes them `limit` bytes or `count` items.

    Items are taken when their list is asked for.
    """
    batch: list[Item] = []
    total = 0
    for item in items:
        batch.append(item)
        total += size(item)
        if total >= limit or len(batch) >= count:
            yield batch
            batch, total = [], 0
    if batch:
        yield batch


def _hopeless(function: Callable[[Any], Any]) -> BuildError:
    # The function of a functools.partial has the name.
    name = getattr(getattr(function, "func", function), "__name__", "a task")
    return BuildError(
        f"worker processes keep dying while they run {name}: {MAX_LOSSES} of them over the same batch",
        hint="most likely there is not enough memory: try fewer --workers, or fewer threads for each one of a cluster",
    )
