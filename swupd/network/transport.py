"""One request to a server: http, https and file URLs behind one call (swupd client specification, section 1.3).

`Transport.open` asks once and returns the answer's body; retries and files belong to `network.fetch`. Rules:

* Only GET, one connection pool for the life of the transport. http only if the settings allow it; a redirection is
  followed a limited number of times and never from https to http.
* The content is passed on byte for byte: no content encoding is asked for and none is undone.
* No answer can hold us up: connecting, each read and the average rate have limits (`network.connections`).
* The machine's certificate store decides whom TLS trusts; if it does not accept a server, the fall-back stores of the
  settings are tried in order, and the first one that does is used from then on.
* What may go better another time is a `TemporaryError`, with the wait that the server asked for; others are final.

Thread-safe. requests is imported with the first request and not by commands that make none.
"""

from __future__ import annotations

import errno
import os
import re
import ssl
import stat
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC
from email.utils import parsedate_to_datetime
from functools import partial
from http.client import HTTPException
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO
from urllib.parse import unquote, urljoin, urlsplit, urlunsplit

from swupd.closing import Closing
from swupd.errors import DownloadError, NotOnServerError, TlsError, UsageError
from swupd.network.failures import is_closed, is_rejection, is_unreachable, reason, wants_certificate
from swupd.network.limits import FetchLimits
from swupd.settings import CLIENT_CERTIFICATE_FILE, Settings

if TYPE_CHECKING:
    import requests

_REDIRECTIONS = frozenset({301, 302, 303, 307, 308})
_NOT_THERE = frozenset({403, 404, 410})
_COME_BACK_LATER = frozenset({429, 503})
_NO_FILE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.EACCES, errno.EPERM, errno.ELOOP, errno.ENAMETOOLONG})
_CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18}|\*)")
_BROKEN = "the server is set up wrongly: tell its administrator"
_USER = re.compile(r"//[^/@]*@")


class TemporaryError(Exception):
    """A request that failed in a way that may not last; the text says how, `wait` when to come back (seconds)."""

    def __init__(self, message: str, *, wait: float = 0) -> None:
        super().__init__(message)
        self.wait = wait


class _ClosedError(TemporaryError):
    """The connection was closed before an answer began."""


class NotReachedError(TemporaryError):
    """No connection could be made this time."""


class UnreachableError(DownloadError):
    """No connection could be made, and there was none before: it is useless to try again."""


def was_not_reached(error: Exception) -> bool:
    """Whether a request failed before the server knew of it."""
    return isinstance(error, NotReachedError | UnreachableError)


class RangeRefusedError(TemporaryError):
    """The server cannot go on from where we were; the beginning may work."""


class Body(Closing):
    """The content of an answer. Close it, or use it in a `with` statement."""

    def __init__(
        self,
        read: Callable[[int], bytes],
        close: Callable[[], None],
        limits: FetchLimits,
        *,
        length: int | None,
        offset: int = 0,
        validator: str = "",
    ) -> None:
        self.length = length
        """Bytes of the whole object, if the server says it."""
        self.offset = offset
        """Where in the object this content begins."""
        self.validator = validator
        """With this the server can tell whether the object is still the same; empty if it gave nothing."""
        self._read = read
        self._close = close
        self._limits = limits

    def close(self) -> None:
        self._close()

    def chunks(self) -> Iterator[bytes]:
        """The content as it comes; TemporaryError if it ends early, takes too long or the connection breaks."""
        received = 0
        while chunk := self._next():
            received += len(chunk)
            yield chunk
        if self.length is not None and self.offset + received != self.length:
            raise TemporaryError(f"the content ended after {self.offset + received} of {self.length} bytes")

    def drain(self) -> None:
        """Read what nobody wants if it is little, so that the connection can be used again."""
        if self.length is not None and self.length <= self._limits.drained_bytes:
            with suppress(TemporaryError):
                for _ in self.chunks():
                    pass

    def _next(self) -> bytes:
        try:
            return self._read(self._limits.chunk_bytes)
        except (HTTPException, OSError) as error:
            raise TemporaryError(f"the connection broke: {reason(error)}") from error


