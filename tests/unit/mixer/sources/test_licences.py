"""Licences from copyright files: names become SPDX expressions, or nothing is said."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packaging.licenses import canonicalize_license_expression

from mixer.sources import licences

HEADER = "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\nUpstream-Name: x\n"


def file(*synopses: str, header: str = HEADER) -> bytes:
    groups = (f"Files: {number}/*\nCopyright: somebody\nLicense: {text}\n" for number, text in enumerate(synopses))
    return "\n".join([header, *groups, "License: Unused\n The text.\n"]).encode()


def write(root: Path, path: str, data: bytes = b"") -> Path:
    place = root / path[1:]
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(data)
    return place


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("GPL-2", "GPL-2.0-only"),
        ("GPL-2+", "GPL-2.0-or-later"),
        ("GPL-2.0+", "GPL-2.0-or-later"),
        ("LGPL-2.1", "LGPL-2.1-only"),
        ("AGPL-3+", "AGPL-3.0-or-later"),
        ("GFDL-NIV-1.3+", "GFDL-1.3-no-invariants-or-later"),
        ("GPL", "GPL-1.0-or-later"),
        ("Expat", "MIT"),
        ("bsd-3-clause", "BSD-3-Clause"),
        ("Apache-2", "Apache-2.0"),
        ("public-domain", "LicenseRef-public-domain"),
        ("GPL-2+-with-a-thing", "LicenseRef-GPL-2-or-later-with-a-thing"),
        ("GPL-3+ with Bison exception", "GPL-3.0-or-later WITH Bison-exception-2.2"),
        ("GPL-2+ with OpenSSL exception", "LicenseRef-GPL-2-or-later-with-OpenSSL-exception"),
    ],
)
def test_a_name_of_debian_becomes_the_one_of_spdx(name: str, expected: str) -> None:
    assert licences.expression(file(name)) == expected


def test_a_package_is_under_the_licences_of_all_its_files(tmp_path: Path) -> None:
    assert licences.expression(file("GPL-2+", "Expat", "GPL-2+", "MIT and Zlib")) == "GPL-2.0-or-later AND MIT AND Zlib"


@pytest.mark.parametrize(
    ("synopsis", "expected"),
    [
        ("GPL-1+ or Artistic", "Artistic-1.0 OR GPL-1.0-or-later"),
        ("Expat and ISC or Zlib", "(ISC AND MIT) OR Zlib"),
        ("GPL-2+ or AFL-2.1, and Expat", "(AFL-2.1 OR GPL-2.0-or-later) AND MIT"),
        ("Expat and ISC, or Zlib", "(ISC AND MIT) OR Zlib"),
    ],
)
def test_a_comma_binds_after_or_and_that_after_and(synopsis: str, expected: str) -> None:
    assert licences.expression(file(synopsis)) == expected


def test_without_groups_of_files_the_header_counts() -> None:
    assert licences.expression(f"{HEADER}License: Expat\n".encode()) == "MIT"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"This package was put together by somebody.\nLicense: GPL-2\n",
        file("GPL-2+", "Permission is granted to anybody to do anything"),
        file("GPL-2+", ""),
        file("Expat, Zlib and ISC"),
        file(*(f"name-{number}-{'x' * 40}" for number in range(500))),
    ],
)
def test_all_licences_are_named_or_none(data: bytes) -> None:
    assert licences.expression(data) == ""


NAMES = st.sampled_from(["GPL-2+", "Expat", "odd name", "a,b", "x with y exception", "and", "or", "WITH", "(MIT", ""])


@given(st.lists(st.lists(st.one_of(NAMES, st.text(max_size=12)), max_size=5).map(" or ".join), max_size=4))
def test_whatever_a_file_says_the_result_is_an_expression_or_nothing(synopses: list[str]) -> None:
    found = licences.expression(file(*synopses))
    assert not found or canonicalize_license_expression(found)


@given(st.binary())
def test_any_bytes_are_read(data: bytes) -> None:
    licences.expression(b"Format: x\n" + data)


def test_a_package_may_refer_to_the_directory_of_another(tmp_path: Path) -> None:
    write(tmp_path, "/usr/share/doc/base/copyright", file("Expat"))
    (tmp_path / "usr/share/doc/lib").symlink_to("base")
    assert licences.read(tmp_path, ["absent", "base", "lib"]) == {"base": "MIT", "lib": "MIT"}


def test_a_link_out_of_the_root_is_followed_inside(tmp_path: Path) -> None:
    outside = write(tmp_path, "/outside/copyright", file("Expat"))
    root = tmp_path / "root"
    (root / "usr/share/doc").mkdir(parents=True)
    (root / "usr/share/doc/lib").symlink_to(outside.parent)
    assert licences.read(root, ["lib"]) == {}


def test_documentation_that_is_left_out_leaves_no_trace(tmp_path: Path) -> None:
    write(tmp_path, "/usr/share/doc/base/copyright")
    write(tmp_path, "/usr/share/doc/base/kept/README.md")
    write(tmp_path, "/usr/share/doc/app/copyright")
    (tmp_path / "usr/share/doc/app/examples").mkdir()
    (tmp_path / "usr/share/doc/lib").symlink_to("app")
    write(tmp_path, "/usr/share/docs")
    excludes = ["/usr/share/doc/*/copyright", "/usr/share/doc/app*", "/usr/share/doc/lib"]
    licences.drop_excluded(tmp_path, excludes)
    left = {str(path.relative_to(tmp_path)) for path in (tmp_path / "usr/share").rglob("*") if not path.is_dir()}
    assert left == {"usr/share/doc/base/kept/README.md", "usr/share/docs"}
    assert [path.name for path in (tmp_path / "usr/share/doc").iterdir()] == ["base"]


def test_nothing_goes_where_all_documentation_ships(tmp_path: Path) -> None:
    kept = write(tmp_path, "/usr/share/doc/base/copyright")
    licences.drop_excluded(tmp_path, [])
    licences.drop_excluded(tmp_path, ["/usr/share/man/*"])
    assert kept.exists()
