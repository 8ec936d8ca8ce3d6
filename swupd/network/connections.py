"""How requests is set up for us: connections that end, the machine's client certificate, no surprises.

* Nothing of the environment or of ~/.netrc is used but the proxies; cookies and encodings are not asked for.
* Whatever a server sends, head, chunk sizes and trailers included, has to come at a minimum rate. Only the time that we
  wait for the server counts, not what we make it wait.
* The client certificate is `/etc/swupd/client.pem` of the system: certificate and key, the key without a password.

This module belongs to `network.transport`; it imports requests and is imported with the first request.
"""

from __future__ import annotations

import io
import ssl
import time
from http.client import HTTPResponse
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import requests
from requests.adapters import HTTPAdapter

from swupd import __version__
from swupd.errors import TlsError
from swupd.network.limits import FetchLimits
from swupd.settings import CLIENT_CERTIFICATE_FILE, Settings, below

if TYPE_CHECKING:
    from urllib3.connectionpool import HTTPConnectionPool


class TooSlowError(OSError):
    """A server sends less than it has to."""


class _Clocked(io.RawIOBase):
    """A socket's stream that has to be fast enough."""

    def __init__(self, raw: io.RawIOBase, limits: FetchLimits) -> None:
        self._raw = raw
        self._limits = limits
        self._waited = 0.0
        self._received = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        begin = time.monotonic()
        count = cast("int | None", self._raw.readinto(buffer))
        self._waited += time.monotonic() - begin
        self._received += count or 0
        late = self._waited - self._limits.grace_seconds
        if late > 0 and self._received < late * self._limits.minimum_rate:
            raise TooSlowError(f"the server is too slow: {self._received} bytes in {self._waited:.1f} seconds")
        return count

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Session(requests.Session):
    def get_redirect_target(self, resp: requests.Response) -> None:
        """Even when it does not follow redirections, requests would read the whole body of one into memory."""


class _Adapter(HTTPAdapter):
    """Connections whose answers are clocked."""

    def __init__(self, limits: FetchLimits, **options: Any) -> None:
        class Answer(HTTPResponse):
            def __init__(self, *args: Any, **named: Any) -> None:
                super().__init__(*args, **named)
                self.fp: Any = io.BufferedReader(_Clocked(self.fp.detach(), limits))

        self._answer = Answer
        super().__init__(**options)

    def get_connection_with_tls_context(self, *args: Any, **named: Any) -> HTTPConnectionPool:
        pool = cast("HTTPConnectionPool", super().get_connection_with_tls_context(*args, **named))
        kind: Any = pool.ConnectionCls
        if kind.response_class is not self._answer:
            pool.ConnectionCls = type(kind.__name__, (kind,), {"response_class": self._answer})
        return pool


def new_session(settings: Settings, limits: FetchLimits) -> requests.Session:
    """Raises TlsError for a client certificate that cannot be used."""
    session = _Session()
    session.trust_env = False
    session.headers.clear()
    session.headers.update({"User-Agent": f"swupd-client/{__version__}", "Accept-Encoding": "identity"})
    for prefix in ("https://", "http://"):
        session.mount(prefix, _Adapter(limits, pool_maxsize=settings.parallel + 1, pool_block=False))
    certificate = below(settings.machine, CLIENT_CERTIFICATE_FILE)
    if certificate.exists():
        check_client_certificate(certificate)
        session.cert = str(certificate)
    return session


def check_client_certificate(path: Path) -> None:
    """Raise TlsError, instead of asking for a password or failing with the first server, if it cannot be used."""

    def no_password() -> str:
        raise TlsError(
            f"the key in the client certificate {path} has a password",
            hint="remove it: openssl pkey -in client.pem -out key.pem",
        )

    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(path, password=no_password)
    except PermissionError as error:
        raise TlsError(f"cannot read the client certificate {path}", hint="run as root") from error
    except (OSError, ValueError) as error:
        raise TlsError(
            f"cannot use the client certificate {path}: {getattr(error, 'reason', None) or error}",
            hint="the file has to contain a certificate and its key, both as PEM",
        ) from error
