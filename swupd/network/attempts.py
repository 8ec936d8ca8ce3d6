"""Attempts at one object: at each of its places, and again after a wait (swupd client specification, section 1.3).

What may go better another time (`TemporaryError`) is tried again, at most `retries` times, but first at all other
places. The waits begin with `retry_delay` and are doubled up to a limit, with some chance so that many clients do not
come back at once; a server that says when to come back is heard, up to a limit. All attempts at an object and the waits
between them have one deadline. Used from many threads.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar

from swupd.errors import DownloadError, NotOnServerError, ProjectError, ServerError, UsageError
from swupd.network.limits import FetchLimits
from swupd.network.mirrors import Mirrors, server_of
from swupd.network.transport import TemporaryError, shown
from swupd.report import Report
from swupd.settings import Settings

_Result = TypeVar("_Result")

Notice = Callable[[], None]
"""Something to be said to the user, in the caller's thread."""

JITTER = 0.25
"""Largest part of a delay that chance adds or takes away."""


class StoppedError(Exception):
    """Nobody waits for the download any more."""


class Transfer:
    """What a thread and its caller know about one download."""

    def __init__(self, stop: threading.Event, tell: Callable[[Notice], None], seconds: float) -> None:
        self.stop = stop
        self.tell = tell
        self.received = 0
        self.length: int | None = None
        self._end = time.monotonic() + seconds

    def hold_back(self, seconds: float) -> None:
        """Wait by our own will."""
        self._end += seconds
        self.stop.wait(seconds)

    def check(self) -> None:
        """Whether to go on: raises StoppedError, or TemporaryError after the deadline."""
        if self.stop.is_set():
            raise StoppedError
        if time.monotonic() > self._end:
            raise TemporaryError("it takes too long")

    def has_time_for(self, wait: float) -> bool:
        return time.monotonic() + wait < self._end


class Attempts:
    """Tries places until one gives what is wanted."""

    def __init__(self, settings: Settings, report: Report, limits: FetchLimits, mirrors: Mirrors) -> None:
        self._settings = settings
        self._report = report
        self._limits = limits
        self._mirrors = mirrors

    def at(
        self,
        urls: Sequence[str],
        attempt: Callable[[str], _Result],
        transfer: Transfer,
        retries: int,
        *,
        uncached: bool,
    ) -> _Result:
        """Try one place after the other, and after a wait those again that may do better then."""
        hopeful = list(urls)
        final: list[ProjectError] = []
        delay = self._settings.retry_delay
        for number in range(retries + 1):
            passing: list[tuple[str, TemporaryError]] = []
            for url in self._mirrors.in_order(hopeful, uncached=uncached):
                if transfer.stop.is_set():
                    raise StoppedError
                try:
                    result = attempt(url)
                except TemporaryError as error:
                    passing.append((url, error))
                    if url.startswith("file:"):
                        hopeful.remove(url)
                    self._failed(url, error, transfer, alone=len(urls) == 1)
                except (ServerError, UsageError) as error:
                    final.append(error)
                    hopeful.remove(url)
                    self._failed(url, error, transfer, alone=len(urls) == 1)
                else:
                    if len(urls) > 1:
                        self._mirrors.succeeded(url)
                    return result
            if not passing:
                raise _all_failed(final)
            url, reason = passing[0]
            wait = min(delay, self._limits.backoff_seconds) * random.uniform(1 - JITTER, 1 + JITTER)  # noqa: S311
            wait = max(wait, min(max(error.wait for _, error in passing), self._limits.asked_seconds))
            if number == retries or not hopeful or not transfer.has_time_for(wait):
                tries = f", after {number + 1} attempts" if number else ""
                raise DownloadError(
                    f"cannot download {shown(url)}: {reason}{tries}", hint="check the network and the server"
                ) from reason
            delay *= 2
            text = f"{shown(url)}: {reason}; trying again in {wait:.0f} s"
            transfer.tell(partial(self._report.info, text))
            transfer.stop.wait(wait)
        raise AssertionError("the last attempt returns or raises")

    def _failed(self, url: str, error: Exception, transfer: Transfer, *, alone: bool) -> None:
        """One of several places did not give an object."""
        if alone:
            return
        if self._mirrors.failed(url, error):
            what = f"{server_of(url)}: {error}" if isinstance(error, TemporaryError) else str(error)
            transfer.tell(partial(self._report.warning, f"{what}; the other mirrors are asked first from now on"))
        else:
            transfer.tell(partial(self._report.verbose, f"not from {shown(url)}: {error}"))


def _all_failed(errors: Sequence[ProjectError]) -> ProjectError:
    """What failed for good at all places: that a server has no such object says that a server was there."""
    error = next((error for error in errors if isinstance(error, NotOnServerError)), errors[0])
    return error if len(errors) == 1 else type(error)(f"{error}, and no other mirror gives it", hint=error.hint)
