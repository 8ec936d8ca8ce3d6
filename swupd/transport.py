"""One request to a server: http, https and file URLs behind one call (swupd client specification, section 1.3).

`Transport.open` asks once and returns the answer's body; retries and files belong to `swupd.fetch`. Rules:

* Only GET, one connection pool for the life of the transport. http only if the settings allow it; a redirection is
  followed a limited number of times and never from https to http.
* The content is passed on byte for byte: no content encoding is asked for and none is undone.
* No answer can hold us up: connecting, each read and the average rate have limits.
* The machine's certificate store decides whom TLS trusts; if it does not accept a server, the fall-back stores of the
  settings are tried in order, and the first one that does is used from then on.
* What may go better another time is a `TemporaryError`; other errors are final.

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
from dataclasses import dataclass
from functools import partial
from http.client import HTTPException
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, BinaryIO, Self
from urllib.parse import unquote, urljoin, urlsplit, urlunsplit

from swupd import __version__
from swupd.errors import DownloadError, NotOnServerError, TlsError, UsageError
from swupd.settings import CLIENT_CERTIFICATE_FILE, Settings, below

if TYPE_CHECKING:
    import requests

_REDIRECTIONS = frozenset({301, 302, 303, 307, 308})
_NOT_THERE = frozenset({403, 404, 410})
_NO_FILE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.EACCES, errno.EPERM, errno.ELOOP, errno.ENAMETOOLONG})
_CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18}|\*)")
_BROKEN = "the server is set up wrongly: tell its administrator"
_USER = re.compile(r"//[^/@]*@")


@dataclass(frozen=True)
class FetchLimits:
    """What a server may ask of us. Seconds, bytes, counts."""

    connect_seconds: float = 30
    read_seconds: float = 120
    """Without a single byte."""
    minimum_rate: int = 256
    """Bytes per second, on average after `grace_seconds`: so a body of n bytes ends after grace + n / rate seconds."""
    grace_seconds: float = 120
    redirections: int = 5
    backoff_seconds: float = 60
    """The longest wait before a retry."""
    failures_in_a_row: int = 20
    """So many downloads that fail one after the other are a server that is gone."""
    chunk_bytes: int = 1 << 17
    drained_bytes: int = 1 << 16
    """A body that nobody wants is read up to here, to keep its connection."""
    resume_bytes: int = 1 << 16
    """Smaller objects are not worth a note for a later run."""
    version_bytes: int = 1 << 16
    """U1: one version per line."""
    latest_bytes: int = 11
    """U3."""
    format_bytes: int = 64
    """U5."""
    signature_bytes: int = 1 << 16
    manifest_bytes: int = 256 << 20
    """Compressed; so are the next two."""
    object_bytes: int = 8 << 30
    pack_bytes: int = 64 << 30


class TemporaryError(Exception):
    """A request that failed in a way that may not last; the text says how."""


class RangeRefusedError(TemporaryError):
    """The server cannot go on from where we were; the beginning may work."""


class Body:
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

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def chunks(self) -> Iterator[bytes]:
        """The content as it comes; TemporaryError if it ends early, takes too long or the connection breaks."""
        begin = time.monotonic()
        received = 0
        while chunk := self._next():
            received += len(chunk)
            yield chunk
            late = time.monotonic() - begin - self._limits.grace_seconds
            if late > 0 and received < late * self._limits.minimum_rate:
                raise TemporaryError(f"the server is too slow: {received} bytes in {late:.0f} seconds")
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
            raise TemporaryError(f"the connection broke: {_reason(error)}") from error


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
        """One request, with the certificate store that works for this server."""
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
                if not _is_rejection(error):
                    raise TemporaryError(f"the TLS connection broke: {_reason(error)}") from error
                continue
            except requests.exceptions.InvalidURL as error:
                raise UsageError(f"{shown(url)} is not a URL", hint="check the URL") from error
            except requests.exceptions.RequestException as error:
                if _is_unreachable(error) and host not in self._reached:
                    raise DownloadError(
                        f"cannot connect to {shown(url)}: {_reason(error)}",
                        hint="check the network, the URL and the proxy settings",
                    ) from error
                raise TemporaryError(_reason(error)) from error
            except OSError as error:
                raise TlsError(
                    f"cannot use the certificates in {store}: {error}", hint="check the file or directory"
                ) from error
            self._reached.add(host)
            if failure is not None:
                self._stores = [store, *(other for other in self._stores if other != store)]
            return response
        raise TlsError(
            f"{shown(url)}: the server's TLS certificate is not accepted: {_reason(failure)}",
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
            raise RangeRefusedError("the server cannot resume (status 416)")
        raise TemporaryError(f"the server answers with status {status}")

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
                self._session = _new_session(self._settings)
            return self._session


def shown(url: str) -> str:
    """A URL for messages: without user name and password."""
    return _USER.sub("//", url, count=1)


def _new_session(settings: Settings) -> requests.Session:
    import requests
    from requests.adapters import HTTPAdapter

    class Session(requests.Session):
        def get_redirect_target(self, resp: requests.Response) -> None:
            """Even when it does not follow redirections, requests would read the whole body of one into memory."""

    session = Session()
    # Otherwise each request would read the environment and ~/.netrc anew; proxies are looked up here once per host.
    session.trust_env = False
    session.headers.clear()
    session.headers.update({"User-Agent": f"swupd-client/{__version__}", "Accept-Encoding": "identity"})
    for prefix in ("https://", "http://"):
        session.mount(prefix, HTTPAdapter(pool_maxsize=settings.parallel + 1, pool_block=False))
    certificate = below(settings.root, CLIENT_CERTIFICATE_FILE)
    if certificate.is_file():
        session.cert = str(certificate)
    return session


def _read_some(response: requests.Response, size: int) -> bytes:
    """What has arrived, at most `size` bytes; waits only if that is nothing. Empty at the end."""
    from urllib3.exceptions import HTTPError

    try:
        # Not `read`, which waits until it has all of `size`: a server that drips could hold us up for ever.
        chunk: bytes | None = response.raw.read1(size, decode_content=False)
    except HTTPError as error:
        raise TemporaryError(f"the connection broke: {_reason(error)}") from error
    return chunk or b""


def _system_store() -> str | bool:
    """The certificates that this machine trusts; True means those that come with requests."""
    paths = ssl.get_default_verify_paths()
    return next((path for path in (paths.cafile, paths.capath) if path and Path(path).exists()), True)


def _is_rejection(error: BaseException) -> bool:
    """Whether we did not accept the server's certificate, rather than the connection having failed."""
    return "certificate verify failed" in str(error).lower() or "doesn't match" in str(error)


def _is_unreachable(error: BaseException) -> bool:
    """Whether no connection could be made: name unknown, refused, no route."""
    from urllib3.exceptions import NewConnectionError

    cause = error.args[0] if error.args else None
    return isinstance(getattr(cause, "reason", None), NewConnectionError)


def _reason(error: BaseException | None) -> str:
    """The innermost sentence of an error that others were wrapped around."""
    while error is not None:
        inner = getattr(error, "reason", None)
        if not isinstance(inner, BaseException):
            inner = error.args[0] if error.args and isinstance(error.args[0], BaseException) else None
        if inner is None:
            break
        error = inner
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(str(text).split())
