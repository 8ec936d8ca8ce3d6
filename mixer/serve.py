"""`mixer serve`: the published tree over plain HTTP, to try a mix out without setting up a web server.

GET and HEAD of files, nothing else. What clients need for downloads that go on where they stopped is there: strong
ETags, Last-Modified, If-None-Match, single ranges with If-Range. Everything else is not:

* Only regular files below the tree are served. A request is walked component by component and never through a symbolic
  link; names that begin with a dot do not exist (versions in the making have such names), directories are not listed.
* No TLS, no limits on clients: the default is the loopback address, and real clients are served by a real web server.

Each connection has a thread, which gives up after IDLE_SECONDS without any progress.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from email.utils import formatdate
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self
from urllib.parse import unquote_to_bytes, urlsplit

from mixer.errors import BuildError
from mixer.places import LocalDirectory
from mixer.store import PublishedTree
from swupd import __version__
from swupd.errors import UnsafePathError
from swupd.fs import Directory
from swupd.report import Report

DEFAULT_BIND = "127.0.0.1"
DEFAULT_PORT = 8000
IDLE_SECONDS = 60
"""How long a connection may do nothing."""

_RANGE = re.compile(r"bytes=([0-9]{0,18})-([0-9]{0,18})")
_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class TreeServer:
    """A running server of one directory; leave the `with` block to stop it."""

    def __init__(self, www: Path, *, bind: str = DEFAULT_BIND, port: int = 0) -> None:
        """Bind the address, port 0 being any free one. Raises BuildError if that is not possible."""
        try:
            self._server = _Server((bind, port), www)
        except (OSError, OverflowError) as error:
            raise BuildError(
                f"cannot serve on {bind} port {port}: {error}", hint="another --port may be free; --port 0 finds one"
            ) from error
        self._thread = threading.Thread(target=self._server.serve_forever, name="serve", daemon=True)

    @property
    def url(self) -> str:
        """Content URL and version URL of the tree."""
        host, port = self._server.server_address[:2]
        name = host.decode() if isinstance(host, bytes | bytearray) else host
        return f"http://{f'[{name}]' if ':' in name else name}:{port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def serve(
    www: Path,
    report: Report,
    *,
    bind: str = DEFAULT_BIND,
    port: int = DEFAULT_PORT,
    certificate: Path | None = None,
) -> None:
    """Serve the tree until SIGINT or SIGTERM, and say how to use it; `certificate` is the mix's, for the example.

    Raises BuildError if there is nothing to serve, or if the address cannot be had.
    """
    tree = PublishedTree(LocalDirectory(www))
    latest = tree.latest()
    format_number = tree.version(latest).format
    trust = f"--certpath {certificate}" if certificate is not None and certificate.exists() else "--nosigcheck"
    stopped = threading.Event()
    with _stop_on_signals(stopped), TreeServer(www, bind=bind, port=port) as server:
        report.answer(f"Serving {www} (version {latest}) at {server.url}")
        options = f"--url {server.url} --allow-insecure-http --format {format_number} {trust}"
        report.info(f"Install it:   swupd os-install NEW_ROOT {options}")
        report.info(f"Update to it: swupd update --path ROOT {options}")
        report.info("Press Ctrl-C to stop.")
        stopped.wait()


@contextmanager
def _stop_on_signals(stopped: threading.Event) -> Iterator[None]:
    former = {number: signal.signal(number, lambda *_: stopped.set()) for number in _STOP_SIGNALS}
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    # The default is 5 waiting connections; a client opens 15 at once.
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], www: Path) -> None:
        if ":" in address[0]:
            self.address_family = socket.AF_INET6
        self.www = www
        super().__init__(address, _Handler)

    def server_bind(self) -> None:
        # The inherited method asks the resolver for the name of the host.
        super(ThreadingHTTPServer, self).server_bind()
        self.server_name, self.server_port = "localhost", self.server_address[1]

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that go away are no news."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = f"mixer/{__version__}"
    sys_version = ""
    timeout = IDLE_SECONDS
    server: _Server

    def do_GET(self) -> None:
        self._answer(with_content=True)

    def do_HEAD(self) -> None:
        self._answer(with_content=False)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (the inherited name)
        """Requests are not logged."""

    def _answer(self, *, with_content: bool) -> None:
        file = _open(self.server.www, self.path)
        if file is None:
            self._head(HTTPStatus.NOT_FOUND, 0)
            return
        with file:
            status = os.fstat(file.fileno())
            tag = f'"{status.st_ino:x}-{status.st_mtime_ns:x}-{status.st_size:x}"'
            modified = formatdate(status.st_mtime, usegmt=True)
            fields = {"ETag": tag, "Last-Modified": modified, "Accept-Ranges": "bytes"}
            if tag in [wanted.strip() for wanted in self.headers.get("If-None-Match", "").split(",")]:
                self._head(HTTPStatus.NOT_MODIFIED, 0, fields)
                return
            start, end = 0, status.st_size
            code = HTTPStatus.OK
            condition = self.headers.get("If-Range", tag)
            wanted = self.headers.get("Range")
            if wanted is not None and condition in (tag, modified):
                found = _range(wanted, status.st_size)
                if found is not None:
                    start, end = found
                    if start >= end:
                        fields["Content-Range"] = f"bytes */{status.st_size}"
                        self._head(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, 0, fields)
                        return
                    code = HTTPStatus.PARTIAL_CONTENT
                    fields["Content-Range"] = f"bytes {start}-{end - 1}/{status.st_size}"
            self._head(code, end - start, fields)
            if with_content and end > start:
                self.wfile.flush()
                self.connection.sendfile(file, start, end - start)

    def _head(self, code: HTTPStatus, length: int, fields: dict[str, str] | None = None) -> None:
        self.send_response(code)
        for name, value in (fields or {}).items():
            self.send_header(name, value)
        if code is not HTTPStatus.NOT_MODIFIED:
            self.send_header("Content-Type", "application/octet-stream")
            self.send_header("Content-Length", str(length))
        self.end_headers()


def _open(www: Path, target: str) -> BinaryIO | None:
    """The file of a request, None if there is none that may be seen."""
    parts = [os.fsdecode(part) for part in unquote_to_bytes(urlsplit(target).path).split(b"/") if part]
    if not parts or any(part.startswith(".") or "\0" in part or "/" in part for part in parts):
        return None
    with (
        suppress(OSError, UnsafePathError, ValueError),
        Directory.open(www) as tree,
        tree.descend("/".join(parts[:-1])) as directory,
    ):
        return directory.open_file(parts[-1])
    return None


def _range(text: str, size: int) -> tuple[int, int] | None:
    """First byte and end of a single range, empty if it lies outside; None for what is to be ignored."""
    match = _RANGE.fullmatch(text.replace(" ", ""))
    if match is None or not (match[1] or match[2]):
        return None
    if not match[1]:
        return max(size - int(match[2]), 0), size
    start = int(match[1])
    last = int(match[2]) if match[2] else size - 1
    if last < start and match[2]:
        return None
    return start, min(last + 1, size)
