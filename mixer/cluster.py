"""An engine (mixer.engine) whose workers are those of a Dask scheduler.

* The scheduler keeps every task until it is done, and gives it to another worker if one dies.
* Results are what this machine would make: each task compares the libraries of its worker with those of the coordinator
  (`fingerprint`), because another zstd makes other bytes of the same content. A difference is a BuildError.
* A scheduler that does not answer for CONNECT_SECONDS, or has no workers for NO_WORKERS_SECONDS, is a BuildError.
* What Dask logs and warns about is not shown.

Workers (`dask worker ADDRESS`) need nothing but this project with its extras `mixer` and `cluster`, the scheduler
(`dask scheduler`) not even that. They are trusted: who can reach the scheduler can run programs on all of them and on
this machine. Keep it in a network of its own, or use tls:// with the certificates of Dask's configuration.
"""

from __future__ import annotations

import logging
import math
import pickle
import platform
import time
import warnings
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import CancelledError, Future
from contextlib import closing, contextmanager
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from threading import Thread
from typing import Any

from mixer.errors import BuildError
from mixer.inflight import IN_FLIGHT, POLL_SECONDS, Batch, Result, map_in_flight
from swupd import __version__

CONNECT_SECONDS = 10.0
NO_WORKERS_SECONDS = 60.0

_LIBRARIES = ("zstandard", "bsdiff4", "hdiffpatch")


@contextmanager
def open_cluster(
    address: str, *, connect_seconds: float = CONNECT_SECONDS, no_workers_seconds: float = NO_WORKERS_SECONDS
) -> Iterator[Cluster]:
    """The workers of the scheduler at `address` (tcp://host:port). Raises BuildError if it cannot be used."""
    with _silence(), closing(Cluster(address, connect_seconds, no_workers_seconds)) as cluster:
        yield cluster


class Cluster:
    """A connection to a scheduler; `workers` are the threads of all its workers, as far as it was asked."""

    lost: type[Exception]

    def __init__(self, address: str, connect_seconds: float, no_workers_seconds: float) -> None:
        try:
            from distributed import KilledWorker
        except ImportError as error:
            hint = "pip install 'swupd-mixer[cluster]'"
            raise BuildError(f"the library for Dask clusters is not installed: {error}", hint=hint) from error
        self.lost = KilledWorker
        self.workers = 1
        self._address = address
        self._connect_seconds = connect_seconds
        self._no_workers_seconds = no_workers_seconds
        self._asked = -math.inf
        self._empty_since = math.inf
        self._fingerprint = fingerprint()
        self._client = self._connect()
        # Not pure: the same batch twice is two tasks, because comparing means hashing all content once more.
        self._executor = self._client.get_executor(pure=False)
        self.limit()

    def map(self, function: Callable[[Batch], Result], batches: Iterable[Batch]) -> Iterator[Result]:
        try:
            yield from map_in_flight(self, function, batches)
        except CancelledError as error:
            raise self._gone() from error
        except ImportError as error:
            raise BuildError(
                f"a worker of {self._address} cannot load what it has to do: {error}",
                hint="install the same version of swupd-mixer[mixer,cluster] where the workers run",
            ) from error

    def limit(self) -> int:
        now = time.monotonic()
        if now - self._asked >= POLL_SECONDS:
            self._asked = now
            self._count(now)
        return IN_FLIGHT * self.workers

    def submit(self, function: Callable[[Batch], Result], batch: Batch) -> Future[Result]:
        call = pickle.dumps(_Call(self._fingerprint, pickle.dumps((function, batch))))
        future: Future[Result] = self._executor.submit(pickle.loads, call)
        return future

    def close(self) -> None:
        self._client.close()

    def _connect(self) -> Any:
        """A client, made on a thread because Dask waits for ever for a greeting of what is no scheduler."""
        made: Future[Any] = Future()

        def make() -> None:
            from distributed import Client

            make_client: Callable[..., Any] = Client  # the library has no types
            try:
                made.set_result(make_client(self._address, timeout=self._connect_seconds, set_as_default=False))
            except Exception as error:
                made.set_exception(error)

        Thread(target=make, name="connect", daemon=True).start()
        try:
            return made.result(self._connect_seconds)
        except OSError as error:
            raise BuildError(
                f"no Dask scheduler answers at {self._address}",
                hint="see that `dask scheduler` runs there, and that the address is the one that it shows",
            ) from error
        except Exception as error:  # something else than a scheduler; no certificates
            raise BuildError(
                f"cannot use {self._address} as a Dask scheduler: {error}",
                hint="the address is the one that it shows; tls:// needs certificates in Dask's own configuration",
            ) from error

    def _count(self, now: float) -> None:
        try:
            threads = sum(self._client.nthreads(callback_timeout=self._connect_seconds).values())
        except (OSError, RuntimeError, AttributeError) as error:  # depends on how far Dask has taken its side down
            raise self._gone() from error
        self._empty_since = math.inf if threads else min(self._empty_since, now)
        if now - self._empty_since >= self._no_workers_seconds:
            raise BuildError(
                f"the Dask scheduler at {self._address} has had no workers for {self._no_workers_seconds:g} seconds",
                hint=f"start some: dask worker {self._address}",
            )
        self.workers = max(1, threads)

    def _gone(self) -> BuildError:
        hint = "see that the scheduler runs, and build again: what is finished is not made twice"
        return BuildError(f"the connection to the Dask scheduler at {self._address} is lost", hint=hint)


class _Call:
    """A call of `run_checked` whose pickle gives the result when it is loaded.

    To Dask a task is `pickle.loads` of bytes. With functions and values of ours it would load them where it cannot
    answer for errors: the scheduler would need this project, and a worker without it would end without a word.
    """

    def __init__(self, *arguments: object) -> None:
        self._arguments = arguments

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return run_checked, self._arguments


def run_checked(expected: Mapping[str, str], call: bytes) -> Any:
    """On a worker: the result of a pickled function and batch, if its libraries are those of the coordinator.

    Raises BuildError if they are not.
    """
    here = fingerprint()
    if here != expected:
        from distributed import get_worker

        differences = [
            f"{name} {here.get(name)} instead of {expected[name]}"
            for name in expected
            if here.get(name) != expected[name]
        ]
        raise BuildError(
            f"the worker {get_worker().address} would make other content: it has {', '.join(differences)}",
            hint="install the same versions where the workers run and here",
        )
    function, batch = pickle.loads(call)  # noqa: S301 (the scheduler is trusted, see above)
    return function(batch)


@cache
def fingerprint() -> Mapping[str, str]:
    """Name -> version of everything that decides about the bytes of a result."""
    import zstandard

    return {
        "swupd-mixer": __version__,
        "Python": ".".join(platform.python_version_tuple()[:2]),
        "zstd": ".".join(map(str, zstandard.ZSTD_VERSION)),
        "zlib": zlib.ZLIB_RUNTIME_VERSION,
        **{name: _version(name) for name in _LIBRARIES},
    }


def _version(library: str) -> str:
    try:
        return version(library)
    except PackageNotFoundError:
        return "missing"


@contextmanager
def _silence() -> Iterator[None]:
    """Without what Dask logs and warns about: what a person has to know is in our errors."""
    disabled = logging.root.manager.disable
    logging.disable()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
