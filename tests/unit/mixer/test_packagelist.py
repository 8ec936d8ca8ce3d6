"""The list of packages: written, published, verified, read."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixer import packagelist
from mixer.check.version import check_version
from mixer.engine import InProcess
from mixer.errors import BuildError
from mixer.packagelist import Package, PackageList
from mixer.places import LocalDirectory
from mixer.store import PublishedTree
from swupd.report import TextReport

SHELL = Package(
    name="shell",
    version="1:2-3",
    architecture="amd64",
    source="shell-src 2-3",
    licence="MIT AND LicenseRef-odd",
    homepage="https://shell.example.org/",
    supplier="Shell Team <shell@example.org>",
    purl="pkg:deb/debian/shell@1%3A2-3?arch=amd64",
    bundles=("os-core",),
    files=("/usr/bin/sh", "/usr/share/odd\udcff"),
)
LIST = PackageList((Package("b", "1", bundles=("b",), files=("/usr/bin/b",)), SHELL))

text = st.text(st.characters(exclude_categories=["Cc", "Cs"]), max_size=8)
names = st.from_regex(r"[a-z][a-z0-9-]{0,8}", fullmatch=True)
paths = st.text(st.characters(exclude_categories=["Cc"]), max_size=8).map("/".__add__)


@st.composite
def lists(draw: st.DrawFn) -> PackageList:
    free = iter(draw(st.lists(paths, unique=True, max_size=6)))
    packages = [
        Package(
            name=name,
            version=draw(text) + "1",
            source=draw(text),
            licence=draw(st.sampled_from(["", "MIT", "GPL-2.0-only OR LicenseRef-x"])),
            supplier=draw(text),
            bundles=tuple(draw(st.lists(names, max_size=2))),
            files=tuple(path for path, _ in zip(free, range(draw(st.integers(0, 3))), strict=False)),
        )
        for name in sorted(draw(st.sets(names, max_size=4)))
    ]
    return PackageList(tuple(packages))


@given(lists())
def test_what_is_written_is_read(packages: PackageList) -> None:
    assert packagelist.parse(packagelist.serialise(packages), "x") == packages
    assert packagelist.decompressed(packagelist.compressed(packages), "x") == packages


json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=5)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)),
    max_leaves=6,
)


@given(st.sampled_from(sorted(dataclasses.asdict(SHELL))), json_values)
def test_any_value_in_any_field_is_taken_or_refused(field: str, value: object) -> None:
    raw = {"format": 1, "packages": [{**dataclasses.asdict(SHELL), field: value}]}
    with suppress(BuildError):
        packagelist.parse(json.dumps(raw).encode(), "x")


@given(st.binary())
def test_any_bytes_are_taken_or_refused(data: bytes) -> None:
    for read in (packagelist.parse, packagelist.decompressed):
        with pytest.raises(BuildError):
            read(data, "x")


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"name": ""}, "has no name"),
        ({"version": ""}, "has no name or no version"),
        ({"licence": "free for all"}, "no SPDX licence expression"),
        ({"supplier": "two\nlines"}, "its supplier cannot be"),
        ({"homepage": "x" * 20_000}, "its homepage cannot be"),
        ({"bundles": ["../x"]}, "not the name of a bundle"),
        ({"files": ["usr/bin/sh"]}, "one of its files cannot be"),
        ({"files": "usr"}, "its files are not a list"),
        ({"files": ["/a", "/a"]}, "two packages have the same path"),
    ],
)
def test_what_is_wrong_is_named(change: dict[str, Any], what: str) -> None:
    raw = {"format": 1, "packages": [{**dataclasses.asdict(SHELL), **change}]}
    with pytest.raises(BuildError, match=what):
        packagelist.parse(json.dumps(raw).encode(), "packages")


def test_a_list_of_another_format_is_refused() -> None:
    with pytest.raises(BuildError, match="no list of packages of format 1") as caught:
        packagelist.parse(b'{"format": 2, "packages": []}', "packages")
    assert caught.value.hint


def test_a_package_that_is_there_twice_is_refused() -> None:
    with pytest.raises(BuildError, match="is there twice"):
        packagelist.parse(packagelist.serialise(PackageList((Package("b", "1"), Package("b", "2")))), "packages")


def test_a_path_leads_to_its_package() -> None:
    assert LIST.owner("/usr/bin/sh") is SHELL
    assert LIST.owner("/usr/bin") is None


# -- published ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def listed(mix: Any) -> Any:
    """A mix whose prepared tree tells its packages; version 10 is published."""
    (mix.source / "10/packages.json").write_bytes(packagelist.serialise(LIST))
    mix.build(packs=False)
    return mix


def published(mix: Any) -> PublishedTree:
    return PublishedTree(LocalDirectory(mix.www))


def load(mix: Any, **options: bool) -> PackageList | None:
    return packagelist.load(published(mix), 10, mix.config, **options)


def problems(mix: Any) -> dict[str, str]:
    certificate = mix.config.certificate.read_bytes()
    result = check_version(published(mix), 10, certificate, InProcess(), TextReport(quiet=True))
    assert result.notes == ()
    return {problem.file: problem.what for problem in result.problems}


def test_a_version_publishes_what_was_composed(listed: Any) -> None:
    assert load(listed) == LIST
    assert problems(listed) == {}


def test_a_version_that_says_nothing_is_as_good(mix: Any) -> None:
    mix.build(packs=False)
    assert load(mix) is None
    assert problems(mix) == {}


def test_the_same_packages_give_the_same_bytes_in_every_version(listed: Any) -> None:
    listed.version(20, {"os-core": {"/usr/bin/sh": "shell 20"}})
    (listed.source / "20/packages.json").write_bytes(packagelist.serialise(LIST))
    listed.build(packs=False)
    assert (listed.www / "20/packages.json.zst").read_bytes() == (listed.www / "10/packages.json.zst").read_bytes()


def other_list(mix: Any) -> None:
    (mix.www / "10/packages.json.zst").write_bytes(packagelist.compressed(PackageList(())))


def other_checksums(mix: Any) -> None:
    path = mix.www / "10/checksums"
    path.write_text(path.read_text().replace("Manifest.full\n", "Manifest.rest\n"))


def no_signature(mix: Any) -> None:
    (mix.www / "10/checksums.sig").unlink()


def of_another_version(mix: Any) -> None:
    """All files that are signed together, as they were in a version before."""
    mix.version(20, {"os-core": {"/usr/bin/sh": "shell 20"}})
    mix.build(packs=False)
    for name in ("packages.json.zst", "checksums", "checksums.sig"):
        (mix.www / "20" / name).write_bytes((mix.www / "10" / name).read_bytes())
        (mix.www / "20" / name).rename(mix.www / "10" / name)
    for path in (mix.www / "20").glob("Manifest.MoM*"):
        path.rename(mix.www / "10" / path.name)


@pytest.mark.parametrize("damage", [other_list, other_checksums, no_signature, of_another_version])
def test_what_was_not_published_so_is_refused(listed: Any, damage: Callable[[Any], None]) -> None:
    damage(listed)
    with pytest.raises(BuildError) as caught:
        load(listed)
    assert str(listed.www / "10") in str(caught.value)


def test_without_signatures_checksums_still_count(listed: Any) -> None:
    no_signature(listed)
    assert load(listed, signed=False) == LIST
    other_list(listed)
    with pytest.raises(BuildError, match="is not what the checksums"):
        load(listed, signed=False)


def test_a_check_finds_a_list_that_cannot_be_read(listed: Any) -> None:
    (listed.www / "10/packages.json.zst").write_bytes(b"damaged")
    for path in listed.www.glob("10/checksums*"):
        path.unlink()
    assert "is not JSON" in problems(listed)["10/packages.json.zst"]


def test_a_prepared_tree_with_a_wrong_list_is_refused_before_anything_is_published(mix: Any) -> None:
    path: Path = mix.source / "10/packages.json"
    path.write_text("{}")
    with pytest.raises(BuildError, match=str(path)):
        mix.build()
    assert not (mix.www / "10").exists()
