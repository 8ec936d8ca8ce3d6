from __future__ import annotations

import http.client
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from mixer.errors import BuildError
from mixer.serve import TreeServer, serve
from swupd.report import TextReport

CONTENT = bytes(range(256)) * 40


@pytest.fixture
def www(tmp_path: Path) -> Path:
    www = tmp_path / "www"
    (www / "10/files").mkdir(parents=True)
    (www / "10/files/a.tar").write_bytes(CONTENT)
    (www / "10/empty").write_bytes(b"")
    (www / "10/with space").write_bytes(b"space")
    (www / ".20.new").mkdir()
    (www / ".20.new/Manifest.MoM").write_bytes(b"not yet")
    (tmp_path / "secret").write_bytes(b"secret")
    (www / "10/link").symlink_to("../../secret")
    (www / "out").symlink_to("..")
    return www


@pytest.fixture
def connection(www: Path) -> Iterator[http.client.HTTPConnection]:
    with TreeServer(www) as server:
        connection = http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=10)
        yield connection
        connection.close()


def ask(
    connection: http.client.HTTPConnection, path: str, method: str = "GET", **headers: str
) -> tuple[int, bytes, http.client.HTTPMessage]:
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request(method, path, headers=names)
    response = connection.getresponse()
    return response.status, response.read(), response.headers


def test_a_file_is_sent_whole_with_what_a_resume_needs(connection: http.client.HTTPConnection) -> None:
    status, data, headers = ask(connection, "/10/files/a.tar")

    assert (status, data) == (200, CONTENT)
    assert headers["Content-Length"] == str(len(CONTENT))
    assert headers["Accept-Ranges"] == "bytes"
    assert headers["ETag"].startswith('"')
    assert "Last-Modified" in headers


def test_an_empty_file_and_a_name_with_a_blank_are_files(connection: http.client.HTTPConnection) -> None:
    assert ask(connection, "/10/empty")[:2] == (200, b"")
    assert ask(connection, "/10/with%20space?query")[:2] == (200, b"space")


def test_head_sends_no_content(connection: http.client.HTTPConnection) -> None:
    status, data, headers = ask(connection, "/10/files/a.tar", "HEAD")

    assert (status, data, headers["Content-Length"]) == (200, b"", str(len(CONTENT)))


@pytest.mark.parametrize(
    ("wanted", "start", "end"),
    [
        ("bytes=100-199", 100, 200),
        ("bytes=10000-", 10000, 10240),
        ("bytes=-5", 10235, 10240),
        ("bytes=0-99999", 0, 10240),
    ],
)
def test_a_range_is_sent_alone(connection: http.client.HTTPConnection, wanted: str, start: int, end: int) -> None:
    status, data, headers = ask(connection, "/10/files/a.tar", Range=wanted)

    assert (status, data) == (206, CONTENT[start:end])
    assert headers["Content-Range"] == f"bytes {start}-{end - 1}/10240"


@pytest.mark.parametrize("wanted", ["bytes=0-1,5-6", "bytes=-", "bytes=9-1", "items=1-2", "bytes=a-b"])
def test_a_range_that_is_not_understood_is_ignored(connection: http.client.HTTPConnection, wanted: str) -> None:
    assert ask(connection, "/10/files/a.tar", Range=wanted)[:2] == (200, CONTENT)


@pytest.mark.parametrize("wanted", ["bytes=10240-", "bytes=99999-100000", "bytes=-0"])
def test_a_range_behind_the_end_is_refused(connection: http.client.HTTPConnection, wanted: str) -> None:
    status, data, headers = ask(connection, "/10/files/a.tar", Range=wanted)

    assert (status, data, headers["Content-Range"]) == (416, b"", "bytes */10240")


def test_a_range_holds_only_for_the_same_file(connection: http.client.HTTPConnection, www: Path) -> None:
    tag = ask(connection, "/10/files/a.tar", "HEAD")[2]["ETag"]
    assert ask(connection, "/10/files/a.tar", Range="bytes=0-9", If_Range=tag)[0] == 206

    (www / "10/files/a.tar").write_bytes(b"x" * 10240)

    assert ask(connection, "/10/files/a.tar", Range="bytes=0-9", If_Range=tag)[0] == 200


def test_an_unchanged_file_is_not_sent_again(connection: http.client.HTTPConnection) -> None:
    tag = ask(connection, "/10/files/a.tar", "HEAD")[2]["ETag"]

    assert ask(connection, "/10/files/a.tar", If_None_Match=f'"other", {tag}')[:2] == (304, b"")
    assert ask(connection, "/10/files/a.tar")[1] == CONTENT


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/10",
        "/10/",
        "/none",
        "/.20.new/Manifest.MoM",
        "/%2e20.new/Manifest.MoM",
        "/../secret",
        "/10/../../secret",
        "/10/%2e%2e/%2e%2e/secret",
        "/10/..%2f..%2fsecret",
        "/10/link",
        "/out/secret",
        "/10/empty%00",
        "//secret",
    ],
)
def test_nothing_but_published_files_exists(connection: http.client.HTTPConnection, path: str) -> None:
    assert ask(connection, path)[:2] == (404, b"")


def test_other_methods_are_refused(connection: http.client.HTTPConnection) -> None:
    assert ask(connection, "/10/empty", "PUT")[0] == 501


def test_a_port_that_is_taken_is_an_error(www: Path) -> None:
    with TreeServer(www) as server, pytest.raises(BuildError, match="cannot serve on"):
        TreeServer(www, port=int(server.url.rpartition(":")[2]))


def test_a_tree_without_versions_is_not_served(www: Path) -> None:
    with pytest.raises(BuildError, match="nothing is published"):
        serve(www, TextReport())


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_the_command_serves_until_it_is_told_to_stop(www: Path, stop: signal.Signals) -> None:
    (www / "version").mkdir()
    (www / "version/latest_version").write_text("10")
    (www / "10/Manifest.MoM").write_text(
        f"MANIFEST\t30\nversion:\t10\nprevious:\t0\nfilecount:\t1\ntimestamp:\t1\ncontentsize:\t0\n\n"
        f"M...\t{'a' * 64}\t10\tos-core\n"
    )
    program = (
        "import sys; from pathlib import Path; from mixer.serve import serve; from swupd.report import TextReport; "
        "serve(Path(sys.argv[1]), TextReport(), port=0)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, www], stdout=subprocess.PIPE, text=True, env=dict(os.environ)
    ) as process:
        assert process.stdout is not None
        first = process.stdout.readline()
        url = first.split()[-1]
        with urllib.request.urlopen(f"{url}/10/files/a.tar", timeout=10) as response:
            assert response.read() == CONTENT
        process.send_signal(stop)
        rest = process.stdout.read()
        assert process.wait(10) == 0
    assert "(version 10)" in first
    assert f"swupd os-install NEW_ROOT --url {url} --allow-insecure-http --format 30 --nosigcheck" in rest
