"""Downloads against servers that misbehave on purpose: they succeed completely or fail cleanly."""

from __future__ import annotations

import errno
import io
import os
import signal
import socketserver
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from swupd.errors import (
    DiskSpaceError,
    DownloadError,
    NotOnServerError,
    OfflineError,
    StateDirectoryError,
    UnsafePathError,
    UsageError,
)
from swupd.fs import Directory
from swupd.network.fetch import Download, Fetcher, FetchLimits
from swupd.report import TextReport
from swupd.settings import Settings

CONTENT = bytes(range(256)) * 1024
"""256 KiB: more than one chunk, and worth a note for a later run."""
LIMIT = 1 << 20
Answer = Callable[["Handler"], None]


class Handler(BaseHTTPRequestHandler):
    """Answers with what the test put into `server.answers[path]`, one after the other, the last one for ever."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Server

    def do_GET(self) -> None:
        with self.server.lock:
            self.server.seen.append((self.command, self.path, dict(self.headers.items())))
            answers = self.server.answers.get(self.path, [status(404)])
            answer = answers.pop(0) if len(answers) > 1 else answers[0]
        answer(self)

    def start(self, code: int, **headers: str) -> None:
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()

    def log_message(self, *args: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def server_bind(self) -> None:
        """Without the look-up of the host's name, which takes its time."""
        socketserver.TCPServer.server_bind(self)

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers: dict[str, list[Answer]] = {}
        self.seen: list[tuple[str, str, dict[str, str]]] = []
        self.lock = threading.Lock()

    def url(self, path: str = "/file") -> str:
        return f"http://127.0.0.1:{self.server_address[1]}{path}"

    def header(self, name: str) -> list[str | None]:
        return [headers.get(name) for _, _, headers in self.seen]

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away is part of the tests."""


def status(code: int, **headers: str) -> Answer:
    return lambda handler: handler.start(code, Content_Length="0", **headers)


def content(data: bytes = CONTENT, **headers: str) -> Answer:
    def answer(handler: Handler) -> None:
        handler.start(200, Content_Length=str(len(data)), **headers)
        handler.wfile.write(data)

    return answer


def truncated(data: bytes = CONTENT, at: int = 100_000, **headers: str) -> Answer:
    def answer(handler: Handler) -> None:
        handler.start(200, Content_Length=str(len(data)), **headers)
        handler.wfile.write(data[:at])
        handler.close_connection = True

    return answer


def ranged(data: bytes = CONTENT, tag: str = '"one"') -> Answer:
    """A server that resumes properly."""

    def answer(handler: Handler) -> None:
        wanted = handler.headers.get("Range")
        if wanted is None or handler.headers.get("If-Range") not in (None, tag):
            content(data, ETag=tag)(handler)
            return
        begin = int(wanted.removeprefix("bytes=").rstrip("-"))
        part = data[begin:]
        handler.start(
            206,
            Content_Length=str(len(part)),
            Content_Range=f"bytes {begin}-{len(data) - 1}/{len(data)}",
            ETag=tag,
        )
        handler.wfile.write(part)

    return answer


@pytest.fixture
def server() -> Iterator[Server]:
    yield from serve()


def serve() -> Iterator[Server]:
    server = Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def make_settings(tmp_path: Path, **changes: Any) -> Settings:
    values: dict[str, Any] = {
        "root": tmp_path,
        "cache_dir": tmp_path,
        "data_dir": tmp_path,
        "content_url": "",
        "version_url": "",
        "format": "1",
        "certificate": tmp_path / "none.pem",
        "retry_delay": 0,
        "allow_insecure_http": True,
    }
    return Settings(**values | changes)


def make_fetcher(tmp_path: Path, limits: FetchLimits | None = None, **changes: Any) -> Fetcher:
    return Fetcher(make_settings(tmp_path, **changes), TextReport(out=io.StringIO(), err=io.StringIO()), limits)


def get_file(fetcher: Fetcher, url: str, directory: Directory, name: str, *, limit: int) -> None:
    """Fetch a single file; raises what became of it."""
    for failure in fetcher.get_all([Download(url, name, limit)], directory, on_file=lambda _: None):
        raise failure.error


@pytest.fixture
def fetcher(tmp_path: Path) -> Iterator[Fetcher]:
    with make_fetcher(tmp_path) as fetcher:
        yield fetcher


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[Directory]:
    (tmp_path / "download").mkdir(mode=0o700)
    with Directory.open(tmp_path / "download") as directory:
        yield directory


def names(directory: Directory) -> set[str]:
    return set(directory.names())


def read(directory: Directory, name: str = "file") -> bytes:
    with directory.open_file(name) as file:
        return file.read()


# -- one object ------------------------------------------------------------------------------------------------------


def test_an_object_comes_into_memory(server: Server, fetcher: Fetcher) -> None:
    server.answers["/file"] = [content(b"hello")]
    assert fetcher.get(server.url(), limit=10) == b"hello"
    assert (fetcher.requests, fetcher.bytes_received) == (1, 5)


def test_an_empty_object_is_an_object(server: Server, fetcher: Fetcher, directory: Directory) -> None:
    server.answers["/file"] = [content(b"")]
    assert fetcher.get(server.url(), limit=10) == b""
    get_file(fetcher, server.url(), directory, "file", limit=10)
    assert read(directory) == b""


def test_a_file_can_be_asked_for_past_all_caches(server: Server, fetcher: Fetcher, directory: Directory) -> None:
    server.answers["/file"] = [content(b"hello")]
    fetcher.get_all([Download(server.url(), "file", 10, uncached=True)], directory, on_file=lambda _: None)
    assert server.header("Cookie") == ["request=uncached"]
    assert read(directory) == b"hello"


def test_an_object_comes_into_a_file_and_leaves_nothing_else(
    server: Server, fetcher: Fetcher, directory: Directory
) -> None:
    server.answers["/file"] = [ranged()]
    get_file(fetcher, server.url(), directory, "file", limit=LIMIT)
    assert read(directory) == CONTENT
    assert names(directory) == {"file"}


def test_a_file_that_exists_is_replaced(server: Server, fetcher: Fetcher, directory: Directory) -> None:
    directory.write_file("file", [b"old"])
    server.answers["/file"] = [content(b"new")]
    get_file(fetcher, server.url(), directory, "file", limit=LIMIT)
    assert read(directory) == b"new"


def test_requests_are_plain_gets_that_say_who_asks(server: Server, fetcher: Fetcher) -> None:
    server.answers["/file"] = [content(b"")]
    fetcher.get(server.url(), limit=10)
    command, _, headers = server.seen[0]
    assert command == "GET"
    assert headers["User-Agent"].startswith("swupd-client/")
    assert headers["Accept-Encoding"] == "identity"
    assert "Cookie" not in headers


def test_caches_can_be_asked_to_stay_out_of_it(server: Server, fetcher: Fetcher) -> None:
    server.answers["/file"] = [content(b"")]
    fetcher.get(server.url(), limit=10, uncached=True)
    assert server.header("Cookie") == ["request=uncached"]


def test_one_connection_serves_many_requests(server: Server, fetcher: Fetcher) -> None:
    ports: set[int] = set()

    def answer(handler: Handler) -> None:
        ports.add(handler.client_address[1])
        (status(404) if handler.path == "/none" else content(b"x"))(handler)

    server.answers |= {"/file": [answer], "/none": [answer]}
    for _ in range(3):
        fetcher.get(server.url(), limit=10)
        with pytest.raises(NotOnServerError):
            fetcher.get(server.url("/none"), limit=10)
    assert len(ports) == 1


def test_a_content_encoding_is_not_undone(server: Server, fetcher: Fetcher) -> None:
    server.answers["/file"] = [content(b"\x1f\x8b raw", Content_Encoding="gzip")]
    assert fetcher.get(server.url(), limit=100) == b"\x1f\x8b raw"


def test_chunked_content_is_put_together(server: Server, fetcher: Fetcher) -> None:
    def answer(handler: Handler) -> None:
        handler.start(200, Transfer_Encoding="chunked")
        handler.wfile.write(b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n")

    server.answers["/file"] = [answer]
    assert fetcher.get(server.url(), limit=10) == b"abcde"


@pytest.mark.parametrize("code", [403, 404, 410])
def test_what_is_not_on_the_server_is_not_asked_for_twice(server: Server, fetcher: Fetcher, code: int) -> None:
    server.answers["/file"] = [status(code)]
    with pytest.raises(NotOnServerError, match=f"status {code}") as caught:
        fetcher.get(server.url(), limit=10)
    assert server.url() in str(caught.value)
    assert len(server.seen) == 1


@pytest.mark.parametrize("code", [500, 503, 429, 408, 400])
def test_other_bad_answers_are_worth_a_retry(server: Server, fetcher: Fetcher, code: int) -> None:
    server.answers["/file"] = [status(code), status(code), content(b"at last")]
    assert fetcher.get(server.url(), limit=10) == b"at last"


def test_retries_end(server: Server, fetcher: Fetcher) -> None:
    server.answers["/file"] = [status(500)]
    with pytest.raises(DownloadError, match="status 500, after 4 attempts") as caught:
        fetcher.get(server.url(), limit=10)
    assert (len(server.seen), caught.value.exit_code) == (4, 17)


def test_without_retries_there_is_one_attempt(tmp_path: Path, server: Server) -> None:
    server.answers["/file"] = [status(500)]
    with make_fetcher(tmp_path, max_retries=0) as fetcher, pytest.raises(DownloadError):
        fetcher.get(server.url(), limit=10)
    assert len(server.seen) == 1


def test_the_delay_doubles_up_to_its_limit(tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr(threading.Event, "wait", lambda self, timeout=None: waits.append(timeout or 0))
    monkeypatch.setattr("swupd.network.attempts.JITTER", 0)
    server.answers["/file"] = [status(500)]
    with make_fetcher(tmp_path, retry_delay=10, max_retries=5) as fetcher, pytest.raises(DownloadError):
        fetcher.get(server.url(), limit=10)
    assert [seconds for seconds in waits if seconds] == [10, 20, 40, 60, 60]


def test_a_server_that_refuses_connections_is_not_asked_again(tmp_path: Path, server: Server) -> None:
    url = server.url().replace("127.0.0.1", "127.0.0.2")
    with (
        make_fetcher(tmp_path, retry_delay=60) as fetcher,
        pytest.raises(DownloadError, match="cannot connect") as caught,
    ):
        fetcher.get(url, limit=10)
    assert url in str(caught.value)


def test_a_host_without_address_is_one_clear_line(tmp_path: Path) -> None:
    with make_fetcher(tmp_path, retry_delay=60) as fetcher, pytest.raises(DownloadError) as caught:
        fetcher.get("http://updates.example.invalid/latest", limit=10)
    assert "\n" not in str(caught.value)
    assert "updates.example.invalid" in str(caught.value)


def test_a_broken_connection_is_worth_a_retry(server: Server, fetcher: Fetcher) -> None:
    def hang_up(handler: Handler) -> None:
        handler.close_connection = True

    server.answers["/file"] = [hang_up, content(b"ok")]
    assert fetcher.get(server.url(), limit=10) == b"ok"


def test_a_connection_that_the_server_has_closed_meanwhile_costs_no_retry(tmp_path: Path, server: Server) -> None:
    def closing(handler: Handler) -> None:
        content(b"x")(handler)
        # Without `Connection: close` the client cannot know.
        handler.close_connection = True

    server.answers["/file"] = [closing]
    with make_fetcher(tmp_path, max_retries=0) as fetcher:
        for _ in range(20):
            assert fetcher.get(server.url(), limit=10) == b"x"


def test_a_server_that_never_answers_is_given_up(tmp_path: Path, server: Server) -> None:
    server.answers["/file"] = [lambda handler: time.sleep(1)]
    limits = FetchLimits(read_seconds=0.1)
    with make_fetcher(tmp_path, limits, max_retries=0) as fetcher, pytest.raises(DownloadError, match="timed out"):
        fetcher.get(server.url(), limit=10)


def test_a_server_that_drips_is_given_up(tmp_path: Path, server: Server) -> None:
    def drip(handler: Handler) -> None:
        handler.start(200, Content_Length="1000")
        for _ in range(1000):
            handler.wfile.write(b"x")
            time.sleep(0.02)

    server.answers["/file"] = [drip]
    limits = FetchLimits(grace_seconds=0.1, minimum_rate=10_000)
    begin = time.monotonic()
    with make_fetcher(tmp_path, limits, max_retries=0) as fetcher, pytest.raises(DownloadError, match="too slow"):
        fetcher.get(server.url(), limit=LIMIT)
    assert time.monotonic() - begin < 10


# -- limits ----------------------------------------------------------------------------------------------------------


def test_a_promised_length_beyond_the_limit_is_refused_at_once(
    server: Server, fetcher: Fetcher, directory: Directory
) -> None:
    server.answers["/file"] = [content()]
    with pytest.raises(DownloadError, match="larger than the 100 bytes"):
        get_file(fetcher, server.url(), directory, "file", limit=100)
    assert (names(directory), fetcher.bytes_received, len(server.seen)) == (set(), 0, 1)


def test_endless_content_is_cut_off_at_the_limit(server: Server, fetcher: Fetcher, directory: Directory) -> None:
    def endless(handler: Handler) -> None:
        handler.start(200, Connection="close")
        while True:
            handler.wfile.write(b"x" * 65536)

    server.answers["/file"] = [endless]
    with pytest.raises(DownloadError, match="larger than"):
        fetcher.get(server.url(), limit=1000)
    with pytest.raises(DownloadError, match="larger than"):
        get_file(fetcher, server.url(), directory, "file", limit=1000)
    assert names(directory) == set()


def test_content_of_unknown_length_has_a_limit_of_its_own(tmp_path: Path, server: Server, directory: Directory) -> None:
    def endless(handler: Handler) -> None:
        handler.start(200)
        with suppress(OSError):
            while True:
                handler.wfile.write(CONTENT)

    server.answers["/file"] = [endless]
    with make_fetcher(tmp_path, FetchLimits(unannounced_bytes=1 << 20)) as fetcher:
        with pytest.raises(DownloadError, match="larger than the 1048576 bytes"):
            get_file(fetcher, server.url(), directory, "file", limit=1 << 40)
        assert fetcher.bytes_received < 2 << 20
    assert names(directory) == set()


def test_content_exactly_at_the_limit_is_fine(server: Server, fetcher: Fetcher) -> None:
    server.answers["/file"] = [content(b"12345")]
    assert fetcher.get(server.url(), limit=5) == b"12345"


def test_a_download_that_the_disk_has_no_room_for_is_not_begun(
    server: Server, fetcher: Fetcher, directory: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.answers["/file"] = [content(b"x" * (1 << 20))]
    real = os.fstatvfs(directory.fd)
    full = os.statvfs_result((real.f_bsize, real.f_frsize, 10, 10, 10, *real[5:]))
    monkeypatch.setattr(os, "fstatvfs", lambda fd: full)
    with pytest.raises(DiskSpaceError, match="1048576 bytes") as caught:
        get_file(fetcher, server.url(), directory, "file", limit=LIMIT)
    assert directory.path in str(caught.value)
    assert "--cachedir" in caught.value.hint


class FullFile(io.BytesIO):
    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number

    def write(self, data: Any) -> int:
        raise OSError(self.number, os.strerror(self.number))


@pytest.mark.parametrize(
    "case",
    [(errno.ENOSPC, DiskSpaceError), (errno.EDQUOT, DiskSpaceError), (errno.EIO, StateDirectoryError)],
)
def test_a_file_that_cannot_be_written_ends_the_download(
    server: Server,
    fetcher: Fetcher,
    directory: Directory,
    monkeypatch: pytest.MonkeyPatch,
    case: tuple[int, type[Exception]],
) -> None:
    number, kind = case
    server.answers["/file"] = [content()]
    monkeypatch.setattr(Directory, "append_file", lambda self, name, keep: FullFile(number))
    with pytest.raises(kind, match=directory.path):
        get_file(fetcher, server.url(), directory, "file", limit=LIMIT)
    assert len(server.seen) == 1


def test_a_link_in_the_place_of_an_unfinished_file_is_not_followed(
    server: Server, fetcher: Fetcher, directory: Directory, tmp_path: Path
) -> None:
    (tmp_path / "victim").write_text("precious")
    (tmp_path / "download/file.part").symlink_to(tmp_path / "victim")
    server.answers["/file"] = [content(b"new")]
    get_file(fetcher, server.url(), directory, "file", limit=LIMIT)
    assert (tmp_path / "victim").read_text() == "precious"
    assert read(directory) == b"new"


def test_what_follows_the_kept_part_of_an_unfinished_file_is_cut_off(directory: Directory) -> None:
    directory.write_file("file", [b"12345"])
    with directory.append_file("file", keep=2) as file:
        file.write(b"x")
    assert read(directory) == b"12x"


@pytest.mark.parametrize("name", ["link", "fifo", "directory"])
def test_only_regular_files_are_appended_to(directory: Directory, tmp_path: Path, name: str) -> None:
    (tmp_path / "download/link").symlink_to(tmp_path / "victim")
    os.mkfifo(tmp_path / "download/fifo")
    (tmp_path / "download/directory").mkdir()
    with pytest.raises(UnsafePathError, match="not a regular file"):
        directory.append_file(name, keep=0)
    assert not (tmp_path / "victim").exists()


# -- resumption ------------------------------------------------------------------------------------------------------


def test_truncated_content_is_never_taken_for_the_whole(server: Server, fetcher: Fetcher, directory: Directory) -> None:
    server.answers["/file"] = [truncated()]
    with pytest.raises(DownloadError, match="100000"):
        get_file(fetcher, server.url(), directory, "file", limit=LIMIT)
    with pytest.raises(DownloadError):
        fetcher.get(server.url(), limit=LIMIT)
    assert "file" not in names(directory)


def test_a_retry_goes_on_where_the_connection_broke(server: Server, fetcher: Fetcher, directory: Directory) -> None:
    server.answers["/file"] = [truncated(ETag='"one"'), ranged()]
    get_file(fetcher, server.url(), directory, "file", limit=LIMIT)
    assert read(directory) == CONTENT
    assert server.header("Range") == [None, "bytes=100000-"]
    assert fetcher.bytes_received == len(CONTENT)


def test_another_run_goes_on_where_this_one_ended(tmp_path: Path, server: Server, directory: Directory) -> None:
    server.answers["/file"] = [truncated(ETag='"one"'), ranged()]
    with make_fetcher(tmp_path, max_retries=0) as first, pytest.raises(DownloadError):
        get_file(first, server.url(), directory, "file", limit=LIMIT)
    assert names(directory) == {"file.part", "file.part.etag"}
    with make_fetcher(tmp_path) as second:
        get_file(second, server.url(), directory, "file", limit=LIMIT)
        assert second.bytes_received == len(CONTENT) - 100_000
    assert read(directory) == CONTENT
    assert names(directory) == {"file"}


def test_an_object_that_changed_meanwhile_is_fetched_from_its_beginning(
    server: Server, fetcher: Fetcher, directory: Directory
) -> None:
    changed = CONTENT[::-1]
    server.answers["/file"] = [truncated(ETag='"one"'), ranged(changed, '"two"')]
    get_file(fetcher, server.url(), directory, "file", limit=LIMIT)
    assert read(directory) == changed
    assert server.header("If-Range") == [None, '"one"']


def test_a_server_that_ignores_ranges_is_believed(server: Server, fetcher: Fetcher, directory: Directory) -> None:
    server.answers["/file"] = [truncated(ETag='"one"'), content(ETag='"one"')]
    get_file(fetcher, server.url(), directory, "file", limit=LIMIT)
    assert read(directory) == CONTENT


def test_a_date_is_as_good_as_a_tag(server: Server, fetcher: Fetcher, directory: Directory) -> None:
    date = "Tue, 14 Nov 2023 22:13:20 GMT"
    server.answers["/file"] = [truncated(Last_Modified=date), ranged(tag=date)]
    get_file(fetcher, server.url(), directory, "file", limit=LIMIT)
    assert server.header("If-Range") == [None, date]
    assert read(directory) == CONTENT


def test_without_a_validator_or_with_a_weak_one_nothing_is_resumed(
    server: Server, fetcher: Fetcher, directory: Directory
) -> None:
    server.answers["/file"] = [truncated(), truncated(ETag='W/"weak"'), content()]
    get_file(fetcher, server.url(), directory, "file", limit=LIMIT)
    assert server.header("Range") == [None, None, None]
    assert read(directory) == CONTENT


def test_an_object_that_was_complete_but_not_handed_over_is_not_fetched_again(
    server: Server, fetcher: Fetcher, directory: Directory
) -> None:
    directory.write_file("file.part", [CONTENT])
    directory.write_file("file.part.etag", [b'"one"'])
    server.answers["/file"] = [status(416, Content_Range=f"bytes */{len(CONTENT)}")]
    get_file(fetcher, server.url(), directory, "file", limit=LIMIT)
    assert (read(directory), fetcher.bytes_received) == (CONTENT, 0)
    assert names(directory) == {"file"}


def test_a_refused_range_needs_no_retry(tmp_path: Path, server: Server, directory: Directory) -> None:
    directory.write_file("file.part", [b"x"])
    directory.write_file("file.part.etag", [b'"one"'])
    server.answers["/file"] = [status(416), content()]
    with make_fetcher(tmp_path, max_retries=0) as fetcher:
        get_file(fetcher, server.url(), directory, "file", limit=LIMIT)
    assert read(directory) == CONTENT


def test_a_refused_range_restarts_from_the_beginning(server: Server, fetcher: Fetcher, directory: Directory) -> None:
    server.answers["/file"] = [truncated(ETag='"one"'), status(416), content()]
    get_file(fetcher, server.url(), directory, "file", limit=LIMIT)
    assert server.header("Range") == [None, "bytes=100000-", None]
    assert read(directory) == CONTENT


@pytest.mark.parametrize("header", ["bytes 5-9/262144", "bytes */262144", "nonsense", ""])
def test_another_part_than_asked_for_restarts_from_the_beginning(
    server: Server, fetcher: Fetcher, directory: Directory, header: str
) -> None:
    wrong = status(206, Content_Range=header)
    server.answers["/file"] = [truncated(ETag='"one"'), wrong, content()]
    get_file(fetcher, server.url(), directory, "file", limit=LIMIT)
    assert read(directory) == CONTENT


def test_a_part_that_nobody_asked_for_is_not_taken(server: Server, fetcher: Fetcher) -> None:
    server.answers["/file"] = [status(206, Content_Range="bytes 0-9/20"), content(b"all")]
    assert fetcher.get(server.url(), limit=10) == b"all"


def test_a_resumed_object_may_not_grow_beyond_the_limit(server: Server, fetcher: Fetcher, directory: Directory) -> None:
    server.answers["/file"] = [truncated(ETag='"one"'), ranged(CONTENT * 8)]
    with pytest.raises(DownloadError, match="larger than"):
        get_file(fetcher, server.url(), directory, "file", limit=LIMIT)
    assert "file" not in names(directory)


def test_an_unfinished_file_that_is_larger_than_the_limit_is_not_resumed(
    server: Server, fetcher: Fetcher, directory: Directory
) -> None:
    directory.write_file("file.part", [b"x" * 200])
    directory.write_file("file.part.etag", [b'"one"'])
    server.answers["/file"] = [ranged(b"short")]
    get_file(fetcher, server.url(), directory, "file", limit=100)
    assert read(directory) == b"short"


def test_a_note_for_resumption_that_is_no_header_is_ignored(
    server: Server, fetcher: Fetcher, directory: Directory
) -> None:
    directory.write_file("file.part", [b"x"])
    directory.write_file("file.part.etag", [b'"one"\r\nX: y'])
    server.answers["/file"] = [ranged(b"whole")]
    get_file(fetcher, server.url(), directory, "file", limit=100)
    assert read(directory) == b"whole"


# -- many ------------------------------------------------------------------------------------------------------------


def downloads(server: Server, count: int, prefix: str = "f") -> list[Download]:
    return [Download(server.url(f"/{prefix}{n}"), f"{prefix}{n}", LIMIT, n) for n in range(count)]


def test_many_objects_arrive_and_are_handed_over_in_the_callers_thread(
    server: Server, fetcher: Fetcher, directory: Directory
) -> None:
    for n in range(40):
        server.answers[f"/f{n}"] = [content(b"%d" % n)]
    arrived: dict[int, bytes] = {}

    def on_file(download: Download) -> None:
        assert threading.current_thread() is threading.main_thread()
        arrived[download.key] = read(directory, download.name)

    assert fetcher.get_all(downloads(server, 40), directory, on_file=on_file) == []
    assert arrived == {n: b"%d" % n for n in range(40)}


def test_no_downloads_are_no_work(fetcher: Fetcher, directory: Directory) -> None:
    assert fetcher.get_all([], directory, on_file=pytest.fail) == []


def test_downloads_run_at_the_same_time_but_not_more_than_allowed(
    tmp_path: Path, server: Server, directory: Directory
) -> None:
    together = threading.Barrier(4, timeout=10)
    active: set[int] = set()
    most = []

    def answer(handler: Handler) -> None:
        with server.lock:
            active.add(id(handler))
            most.append(len(active))
        together.wait()
        with server.lock:
            active.discard(id(handler))
        content(b"x")(handler)

    for n in range(8):
        server.answers[f"/f{n}"] = [answer]
    with make_fetcher(tmp_path, parallel=4) as fetcher:
        assert fetcher.get_all(downloads(server, 8), directory, on_file=lambda download: None) == []
    assert max(most) == 4


def test_failures_are_returned_and_do_not_stop_the_others(
    server: Server, fetcher: Fetcher, directory: Directory
) -> None:
    server.answers |= {"/f0": [status(404)], "/f1": [content(b"x")], "/f2": [status(500)]}
    arrived: list[int] = []
    failures = fetcher.get_all(downloads(server, 3), directory, on_file=lambda d: arrived.append(d.key))
    assert arrived == [1]
    assert {failure.download.key: type(failure.error) for failure in failures} == {
        0: NotOnServerError,
        2: DownloadError,
    }


def test_a_batch_can_do_without_retries(server: Server, fetcher: Fetcher, directory: Directory) -> None:
    server.answers["/f0"] = [status(500), content(b"x")]
    failures = fetcher.get_all(downloads(server, 1), directory, on_file=pytest.fail, retry=False)
    assert (len(failures), len(server.seen)) == (1, 1)


def test_a_server_that_went_away_is_not_asked_for_the_rest(
    tmp_path: Path, server: Server, directory: Directory
) -> None:
    for n in range(100):
        server.answers[f"/f{n}"] = [status(500)]
    limits = FetchLimits(failures_in_a_row=5)
    with make_fetcher(tmp_path, limits, max_retries=0, parallel=1) as fetcher:
        failures = fetcher.get_all(downloads(server, 100), directory, on_file=pytest.fail)
    assert len(failures) == 100
    assert len(server.seen) < 20
    assert "given up" in str(failures[-1].error)


def test_objects_that_are_missing_one_after_the_other_are_no_reason_to_give_up(
    tmp_path: Path, server: Server, directory: Directory
) -> None:
    server.answers["/f49"] = [content(b"x")]
    arrived: list[int] = []
    with make_fetcher(tmp_path, FetchLimits(failures_in_a_row=5)) as fetcher:
        fetcher.get_all(downloads(server, 50), directory, on_file=lambda d: arrived.append(d.key))
    assert arrived == [49]


def test_a_full_disk_ends_the_whole_batch(
    server: Server, fetcher: Fetcher, directory: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    for n in range(50):
        server.answers[f"/f{n}"] = [content(b"x")]
    monkeypatch.setattr(Directory, "append_file", lambda self, name, keep: FullFile(errno.ENOSPC))
    with pytest.raises(DiskSpaceError):
        fetcher.get_all(downloads(server, 50), directory, on_file=pytest.fail)


def test_an_error_of_the_caller_ends_the_batch_and_its_threads(
    server: Server, fetcher: Fetcher, directory: Directory
) -> None:
    for n in range(50):
        server.answers[f"/f{n}"] = [content(b"x")]

    def on_file(download: Download) -> None:
        raise RuntimeError("no")

    before = threading.active_count()
    with pytest.raises(RuntimeError, match="no"):
        fetcher.get_all(downloads(server, 50), directory, on_file=on_file)
    threads = [thread for thread in threading.enumerate() if "_work" in thread.name]
    assert threads == []
    assert before >= 1


def test_an_interruption_ends_the_batch_soon(tmp_path: Path, server: Server, directory: Directory) -> None:
    release = threading.Event()

    def stall(handler: Handler) -> None:
        release.wait(20)

    for n in range(20):
        server.answers[f"/f{n}"] = [stall]
    timer = threading.Timer(0.3, lambda: os.kill(os.getpid(), signal.SIGINT))
    begin = time.monotonic()
    try:
        with make_fetcher(tmp_path) as fetcher:
            timer.start()
            with pytest.raises(KeyboardInterrupt):
                fetcher.get_all(downloads(server, 20), directory, on_file=pytest.fail)
        assert time.monotonic() - begin < 5
    finally:
        release.set()
        timer.cancel()


def test_progress_never_goes_back_and_ends_complete(tmp_path: Path, server: Server, directory: Directory) -> None:
    shown: list[float] = []

    class Watched(TextReport):
        def progress(self, done: int, total: int, received: int = 0) -> None:
            shown.append(done / total)

    for n in range(10):
        server.answers[f"/f{n}"] = [content()]
    with Fetcher(make_settings(tmp_path), Watched(out=io.StringIO())) as fetcher:
        fetcher.get_all(downloads(server, 10), directory, on_file=lambda download: None)
    assert shown[-1] == 1
    assert shown == sorted(shown)


# -- mirrors ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def other() -> Iterator[Server]:
    yield from serve()


def mirrored(tmp_path: Path, *servers: Server | str, limits: FetchLimits | None = None, **changes: Any) -> Fetcher:
    first, *rest = [server if isinstance(server, str) else server.url("") for server in servers]
    return make_fetcher(tmp_path, limits, content_url=first, content_mirrors=tuple(rest), **changes)


DEAD = "http://127.0.0.1:1"


@pytest.mark.parametrize("wrong", [status(404), status(500), truncated(), status(302, Location="/file")])
def test_what_one_mirror_does_not_give_the_next_one_does(
    tmp_path: Path, server: Server, other: Server, directory: Directory, wrong: Answer
) -> None:
    server.answers["/file"] = [wrong]
    other.answers["/file"] = [content()]
    with mirrored(tmp_path, server, other, retry_delay=60) as fetcher:
        assert fetcher.get(server.url(), limit=LIMIT) == CONTENT
        get_file(fetcher, server.url(), directory, "file", limit=LIMIT)
    assert read(directory) == CONTENT


def test_a_mirror_that_cannot_be_reached_is_told_once_and_not_asked_for_the_rest(
    tmp_path: Path, server: Server, directory: Directory
) -> None:
    for n in range(30):
        server.answers[f"/f{n}"] = [content(b"x")]
    err = io.StringIO()
    settings = make_settings(tmp_path, content_url=DEAD, content_mirrors=(server.url(""),), parallel=1)
    with Fetcher(settings, TextReport(out=io.StringIO(), err=err)) as fetcher:
        wanted = [Download(f"{DEAD}/f{n}", f"f{n}", LIMIT) for n in range(30)]
        assert fetcher.get_all(wanted, directory, on_file=lambda _: None) == []
        assert fetcher.requests == 31
    assert err.getvalue().count(DEAD) == err.getvalue().count("Warning") == 1


def test_objects_that_a_reached_mirror_does_not_have_are_no_reason_to_give_up(
    tmp_path: Path, server: Server, directory: Directory
) -> None:
    server.answers["/f49"] = [content(b"x")]
    limits = FetchLimits(failures_in_a_row=5, mirror_rest_seconds=0)
    arrived: list[str] = []
    with mirrored(tmp_path, DEAD, server, limits=limits) as fetcher:
        wanted = [Download(f"{DEAD}/f{n}", f"f{n}", LIMIT) for n in range(50)]
        failures = fetcher.get_all(wanted, directory, on_file=lambda download: arrived.append(download.name))
    assert arrived == ["f49"]
    assert {type(failure.error) for failure in failures} == {NotOnServerError}


def test_all_mirrors_are_tried_before_there_is_a_wait(
    tmp_path: Path, server: Server, other: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []
    monkeypatch.setattr(threading.Event, "wait", lambda self, timeout=None: waits.append(timeout or 0))
    server.answers["/file"] = other.answers["/file"] = [status(500)]
    fetcher = mirrored(tmp_path, server, other, max_retries=1, retry_delay=1)
    with fetcher, pytest.raises(DownloadError, match="after 2 attempts"):
        fetcher.get(server.url(), limit=LIMIT)
    assert (len(server.seen), len(other.seen), len([wait for wait in waits if wait])) == (2, 2, 1)


def test_an_object_past_all_caches_comes_from_another_mirror_than_before(
    tmp_path: Path, server: Server, other: Server
) -> None:
    server.answers["/file"] = [content(b"damaged")]
    other.answers["/file"] = [content(b"right")]
    with mirrored(tmp_path, server, other) as fetcher:
        assert fetcher.get(server.url(), limit=LIMIT) == b"damaged"
        assert fetcher.get(server.url(), limit=LIMIT, uncached=True) == b"right"


def test_a_directory_can_be_a_mirror(tmp_path: Path, server: Server, directory: Directory) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/file").write_bytes(CONTENT)
    server.answers["/file"] = [status(500)]
    with mirrored(tmp_path, server, f"file://{tmp_path}/tree") as fetcher:
        get_file(fetcher, server.url(), directory, "file", limit=LIMIT)
    assert read(directory) == CONTENT


def test_a_mirror_goes_on_where_another_one_stopped_if_it_has_the_same_object(
    tmp_path: Path, server: Server, other: Server, directory: Directory
) -> None:
    server.answers["/file"] = [truncated(ETag='"one"')]
    other.answers["/file"] = [ranged()]
    with mirrored(tmp_path, server, other) as fetcher:
        get_file(fetcher, server.url(), directory, "file", limit=LIMIT)
    assert other.header("Range") == ["bytes=100000-"]
    assert read(directory) == CONTENT


def test_a_mirror_whose_object_has_another_mark_begins_at_the_beginning(
    tmp_path: Path, server: Server, other: Server, directory: Directory
) -> None:
    server.answers["/file"] = [truncated(b"x" * len(CONTENT), ETag='"other"')]
    other.answers["/file"] = [ranged()]
    with mirrored(tmp_path, server, other) as fetcher:
        get_file(fetcher, server.url(), directory, "file", limit=LIMIT)
    assert read(directory) == CONTENT


def test_if_no_mirror_helps_the_error_says_so(tmp_path: Path, server: Server, other: Server) -> None:
    with mirrored(tmp_path, server, other) as fetcher, pytest.raises(NotOnServerError, match="no other mirror"):
        fetcher.get(server.url(), limit=LIMIT)


# -- limits of time and rate -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [429, 503])
def test_a_server_may_say_when_to_come_back(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    waits: list[float] = []
    monkeypatch.setattr(threading.Event, "wait", lambda self, timeout=None: waits.append(timeout or 0))
    server.answers["/file"] = [status(code, Retry_After="7"), status(code, Retry_After="86400"), content(b"x")]
    with make_fetcher(tmp_path, FetchLimits(asked_seconds=100)) as fetcher:
        assert fetcher.get(server.url(), limit=10) == b"x"
    assert [wait for wait in waits if wait] == [7, 100]


def test_only_busy_servers_are_asked_when_to_come_back(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []
    monkeypatch.setattr(threading.Event, "wait", lambda self, timeout=None: waits.append(timeout or 0))
    server.answers["/file"] = [status(500, Retry_After="7"), content(b"x")]
    with make_fetcher(tmp_path) as fetcher:
        fetcher.get(server.url(), limit=10)
    assert [wait for wait in waits if wait] == []


def test_an_object_has_a_deadline_and_what_came_is_kept(tmp_path: Path, server: Server, directory: Directory) -> None:
    def slow(handler: Handler) -> None:
        handler.start(200, Content_Length=str(len(CONTENT)), ETag='"one"')
        for begin in range(0, len(CONTENT), 16384):
            handler.wfile.write(CONTENT[begin : begin + 16384])
            time.sleep(0.05)

    server.answers["/file"] = [slow, ranged()]
    fetcher = make_fetcher(tmp_path, FetchLimits(object_seconds=0.3))
    with fetcher, pytest.raises(DownloadError, match="takes too long"):
        get_file(fetcher, server.url(), directory, "file", limit=LIMIT)
    assert names(directory) == {"file.part", "file.part.etag"}
    with make_fetcher(tmp_path) as fetcher:
        get_file(fetcher, server.url(), directory, "file", limit=LIMIT)
    assert read(directory) == CONTENT


def test_there_is_no_wait_beyond_the_deadline(tmp_path: Path, server: Server) -> None:
    server.answers["/file"] = [status(503, Retry_After="100")]
    begin = time.monotonic()
    with make_fetcher(tmp_path, FetchLimits(object_seconds=5)) as fetcher, pytest.raises(DownloadError):
        fetcher.get(server.url(), limit=10)
    assert time.monotonic() - begin < 3


@pytest.mark.parametrize("where", ["head", "chunks", "trailer"])
def test_a_server_that_drips_what_is_no_content_is_given_up(tmp_path: Path, server: Server, where: str) -> None:
    def drip(handler: Handler) -> None:
        if where == "head":
            handler.wfile.write(b"HTTP/1.1 200 OK\r\n")
        else:
            handler.start(200, Transfer_Encoding="chunked")
        if where == "trailer":
            handler.wfile.write(b"1\r\nx\r\n0\r\n")
        with suppress(OSError):
            handler.wfile.write(b"5;a=" if where == "chunks" else b"X-A: ")
            while True:
                handler.wfile.write(b"a")
                time.sleep(0.02)

    server.answers["/file"] = [drip]
    limits = FetchLimits(grace_seconds=0.2, minimum_rate=1000)
    begin = time.monotonic()
    with make_fetcher(tmp_path, limits, max_retries=0) as fetcher, pytest.raises(DownloadError, match="too slow"):
        fetcher.get(server.url(), limit=10)
    assert time.monotonic() - begin < 3


def test_all_downloads_together_keep_to_a_rate(tmp_path: Path, server: Server, directory: Directory) -> None:
    for n in range(6):
        server.answers[f"/f{n}"] = [content(CONTENT[:50_000])]
    begin = time.monotonic()
    with make_fetcher(tmp_path, limit_rate=200_000) as fetcher:
        assert fetcher.get_all(downloads(server, 6), directory, on_file=lambda _: None) == []
    assert 1.3 < time.monotonic() - begin < 1.9


def test_a_rate_of_our_own_is_no_reason_to_call_the_server_slow(tmp_path: Path, server: Server) -> None:
    server.answers["/file"] = [content(CONTENT[:2000])]
    limits = FetchLimits(grace_seconds=0.1, minimum_rate=100_000, object_seconds=0.5)
    with make_fetcher(tmp_path, limits, limit_rate=2000) as fetcher:
        assert fetcher.get(server.url(), limit=LIMIT) == CONTENT[:2000]


def test_a_rate_does_not_hold_up_an_interruption(tmp_path: Path, server: Server, directory: Directory) -> None:
    server.answers["/f0"] = [content()]
    timer = threading.Timer(0.3, lambda: os.kill(os.getpid(), signal.SIGINT))
    begin = time.monotonic()
    with make_fetcher(tmp_path, limit_rate=10) as fetcher:
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            fetcher.get_all(downloads(server, 1), directory, on_file=pytest.fail)
    assert time.monotonic() - begin < 5


def test_progress_tells_the_bytes_of_this_call(tmp_path: Path, server: Server, directory: Directory) -> None:
    told: list[int] = []

    class Watched(TextReport):
        def progress(self, done: int, total: int, received: int = 0) -> None:
            told.append(received)

    server.answers |= {"/f0": [content()], "/f1": [content(b"x")]}
    with Fetcher(make_settings(tmp_path), Watched(out=io.StringIO())) as fetcher:
        for download in downloads(server, 2):
            fetcher.get_all([download], directory, on_file=lambda _: None)
            assert told[-1] == len(CONTENT if download.key == 0 else b"x")


# -- offline ---------------------------------------------------------------------------------------------------------


def test_offline_nothing_is_asked_for(tmp_path: Path, server: Server, directory: Directory) -> None:
    with make_fetcher(tmp_path, offline=True) as fetcher:
        with pytest.raises(OfflineError, match="--offline"):
            fetcher.get(server.url(), limit=10)
        failures = fetcher.get_all(downloads(server, 30), directory, on_file=pytest.fail)
        assert {type(failure.error) for failure in failures} == {OfflineError}
        assert fetcher.requests == 0
    assert (len(failures), server.seen) == (30, [])


# -- file URLs -------------------------------------------------------------------------------------------------------


def test_file_urls_are_read_from_the_disk(tmp_path: Path, fetcher: Fetcher, directory: Directory) -> None:
    (tmp_path / "a b").write_bytes(CONTENT)
    assert fetcher.get(f"file://{tmp_path}/a%20b", limit=LIMIT) == CONTENT
    get_file(fetcher, f"file://{tmp_path}/a%20b", directory, "file", limit=LIMIT)
    assert read(directory) == CONTENT


def test_file_urls_know_limits_too(tmp_path: Path, fetcher: Fetcher) -> None:
    (tmp_path / "large").write_bytes(CONTENT)
    with pytest.raises(DownloadError, match="larger than"):
        fetcher.get(f"file://{tmp_path}/large", limit=100)


@pytest.mark.parametrize("name", ["missing", "directory", "fifo"])
def test_a_file_url_without_a_file_is_not_on_the_server(tmp_path: Path, fetcher: Fetcher, name: str) -> None:
    (tmp_path / "directory").mkdir()
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(NotOnServerError, match=name):
        fetcher.get(f"file://{tmp_path}/{name}", limit=100)


def test_an_unencrypted_connection_needs_permission(tmp_path: Path, server: Server) -> None:
    with make_fetcher(tmp_path, allow_insecure_http=False) as fetcher, pytest.raises(UsageError) as caught:
        fetcher.get(server.url(), limit=10)
    assert "--allow-insecure-http" in caught.value.hint
    assert server.seen == []
