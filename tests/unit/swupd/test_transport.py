"""One request: redirections, ports, proxies, TLS and certificates."""

from __future__ import annotations

import shutil
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from swupd.errors import DownloadError, TlsError, UsageError
from swupd.settings import Settings
from swupd.transport import FetchLimits, TemporaryError, Transport, shown


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
    monkeypatch.delenv("no_proxy", raising=False)
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


def test_a_client_certificate_of_the_system_is_shown_to_the_server(tmp_path: Path, certificates: Certificates) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates.server)
    context.load_verify_locations(certificates.ca)
    context.verify_mode = ssl.CERT_REQUIRED
    server = Server(context)
    try:
        with pytest.raises(TemporaryError):
            get(make_transport(tmp_path, fallback_ca_paths=(certificates.ca,)), server.url())
        (tmp_path / "etc/swupd").mkdir(parents=True)
        (tmp_path / "etc/swupd/client.pem").write_bytes(certificates.client.read_bytes())
        assert get(make_transport(tmp_path, fallback_ca_paths=(certificates.ca,)), server.url()) == b"/file"
    finally:
        server.stop()
