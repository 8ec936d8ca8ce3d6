"""Updates from servers that misbehave on purpose, from mirrors, through interruptions, and without any network.

Whatever a server does, an update brings exactly the new system or leaves exactly the old one, with a documented exit
status and one line that says why.
"""

from __future__ import annotations

import os
import signal
import socket
import struct
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from swupd.cli import main
from swupd.formats import archive, layout
from swupd.network.limits import FetchLimits

Client = Any
PublishedTree = Any
Fault = Any
Handler = BaseHTTPRequestHandler
Misdeed = Callable[[Handler, bytes], None]

CORE_20 = "4880eeaab1172b803609ce665c26ec25457cc545b50591b908c708e475f3d99f"
"""/usr/bin/core of version 20."""
LARGE_20 = "09a871261b09670a9d3cc55fdbee5158ad86a03f3c15dd7840097d9f097f144a"
"""An object of 1 MB of version 20."""
PLACES = {
    "latest": "/version/format1/latest",
    "signature": "/version/format1/latest.sig",
    "mom": "/20/Manifest.MoM.tar",
    "manifest": "/20/Manifest.libs.tar",
    "pack": "/20/pack-os-core-from-10.tar",
    "object": f"/20/files/{CORE_20}.tar",
}
STATUSES = {
    "latest": {16, 21},
    "signature": {16, 21},
    "mom": {4},
    "manifest": {14, 17},
    "object": {17},
    "pack": set[int](),
}
"""What an update may end with if it does not succeed; without a pack it always does."""


# -- what a server can do --------------------------------------------------------------------------------------------


def start(handler: Handler, status: int, **headers: str) -> None:
    handler.send_response(status)
    for name, value in headers.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.end_headers()
    # Whatever follows, this connection is of no further use.
    handler.close_connection = True


def answers(status: int, **headers: str) -> Misdeed:
    return lambda handler, data: start(handler, status, Content_Length="0", **headers)


def stops_at(part: float) -> Misdeed:
    """Promise all, send a part and close."""

    def answer(handler: Handler, data: bytes) -> None:
        start(handler, 200, Content_Length=str(len(data)), ETag='"x"')
        handler.wfile.write(data[: int(len(data) * part)])

    return answer


def says_length(change: int) -> Misdeed:
    """Send all, with another length."""

    def answer(handler: Handler, data: bytes) -> None:
        start(handler, 200, Content_Length=str(len(data) + change))
        with suppress(OSError):
            handler.wfile.write(data)

    return answer


def sends_another_part(handler: Handler, data: bytes) -> None:
    start(handler, 206, Content_Length=str(len(data) - 1), Content_Range=f"bytes 1-{len(data) - 1}/{len(data)}")
    handler.wfile.write(data[1:])


def stops_and_ignores_the_range(handler: Handler, data: bytes) -> None:
    """Break off the first time; answer a resumption with the beginning, as 200."""
    start(handler, 200, Content_Length=str(len(data)), ETag='"x"')
    handler.wfile.write(data if handler.headers.get("Range") else data[:-1])


