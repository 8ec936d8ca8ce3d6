"""Which of several equal servers is asked first."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from swupd.errors import DownloadError, NotOnServerError, TlsError
from swupd.network.limits import FetchLimits
from swupd.network.mirrors import Mirrors, server_of
from swupd.network.transport import NotReachedError, RangeRefusedError, TemporaryError
from swupd.settings import Settings

A, B, C = "https://a.example.org/x", "https://b.example.org/y", "https://c.example.org"


def make(**changes: Any) -> Mirrors:
    values: dict[str, Any] = {
        "root": Path("/"),
        "cache_dir": Path("/x"),
        "data_dir": Path("/x"),
        "content_url": A,
        "content_mirrors": (B, C),
        "version_url": A,
        "version_mirrors": (C,),
        "format": "1",
        "certificate": Path("/x"),
    }
    return Mirrors(Settings(**values | changes), FetchLimits(mirror_failures=3))


def urls(name: str = "10/f") -> list[str]:
    return [f"{A}/{name}", f"{B}/{name}", f"{C}/{name}"]


def test_an_object_has_a_place_at_each_mirror() -> None:
    assert make().of_object(f"{A}/10/f") == urls()


def test_what_is_not_below_the_content_url_has_one_place() -> None:
    for url in ("https://elsewhere.example.org/10/f", f"{A}yz/10/f", A):
        assert make().of_object(url) == [url]


def test_without_mirrors_there_is_one_place() -> None:
    assert make(content_mirrors=()).of_object(f"{A}/10/f") == [f"{A}/10/f"]


def test_version_files_have_mirrors_of_their_own() -> None:
    assert make().of_version_file("version/latest") == [f"{A}/version/latest", f"{C}/version/latest"]


def test_a_server_that_cannot_be_used_is_asked_last_and_told_once() -> None:
    mirrors = make()
    assert mirrors.failed(f"{A}/10/f", TlsError("no"))
    assert not mirrors.failed(f"{A}/10/g", TlsError("no"))
    assert mirrors.in_order(urls()) == [*urls()[1:], urls()[0]]
    mirrors.succeeded(f"{A}/10/h")
    assert mirrors.in_order(urls()) == [*urls()[1:], urls()[0]]


def test_a_server_that_was_not_reached_is_left_alone_for_a_while() -> None:
    mirrors = make()
    assert mirrors.failed(f"{A}/10/f", NotReachedError("no"))
    assert mirrors.in_order(urls()) == urls()[1:]
    assert mirrors.in_order(urls()[:1]) == urls()[:1]


def test_a_single_failure_that_may_pass_changes_nothing_but_several_in_a_row_do() -> None:
    mirrors = make()
    error = TemporaryError("status 500")
    assert not mirrors.failed(f"{A}/10/f", error)
    assert not mirrors.failed(f"{A}/10/f", error)
    mirrors.succeeded(f"{A}/10/f")
    assert [mirrors.failed(f"{A}/10/{n}", error) for n in range(3)] == [False, False, True]
    assert mirrors.in_order(urls())[-1] == urls()[0]


def test_what_a_server_does_not_have_says_nothing_against_it() -> None:
    mirrors = make()
    for _ in range(10):
        assert not mirrors.failed(f"{A}/10/f", NotOnServerError("404"))
        assert not mirrors.failed(f"{A}/10/f", RangeRefusedError("416"))
    assert mirrors.in_order(urls()) == urls()


def test_who_gave_something_wrong_is_asked_last_for_it() -> None:
    mirrors = make()
    mirrors.succeeded(urls()[0])
    assert mirrors.in_order(urls()) == urls()
    assert mirrors.in_order(urls(), uncached=True) == [*urls()[1:], urls()[0]]
    assert mirrors.in_order(urls("10/g"), uncached=True) == urls("10/g")


def test_if_all_are_bad_they_are_asked_in_their_order() -> None:
    mirrors = make()
    for url in urls():
        mirrors.failed(url, DownloadError("no"))
    assert mirrors.in_order(urls()) == urls()


def test_the_name_of_a_server_has_no_password() -> None:
    assert server_of("https://name:secret@example.org:8443/x") == "https://example.org:8443"
