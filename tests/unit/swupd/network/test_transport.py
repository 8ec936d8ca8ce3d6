"""One request: redirections, ports, proxies, TLS and certificates."""

from __future__ import annotations

import select
import shutil
import socket
import socketserver
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from swupd.errors import DownloadError, TlsError, UsageError
from swupd.network.failures import wants_certificate
from swupd.network.limits import FetchLimits
from swupd.network.transport import TemporaryError, Transport, asked_wait, shown
from swupd.settings import Settings


class Server(ThreadingHTTPServer):
    """Redirects as `targets` says, and answers everything else with its path."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.scheme = "https" if context else "http"
        if context:
            self.socket = context.wrap_socket(self.socket, server_side=True)
        self.port = self.server_address[1]
        self.targets: dict[str, str] = {}
        self.endless: set[str] = set()
        self.paths: list[str] = []
        self.thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02})
        self.thread.start()

    def url(self, path: str = "/file") -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}{path}"

    def stop(self) -> None:
        self.shutdown()
        self.server_close()
        self.thread.join()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that refuse our certificate are part of the tests."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Server

    def do_GET(self) -> None:
        self.server.paths.append(self.path)
        target = self.server.targets.get(self.path)
        body = b"" if target else self.path.encode()
        self.send_response(302 if target else 200)
        if target:
            self.send_header("Location", target)
        if self.path in self.server.endless:
            self.end_headers()
            with suppress(OSError):
                while True:
                    self.wfile.write(bytes(65536))
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.stop()


class Certificates:
    """A certificate authority, a server's certificate from it, and one of a client; all as PEM files."""

    def __init__(self, directory: Path) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        ca = self._make("Example CA", key, "Example CA", key, authority=True)
        self.ca = directory / "ca.pem"
        self.ca.write_bytes(ca)
        self.server = self._issue(directory / "server.pem", key)
        self.client = self._issue(directory / "client.pem", key)

    def _issue(self, path: Path, ca_key: ec.EllipticCurvePrivateKey) -> Path:
        key = ec.generate_private_key(ec.SECP256R1())
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        path.write_bytes(self._make(path.stem, key, "Example CA", ca_key, authority=False) + private)
        return path

    def _make(
        self,
        subject: str,
        key: ec.EllipticCurvePrivateKey,
        issuer: str,
        issuer_key: ec.EllipticCurvePrivateKey,
        *,
        authority: bool,
    ) -> bytes:
        now = datetime.now(UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, subject)]))
            .issuer_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, issuer)]))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(x509.BasicConstraints(authority, None), critical=True)
            .add_extension(x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1"))]), critical=False)
        )
        return builder.sign(issuer_key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
def tls_server(certificates: Certificates) -> Iterator[Server]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates.server)
    server = Server(context)
    yield server
    server.stop()


def make_transport(root: Path, **changes: Any) -> Transport:
    values: dict[str, Any] = {
        "root": root,
        "cache_dir": root,
        "data_dir": root,
        "content_url": "",
        "version_url": "",
        "format": "1",
        "certificate": root / "none.pem",
        "allow_insecure_http": True,
    }
    return Transport(Settings(**values | changes), FetchLimits())


def get(transport: Transport, url: str) -> bytes:
    with transport.open(url) as body:
        return b"".join(body.chunks())


def test_a_redirection_is_followed(tmp_path: Path, server: Server) -> None:
    server.targets["/file"] = "/elsewhere"
    transport = make_transport(tmp_path)
    assert get(transport, server.url()) == b"/elsewhere"
    assert transport.requests == 2


def test_a_redirection_loop_ends(tmp_path: Path, server: Server) -> None:
    server.targets["/file"] = server.url("/file")
    with pytest.raises(DownloadError, match="redirects more than 5 times"):
        get(make_transport(tmp_path), server.url())
    assert len(server.paths) == 6


@pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://example.org/x"])
def test_a_redirection_to_another_kind_of_url_is_refused(tmp_path: Path, server: Server, target: str) -> None:
    server.targets["/file"] = target
    with pytest.raises(UsageError, match="neither http"):
        get(make_transport(tmp_path), server.url())


def test_a_redirection_to_nonsense_is_refused(tmp_path: Path, server: Server) -> None:
    server.targets["/file"] = "http://[nonsense"
    with pytest.raises(DownloadError, match="no URL"):
        get(make_transport(tmp_path), server.url())


def test_the_content_of_a_redirection_is_not_read_without_end(tmp_path: Path, server: Server) -> None:
    server.targets["/file"] = "/elsewhere"
    server.endless.add("/file")
    assert get(make_transport(tmp_path), server.url()) == b"/elsewhere"