def changes(handler: Handler, data: bytes) -> None:
    """Break off, and send the rest of something else under the same mark."""
    wanted = handler.headers.get("Range", "")
    begin = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted else 0
    other = bytes(byte ^ 0xFF for byte in data)
    if not begin:
        start(handler, 200, Content_Length=str(len(data)), ETag='"x"')
        handler.wfile.write(data[: len(data) // 2])
        return
    start(
        handler,
        206,
        Content_Length=str(len(data) - begin),
        Content_Range=f"bytes {begin}-{len(data) - 1}/{len(data)}",
        ETag='"x"',
    )
    handler.wfile.write(other[begin:])


def drips(handler: Handler, data: bytes) -> None:
    start(handler, 200, Content_Length=str(len(data)))
    with suppress(OSError):
        for byte in data:
            handler.wfile.write(bytes([byte]))
            time.sleep(0.1)


def drips_its_head(handler: Handler, data: bytes) -> None:
    handler.close_connection = True
    with suppress(OSError):
        for byte in b"HTTP/1.1 200 OK\r\nX-A: " + bytes(1000):
            handler.wfile.write(bytes([byte]))
            time.sleep(0.1)


def redirects_to_itself(handler: Handler, data: bytes) -> None:
    start(handler, 302, Location=handler.path, Content_Length="0")


def never_ends(handler: Handler, data: bytes) -> None:
    start(handler, 200)
    with suppress(OSError):
        while True:
            handler.wfile.write(data + bytes(65536))


def sends_garbage_chunks(handler: Handler, data: bytes) -> None:
    start(handler, 200, Transfer_Encoding="chunked")
    handler.wfile.write(b"5\r\nabcde\r\nnonsense\r\n" + data)


def resets(handler: Handler, data: bytes) -> None:
    start(handler, 200, Content_Length=str(len(data)))
    handler.wfile.write(data[: len(data) // 2])
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    handler.connection.close()


def says_nothing(handler: Handler, data: bytes) -> None:
    handler.close_connection = True


def sends_something_else(handler: Handler, data: bytes) -> None:
    page = b"<html>Please log in to this network</html>"
    start(handler, 200, Content_Length=str(len(page)), Content_Type="text/html")
    handler.wfile.write(page)


MISDEEDS = {
    "404": answers(404),
    "429": answers(429, Retry_After="0"),
    "500": answers(500),
    "stops at once": stops_at(0),
    "stops halfway": stops_at(0.5),
    "stops before the end": stops_at(0.99),
    "says too long": says_length(10),
    "says too short": says_length(-1),
    "ignores ranges": stops_and_ignores_the_range,
    "another part": sends_another_part,
    "changes": changes,
    "drips": drips,
    "drips its head": drips_its_head,
    "redirects to itself": redirects_to_itself,
    "never ends": never_ends,
    "garbage chunks": sends_garbage_chunks,
    "resets": resets,
    "says nothing": says_nothing,
    "sends something else": sends_something_else,
}


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch, client: Client) -> None:
    """Limits that a test can wait for, for commands that run in this process."""
    limits = FetchLimits(
        read_seconds=2, minimum_rate=10_000, grace_seconds=0.2, object_bytes=1 << 22, unannounced_bytes=1 << 22
    )
    monkeypatch.setattr("swupd.network.fetch.FetchLimits", lambda: limits)
    monkeypatch.setenv("SWUPD_CONFIG_PATH", str(client.config))


def update(client: Client, *arguments: str) -> int:
    """Update in this process."""
    return main(client.argv("update", "--max-retries", "1", "--yes", *arguments)[3:])


def is_new(client: Client) -> bool:
    return "VERSION_ID=20\n" in (client.root / "usr/lib/os-release").read_text()


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("misdeed", MISDEEDS)
def test_a_server_that_never_does_right_leads_to_the_new_system_or_the_old_one(  # noqa: PLR0917 (fixtures)
    client: Client,
    tree: PublishedTree,
    fault: Fault,
    impatient: None,
    capsys: pytest.CaptureFixture[str],
    misdeed: str,
    place: str,
) -> None:
    if place == "object":
        tree.remove("20/pack-*")
    if place == "manifest":
        tree.remove("20/Manifest-*-delta-*")
    before = client.snapshot()
    tree.faults[PLACES[place]] = fault(answer=MISDEEDS[misdeed])
    status = update(client)
    err = capsys.readouterr().err
    assert len(tree.requested(PLACES[place])) < 20
    if status == 0:
        client.check(20)
        return
    assert status in STATUSES[place], err
    assert client.snapshot() == before
    assert err.count("Error: ") == err.count("Hint: ") == 1
    if place == "object":
        tree.faults.clear()
        assert update(client) == 0
        client.check(20)


@pytest.mark.parametrize(
    "misdeed", sorted(MISDEEDS.keys() - {"404", "never ends", "redirects to itself", "sends something else"})
)
def test_a_server_that_does_wrong_once_does_not_matter(
    client: Client, tree: PublishedTree, fault: Fault, impatient: None, misdeed: str
) -> None:
    tree.remove("20/pack-*")
    for place in ("latest", "signature", "mom", "manifest", "object"):
        tree.faults[PLACES[place]] = fault(answer=MISDEEDS[misdeed], times=1)
    assert update(client) == 0
    client.check(20)


# -- mirrors ---------------------------------------------------------------------------------------------------------


def use_mirrors(client: Client, *urls: str) -> None:
    """As the administrator does; the vendor's server is one that would tell on us."""
    directory = client.root / "etc/swupd"
    directory.mkdir(exist_ok=True)
    for name in ("mirror_versionurl", "mirror_contenturl"):
        (directory / name).write_text("\n".join(urls) + "\n")


def run_with_mirrors(client: Client, *arguments: str, status: int = 0) -> Any:
    """An update whose URLs come from the files of the root."""
    argv = client.argv("update", "--max-retries", "1", "--yes", *arguments)
    begin = argv.index("--url")
    del argv[begin : begin + 2]
    done = subprocess.run(argv, env=client.environment(), capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == status, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done


@pytest.mark.parametrize("code", [404, 500])
def test_what_one_mirror_does_not_have_comes_from_the_next_one(
    client: Client, tree: PublishedTree, mirror: PublishedTree, fault: Fault, code: int
) -> None:
    for path in PLACES.values():
        tree.faults[path] = fault(status=code)
    for served in (tree, mirror):
        served.remove("20/pack-*")
    use_mirrors(client, tree.url, mirror.url)
    run_with_mirrors(client)
    client.check(20)
    assert mirror.requested(PLACES["object"])


def test_a_mirror_that_is_gone_is_told_once(client: Client, mirror: PublishedTree) -> None:
    use_mirrors(client, "http://127.0.0.1:1", mirror.url)
    done = run_with_mirrors(client)
    assert done.stderr.count("127.0.0.1:1/") == 1
    client.check(20)


def test_damaged_content_of_one_mirror_is_replaced_by_that_of_the_next_one(
    client: Client, tree: PublishedTree, mirror: PublishedTree
) -> None:
    for served in (tree, mirror):
        served.remove("20/pack-*")
        served.remove("20/Manifest-*-delta-*")
    for place in ("mom", "manifest", "object"):
        tree.flip(PLACES[place].lstrip("/"), 100)
    use_mirrors(client, tree.url, mirror.url)
    run_with_mirrors(client)
    client.check(20)
    assert mirror.requested(PLACES["object"]) == [PLACES["object"]]


def test_a_version_file_with_a_wrong_signature_is_taken_from_the_next_mirror(
    client: Client, tree: PublishedTree, mirror: PublishedTree
) -> None:
    tree.set_latest(30)
    use_mirrors(client, tree.url, mirror.url)
    done = run_with_mirrors(client)
    assert "Warning" in done.stderr
    client.check(20)


def test_a_directory_is_a_mirror_like_any_other(client: Client, example: Path) -> None:
    use_mirrors(client, "http://127.0.0.1:1", f"file://{example}/web-dir")
    run_with_mirrors(client)
    client.check(20)


def test_with_a_mirror_the_vendors_server_is_never_asked_and_the_mirror_never_forgotten(
    client: Client, tree: PublishedTree, mirror: PublishedTree
) -> None:
    defaults = client.root / "usr/share/defaults/swupd"
    before = {name: (defaults / name).read_bytes() for name in ("versionurl", "contenturl")}
    for name in before:
        (defaults / name).write_text(tree.url)
    mirror.remove("version/**/*")
    use_mirrors(client, mirror.url)
    run_with_mirrors(client, status=16)
    assert tree.requests == []
    assert {path.name for path in (client.root / "etc/swupd").iterdir()} >= {"mirror_versionurl", "mirror_contenturl"}


def test_the_cache_keeps_the_name_of_the_first_mirror(
    client: Client, tree: PublishedTree, mirror: PublishedTree
) -> None:
    use_mirrors(client, tree.url, mirror.url)
    run_with_mirrors(client, "--download")
    for path in PLACES.values():
        tree.remove(path.lstrip("/"))
    assert [path.name for path in (client.state / "cache").iterdir()] == [layout.cache_name(tree.url)]


# -- interruptions ---------------------------------------------------------------------------------------------------


def kill_when(client: Client, ready: Callable[[], bool], *arguments: str) -> None:
    process = client.start("update", "--yes", *arguments)
    end = time.monotonic() + 20
    while not ready():
        assert process.poll() is None, process.communicate()[0].decode()
        assert time.monotonic() < end
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()


def halts_at(size: int, ranges: list[str]) -> Misdeed:
    """Serve properly, but the first time stop after `size` bytes and keep the connection."""

    def answer(handler: Handler, data: bytes) -> None:
        wanted = handler.headers.get("Range", "")
        ranges.append(wanted)
        begin = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted else 0
        headers = {"Content_Range": f"bytes {begin}-{len(data) - 1}/{len(data)}"} if begin else {}
        start(handler, 206 if begin else 200, Content_Length=str(len(data) - begin), ETag='"same"', **headers)
        with suppress(OSError):
            handler.wfile.write(data[begin:] if begin else data[:size])
            if not begin:
                handler.connection.settimeout(20)
                handler.connection.recv(1)

    return answer


@pytest.mark.parametrize("kind", ["pack", "manifest", "object"])
def test_a_killed_process_leaves_what_the_next_one_goes_on_from(
    client: Client, tree: PublishedTree, fault: Fault, kind: str
) -> None:
    path = {"pack": PLACES["pack"], "manifest": PLACES["manifest"], "object": f"/20/files/{LARGE_20}.tar"}[kind]
    if kind == "object":
        tree.remove("20/pack-*")
    if kind == "pack":
        tree.replace(path[1:], tree.read(path[1:]).ljust(300_000, b"\0"))
    if kind == "manifest":
        tree.remove("20/Manifest-*-delta-*")
        packed = archive.manifest_tar({"Manifest.libs": tree.read("20/Manifest.libs")}, 0)
        tree.replace(path[1:], packed.ljust(300_000, b"\0"))
    ranges: list[str] = []
    tree.faults[path] = fault(answer=halts_at(100_000, ranges))
    name = {"pack": "pack-os-core-from-10-to-20.tar", "object": f"{LARGE_20}.tar"}.get(kind, "20-Manifest.libs.tar")

    def has_part() -> bool:
        parts = (client.state / "cache").glob(f"*/download/{name}.part")
        return any(part.stat().st_size == 100_000 for part in parts)

    before = client.snapshot()
    kill_when(client, has_part)
    assert client.snapshot() == before
    client.run("update", "--yes")
    client.check(20)
    assert ranges == ["", "bytes=100000-"]


# -- packs -----------------------------------------------------------------------------------------------------------


def test_packs_arrive_at_the_same_time_and_are_unpacked_while_others_still_come(
    client: Client, tree: PublishedTree, fault: Fault
) -> None:
    """One pack does not end before another one, asked for at the same time, has been unpacked."""
    staged: list[bool] = []

    def waits_for_the_other(handler: Handler, data: bytes) -> None:
        start(handler, 200, Content_Length=str(len(data)))
        handler.wfile.write(data[:100])
        end = time.monotonic() + 20
        while not (found := list((client.state / "cache").glob("*/pack-os-core-from-10-to-20.tar"))):
            if time.monotonic() > end:
                break
            time.sleep(0.02)
        staged.append(bool(found))
        handler.wfile.write(data[100:])

    tree.faults["/20/pack-libs-from-10.tar"] = fault(answer=waits_for_the_other)
    client.run("update", "--yes")
    client.check(20)
    assert staged == [True]


# -- without a network -----------------------------------------------------------------------------------------------


def test_what_was_downloaded_before_is_installed_without_a_network(client: Client, tree: PublishedTree) -> None:
    client.run("update", "--download", "--yes")
    asked = len(tree.requests)
    client.run("update", "--offline", "--yes")
    client.check(20)
    assert len(tree.requests) == asked


def test_offline_what_is_missing_in_the_cache_is_named_and_nothing_changes(client: Client, tree: PublishedTree) -> None:
    before = client.snapshot()
    result = client.run("update", "--offline", "--yes", status=16)
    assert "--offline" in result.err
    client.run("update", "--download", "--yes")
    for staged in (client.state / "cache").glob("*/staged/*"):
        staged.unlink() if not staged.is_dir() else staged.rmdir()
    for marker in (client.state / "cache").glob("*/pack-*"):
        marker.unlink()
    asked = len(tree.requests)
    result = client.run("update", "--offline", "--yes", status=17)
    assert "is not in the cache" in result.err
    assert result.err.count("Error: ") == result.err.count("Hint: ") == 1
    assert client.snapshot() == before
    assert len(tree.requests) == asked


def test_check_update_cannot_be_offline(client: Client, tree: PublishedTree) -> None:
    result = client.run("check-update", "--offline", status=16)
    assert "--offline" in result.err
    assert tree.requests == []


def test_a_cached_version_is_believed_only_with_its_signature(client: Client) -> None:
    client.run("update", "--download", "--yes")
    (mom,) = (client.state / "cache").glob("*/manifest/20/Manifest.MoM")
    mom.write_bytes(mom.read_bytes().replace(b"\t20\t", b"\t10\t"))
    result = client.run("update", "--offline", "--yes")
    assert "nothing newer" in result.out
    assert not is_new(client)


# -- a rate ----------------------------------------------------------------------------------------------------------


def test_an_update_keeps_to_its_rate(client: Client, tree: PublishedTree) -> None:
    client.run("update", "--download", "--yes")
    size = 0
    for path in set(tree.requests):
        size += len(tree.read(path.lstrip("/")) or b"")
    for name in ("manifest", "staged"):
        for directory in (client.state / "cache").glob(f"*/{name}"):
            subprocess.run(["rm", "-rf", directory], check=True)
    for marker in (client.state / "cache").glob("*/pack-*"):
        marker.unlink()
    rate = size // 2
    begin = time.monotonic()
    client.run("update", "--yes", "--limit-rate", str(rate))
    assert time.monotonic() - begin > 1.8
    client.check(20)