class Transport:
    """Opens URLs."""

    def __init__(self, settings: Settings, limits: FetchLimits) -> None:
        self._settings = settings
        self._limits = limits
        self._lock = threading.Lock()
        self._session: requests.Session | None = None
        fallback = [str(path) for path in settings.fallback_ca_paths if path.exists()]
        self._stores: list[str | bool] = [_system_store(), *fallback]
        self._proxies: dict[str, dict[str, str]] = {}
        self._reached: set[str] = set()
        self.requests = 0
        """Requests made, redirections included."""

    def close(self) -> None:
        if self._session is not None:
            self._session.close()

    def open(self, url: str, *, offset: int = 0, validator: str = "", uncached: bool = False) -> Body:
        """Ask for an object, from `offset` on if it is still the one that an earlier answer gave `validator` for.

        The answer may begin at 0 all the same. uncached: ask caches on the way not to answer. Raises TemporaryError,
        or finally: NotOnServerError, TlsError, DownloadError, UsageError.
        """
        scheme = urlsplit(url).scheme
        if scheme == "file":
            return self._open_file(url)
        self._check_scheme(url)
        headers = {}
        if offset:
            headers = {"Range": f"bytes={offset}-", "If-Range": validator}
        if uncached:
            headers["Cookie"] = "request=uncached"
        return self._judge(url, self._follow(self._with_port(url), headers), offset)

    def _open_file(self, url: str) -> Body:
        path = unquote(urlsplit(url).path)
        with self._lock:
            self.requests += 1
        try:
            # Not blocking, lest a fifo in the tree makes us wait.
            fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            kind = NotOnServerError if error.errno in _NO_FILE else DownloadError
            raise kind(f"{url}: {error.strerror}", hint="check the URL") from error
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            os.close(fd)
            raise NotOnServerError(f"{url} is not a file", hint="check the URL")
        file: BinaryIO = os.fdopen(fd, "rb", buffering=0)
        return Body(file.read, file.close, self._limits, length=status.st_size)

    def _follow(self, url: str, headers: dict[str, str]) -> requests.Response:
        """Send the request, again for each redirection."""
        first = url
        for _ in range(self._limits.redirections + 1):
            response = self._send(url, headers)
            target = response.headers.get("Location")
            if response.status_code not in _REDIRECTIONS or not target:
                return response
            self._body(response).drain()
            response.close()
            previous = url
            try:
                url = urljoin(previous, target)
                scheme = urlsplit(url).scheme
            except ValueError as error:
                raise DownloadError(f"{shown(first)} redirects to something that is no URL", hint=_BROKEN) from error
            if scheme == "http" and urlsplit(previous).scheme == "https":
                raise DownloadError(f"{shown(first)} redirects from https to {shown(url)}", hint=_BROKEN)
            self._check_scheme(url)
        raise DownloadError(f"{shown(first)} redirects more than {self._limits.redirections} times", hint=_BROKEN)

    def _send(self, url: str, headers: dict[str, str]) -> requests.Response:
        """One request; a second one if the server has closed the connection that an earlier one left open."""
        try:
            return self._send_once(url, headers)
        except _ClosedError:
            if urlsplit(url).netloc not in self._reached:
                raise
            return self._send_once(url, headers)

    def _send_once(self, url: str, headers: dict[str, str]) -> requests.Response:
        """With the certificate store that works for this server."""
        import requests

        session = self._open_session()
        host = urlsplit(url).netloc
        failure: Exception | None = None
        for store in list(self._stores):
            try:
                with self._lock:
                    self.requests += 1
                response = session.get(
                    url,
                    headers=headers,
                    stream=True,
                    allow_redirects=False,
                    timeout=(self._limits.connect_seconds, self._limits.read_seconds),
                    verify=store,
                    proxies=self._proxies_for(url, host),
                )
            except requests.exceptions.SSLError as error:
                failure = failure or error
                if wants_certificate(error):
                    raise _no_client_certificate(url) from error
                if not is_rejection(error):
                    raise TemporaryError(f"the TLS connection broke: {reason(error)}") from error
                continue
            except requests.exceptions.InvalidProxyURL as error:
                raise UsageError(f"the proxy for {shown(url)} is no URL", hint="check the environment") from error
            except requests.exceptions.InvalidURL as error:
                raise UsageError(f"{shown(url)} is not a URL", hint="check the URL") from error
            except requests.exceptions.RequestException as error:
                if wants_certificate(error):
                    raise _no_client_certificate(url) from error
                if isinstance(error, requests.exceptions.ConnectTimeout):
                    raise NotReachedError(f"no connection within {self._limits.connect_seconds:.0f} seconds") from error
                if not is_unreachable(error):
                    raise (_ClosedError if is_closed(error) else TemporaryError)(reason(error)) from error
                if host in self._reached:
                    raise NotReachedError(reason(error)) from error
                raise UnreachableError(
                    f"cannot connect to {shown(url)}: {reason(error)}",
                    hint="check the network, the URL and the proxy settings",
                ) from error
            except OSError as error:
                raise TlsError(
                    f"cannot use the certificates in {store}: {error}", hint="check the file or directory"
                ) from error
            self._reached.add(host)
            if failure is not None:
                self._stores = [store, *(other for other in self._stores if other != store)]
            return response
        raise TlsError(
            f"{shown(url)}: the server's TLS certificate is not accepted: {reason(failure)}",
            hint="check the clock and the machine's certificates, or the URL",
        ) from failure

    def _judge(self, url: str, response: requests.Response, offset: int) -> Body:
        """What an answer means."""
        status = response.status_code
        body = self._body(response)
        if status == 200:
            return body
        if status == 206:
            match = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
            if offset and match and int(match[1]) == offset:
                body.offset = offset
                body.length = None if match[3] == "*" else int(match[3])
                return body
            response.close()
            raise RangeRefusedError("the server sent another part than the one that was asked for")
        body.drain()
        response.close()
        if status in _NOT_THERE:
            raise NotOnServerError(f"{shown(url)}: the server does not have it (status {status})", hint="check the URL")
        if status == 416:
            # `If-Range` comes first: the object is the same, and nothing of it is missing.
            if offset and response.headers.get("Content-Range") == f"bytes */{offset}":
                return Body(lambda _: b"", lambda: None, self._limits, length=offset, offset=offset)
            raise RangeRefusedError("the server cannot resume (status 416)")
        wait = asked_wait(response.headers.get("Retry-After", "")) if status in _COME_BACK_LATER else 0
        raise TemporaryError(f"the server answers with status {status}", wait=wait)

    def _body(self, response: requests.Response) -> Body:
        length = response.headers.get("Content-Length", "")
        tag = response.headers.get("ETag", "")
        # A weak tag does not promise the same bytes.
        validator = tag if tag.startswith('"') else response.headers.get("Last-Modified", "")
        return Body(
            partial(_read_some, response),
            response.close,
            self._limits,
            length=int(length) if length.isascii() and length.isdigit() else None,
            validator=validator,
        )

    def _check_scheme(self, url: str) -> None:
        scheme = urlsplit(url).scheme
        if scheme == "http" and not self._settings.allow_insecure_http:
            raise UsageError(
                f"{shown(url)} is not encrypted", hint="use a https:// URL, or permit it with --allow-insecure-http"
            )
        if scheme not in ("http", "https"):
            raise UsageError(f"{shown(url)} is neither http, https nor file", hint="check the URL")

    def _with_port(self, url: str) -> str:
        if self._settings.port is None:
            return url
        parts = urlsplit(url)
        user, at, host = parts.netloc.rpartition("@")
        name = host if host.endswith("]") else re.sub(r":[0-9]*$", "", host)
        return urlunsplit(parts._replace(netloc=f"{user}{at}{name}:{self._settings.port}"))

    def _proxies_for(self, url: str, host: str) -> dict[str, str]:
        """The proxies of the environment, looked up once for each host."""
        from requests.utils import get_environ_proxies

        if host not in self._proxies:
            self._proxies[host] = get_environ_proxies(url)
        return self._proxies[host]

    def _open_session(self) -> requests.Session:
        with self._lock:
            if self._session is None:
                from swupd.network.connections import new_session

                self._session = new_session(self._settings, self._limits)
            return self._session


