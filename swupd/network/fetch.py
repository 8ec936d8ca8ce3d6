"""Downloads: one, or many at a time, with mirrors, retries and resumption (swupd client specification, section 1.3).

What it guarantees:

* A file has its final name only when all of it has arrived and its caller is told. Until then it is an unfinished one
  (`network.unfinished`); a later attempt, or a later run, goes on from there if the server confirms that the object is
  still the same, and from the beginning otherwise.
* No more than the caller's limit is ever written or held, and nothing is begun that the disk has no room for.
* What fails at one mirror is asked of the next ones (`network.mirrors`). When none is left, what cannot last is tried
  again: `max_retries` times, after `retry_delay` seconds, doubled each time up to a limit, with some chance so that
  many clients do not come back at once, or when the server said. Not tried again: what a server does not have, what is
  too large, what cannot be written, file URLs, and a server that was never reached. All attempts have one deadline.
* All downloads together keep to `limit_rate`. With `offline` no request is made.
* `get_all` downloads on its own threads, but every callback and every report happens in the caller's thread. It ends
  its threads before it returns; after an interruption they stop at their next chunk.

Nobody is believed here: the caller verifies what arrived. A `Fetcher` may be used from several threads; two downloads
must not use one name.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from queue import Empty, SimpleQueue
from typing import Any

from swupd.closing import Closing
from swupd.errors import (
    DiskSpaceError,
    DownloadError,
    NotOnServerError,
    OfflineError,
    ProjectError,
    StateDirectoryError,
    is_disk_full,
)
from swupd.fs import Directory
from swupd.network import unfinished
from swupd.network.attempts import Attempts, Notice, StoppedError, Transfer
from swupd.network.limits import FetchLimits
from swupd.network.mirrors import Mirrors
from swupd.network.rate import RateLimit
from swupd.network.transport import Body, RangeRefusedError, Transport, shown
from swupd.report import Report
from swupd.settings import Settings

__all__ = ["Download", "Failure", "FetchLimits", "Fetcher"]

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


class Fetcher(Closing):
    """Fetches objects; use it in a `with` statement or close it."""

    def __init__(self, settings: Settings, report: Report, limits: FetchLimits | None = None) -> None:
        self.limits = limits or FetchLimits()
        self.bytes_received = 0
        """Bytes of content, repeated ones included."""
        self.mirrors = Mirrors(settings, self.limits)
        self._settings = settings
        self._report = report
        self._rate = RateLimit(settings.limit_rate) if settings.limit_rate else None
        if self._rate is not None:
            self.limits = replace(self.limits, chunk_bytes=min(self.limits.chunk_bytes, self._rate.piece))
        self._transport = Transport(settings, self.limits)
        self._attempts = Attempts(settings, report, self.limits, self.mirrors)
        self._lock = threading.Lock()

    def close(self) -> None:
        """Close all connections."""
        self._transport.close()

    @property
    def requests(self) -> int:
        """Requests made so far."""
        return self._transport.requests

    def get(self, url: str, *, limit: int, uncached: bool = False) -> bytes:
        """Fetch an object of at most `limit` bytes into memory, from a mirror if need be.

        uncached: ask caches on the way not to answer, and first the mirrors that have not given the object before.
        Raises DownloadError (NotOnServerError if no server has it, OfflineError), TlsError, UsageError.
        """
        return self._get(self.mirrors.of_object(url), limit=limit, uncached=uncached)[0]

    def get_from_any(self, urls: Sequence[str], *, limit: int) -> tuple[bytes, str]:
        """Fetch the same object from one of several places, past caches; also says from which. Raises as `get`."""
        return self._get(urls, limit=limit, uncached=True)

    def _get(self, urls: Sequence[str], *, limit: int, uncached: bool) -> tuple[bytes, str]:
        if self._settings.offline:
            raise _not_cached(urls[0])
        transfer = Transfer(threading.Event(), lambda notice: notice(), self.limits.object_seconds)

        def attempt(url: str) -> tuple[bytes, str]:
            with self._transport.open(url, uncached=uncached) as body:
                _check_length(url, body, limit)
                return b"".join(self._received(url, body, limit, transfer)), url

        return self._attempts.at(urls, attempt, transfer, self._settings.max_retries, uncached=uncached)

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
        if self._settings.offline:
            return [Failure(download, _not_cached(download.url)) for download in waiting]
        batch = _Batch(self, waiting, directory, self._settings.max_retries if retry else 0)
        return batch.run(min(self._settings.parallel, len(waiting)), on_file, self._report)

    def _fetch_file(self, download: Download, directory: Directory, transfer: Transfer, retries: int) -> None:
        def attempt(url: str) -> None:
            try:
                self._attempt_file(url, download, directory, transfer)
            except OSError as error:
                if transfer.length is None:
                    # Nobody knows how much would follow: do not leave the disk full of it.
                    unfinished.discard(directory, download.name)
                size = transfer.length or transfer.received
                raise _write_failure(directory, download.name, size, error) from error

        places = self.mirrors.of_object(download.url)
        self._attempts.at(places, attempt, transfer, retries, uncached=download.uncached)

    def _attempt_file(self, url: str, download: Download, directory: Directory, transfer: Transfer) -> None:
        name = download.name
        with self._open(url, download, directory) as body:
            if body.offset == 0:
                unfinished.discard(directory, name)
            _check_length(url, body, download.limit)
            unfinished.check_space(directory, (body.length or 0) - body.offset)
            if body.offset == 0 and body.validator and (body.length or 0) >= self.limits.resume_bytes:
                unfinished.write_note(directory, name, body.validator)
            try:
                with directory.append_file(name + unfinished.PART, keep=body.offset) as file:
                    for chunk in self._received(url, body, download.limit, transfer):
                        file.write(chunk)
            except DownloadError:
                unfinished.discard(directory, name)
                raise

    def _open(self, url: str, download: Download, directory: Directory) -> Body:
        """Ask for what is missing of a file, or for all of it if the server cannot go on."""
        offset, validator = unfinished.resumable(directory, download.name, download.limit)
        try:
            return self._transport.open(url, offset=offset, validator=validator, uncached=download.uncached)
        except RangeRefusedError:
            if offset == 0:
                raise
            unfinished.discard(directory, download.name)
            return self._transport.open(url, uncached=download.uncached)

    def _received(self, url: str, body: Body, limit: int, transfer: Transfer) -> Iterable[bytes]:
        """The chunks of a body, counted; DownloadError when they become too many."""
        transfer.received = body.offset
        transfer.length = body.length
        if body.length is None:
            limit = min(limit, self.limits.unannounced_bytes)
        for chunk in body.chunks():
            transfer.check()
            transfer.received += len(chunk)
            with self._lock:
                self.bytes_received += len(chunk)
            if transfer.received > limit:
                raise _too_large(url, limit)
            yield chunk
            if self._rate is not None and not url.startswith("file:"):
                transfer.hold_back(self._rate.book(len(chunk)))


class _Batch:
    """One call of `get_all`."""

    def __init__(self, fetcher: Fetcher, downloads: list[Download], directory: Directory, retries: int) -> None:
        self._fetcher = fetcher
        self._downloads = downloads
        self._directory = directory
        self._retries = retries
        self._received_before = fetcher.bytes_received
        self._stop = threading.Event()
        self._waiting = deque(range(len(downloads)))
        self._active: dict[int, Transfer] = {}
        self._results: SimpleQueue[tuple[int, BaseException | None] | Notice] = SimpleQueue()

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
            report.progress(done, PROGRESS_UNITS * len(self._downloads), self._received())
            try:
                result = self._results.get(timeout=PROGRESS_SECONDS)
            except Empty:
                continue
            if not isinstance(result, tuple):
                result()
                continue
            index, error = result
            open_.remove(index)
            del self._active[index]
            if error is None:
                in_a_row = 0
                self._finish(self._downloads[index].name)
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
        report.progress(PROGRESS_UNITS, PROGRESS_UNITS, self._received())
        return failures

    def _received(self) -> int:
        return self._fetcher.bytes_received - self._received_before

    def _finish(self, name: str) -> None:
        try:
            unfinished.finish(self._directory, name)
        except OSError as error:
            raise _write_failure(self._directory, name, 0, error) from error

    def _units(self, still_open: int) -> int:
        done = len(self._downloads) - still_open
        return PROGRESS_UNITS * done + sum(map(_units, list(self._active.values())))

    def _work(self) -> None:
        """What a thread does until nothing is left."""
        while not self._stop.is_set():
            try:
                index = self._waiting.popleft()
            except IndexError:
                return
            transfer = Transfer(self._stop, self._results.put, self._fetcher.limits.object_seconds)
            self._active[index] = transfer
            error: BaseException | None = None
            try:
                self._fetcher._fetch_file(self._downloads[index], self._directory, transfer, self._retries)
            except StoppedError:
                return
            except BaseException as caught:
                error = caught
            self._results.put((index, error))


def _units(transfer: Transfer) -> int:
    """How far one download is."""
    return PROGRESS_UNITS * min(transfer.received, transfer.length) // transfer.length if transfer.length else 0


def _not_cached(url: str) -> OfflineError:
    return OfflineError(
        f"{shown(url)} is not in the cache, and --offline forbids to download it",
        hint="run the command without --offline when there is a network",
    )


def _check_length(url: str, body: Body, limit: int) -> None:
    if body.length is not None and body.length > limit:
        raise _too_large(url, limit)


def _too_large(url: str, limit: int) -> DownloadError:
    return DownloadError(
        f"{shown(url)} is larger than the {limit} bytes that it may have", hint="the server or its content is broken"
    )


def _write_failure(directory: Directory, name: str, size: int, error: OSError) -> ProjectError:
    if is_disk_full(error):
        return DiskSpaceError(
            f"the disk is full: cannot write {size} bytes to {directory.path}",
            hint="free some space, or choose another directory with --cachedir",
        )
    return StateDirectoryError(
        f"cannot write {directory.path}/{name}: {error.strerror}", hint="check the directory and its file system"
    )
