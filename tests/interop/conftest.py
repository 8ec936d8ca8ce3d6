"""The original's published tree on a real HTTP server, and our client as real processes.

`example.tar.xz` holds versions 10 and 20 in format 1 (bundles os-core, libs, editors, docs, games, and new-in-20),
with packs, file deltas and manifest deltas, made and signed by the original's own tools.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
import threading
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from cryptography.x509 import load_pem_x509_certificate

from swupd.formats.filehash import hash_paths
from swupd.formats.manifest import parse

ARCHIVE = Path(__file__).parent / "example.tar.xz"
FORMAT = "1"
STALL_SECONDS = 20
"""Longest time that a stalled answer waits for its release."""


@dataclass
class Fault:
    """How the server misbehaves for one path. `times` counts down; -1 is for ever."""

    status: int = 0
    """Answer with this status and no content."""
    truncate_at: int = -1
    """Promise the whole content, send this many bytes and close."""
    stall: threading.Event | None = None
    """Answer only when this is set."""
    answer: Callable[[BaseHTTPRequestHandler, bytes], None] | None = None
    """Do all of it; the content is what the file has."""
    times: int = -1


class PublishedTree:
    """A directory served over HTTP on loopback, which remembers what was asked for.

    The directory stays as it is; what a test changes lies over it.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.requests: list[str] = []
        self.faults: dict[str, Fault] = {}
        self._changed: dict[str, bytes | None] = {}
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def close(self) -> None:
        for fault in self.faults.values():
            if fault.stall is not None:
                fault.stall.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def read(self, name: str) -> bytes | None:
        """What is served under this name; None if nothing is."""
        if name in self._changed:
            return self._changed[name]
        path = self.directory / name
        return path.read_bytes() if path.is_file() else None

    def replace(self, name: str, data: bytes) -> None:
        """Serve other content."""
        self._changed[name] = data

    def flip(self, name: str, position: int = -20) -> None:
        """Serve the file with one byte changed."""
        data = bytearray(self.read(name) or b"")
        data[position] ^= 0xFF
        self.replace(name, bytes(data))

    def remove(self, pattern: str) -> int:
        """Serve no file that matches any more; returns how many there were."""
        names = [str(path.relative_to(self.directory)) for path in self.directory.glob(pattern)]
        self._changed |= dict.fromkeys(names)
        return len(names)

    def set_latest(self, version: int) -> None:
        """Offer an older version as the newest. Its signature does not fit: use `--nosigcheck-latest`."""
        for name in ("version/format1/latest", "version/latest_version"):
            self.replace(name, str(version).encode())

    def requested(self, ending: str = "") -> list[str]:
        return [path for path in self.requests if path.endswith(ending)]

    def take(self, path: str) -> Fault:
        """Note a request, and say how to answer it."""
        with self._lock:
            self.requests.append(path)
            fault = self.faults.get(path)
            if fault is None or fault.times == 0:
                return Fault()
            fault.times -= 1
            return fault


def _handler(tree: PublishedTree) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True
        """Head and content are written one after the other: do not wait for the client to acknowledge the first."""

        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            fault = tree.take(self.path)
            if fault.stall is not None:
                fault.stall.wait(STALL_SECONDS)
            data = tree.read(self.path.lstrip("/"))
            if fault.answer is not None:
                fault.answer(self, data or b"")
                return
            if fault.status or data is None:
                self.send_response(fault.status or 404)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            start = self._range_start(len(data))
            if start == len(data) > 0:
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(data)}")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.send_response(206 if start else 200)
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
            self.send_header("Content-Length", str(len(data) - start))
            self.send_header("ETag", f'"{zlib.crc32(data)}"')
            self.end_headers()
            if self.command == "HEAD":
                return
            if 0 <= fault.truncate_at < len(data):
                self.wfile.write(data[start : fault.truncate_at])
                self.close_connection = True
                return
            self.wfile.write(data[start:])

        def _range_start(self, size: int) -> int:
            header = self.headers.get("Range", "")
            start = int(header.removeprefix("bytes=").partition("-")[0]) if header.startswith("bytes=") else 0
            return start if start <= size else 0

        def log_message(self, *args: object) -> None:
            pass

    return Handler


