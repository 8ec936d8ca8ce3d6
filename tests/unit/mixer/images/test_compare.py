"""What changed between two images, from their SPDX documents."""

from __future__ import annotations

import copy
import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixer import packagelist
from mixer.errors import BuildError
from mixer.images import compare, spdx
from mixer.images.compare import Change, File, Image, Part, PartChange
from mixer.images.tree import Reader
from mixer.packagelist import Package, PackageList
from swupd.report import TextReport


def image(version: str = "10", **packages: dict[str, tuple[int, str]]) -> Image:
    """Packages with their files (size, what it is), all in the bundle os-core; the packages have the same version."""
    parts = {
        name: Part(version, {path: File(*file) for path, file in files.items()}) for name, files in packages.items()
    }
    files = {path: file for part in parts.values() for path, file in part.files.items()}
    return Image("image", version, files, {"os-core": Part(version, files)}, parts)


def test_an_image_does_not_differ_from_itself() -> None:
    one = image(shell={"/sh": (5, "a")})
    difference = compare.compare(one, one)
    assert (difference.bundles, difference.packages, bool(difference.total)) == ((), (), False)
    assert compare.as_text(difference).endswith("Nothing changed.")


def test_files_that_came_went_and_changed_are_counted_with_their_bytes() -> None:
    old = image(shell={"/same": (1, "a"), "/gone": (20, "b"), "/changed": (300, "c")})
    new = image(shell={"/same": (1, "a"), "/new": (4000, "d"), "/changed": (50_000, "e")})
    difference = compare.compare(old, new)
    change = Change(1, 4000, 1, 20, 1, 300, 50_000)
    assert difference.total == change
    assert difference.packages == (PartChange("shell", "10", "10", change),)
    assert change.growth == 4000 - 20 + 50_000 - 300


def test_bundles_and_packages_that_are_only_in_one_image_have_one_version() -> None:
    difference = compare.compare(image("10", old={"/old": (1, "a")}), image("20", new={"/new": (2, "b")}))
    assert [(part.name, part.old, part.new) for part in difference.packages] == [
        ("new", None, "20"),
        ("old", "10", None),
    ]
    assert [(part.name, part.old, part.new) for part in difference.bundles] == [("os-core", "10", "20")]


def test_a_new_version_with_the_same_files_is_a_change() -> None:
    difference = compare.compare(image("10", shell={"/sh": (1, "a")}), image("20", shell={"/sh": (1, "a")}))
    assert difference.packages == (PartChange("shell", "10", "20"),)
    assert not difference.total


def test_a_file_that_went_to_another_package_is_no_change_in_all() -> None:
    difference = compare.compare(
        image(a={"/file": (7, "x")}, b={"/b": (1, "b")}), image(a={}, b={"/file": (7, "x"), "/b": (1, "b")})
    )
    assert [(part.name, part.files.growth) for part in difference.packages] == [("a", -7), ("b", 7)]
    assert not difference.total


files = st.dictionaries(
    st.sampled_from(["/a", "/b", "/c", "/d"]), st.tuples(st.integers(0, 99), st.sampled_from("xyz")), max_size=4
)


@given(files, files)
def test_sizes_before_and_after_differ_by_the_growth(old: Any, new: Any) -> None:
    total = compare.compare(image(p=old), image(p=new)).total
    assert total.growth == sum(size for size, _ in new.values()) - sum(size for size, _ in old.values())
    assert total.added - total.removed == len(new) - len(old)


def test_the_table_names_what_changed() -> None:
    old, new = (
        image("10", shell={"/sh": (5000, "a")}),
        image("20", shell={"/sh": (2000, "b")}, editor={"/ed": (9, "c")}),
    )
    lines = compare.as_text(compare.compare(old, new)).splitlines()
    assert lines[0] == "image, version 10  →  image, version 20"
    rows = [line.split() for line in lines]
    assert ["package", "before", "after", "added", "removed", "changed", "size"] in rows
    assert ["editor", "-", "20", "1", "-", "-", "+9", "bytes"] in rows
    assert rows[-1][:4] == ["files:", "1", "added", "(9"]


def test_the_json_has_everything() -> None:
    difference = compare.compare(image("10", a={"/a": (1, "a")}), image("20", a={"/a": (2, "b")}))
    value = json.loads(compare.as_json(difference))
    assert value["old"] == {"name": "image", "version": "10"}
    assert value["packages"] == [
        {
            "name": "a",
            "old": "10",
            "new": "20",
            "files": {
                "added": 0,
                "added_bytes": 0,
                "removed": 0,
                "removed_bytes": 0,
                "changed": 1,
                "changed_bytes_before": 1,
                "changed_bytes": 2,
            },
        }
    ]
    assert value["total"] == value["packages"][0]["files"]


# -- documents ---------------------------------------------------------------------------------------------------------

OLD = PackageList(
    (
        Package("editor", "5", files=("/usr/bin/editor",)),
        Package("shell", "1", files=("/usr/bin/sh", "/usr/share/empty")),
    )
)
NEW = PackageList((Package("shell", "2", files=("/usr/bin/sh",)),))


