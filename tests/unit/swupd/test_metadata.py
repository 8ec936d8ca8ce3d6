from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swupd import metadata
from swupd.errors import DownloadError, ProjectError, UsageError
from swupd.formats.manifest import Entry, FileType, Manifest
from swupd.metadata import Found, path_filter

HASH = "1" * 64


def entry(name: str, kind: FileType = FileType.FILE) -> Entry:
    return Entry.present(kind, HASH, 10, name)


def bundle(*entries: Entry, includes: tuple[str, ...] = (), also_add: tuple[str, ...] = ()) -> Manifest:
    return Manifest(30, 10, 0, 1, len(entries), includes=includes, also_add=also_add, entries=entries)


MOM = Manifest(30, 10, 0, 1, 0, entries=tuple(entry(name, FileType.MANIFEST) for name in ("a", "b", "c")))


class Shelf:
    """Has manifests as a server has them; None is one that cannot be had."""

    def __init__(self, **manifests: Manifest | None) -> None:
        self._manifests = manifests

    def each_bundle(
        self, mom: Manifest, names: Iterable[str], visit: Callable[[str, Manifest], None]
    ) -> dict[str, ProjectError]:
        assert mom is MOM
        failures: dict[str, ProjectError] = {}
        for name in names:
            manifest = self._manifests[name]
            if manifest is None:
                failures[name] = DownloadError(f"no {name}")
            else:
                visit(name, manifest)
        return failures


def shelf(**manifests: Manifest | None) -> Any:
    return cast("Any", Shelf(**manifests))


def test_headers_do_not_hold_the_entries() -> None:
    manifests = metadata.headers(shelf(a=bundle(entry("/a"), includes=("b",))), MOM, ["a"])
    assert manifests == {"a": Manifest(30, 10, 0, 1, 1, includes=("b",))}


def test_a_closure_follows_all_that_the_mom_has() -> None:
    server = shelf(a=bundle(includes=("b", "gone")), b=bundle(also_add=("c", "gone")), c=bundle(includes=("a",)))
    assert set(metadata.closure(server, MOM, "a")) == {"a", "b", "c"}


def test_paths_of_several_bundles_are_one_list() -> None:
    server = shelf(
        a=bundle(entry("/x"), entry("/d", FileType.DIRECTORY)), b=bundle(entry("/x"), Entry.deleted(10, "/y"))
    )
    assert metadata.paths(server, MOM, ["a", "b"]) == ["/d", "/x"]


@pytest.mark.parametrize("look", [metadata.headers, metadata.paths])
def test_a_manifest_that_cannot_be_had_is_an_error(look: Callable[[Any, Manifest, list[str]], object]) -> None:
    with pytest.raises(DownloadError, match="no b"):
        look(shelf(a=bundle(), b=None), MOM, ["a", "b"])


def test_a_search_finds_files_and_links_and_tells_what_it_could_not_look_at() -> None:
    server = shelf(
        b=bundle(
            entry("/x/2"), entry("/x/1", FileType.LINK), entry("/x", FileType.DIRECTORY), Entry.deleted(10, "/x/3")
        ),
        a=bundle(entry("/x/9")),
        c=None,
    )
    found, missing = metadata.search(server, MOM, ["b", "a", "c"], path_filter("/x"))
    assert found == [Found("a", 1, ("/x/9",)), Found("b", 4, ("/x/1", "/x/2"))]
    assert list(missing) == ["c"]


@given(st.text(max_size=10), st.text(max_size=5), st.text(max_size=5))
def test_a_term_is_found_wherever_it_stands(term: str, before: str, after: str) -> None:
    path = f"/usr/bin/{before}{term}{after}"
    assert path_filter(term)(path)
    assert path_filter(term, prefixes=["/usr/lib", "/usr/bin/"])(path)
    assert not path_filter(term, prefixes=["/etc"])(path)


@given(st.text(alphabet="aB", max_size=8))
def test_upper_and_lower_case_are_the_same_in_terms_and_expressions(term: str) -> None:
    for regexp in (False, True):
        assert path_filter(term.swapcase(), regexp=regexp)(f"/x{term}")


def test_an_expression_that_is_none_names_the_term() -> None:
    with pytest.raises(UsageError, match="the term"):
        path_filter("(", regexp=True)
