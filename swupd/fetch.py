"""Downloads: one, or many at a time, with retries and resumption (swupd client specification, section 1.3).

What it guarantees:

* A file has its final name only when all of it has arrived. Until then it is `<name>.part`, and `<name>.part.etag`
  says which state of the object it is the beginning of; a later attempt, or a later run, goes on from there if the
  server confirms that the object is still the same, and from the beginning otherwise.
* No more than the caller's limit is ever written or held, and nothing is begun that the disk has no room for.
* What cannot last is tried again: `max_retries` times, after `retry_delay` seconds, doubled each time up to a limit,
  with some chance so that many clients do not come back at once. Not tried again: what the server does not have,
  what is too large, what cannot be written, file URLs, and a server that was never reached.
* `get_all` downloads on its own threads, but every callback and every report happens in the caller's thread. It ends
  its threads before it returns; after an interruption they stop at their next chunk.

Nobody is believed here: the caller verifies what arrived. A `Fetcher` may be used from several threads; two downloads
must not use one name.
"""

from __future__ import annotations

import os
import random
import stat
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import Any, Self, TypeVar

from swupd.errors import (
    DiskSpaceError,
    DownloadError,
    NotOnServerError,
    ProjectError,
    StateDirectoryError,
    is_disk_full,
)
from swupd.fs import Directory
from swupd.report import Report
from swupd.settings import Settings
from swupd.transport import Body, FetchLimits, RangeRefusedError, TemporaryError, Transport, shown

__all__ = ["Download", "Failure", "FetchLimits", "Fetcher"]

_Result = TypeVar("_Result")

PART = ".part"
TAG = ".part.etag"
TAG_LIMIT = 1024
"""Bytes of a validator."""
JITTER = 0.25
"""Largest part of a delay that chance adds or takes away."""
CHECKED_BYTES = 1 << 20
"""From this size on the free space of the disk is looked at before anything is written."""
PROGRESS_SECONDS = 0.2
PROGRESS_UNITS = 1000
"""Progress of one file in `get_all`."""
STOP_SECONDS = 1.0
"""How long an interrupted `get_all` waits for its threads; they are daemons and hold up nobody's exit."""


@dataclass(frozen=True)
class Download:
    """One object for `get_all`: from `url` into the file `name`, at most `limit` bytes. `key` is the caller's.

    uncached: ask caches on the way not to answer.
    """

    url: str
    name: str
    limit: int
    key: Any = None
    uncached: bool = False


@dataclass(frozen=True)
class Failure:
    """A download that did not succeed."""

    download: Download
    error: ProjectError


class _StoppedError(Exception):
    """The caller of `get_all` does not wait any more."""


class _Transfer:
    """What a thread and its caller know about one download."""

    def __init__(self, stop: threading.Event, tell: Callable[[str], None]) -> None:
        self.stop = stop
        self.tell = tell
        self.received = 0
        self.length: int | None = None

    def units(self) -> int:
        return PROGRESS_UNITS * min(self.received, self.length) // self.length if self.length else 0