@dataclass
class Client:
    """A root, its state directory, and `swupd` as a process that works on them."""

    root: Path
    state: Path
    url: str
    certificate: Path
    config: Path
    published: Path
    """The tree as it is without a test's changes."""

    def argv(self, command: str, *arguments: str | Path, path: bool = True) -> list[str]:
        """`arguments` come last and so win over what is always given."""
        return [
            *(sys.executable, "-m", "swupd.cli", command),
            *(("--path", str(self.root)) if path else ()),
            *("--statedir", str(self.state), "--url", self.url),
            *("--format", FORMAT, "--certpath", str(self.certificate), "--allow-insecure-http"),
            # The fixture has no time stamp; the delays of repeated downloads would only make the tests slow.
            *("--ignore-time", "--retry-delay", "0", "--no-scripts"),
            *map(str, arguments),
        ]

    def environment(self) -> dict[str, str]:
        """Ours, without the host's configuration; compiled modules are kept, or every process would compile anew."""
        inherited = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        return inherited | {
            "SWUPD_CONFIG_PATH": str(self.config),
            "LC_ALL": "C.UTF-8",
            "PYTHONPYCACHEPREFIX": str(self.certificate.parent / "pycache"),
        }

    def run(
        self, command: str, *arguments: str | Path, status: int = 0, path: bool = True, prefix: Sequence[str] = ()
    ) -> Result:
        """Run one command to its end; the exit status is part of what is tested."""
        argv = [*prefix, *self.argv(command, *arguments, path=path)]
        done = subprocess.run(argv, env=self.environment(), capture_output=True, timeout=60, check=False)
        result = Result(done.returncode, done.stdout.decode(), done.stderr.decode())
        assert result.status == status, f"{command} ended with {result.status}, not {status}:\n{result.out}{result.err}"
        assert "Traceback" not in result.err, result.err
        return result

    def start(self, command: str, *arguments: str | Path) -> subprocess.Popen[bytes]:
        """Begin a command and go on."""
        return subprocess.Popen(
            self.argv(command, *arguments), env=self.environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )

    def bundles(self) -> set[str]:
        return {path.name for path in (self.root / "usr/share/clear/bundles").iterdir()}

    def check(self, version: int) -> None:
        """The root is what was published as this version: read from the published manifests, not by our client."""
        assert f"VERSION_ID={version}\n" in (self.root / "usr/lib/os-release").read_text()
        wanted, gone = {}, set()
        for bundle in sorted(self.bundles()):
            path = self.published / str(version) / f"Manifest.{bundle}"
            data = (path if path.exists() else self.published / "10" / f"Manifest.{bundle}").read_bytes()
            for entry in parse(data, name=bundle).entries:
                if entry.is_present:
                    wanted[entry.name] = entry.hash
                elif entry.is_deleted:
                    gone.add(entry.name)
        names = sorted(wanted)
        assert dict(zip(names, hash_paths([f"{self.root}{name}" for name in names]), strict=True)) == wanted
        assert [name for name in gone - wanted.keys() if os.path.lexists(f"{self.root}{name}")] == []

    def snapshot(self) -> dict[str, tuple[int, int, int, bytes]]:
        """Everything in the root, to see that nothing changed."""
        found = {}
        for path in sorted(self.root.rglob("*")):
            status = path.lstat()
            content = b""
            if path.is_symlink():
                content = os.readlink(bytes(path))
            elif path.is_file():
                content = path.read_bytes()
            found[str(path.relative_to(self.root))] = (status.st_mode, status.st_uid, status.st_gid, content)
        return found


@dataclass(frozen=True)
class Result:
    status: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        return self.out.splitlines()

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@pytest.fixture(scope="session")
def example(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The unpacked archive: `web-dir` and `Swupd_Root.pem`. Skips where it cannot be installed."""
    if os.geteuid() != 0:
        pytest.skip("installing files of other owners needs root")
    directory = tmp_path_factory.mktemp("example")
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(directory)
    certificate = load_pem_x509_certificate((directory / "Swupd_Root.pem").read_bytes())
    begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if not begin <= datetime.now(UTC) <= end:
        pytest.skip(f"by this machine's clock the example's certificate ({begin} to {end}) is not valid")
    return directory


@pytest.fixture
def tree(example: Path) -> Iterator[PublishedTree]:
    """The served tree, for a test to change as it likes."""
    served = PublishedTree(example / "web-dir")
    yield served
    served.close()


@pytest.fixture(scope="session")
def template(example: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Version 10 with the bundle editors, installed once; tests work on copies."""
    directory = tmp_path_factory.mktemp("template")
    served = PublishedTree(example / "web-dir")
    try:
        client = _client(directory, served, example)
        client.run("os-install", "--version", "10", "--bundles", "editors", "--skip-optional")
    finally:
        served.close()
    return directory


@pytest.fixture
def empty(tree: PublishedTree, example: Path, tmp_path: Path) -> Client:
    """A client for a root that does not exist yet."""
    return _client(tmp_path, tree, example)


@pytest.fixture
def mirror(example: Path) -> Iterator[PublishedTree]:
    """Another server with the same tree."""
    served = PublishedTree(example / "web-dir")
    yield served
    served.close()


@pytest.fixture
def client(template: Path, empty: Client, tmp_path: Path) -> Client:
    """A client whose root has version 10 with os-core, libs and editors, and whose cache is empty."""
    subprocess.run(["cp", "-a", template / "root", template / "state", tmp_path], check=True)
    shutil.rmtree(empty.state / "cache", ignore_errors=True)
    return empty


@pytest.fixture
def fault() -> type[Fault]:
    """The class, because test modules cannot import this one."""
    return Fault


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """Makes a file system of so many bytes."""
    directory = tmp_path / "small"
    directory.mkdir()

    def make(size: int) -> Path:
        options = ["-t", "tmpfs", "-o", f"size={size}", "none"]
        mounted = subprocess.run(["mount", *options, str(directory)], capture_output=True, text=True, check=False)
        if mounted.returncode != 0:
            pytest.skip(f"no file system can be mounted here: {mounted.stderr.strip()}")
        return directory

    yield make
    if directory.is_mount():
        subprocess.run(["umount", str(directory)], check=True)


def _client(directory: Path, tree: PublishedTree, example: Path) -> Client:
    config = directory / "config"
    config.mkdir()
    return Client(
        directory / "root", directory / "state", tree.url, example / "Swupd_Root.pem", config, example / "web-dir"
    )