def document(published: Any, *bundles: str) -> bytes:
    tree = published.load(*bundles)
    return spdx.document(tree, Reader(tree, TextReport(quiet=True)), name="image", time=1)


@pytest.fixture
def documents(prepared: Any) -> tuple[bytes, bytes]:
    """Of version 10 with the bundle editor, and of version 20 with office, in which the shell changed."""
    mix = prepared.mix
    (mix.source / "10/packages.json").write_bytes(packagelist.serialise(OLD))
    prepared.build(packs=False, increment=10)
    first = document(prepared, "editor")
    mix.version(20, {"os-core": {"/usr/bin/sh": "shell of 20"}, "office": {"/usr/bin/office": "office"}})
    (mix.source / "20/packages.json").write_bytes(packagelist.serialise(NEW))
    prepared.build(packs=False)
    return first, document(prepared, "office")


def test_a_document_says_what_the_image_has(documents: tuple[bytes, bytes]) -> None:
    found = compare.parse(documents[0])
    assert (found.name, found.version) == ("image", "10")
    assert {name: part.version for name, part in found.bundles.items()} == {"os-core": "10", "editor": "10"}
    assert set(found.packages) == {"editor", "shell", compare.NO_PACKAGE}
    assert set(found.packages["shell"].files) == {"/usr/bin/sh", "/usr/share/empty"}
    assert set(found.bundles["editor"].files) == {"/usr/bin/editor", "/usr/share/clear/bundles/editor"}
    assert found.files["/usr/bin/sh"].size == len("shell 10")


def test_two_versions_are_compared(documents: tuple[bytes, bytes]) -> None:
    difference = compare.compare(*map(compare.parse, documents))
    assert [(part.name, part.old, part.new) for part in difference.bundles] == [
        ("editor", "10", None),
        ("office", None, "20"),
        ("os-core", "10", "20"),
    ]
    packages = {part.name: (part.old, part.new) for part in difference.packages}
    assert packages["editor"] == ("5", None)
    assert packages["shell"] == ("1", "2")
    shell = next(part.files for part in difference.packages if part.name == "shell")
    assert (shell.changed, shell.changed_bytes_before, shell.changed_bytes, shell.removed) == (1, 8, 11, 1)


def test_the_document_is_found_beside_the_image(documents: tuple[bytes, bytes], tmp_path: Path) -> None:
    (tmp_path / "a.img.spdx.json").write_bytes(documents[0])
    assert compare.read(tmp_path / "a.img") == compare.read(tmp_path / "a.img.spdx.json")


def test_a_missing_document_is_named_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match=r"cannot read .*/a\.img\.spdx\.json: No such file") as caught:
        compare.read(tmp_path / "a.img")
    assert "mixer build image" in caught.value.hint


def test_a_document_of_other_making_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.spdx.json"
    path.write_text('{"spdxVersion": "SPDX-2.2"}')
    with pytest.raises(BuildError, match=r"it is not an SPDX-2\.3 document") as caught:
        compare.read(path)
    assert str(path) in str(caught.value)


SMALL: dict[str, Any] = {
    "spdxVersion": "SPDX-2.3",
    "packages": [
        {"SPDXID": "I", "name": "image", "versionInfo": "1"},
        {"SPDXID": "B", "name": "os-core", "versionInfo": "1"},
        {"SPDXID": "P", "name": "shell", "versionInfo": "2"},
    ],
    "files": [
        {
            "SPDXID": "F",
            "fileName": "./sh",
            "checksums": [{"algorithm": "SHA256", "checksumValue": "00"}],
            "comment": "5 bytes, mode 0755",
        }
    ],
    "relationships": [
        {"spdxElementId": element, "relationshipType": kind, "relatedSpdxElement": related}
        for element, kind, related in (
            ("SPDXRef-DOCUMENT", "DESCRIBES", "I"),
            ("I", "CONTAINS", "B"),
            ("B", "CONTAINS", "P"),
            ("P", "CONTAINS", "F"),
        )
    ],
}


def places(value: Any) -> list[tuple[Any, Any]]:
    """Every key and index in a value, with what it is in."""
    items = list(value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ())
    return [(value, key) for key, _ in items] + [place for _, inner in items for place in places(inner)]


def test_a_small_document_is_read() -> None:
    assert compare.parse(json.dumps(SMALL).encode()).packages["shell"].files["/sh"].size == 5


@given(
    st.integers(0, len(places(SMALL)) - 1),
    st.sampled_from([None, 7, "", "I", "B", "two\nlines", "\udcff", [], {}, [{}], "9" * 40 + " bytes, "]),
)
def test_a_damaged_document_is_read_or_refused(number: int, value: Any) -> None:
    top = copy.deepcopy(SMALL)
    inside, key = places(top)[number]
    inside[key] = value
    with suppress(BuildError):
        compare.as_text(compare.compare(found := compare.parse(json.dumps(top).encode()), found)).encode()


@given(st.binary())
def test_any_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(BuildError):
        compare.parse(data)