def test_a_redirection_from_https_to_http_is_refused_even_if_http_is_allowed(
    tmp_path: Path, tls_server: Server, server: Server, certificates: Certificates
) -> None:
    tls_server.targets["/file"] = server.url().replace("http", "HTTP")
    transport = make_transport(tmp_path, fallback_ca_paths=(certificates.ca,))
    with pytest.raises(DownloadError, match="from https to"):
        get(transport, tls_server.url())
    assert server.paths == []


def test_a_port_option_holds_for_every_request(tmp_path: Path, server: Server) -> None:
    transport = make_transport(tmp_path, port=server.port)
    assert get(transport, "http://127.0.0.1/a") == b"/a"
    assert get(transport, "http://127.0.0.1:1/b") == b"/b"


def test_a_percent_sign_reaches_the_server_as_it_is(tmp_path: Path, server: Server) -> None:
    get(make_transport(tmp_path), server.url("/a%2Fb%20c"))
    assert server.paths == ["/a%2Fb%20c"]


def test_a_proxy_of_the_environment_is_used(tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", server.url(""))
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    assert get(make_transport(tmp_path), "http://updates.example.org/file") == b"http://updates.example.org/file"


def test_a_password_in_a_url_is_never_shown() -> None:
    assert shown("https://name:secret@example.org/a@b") == "https://example.org/a@b"
    assert shown("https://example.org/a@b") == "https://example.org/a@b"


def test_an_unknown_tls_certificate_is_refused(tmp_path: Path, tls_server: Server) -> None:
    with pytest.raises(TlsError, match="not accepted") as caught:
        get(make_transport(tmp_path), tls_server.url())
    assert caught.value.exit_code == 24
    assert tls_server.paths == []


def test_a_fallback_store_is_tried_and_then_kept(
    tmp_path: Path, tls_server: Server, certificates: Certificates
) -> None:
    stores = (tmp_path / "missing", certificates.ca)
    transport = make_transport(tmp_path, fallback_ca_paths=stores)
    assert get(transport, tls_server.url("/a")) == b"/a"
    before = transport.requests
    assert get(transport, tls_server.url("/b")) == b"/b"
    assert transport.requests == before + 1


@pytest.mark.skipif(not shutil.which("openssl"), reason="needs openssl")
def test_a_fallback_store_may_be_a_directory_as_openssl_knows_it(
    tmp_path: Path, tls_server: Server, certificates: Certificates
) -> None:
    store = tmp_path / "anchors"
    store.mkdir()
    (store / "ca.pem").write_bytes(certificates.ca.read_bytes())
    subprocess.run(["openssl", "rehash", store], check=True)
    assert get(make_transport(tmp_path, fallback_ca_paths=(store,)), tls_server.url("/a")) == b"/a"


def test_another_name_than_the_certificates_is_refused(
    tmp_path: Path, tls_server: Server, certificates: Certificates
) -> None:
    transport = make_transport(tmp_path, fallback_ca_paths=(certificates.ca,))
    with pytest.raises(TlsError):
        get(transport, f"https://localhost:{tls_server.port}/file")


# -- client certificates ---------------------------------------------------------------------------------------------


@pytest.fixture
def strict_server(certificates: Certificates) -> Iterator[Server]:
    """Demands a client certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates.server)
    context.load_verify_locations(certificates.ca)
    context.verify_mode = ssl.CERT_REQUIRED
    server = Server(context)
    yield server
    server.stop()


def put_client_certificate(root: Path, content: bytes) -> Path:
    path = root / "etc/swupd/client.pem"
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    path.chmod(0o600)
    return path


def test_a_client_certificate_of_the_system_is_shown_to_the_server(
    tmp_path: Path, strict_server: Server, certificates: Certificates
) -> None:
    put_client_certificate(tmp_path, certificates.client.read_bytes())
    assert get(make_transport(tmp_path, fallback_ca_paths=(certificates.ca,)), strict_server.url()) == b"/file"


def test_a_server_that_wants_a_client_certificate_gets_none_without_one(
    tmp_path: Path, strict_server: Server, certificates: Certificates
) -> None:
    # A server that closes the connection before its alert has arrived says nothing.
    with pytest.raises((TlsError, TemporaryError)) as caught:
        get(make_transport(tmp_path, fallback_ca_paths=(certificates.ca,)), strict_server.url())
    if isinstance(caught.value, TlsError):
        assert "client.pem" in caught.value.hint
    assert strict_server.paths == []


def test_the_alert_of_a_server_that_wants_a_client_certificate_is_understood() -> None:
    error = ssl.SSLError(1, "[SSL: TLSV13_ALERT_CERTIFICATE_REQUIRED] tlsv13 alert certificate required (_ssl.c:2580)")
    assert wants_certificate(error)
    assert not wants_certificate(ssl.SSLError(1, "[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed"))


def with_password(certificates: Certificates) -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"secret"),
    )
    return certificates.client.read_bytes().partition(b"-----BEGIN PRIVATE")[0] + private


def without_key(certificates: Certificates) -> bytes:
    return certificates.client.read_bytes().partition(b"-----BEGIN PRIVATE")[0]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (with_password, "has a password"),
        (without_key, "cannot use the client certificate"),
        (lambda _: b"nonsense", "cannot use the client certificate"),
        (lambda _: b"", "cannot use the client certificate"),
    ],
)
def test_a_client_certificate_that_cannot_be_used_is_one_clear_line(
    tmp_path: Path,
    tls_server: Server,
    certificates: Certificates,
    content: Callable[[Certificates], bytes],
    message: str,
) -> None:
    path = put_client_certificate(tmp_path, content(certificates))
    with pytest.raises(TlsError, match=message) as caught:
        get(make_transport(tmp_path, fallback_ca_paths=(certificates.ca,)), tls_server.url())
    assert str(path) in str(caught.value)
    assert caught.value.hint
    assert tls_server.paths == []


def test_a_client_certificate_that_cannot_be_used_does_not_matter_for_files(tmp_path: Path) -> None:
    put_client_certificate(tmp_path, b"nonsense")
    (tmp_path / "file").write_bytes(b"x")
    assert get(make_transport(tmp_path), f"file://{tmp_path}/file") == b"x"


# -- proxies ---------------------------------------------------------------------------------------------------------


class Proxy(socketserver.ThreadingTCPServer):
    """Knows CONNECT only, as for https; remembers where it led."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, answer: bytes = b"HTTP/1.1 200 Connected\r\n\r\n") -> None:
        super().__init__(("127.0.0.1", 0), Tunnel)
        self.answer = answer
        self.requests: list[str] = []
        self.thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02})
        self.thread.start()

    @property
    def url(self) -> str:
        return f"http://name:secret@127.0.0.1:{self.server_address[1]}"

    def stop(self) -> None:
        self.shutdown()
        self.server_close()
        self.thread.join()


