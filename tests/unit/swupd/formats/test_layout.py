"""The names of a published tree, held to the swupd client specification's table."""

from __future__ import annotations

import pytest

from swupd.formats import layout
from swupd.formats.manifest import is_bundle_name

A, B = "a" * 64, "0" * 63 + "b"


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (layout.latest("30"), "version/format30/latest"),
        (layout.latest(30), "version/format30/latest"),
        (layout.latest("staging"), "version/formatstaging/latest"),
        (layout.signature(layout.latest(30)), "version/format30/latest.sig"),
        (layout.latest_overall(), "version/latest_version"),
        (layout.format_file(20), "20/format"),
        (layout.manifest(20, "os-core"), "20/Manifest.os-core"),
        (layout.manifest_tar(20, layout.MOM), "20/Manifest.MoM.tar"),
        (layout.manifest_signature(20), "20/Manifest.MoM.sig"),
        (layout.manifest_tar(10, "editors"), "10/Manifest.editors.tar"),
        (layout.manifest_delta(20, "editors", 10), "20/Manifest-editors-delta-from-10"),
        (layout.pack(20, "editors", 10), "20/pack-editors-from-10.tar"),
        (layout.pack(20, "editors", 0), "20/pack-editors-from-0.tar"),
        (layout.fullfile(10, A), f"10/files/{A}.tar"),
        (layout.staged_name(A), f"staged/{A}"),
        (layout.delta_name(A, B), f"10-20-{A}-{B}"),
        (layout.marker("editors"), "/usr/share/clear/bundles/editors"),
        (layout.pack_marker("editors", 0, 10), "pack-editors-from-0-to-10.tar"),
        (layout.update_pack(20, 10), "20/update-from-10.tar"),
        (layout.signature(layout.update_index(20)), "20/update-index.sig"),
        (layout.signature(layout.checksums(20)), "20/checksums.sig"),
        (layout.packages(20), "20/packages.json.zst"),
        (layout.gzip_delta_name(A, B), f"{A}-{B}"),
        (layout.update_pack_marker(10, 20), "pack--update-from-10-to-20.tar"),
        (layout.cached_manifest_delta_name("editors", 10, 20), "Manifest-editors-delta-from-10-to-20"),
        (layout.cache_name("https://cdn.example.org/update"), "https___cdn.example.org_update"),
        (layout.cache_name("https://a/b/"), "https___a_b"),
    ],
)
def test_names_are_the_specifications(found: str, expected: str) -> None:
    assert found == expected


@pytest.mark.parametrize("name", [f"41340-41350-{A}-{B}", layout.delta_name(A, B), layout.gzip_delta_name(A, B)])
def test_a_delta_name_gives_its_hashes_with_and_without_versions(name: str) -> None:
    assert layout.parse_delta_name(name) == (A, B)


@pytest.mark.parametrize(
    "name",
    ["", A, f"10-{A}-{B}", f"10-20-30-{A}-{B}", f"{A}-{B}x", f"{A.upper()}-{B}", f"../10-20-{A}-{B}", f"{A}-{B}\n"],
)
def test_another_name_is_no_delta(name: str) -> None:
    assert layout.parse_delta_name(name) is None


@pytest.mark.parametrize("bundle", ["", ".", "..", "a/b", "a\nb", "a\0b"])
def test_what_is_no_file_name_never_becomes_part_of_one(bundle: str) -> None:
    with pytest.raises(ValueError, match="not a file name"):
        layout.manifest(10, bundle)


@pytest.mark.parametrize("version", [0, -1, True, 1.5, "10"])
def test_a_version_is_a_positive_number(version: int) -> None:
    with pytest.raises(ValueError, match="not a version"):
        layout.manifest(version, "os-core")


@pytest.mark.parametrize("name", ["", "0", "-1", "1.5", "../30", "Staging", "³"])
def test_a_format_is_a_positive_number_or_staging(name: str) -> None:
    with pytest.raises(ValueError, match="not a format"):
        layout.latest(name)


@pytest.mark.parametrize("value", ["", "a" * 63, "A" * 64, "../" + "a" * 61, "a" * 64 + "\n"])
def test_a_hash_is_64_lower_case_digits(value: str) -> None:
    with pytest.raises(ValueError, match="not a hash"):
        layout.fullfile(10, value)


def test_the_marker_of_an_update_pack_is_no_bundles() -> None:
    assert not is_bundle_name(layout.update_pack_marker(10, 20).removeprefix("pack-").partition("-from-")[0])


def test_there_is_no_update_pack_from_nothing() -> None:
    with pytest.raises(ValueError, match="not a version"):
        layout.update_pack(20, 0)
