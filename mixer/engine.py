"""Where the heavy work of a build runs: in this process, on all cores, or on a Dask cluster (mixer.cluster).

Work is given in batches to a plain function: `function(batch) -> result`. The function is found by its module and name
and depends on nothing but the batch; batches and results are values that can be pickled. All reading and writing stays
with the coordinator, the process that calls `map`: workers see neither the store nor the workspace, a cluster needs no
shared file system, and a batch can be given to another worker at any time. Guarantees of every engine:

* Results come as they are finished, in any order, one for each batch. The first exception of a function ends `map`.
* Memory is bounded and dead workers cost time, not the build: see mixer.inflight.
* When `map` is left in any way, what has not begun never begins; when the engine is closed, what runs on this machine
  is killed.
* Workers of this machine do not see Ctrl-C, which is the coordinator's, and end with it, however it ends.

Engine and `map` belong to one thread. Nothing is started before the first batch.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import traceback
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from threading import Lock, Thread
from typing import Any, Protocol

from mixer.inflight import IN_FLIGHT, Batch, Result, map_in_flight


class Engine(Protocol):
    """Workers that functions can be mapped over."""

    workers: int
    """How many batches run at a time."""

    def map(self, function: Callable[[Batch], Result], batches: Iterable[Batch]) -> Iterator[Result]:
        """The results, in any order. Raises what the function raises; BuildError if workers fail for good."""


@contextmanager
def open_engine(address: str, *, workers: int = 0) -> Iterator[Engine]:
    """The workers of the Dask scheduler at `address`; if that is empty, `workers` of this machine (0: all cores).

    Raises BuildError if the scheduler cannot be used.
    """
    count = workers or len(os.sched_getaffinity(0))
    if address:
        from mixer.cluster import open_cluster

        with open_cluster(address) as cluster:
            yield cluster
    elif count == 1:
        yield InProcess()
    else:
        with closing(Processes(count)) as processes:
            yield processes


class InProcess:
    """No workers at all: a batch is worked on when its result is asked for."""

    workers = 1

    def map(self, function: Callable[[Batch], Result], batches: Iterable[Batch]) -> Iterator[Result]:
        return (function(batch) for batch in batches)


class _WorkerLostError(Exception):
    """The process is gone before it gave the result."""


class Processes:
    """Processes of this machine, each with a connection of its own and, while it works, a thread that waits for it.

    Not a ProcessPoolExecutor, whose workers share two queues: if one is killed while megabytes are in them, the whole
    pool may wait for ever (measured with batches of 8 MiB: 7 of 80 times). Here its connection breaks, and the others
    do not notice. They are spawned, because a fork of a process that has threads is not safe.
    """

    lost = _WorkerLostError

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="engine", initializer=_hide_interrupt)
        self._lock = Lock()
        self._started: list[_Process] = []
        self._idle: list[_Process] = []
        self._closed = False

    def map(self, function: Callable[[Batch], Result], batches: Iterable[Batch]) -> Iterator[Result]:
        return map_in_flight(self, function, batches)

    def limit(self) -> int:
        return IN_FLIGHT * self.workers

    def submit(self, function: Callable[[Batch], Result], batch: Batch) -> Future[Result]:
        return self._threads.submit(self._run, function, batch)

    def close(self) -> None:
        """Kill what runs."""
        with self._lock:
            self._closed = True
            for process in self._started:
                process.kill()
        # Threads that waited for an answer find their connections broken.
        self._threads.shutdown(cancel_futures=True)
        for process in self._started:
            process.close()

    def _run(self, function: Callable[[Batch], Result], batch: Batch) -> Result:
        process = self._take()
        is_result, answer = process.call(function, batch)
        self._idle.append(process)
        if not is_result:
            raise answer
        result: Result = answer
        return result

    def _take(self) -> _Process:
        with self._lock:
            if self._closed:
                raise _WorkerLostError
            if self._idle:
                return self._idle.pop()
            self._started.append(_Process())
            return self._started[-1]


class _Process:
    """A worker process as the coordinator sees it."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs,), name="mixer worker", daemon=True)
        self._process.start()
        theirs.close()

    def call(self, function: Callable[[Any], Any], batch: object) -> tuple[bool, Any]:
        """Whether the function returned, and what; if not, what it raised. Raises _WorkerLostError."""
        try:
            self._connection.send((function, batch))
            answer: tuple[bool, Any] = self._connection.recv()
        except (EOFError, OSError) as error:
            raise _WorkerLostError from error
        return answer

    def kill(self) -> None:
        self._process.kill()

    def close(self) -> None:
        self._process.join()
        self._connection.close()


def _serve(connection: Connection) -> None:
    """The life of a worker process."""
    Thread(target=_end_with_coordinator, daemon=True).start()
    while True:
        connection.send(_answer(*connection.recv()))


def _answer(function: Callable[[Any], Any], batch: object) -> tuple[bool, Any]:
    try:
        return True, function(batch)
    except Exception as error:
        # The traceback ends at the coordinator; whoever looks for a mistake in the function needs the other half.
        error.add_note(f"In a worker process:\n{traceback.format_exc()}")
        return False, error


def _end_with_coordinator() -> None:
    coordinator = multiprocessing.parent_process()
    if coordinator is not None:
        coordinator.join()
    os._exit(1)


def _hide_interrupt() -> None:
    """Block SIGINT in this thread and in all processes that it starts, from their first instruction on."""
    # The tracker of multiprocessing unblocks the signal while it is started, so it has to be there before.
    resource_tracker.ensure_running()
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