class Fetcher:
    """Fetches objects; use it in a `with` statement or close it."""

    def __init__(self, settings: Settings, report: Report, limits: FetchLimits | None = None) -> None:
        self.limits = limits or FetchLimits()
        self.bytes_received = 0
        """Bytes of content, repeated ones included."""
        self._settings = settings
        self._report = report
        self._transport = Transport(settings, self.limits)
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections."""
        self._transport.close()

    @property
    def requests(self) -> int:
        """Requests made so far."""
        return self._transport.requests

    def get(self, url: str, *, limit: int, uncached: bool = False) -> bytes:
        """Fetch an object of at most `limit` bytes into memory.

        uncached: ask caches on the way not to answer. Raises DownloadError (NotOnServerError if the server says that
        it does not have it), TlsError, UsageError.
        """
        transfer = _Transfer(threading.Event(), self._report.info)

        def attempt() -> bytes:
            with self._transport.open(url, uncached=uncached) as body:
                _check_length(url, body, limit)
                return b"".join(self._received(url, body, limit, transfer))

        return self._with_retries(url, attempt, transfer, self._settings.max_retries)

    def get_all(
        self,
        downloads: Iterable[Download],
        directory: Directory,
        *,
        on_file: Callable[[Download], None],
        retry: bool = True,
    ) -> list[Failure]:
        """Fetch many objects at a time; `on_file` is called for each one that has arrived, in this thread. Files of
        their names are replaced.

        Returns those that failed; after `failures_in_a_row` failures the rest is not tried and fails as well. Raises
        DiskSpaceError and StateDirectoryError at once, and whatever `on_file` raises. retry: False tries once.
        """
        waiting = list(downloads)
        if not waiting:
            return []
        batch = _Batch(self, waiting, directory, self._settings.max_retries if retry else 0)
        return batch.run(min(self._settings.parallel, len(waiting)), on_file, self._report)

    def _fetch_file(self, download: Download, directory: Directory, transfer: _Transfer, retries: int) -> None:
        def attempt() -> None:
            try:
                self._attempt_file(download, directory, transfer)
            except RangeRefusedError:
                _discard(directory, download.name)
                raise
            except OSError as error:
                raise _write_failure(directory, download.name, transfer, error) from error

        self._with_retries(download.url, attempt, transfer, retries)

    def _attempt_file(self, download: Download, directory: Directory, transfer: _Transfer) -> None:
        name, url = download.name, download.url
        offset, validator = _resumable(directory, name, download.limit)
        with self._transport.open(url, offset=offset, validator=validator, uncached=download.uncached) as body:
            if body.offset == 0:
                _discard(directory, name)
            _check_length(url, body, download.limit)
            _check_space(directory, body)
            if body.offset == 0 and body.validator and (body.length or 0) >= self.limits.resume_bytes:
                _write_tag(directory, name, body.validator)
            try:
                with directory.append_file(name + PART, keep=body.offset) as file:
                    for chunk in self._received(url, body, download.limit, transfer):
                        file.write(chunk)
            except DownloadError:
                _discard(directory, name)
                raise
        directory.rename(name + PART, name)
        with suppress(FileNotFoundError):
            directory.unlink(name + TAG)

    def _received(self, url: str, body: Body, limit: int, transfer: _Transfer) -> Iterable[bytes]:
        """The chunks of a body, counted; DownloadError when they become too many."""
        transfer.received = body.offset
        transfer.length = body.length
        for chunk in body.chunks():
            if transfer.stop.is_set():
                raise _StoppedError
            transfer.received += len(chunk)
            with self._lock:
                self.bytes_received += len(chunk)
            if transfer.received > limit:
                raise _too_large(url, limit)
            yield chunk

    def _with_retries(self, url: str, attempt: Callable[[], _Result], transfer: _Transfer, retries: int) -> _Result:
        if url.startswith("file:"):
            retries = 0
        delay = self._settings.retry_delay
        for number in range(retries + 1):
            if transfer.stop.is_set():
                raise _StoppedError
            try:
                return attempt()
            except TemporaryError as error:
                if number == retries:
                    tries = f", after {retries + 1} attempts" if retries else ""
                    raise DownloadError(
                        f"cannot download {shown(url)}: {error}{tries}", hint="check the network and the server"
                    ) from error
                wait = 0.0
                if not isinstance(error, RangeRefusedError):
                    wait = min(delay, self.limits.backoff_seconds) * random.uniform(1 - JITTER, 1 + JITTER)  # noqa: S311
                    delay *= 2
                transfer.tell(f"{shown(url)}: {error}; trying again in {wait:.0f} s")
                transfer.stop.wait(wait)
        raise AssertionError("the last attempt returns or raises")


class _Batch:
    """One call of `get_all`."""

    def __init__(self, fetcher: Fetcher, downloads: list[Download], directory: Directory, retries: int) -> None:
        self._fetcher = fetcher
        self._downloads = downloads
        self._directory = directory
        self._retries = retries
        self._stop = threading.Event()
        self._waiting = deque(range(len(downloads)))
        self._active: dict[int, _Transfer] = {}
        self._results: SimpleQueue[tuple[int, BaseException | None] | str] = SimpleQueue()

    def run(self, parallel: int, on_file: Callable[[Download], None], report: Report) -> list[Failure]:
        threads = [threading.Thread(target=self._work, daemon=True) for _ in range(parallel)]
        try:
            for thread in threads:
                thread.start()
            return self._collect(on_file, report)
        finally:
            self._stop.set()
            end = time.monotonic() + STOP_SECONDS
            for thread in threads:
                if thread.is_alive():
                    thread.join(max(0.0, end - time.monotonic()))

    def _collect(self, on_file: Callable[[Download], None], report: Report) -> list[Failure]:
        failures: list[Failure] = []
        open_ = set(range(len(self._downloads)))
        in_a_row = 0
        done = 0
        while open_:
            # A download that begins again is no reason to show less than before.
            done = max(done, self._units(len(open_)))
            report.progress(done, PROGRESS_UNITS * len(self._downloads))
            try:
                result = self._results.get(timeout=PROGRESS_SECONDS)
            except Empty:
                continue
            if isinstance(result, str):
                report.info(result)
                continue
            index, error = result
            open_.remove(index)
            del self._active[index]
            if error is None:
                in_a_row = 0
                on_file(self._downloads[index])
                continue
            if not isinstance(error, ProjectError) or isinstance(error, DiskSpaceError | StateDirectoryError):
                raise error
            failures.append(Failure(self._downloads[index], error))
            in_a_row += not isinstance(error, NotOnServerError)
            if in_a_row >= self._fetcher.limits.failures_in_a_row:
                gone = DownloadError(f"given up after {in_a_row} failed downloads: {error}", hint=error.hint)
                failures += [Failure(self._downloads[rest], gone) for rest in sorted(open_)]
                open_.clear()
        report.progress(PROGRESS_UNITS, PROGRESS_UNITS)
        return failures

    def _units(self, still_open: int) -> int:
        done = len(self._downloads) - still_open
        return PROGRESS_UNITS * done + sum(transfer.units() for transfer in list(self._active.values()))

    def _work(self) -> None:
        """What a thread does until nothing is left."""
        while not self._stop.is_set():
            try:
                index = self._waiting.popleft()
            except IndexError:
                return
            transfer = self._active[index] = _Transfer(self._stop, self._results.put)
            error: BaseException | None = None
            try:
                self._fetcher._fetch_file(self._downloads[index], self._directory, transfer, self._retries)
            except _StoppedError:
                return
            except BaseException as caught:
                error = caught
            self._results.put((index, error))


def _resumable(directory: Directory, name: str, limit: int) -> tuple[int, str]:
    """Where to go on, and the validator of what is there; (0, "") if nothing can be continued."""
    tag, part = directory.lstat(name + TAG), directory.lstat(name + PART)
    if tag is None or part is None or not stat.S_ISREG(part.st_mode) or not 0 < part.st_size <= limit:
        return 0, ""
    with directory.open_file(name + TAG) as file:
        validator = file.read(TAG_LIMIT).decode("latin-1").strip()
    return (part.st_size, validator) if validator.isprintable() and validator else (0, "")


def _discard(directory: Directory, name: str) -> None:
    """Forget an unfinished download; the tag goes first, so that it never stands beside a later part."""
    for suffix in (TAG, PART):
        if directory.lstat(name + suffix) is not None:
            directory.remove_tree(name + suffix)


def _write_tag(directory: Directory, name: str, validator: str) -> None:
    data = validator.encode("latin-1", "ignore")
    if len(data) <= TAG_LIMIT:
        directory.write_file(name + TAG, [data])


def _check_length(url: str, body: Body, limit: int) -> None:
    if body.length is not None and body.length > limit:
        raise _too_large(url, limit)


def _check_space(directory: Directory, body: Body) -> None:
    """Rather fail now than when the disk is full for everybody."""
    needed = (body.length or 0) - body.offset
    if needed >= CHECKED_BYTES:
        system = os.fstatvfs(directory.fd)
        free = system.f_bavail * system.f_frsize
        if free < needed:
            raise DiskSpaceError(
                f"{needed} bytes have to be downloaded to {directory.path}, but only {free} are free there",
                hint="free some space, or choose another directory with --cachedir",
            )


def _too_large(url: str, limit: int) -> DownloadError:
    return DownloadError(
        f"{shown(url)} is larger than the {limit} bytes that it may have", hint="the server or its content is broken"
    )


def _write_failure(directory: Directory, name: str, transfer: _Transfer, error: OSError) -> ProjectError:
    if is_disk_full(error):
        return DiskSpaceError(
            f"the disk is full: cannot write {transfer.length or transfer.received} bytes to {directory.path}",
            hint="free some space, or choose another directory with --cachedir",
        )
    return StateDirectoryError(
        f"cannot write {directory.path}/{name}: {error.strerror}", hint="check the directory and its file system"
    )
