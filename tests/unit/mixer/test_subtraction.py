from __future__ import annotations

from collections.abc import Collection, Mapping

from mixer.composition import ComposedBundle
from mixer.scan import Record
from mixer.subtraction import Listings, also_adds_of, includes_of, parents, subtracted
from swupd.formats.manifest import FileType

DIRECTORY = Record(FileType.DIRECTORY, "d" * 64, 0)
FILE = Record(FileType.FILE, "f" * 64, 1)


def bundles(**includes: tuple[str, ...]) -> dict[str, ComposedBundle]:
    made = {
        name.replace("_", "-"): ComposedBundle(name.replace("_", "-"), includes=of) for name, of in includes.items()
    }
    return {"os-core": ComposedBundle("os-core"), **made}


def test_os_core_is_the_first_include_and_unknown_ones_are_dropped() -> None:
    mix = bundles(a=("b", "gone", "os-core", "b", "a"), b=())

    assert includes_of(mix["a"], mix) == ("os-core", "b")
    assert includes_of(mix["os-core"], mix) == ()


def test_includes_are_followed_to_the_end() -> None:
    assert subtracted(bundles(a=("b",), b=("c",), c=()))["a"] == ["os-core", "b", "c"]


def test_of_a_cycle_the_first_member_keeps_common_paths() -> None:
    above = subtracted(bundles(a=("b",), b=("c",), c=("a",), d=("a",)))

    assert above["a"] == ["os-core"]
    assert above["b"] == ["os-core", "a"]
    assert above["c"] == ["os-core", "a", "b"]
    assert above["d"] == ["os-core", "a", "b", "c"]


def test_os_core_keeps_its_paths_though_it_includes_others() -> None:
    mix = {**bundles(a=()), "os-core": ComposedBundle("os-core", includes=("a",))}

    assert subtracted(mix) == {"os-core": [], "a": ["os-core"]}


RECORDS: Mapping[str, Record] = {
    "/usr": DIRECTORY,
    "/usr/share": DIRECTORY,
    "/usr/share/foo": DIRECTORY,
    "/usr/share/foo/deep": DIRECTORY,
    "/usr/share/foo/deep/file": FILE,
    "/usr/share/foo/other": FILE,
    "/usr/share/empty": DIRECTORY,
}


def selected(paths: set[str], core: Collection[str] = (), other: Collection[str] = ()) -> set[str]:
    listed = {"x": paths, "os-core": core, "o": other}
    mix = {name: ComposedBundle(name, files=dict.fromkeys(files, False)) for name, files in listed.items()}
    return Listings(mix).select(mix["x"], ["os-core", "o"], RECORDS)[0]


def test_a_file_that_an_include_lists_is_dropped() -> None:
    both = {"/usr/share/foo/other", "/usr/share/foo/deep/file"}

    assert selected(both, other={"/usr/share/foo/other"}) == {"/usr/share/foo/deep/file"}
    assert selected(both, core=both) == set()


def test_a_directory_that_os_core_lists_is_dropped() -> None:
    assert selected(set(RECORDS), core={"/usr", "/usr/share"}) == set(RECORDS) - {"/usr", "/usr/share"}


def test_a_directory_above_own_files_is_repeated_although_an_include_has_it() -> None:
    own = {"/usr/share", "/usr/share/foo", "/usr/share/foo/deep", "/usr/share/foo/deep/file"}

    assert selected(own, other=set(RECORDS)) == {"/usr/share", "/usr/share/foo", "/usr/share/foo/deep"}


def test_a_directory_without_own_files_is_left_to_the_include() -> None:
    own = {"/usr/share/foo", "/usr/share/foo/other", "/usr/share/empty", "/usr/share/foo/deep"}

    kept = selected(own, other={"/usr/share/empty", "/usr/share/foo", "/usr/share/foo/deep"})

    assert kept == {"/usr/share/foo", "/usr/share/foo/other"}


def test_what_is_listed_but_not_in_the_root_is_named() -> None:
    mix = {"os-core": ComposedBundle("os-core", files={"/usr": False, "/none": False})}

    assert Listings(mix).select(mix["os-core"], [], RECORDS) == ({"/usr"}, ["/none"])


def test_also_adds_leave_out_what_is_included_anyway() -> None:
    mix = bundles(a=("b",), b=(), c=())
    bundle = ComposedBundle("a", includes=("b",), also_adds=("c", "b", "gone", "os-core", "c"))

    assert also_adds_of(bundle, mix) == ("c",)


def test_parents_are_all_directories_above() -> None:
    assert parents(["/usr/share/a", "/usr/bin"]) == {"/usr", "/usr/share"}
