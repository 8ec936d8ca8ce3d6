"""Which of several equal servers is asked first (swupd client specification, sections 5.3 and 8, #15).

The content URL and its mirrors hold the same objects, the version URL and its mirrors the same version files. Rules:

* They are asked in the configured order. A server that cannot be reached or be used, or that fails `mirror_failures`
  times without a success between, is asked last from then on, for as long as the program runs; one that was not reached
  is left alone for `mirror_rest_seconds` while there are others, because asking it takes long.
* An object that a server does not have says nothing against it: it may lag behind.
* Who asks past all caches got something wrong before: then whoever gave it is asked last.
* URLs outside the lists have one place, and nobody is asked who is not in a list. Who gave what is not believed here.

Thread-safe.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from urllib.parse import urlsplit

from swupd.errors import NotOnServerError
from swupd.network.limits import FetchLimits
from swupd.network.transport import RangeRefusedError, TemporaryError, was_not_reached
from swupd.settings import Settings


class Mirrors:
    """The places of one published tree."""

    def __init__(self, settings: Settings, limits: FetchLimits) -> None:
        self._content = (settings.content_url, *settings.content_mirrors)
        self._version = (settings.version_url, *settings.version_mirrors)
        self._limits = limits
        self._lock = threading.Lock()
        self._failures: dict[str, int] = {}
        """In a row, by server."""
        self._bad: set[str] = set()
        """Servers that are asked last."""
        self._silent_until: dict[str, float] = {}
        """Servers that are left alone; monotonic time."""
        self._given: set[int] = set()
        """Hashes of the URLs of objects that were given by one of several places; there may be very many."""

    def of_object(self, url: str) -> list[str]:
        """All places of an object that is asked for below the content URL; of another one, its only place."""
        first = self._content[0]
        if len(self._content) == 1 or not url.startswith(f"{first}/"):
            return [url]
        return [base + url[len(first) :] for base in self._content]

    def of_version_file(self, name: str) -> list[str]:
        """All places of a file below the version URL."""
        return [f"{base}/{name}" for base in self._version]

    def in_order(self, urls: Iterable[str], *, uncached: bool = False) -> list[str]:
        """Places in the order in which they should be asked now; at least one."""
        now = time.monotonic()
        with self._lock:
            places = sorted(urls, key=lambda url: (uncached and hash(url) in self._given, server_of(url) in self._bad))
            return [url for url in places if self._silent_until.get(server_of(url), now) <= now] or places

    def succeeded(self, url: str) -> None:
        """This place, one of several, gave what was asked for."""
        with self._lock:
            self._given.add(hash(url))
            self._failures.pop(server_of(url), None)

    def failed(self, url: str, error: Exception) -> bool:
        """This place, one of several, did not; whether its server is asked last from now on and was not before."""
        if isinstance(error, NotOnServerError | RangeRefusedError):
            return False
        server = server_of(url)
        lost = was_not_reached(error)
        with self._lock:
            if lost:
                self._silent_until[server] = time.monotonic() + self._limits.mirror_rest_seconds
            count = self._failures[server] = self._failures.get(server, 0) + 1
            passing = isinstance(error, TemporaryError) and not lost and count < self._limits.mirror_failures
            if server in self._bad or passing:
                return False
            self._bad.add(server)
            return True


def server_of(url: str) -> str:
    """The server of a URL, without a password; of a file URL, nothing but its kind."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