class Tunnel(socketserver.StreamRequestHandler):
    server: Proxy

    def handle(self) -> None:
        lines = [line.decode().rstrip() for line in iter(self.rfile.readline, b"\r\n")]
        self.server.requests += lines
        self.wfile.write(self.server.answer)
        if b" 200 " not in self.server.answer:
            return
        host, _, port = lines[0].split()[1].rpartition(":")
        with suppress(OSError), socket.create_connection((host, int(port))) as upstream:
            ends = {self.connection: upstream, upstream: self.connection}
            while True:
                for end in select.select(list(ends), [], [], 10)[0]:
                    data = end.recv(65536)
                    if not data:
                        return
                    ends[end].sendall(data)


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    proxy = Proxy()
    yield proxy
    proxy.stop()


def test_https_goes_through_the_proxy_of_the_environment(
    tmp_path: Path, tls_server: Server, proxy: Proxy, certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("https_proxy", proxy.url)
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    assert get(make_transport(tmp_path, fallback_ca_paths=(certificates.ca,)), tls_server.url()) == b"/file"
    assert proxy.requests[0].startswith(f"CONNECT 127.0.0.1:{tls_server.port} ")
    assert any(line.startswith("Proxy-Authorization: Basic ") for line in proxy.requests)


def test_no_proxy_is_heard(
    tmp_path: Path, tls_server: Server, proxy: Proxy, certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("https_proxy", proxy.url)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    assert get(make_transport(tmp_path, fallback_ca_paths=(certificates.ca,)), tls_server.url()) == b"/file"
    assert proxy.requests == []


def test_a_proxy_that_refuses_is_an_error_without_its_password(
    tmp_path: Path, tls_server: Server, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy.answer = b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n"
    monkeypatch.setenv("https_proxy", proxy.url)
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(TemporaryError, match="407") as caught:
        get(make_transport(tmp_path), tls_server.url())
    assert "secret" not in str(caught.value)


def test_a_proxy_that_is_not_there_is_an_error_without_retries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://name:secret@127.0.0.1:1")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(DownloadError, match="cannot connect") as caught:
        get(make_transport(tmp_path), "http://updates.example.org/file")
    assert "proxy" in caught.value.hint
    assert "secret" not in str(caught.value)


# -- when to come back -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("7", 7), ("", 0), ("-1", 0), ("soon", 0), ("9" * 30, 0), ("Tue, 14 Nov 2023 22:13:20 GMT", 0)],
)
def test_a_time_to_come_back_is_seconds_or_a_date(text: str, seconds: float) -> None:
    assert asked_wait(text) == seconds


def test_a_date_to_come_back_counts_from_now() -> None:
    assert 28 < asked_wait(format_datetime(datetime.now(UTC) + timedelta(seconds=30))) <= 30


@given(st.text(max_size=40))
def test_any_time_to_come_back_is_a_number_of_seconds(text: str) -> None:
    assert asked_wait(text) >= 0