def shown(url: str) -> str:
    """A URL for messages: without user name and password."""
    return _USER.sub("//", url, count=1)


def asked_wait(text: str) -> float:
    """The seconds that a Retry-After header asks for; 0 if it makes no sense."""
    if text.isascii() and text.isdigit() and len(text) < 10:
        return int(text)
    try:
        date = parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError, OverflowError):
        return 0
    return max(0.0, (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp() - time.time())


def _read_some(response: requests.Response, size: int) -> bytes:
    """What has arrived, at most `size` bytes; waits only if that is nothing. Empty at the end."""
    from urllib3.exceptions import HTTPError

    try:
        # Not `read`, which waits until it has all of `size`: a server that drips could hold us up for ever.
        chunk: bytes | None = response.raw.read1(size, decode_content=False)
    except HTTPError as error:
        raise TemporaryError(f"the connection broke: {reason(error)}") from error
    return chunk or b""


def _system_store() -> str | bool:
    """The certificates that this machine trusts; True means those that come with requests."""
    paths = ssl.get_default_verify_paths()
    return next((path for path in (paths.cafile, paths.capath) if path and Path(path).exists()), True)


def _no_client_certificate(url: str) -> TlsError:
    return TlsError(
        f"{shown(url)}: the server wants a client certificate that it knows",
        hint=f"put certificate and key into {CLIENT_CERTIFICATE_FILE}",
    )
