"""A tree in an object store: moto's S3 server as a second process, and a proxy before it that records and refuses."""

from __future__ import annotations

import http.client
import json
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.request
import uuid
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Literal
from urllib.parse import unquote, urlsplit

import pytest

from mixer import objectstore
from mixer.errors import BuildError
from mixer.manifests import manifest_hash
from mixer.release import Signer
from mixer.store import PublishedTree, open_tree
from swupd.formats import signature
from swupd.formats.manifest import Entry, FileType, Manifest, serialise
from swupd.report import TextReport

pytest.importorskip("s3fs")
pytest.importorskip("moto")

pytestmark = [pytest.mark.system, pytest.mark.timeout(120)]

START_SECONDS = 60
SIGNED_LATEST = [
    "version/latest_version.sig",
    "version/latest_version",
    "version/format30/latest.sig",
    "version/format30/latest",
]
DENIED = b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"


class Proxy(ThreadingHTTPServer):
    """Passes requests on to a server, remembers what changed there, and refuses further changes when told to."""

    daemon_threads = True

    def __init__(self, server: tuple[str, int], bucket: str) -> None:
        super().__init__(("127.0.0.1", 0), _ProxyHandler)
        self.server = server
        self.bucket = bucket
        self.changes: list[str] = []
        """ "PUT 10/x" and "DELETE 10/x" of the tree, in the order in which they were completed."""
        self.left: int | None = None
        """Changes that may still happen; None: all."""
        self.refusal: Literal["broken", "denied", "silent"] = "broken"
        """What happens to all others: the connection breaks, the answer is 403, or there never is one."""
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def take_changes(self) -> list[str]:
        changes, self.changes = self.changes, []
        return changes

    def may_change(self) -> bool:
        with self.lock:
            if self.left is None:
                return True
            self.left -= 1
            return self.left >= 0

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that go away are no news."""


class _ProxyHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Proxy

    def handle_expect_100(self) -> bool:
        """Nobody may wait for this answer: there is no limit to the wait."""
        return True

    def handle_one_request(self) -> None:
        self.raw_requestline = self.rfile.readline(65537)
        is_request = bool(self.raw_requestline) and self.parse_request()
        self.close_connection = True
        if not is_request:
            return
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        changes = self.command in ("PUT", "DELETE", "POST")
        if changes and not self.server.may_change():
            if self.server.refusal == "silent":
                self.rfile.read()
            elif self.server.refusal == "denied":
                self.send_response(403)
                self.send_header("Content-Type", "application/xml")
                self.send_header("Content-Length", str(len(DENIED)))
                self.end_headers()
                self.wfile.write(DENIED)
            return
        connection = http.client.HTTPConnection(*self.server.server, timeout=30)
        connection.request(self.command, self.path, body, dict(self.headers))
        answer = connection.getresponse()
        data = answer.read()
        if changes and answer.status < 300:
            name = unquote(urlsplit(self.path).path).removeprefix(f"/{self.server.bucket}/mix/")
            self.server.changes.append(f"{self.command} {name}")
        self.send_response_only(answer.status)
        for key, value in answer.getheaders():
            if key.lower() not in ("transfer-encoding", "connection"):
                self.send_header(key, value)
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(data)
        connection.close()


@pytest.fixture(scope="module")
def moto() -> Iterator[tuple[str, int]]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = ("127.0.0.1", int(free.getsockname()[1]))
    command = [sys.executable, "-m", "moto.server", "-H", address[0], "-p", str(address[1])]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            end = time.monotonic() + START_SECONDS
            while True:
                try:
                    socket.create_connection(address, 1).close()
                    break
                except OSError:
                    assert process.poll() is None, "moto does not start"
                    assert time.monotonic() < end, "moto does not answer"
                    time.sleep(0.05)
            yield address
        finally:
            process.terminate()


@pytest.fixture
def proxy(moto: tuple[str, int], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Proxy]:
    """A proxy to an empty bucket, which the S3 library takes for the endpoint."""
    bucket = uuid.uuid4().hex
    connection = http.client.HTTPConnection(*moto, timeout=30)
    connection.request("PUT", f"/{bucket}")
    assert connection.getresponse().status == 200
    connection.close()
    with Proxy(moto, bucket) as proxy:
        thread = threading.Thread(target=proxy.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        for name, value in {
            "AWS_ENDPOINT_URL": proxy.url,
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "very-secret",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_MAX_ATTEMPTS": "1",
            "AWS_CONFIG_FILE": str(tmp_path / "config"),
            "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "credentials"),
        }.items():
            monkeypatch.setenv(name, value)
        yield proxy
        proxy.shutdown()
        thread.join()


@pytest.fixture
def tree(proxy: Proxy, tmp_path: Path) -> PublishedTree:
    return tree_of(proxy, tmp_path)


def tree_of(proxy: Proxy, tmp_path: Path) -> PublishedTree:
    return open_tree(f"s3://{proxy.bucket}/mix", tmp_path / "update/www", TextReport())


@pytest.fixture(scope="module")
def signer() -> Signer:
    return Signer(*signature.make_certificate("Test", 1000, datetime.now(UTC)))


def manifest(version: int, path: str = "/x") -> bytes:
    entry = Entry.present(FileType.FILE, "a" * 64, version, path)
    return serialise(Manifest(30, version, 0, 1700000000, 0, entries=(entry,)))


def mom(version: int, data: bytes) -> bytes:
    line = Entry.present(FileType.MANIFEST, manifest_hash(data), version, "os-core")
    return serialise(Manifest(30, version, 0, 1700000000, 0, entries=(line,)))


def content(version: int, *, path: str = "/x", objects: int = 6) -> dict[str, bytes]:
    """The files of a version, as a build leaves them."""
    data = manifest(version, path)
    files = {f"files/{number:064x}.tar": f"object {number}".encode() for number in range(objects)}
    return {
        **files,
        "Manifest.os-core": data,
        "Manifest.os-core.tar": data,
        "Manifest.MoM": mom(version, data),
        "Manifest.MoM.sig": b"signature of " + data,
        "Manifest.MoM.tar": b"archive of " + data,
        "format": b"30",
    }


def publish(tree: PublishedTree, version: int, files: Mapping[str, bytes], signer: Signer | None = None) -> None:
    with tree.draft(version) as draft:
        for name, data in files.items():
            (draft.directory / name).write_bytes(data)
        tree.publish(draft, 30, signer)


def read_back(tree: PublishedTree, version: int) -> dict[str, bytes]:
    return {name.removeprefix(f"{version}/"): tree.read(name) for name in tree.names(version)}


def allow_everybody_to_read(proxy: Proxy) -> None:
    """The policy of docs/object-store.md."""
    from s3fs import S3FileSystem

    what = {"Effect": "Allow", "Principal": "*", "Action": "s3:GetObject", "Resource": f"arn:aws:s3:::{proxy.bucket}/*"}
    policy = json.dumps({"Version": "2012-10-17", "Statement": [what]})
    S3FileSystem(skip_instance_cache=True).call_s3("put_bucket_policy", Bucket=proxy.bucket, Policy=policy)


# -- what is there -----------------------------------------------------------------------------------------------------


def test_a_published_version_is_read_back(tree: PublishedTree, signer: Signer) -> None:
    assert tree.latest() == 0
    publish(tree, 10, content(10), signer)
    publish(tree, 20, content(20), signer)

    assert tree.latest() == 20
    assert read_back(tree, 20) == content(20)
    assert tree.names(20)["20/format"] == 2
    assert tree.names(2) == {}
    found = tree.version(10).manifest("os-core")
    assert found is not None
    assert found.version == 10
    assert tree.read("version/format30/first") == b"10"
    assert not tree.has("version/format31/first")


def test_a_large_file_is_sent_and_read_in_parts(
    tree: PublishedTree, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(objectstore, "PART_BYTES", 5 << 20)
    monkeypatch.setattr(objectstore, "READ_BYTES", 1 << 20)
    data = bytes(range(256)) * (11 << 12)
    publish(tree, 10, {**content(10), "pack": data})
    assert [change for change in proxy.take_changes() if change.startswith("POST")] == ["POST 10/pack"] * 2
    assert tree.names(10)["10/pack"] == len(data)

    with tree.open("10/pack") as file:
        assert b"".join(iter(lambda: file.read(1_000_003), b"")) == data
    publish(tree, 10, {**content(10), "pack": data})
    assert [change for change in proxy.take_changes() if "pack" in change] == []


def test_a_file_that_is_replaced_while_it_is_read_is_an_error(
    tree: PublishedTree, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(objectstore, "READ_BYTES", 1 << 16)
    publish(tree, 10, {**content(10), "pack": bytes(1 << 20)})

    def read() -> None:
        with tree.open("10/pack") as file:
            file.read(1)
            tree.add(10, [("pack", b"x" * (1 << 20))])
            file.read()

    with pytest.raises(BuildError, match=f"cannot read s3://{proxy.bucket}/mix/10/pack: "):
        read()


def test_everybody_may_read_and_caches_keep_what_is_never_replaced(
    tree: PublishedTree, proxy: Proxy, signer: Signer
) -> None:
    publish(tree, 10, content(10), signer)
    replaced = ["10/update-index", "10/update-index.sig", "10/checksums", "10/checksums.sig"]
    tree.add(10, [(name.removeprefix("10/"), b"") for name in replaced])
    allow_everybody_to_read(proxy)

    def get(name: str) -> tuple[bytes, str, str]:
        with urllib.request.urlopen(f"{proxy.url}/{proxy.bucket}/mix/{name}", timeout=30) as answer:
            return answer.read(), answer.headers["Cache-Control"], answer.headers["Content-Type"]

    for name in SIGNED_LATEST + replaced:
        assert get(name) == (tree.read(name), "no-cache", "application/octet-stream")
    for name, data in content(10).items():
        assert get(f"10/{name}") == (data, "public, max-age=31536000", "application/octet-stream")


def test_a_missing_file_and_a_missing_version_are_named(tree: PublishedTree, proxy: Proxy) -> None:
    with pytest.raises(BuildError, match=f"cannot read s3://{proxy.bucket}/mix/10/x: there is no such object"):
        tree.read("10/x")
    with pytest.raises(BuildError, match="version 10 is not in s3://"):
        tree.version(10)


# -- the order ---------------------------------------------------------------------------------------------------------


def test_clients_learn_of_a_version_when_all_of_it_is_there(tree: PublishedTree, proxy: Proxy, signer: Signer) -> None:
    publish(tree, 10, content(10), signer)
    proxy.take_changes()

    publish(tree, 20, content(20), signer)

    changes = proxy.take_changes()
    assert changes[-7:] == [
        "PUT 20/Manifest.MoM.tar",
        "PUT 20/Manifest.MoM.sig",
        "PUT 20/Manifest.MoM",
        *(f"PUT {name}" for name in SIGNED_LATEST),
    ]
    assert sorted(changes[:-4]) == sorted(f"PUT 20/{name}" for name in content(20))


def test_a_version_built_again_gets_its_new_objects_first_and_loses_the_old_ones_last(
    tree: PublishedTree, proxy: Proxy
) -> None:
    publish(tree, 10, content(10))
    proxy.take_changes()

    publish(tree, 10, {**content(10, path="/y", objects=5), "files/new.tar": b"new"})

    changes = [change for change in proxy.take_changes() if ".sig" not in change or "MoM" in change]
    assert changes[0] == "PUT 10/files/new.tar"
    assert sorted(changes[1:3]) == ["PUT 10/Manifest.os-core", "PUT 10/Manifest.os-core.tar"]
    assert changes[3:] == [
        "PUT 10/Manifest.MoM.tar",
        "PUT 10/Manifest.MoM.sig",
        f"DELETE 10/files/{5:064x}.tar",
        "PUT 10/Manifest.MoM",
    ]


def test_the_same_version_again_changes_nothing_and_keeps_additions(
    tree: PublishedTree, proxy: Proxy, signer: Signer
) -> None:
    publish(tree, 10, content(10), signer)
    tree.add(10, [("pack-os-core-from-5.tar", b"delta pack")])
    proxy.take_changes()

    publish(tree, 10, content(10), signer)
    assert proxy.take_changes() == []
    publish(tree, 10, {**content(10), "format": b"31"}, signer)

    assert proxy.take_changes() == ["PUT 10/format"]
    assert tree.read("10/pack-os-core-from-5.tar") == b"delta pack"


def test_additions_appear_in_the_order_given_and_are_sent_once(
    tree: PublishedTree, proxy: Proxy, tmp_path: Path
) -> None:
    publish(tree, 10, content(10))
    pack = tmp_path / "pack"
    pack.write_bytes(b"pack")
    proxy.take_changes()

    tree.add(10, [("z.tar", pack), ("delta/5-10-x", b"delta"), ("index", b"1")])
    tree.add(10, [("z.tar", pack), ("delta/5-10-x", b"delta"), ("index", b"2")])

    assert proxy.take_changes() == ["PUT 10/z.tar", "PUT 10/delta/5-10-x", "PUT 10/index", "PUT 10/index"]
    with pytest.raises(BuildError, match="version 20 is not in s3://"):
        tree.add(20, [("z.tar", pack)])


# -- failures ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("refusal", ["broken", "denied"])
def test_an_interrupted_upload_leaves_the_former_version_and_goes_on_where_it_stopped(
    tree: PublishedTree, proxy: Proxy, signer: Signer, refusal: Literal["broken", "denied"]
) -> None:
    publish(tree, 10, content(10), signer)
    proxy.take_changes()
    proxy.left, proxy.refusal = 5, refusal

    with pytest.raises(BuildError, match=f"^cannot upload s3://{proxy.bucket}/mix/20/[^\n]*$") as caught:
        publish(tree, 20, content(20), signer)

    uploaded = proxy.take_changes()
    assert len(uploaded) == 5
    assert tree.latest() == 10
    assert "very-secret" not in str(caught.value)
    assert ("AWS_ACCESS_KEY_ID" if refusal == "denied" else "what was uploaded is kept") in caught.value.hint
    proxy.left = None
    publish(tree, 20, content(20), signer)
    assert tree.latest() == 20
    rest = [change for change in proxy.take_changes() if change.startswith("PUT 20/")]
    assert sorted(uploaded + rest) == sorted(f"PUT 20/{name}" for name in content(20))


def test_whatever_interrupts_a_version_that_is_built_again_the_next_run_finishes_it(
    tree: PublishedTree, proxy: Proxy
) -> None:
    other = {**content(10, path="/y", objects=3), "files/new.tar": b"new"}
    publish(tree, 10, content(10, objects=5))
    tree.add(10, [("pack-os-core-from-5.tar", b"of the former content")])
    interrupted = 0
    for count in range(20):
        proxy.left = count
        try:
            publish(tree, 10, other)
            break
        except BuildError:
            interrupted += 1
            assert tree.latest() == 10

    assert interrupted > 4
    assert read_back(tree, 10) == other


def test_an_upload_that_was_given_up_leaves_nothing_in_the_next_version_of_that_number(
    tree: PublishedTree, proxy: Proxy
) -> None:
    proxy.left = 8
    with pytest.raises(BuildError):
        publish(tree, 10, {f"files/{number}": b"" for number in range(20)} | content(10))
    proxy.left = None

    publish(tree, 10, content(10))

    assert read_back(tree, 10) == content(10)


def test_a_store_that_falls_silent_is_given_up(proxy: Proxy, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(objectstore, "ANSWER_SECONDS", 2)
    monkeypatch.setattr(objectstore, "ATTEMPTS", 1)
    tree = tree_of(proxy, tmp_path)
    proxy.left, proxy.refusal = 2, "silent"

    with pytest.raises(BuildError, match=f"cannot upload s3://{proxy.bucket}/mix/10/.*: Read timeout"):
        publish(tree, 10, content(10))


def test_a_bucket_that_does_not_exist_is_noticed_at_once(proxy: Proxy, tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="cannot use s3://no-such-bucket/mix: The specified bucket") as caught:
        open_tree("s3://no-such-bucket/mix", tmp_path / "www", TextReport())

    assert "create the bucket" in caught.value.hint


def test_drafts_lie_in_the_workspace_and_never_stay(tree: PublishedTree, tmp_path: Path) -> None:
    left_over = tmp_path / "update/drafts/5/files"
    left_over.mkdir(parents=True)

    with tree.draft(10) as draft:
        assert draft.directory == tmp_path / "update/drafts/10"
        assert not left_over.exists()

    assert os.listdir(tmp_path / "update") == []


def test_both_places_hold_the_same_files(tree: PublishedTree, signer: Signer, tmp_path: Path) -> None:
    local = open_tree("", tmp_path / "local", TextReport())
    for place in (tree, local):
        publish(place, 10, content(10), signer)
        publish(place, 20, content(20), signer)
        place.add(20, [("pack-os-core-from-10.tar", b"pack")])
        publish(place, 20, content(20), signer)
        publish(place, 30, content(30), signer)
        place.add(30, [("pack-os-core-from-10.tar", b"pack")])
        publish(place, 30, content(30, path="/y", objects=9), None)

    for version in (10, 20, 30):
        assert read_back(tree, version) == read_back(local, version)
    for name in (*SIGNED_LATEST, "version/format30/first"):
        assert tree.former(name) == local.former(name)
