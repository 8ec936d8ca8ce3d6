from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixer import composition
from mixer.composition import ComposedBundle, Composition
from mixer.errors import BuildError


@pytest.fixture
def version(tmp_path: Path) -> Path:
    """The directory of version 10 with os-core, and beside it the directory that versions share."""
    directory = tmp_path / "image" / "10"
    (directory / "full/usr/bin").mkdir(parents=True)
    (directory / "groups.ini").write_text("[os-core]\ngroup=os-core\n")
    write_info(directory, "os-core", {"/usr": False, "/usr/bin": False})
    return directory


def write_info(directory: Path, name: str, files: object, **others: object) -> None:
    info = {
        "Name": name,
        "DirectIncludes": None,
        "OptionalIncludes": None,
        "AllPackages": None,
        "Files": files,
        **others,
    }
    (directory / f"{name}-info").write_text(json.dumps(info))


def test_null_arrays_are_empty(version: Path) -> None:
    bundle = composition.load(version, 10).bundles["os-core"]

    assert bundle == ComposedBundle("os-core", files={"/usr": False, "/usr/bin": False})


def test_everything_of_an_info_file_is_read(version: Path) -> None:
    (version / "groups.ini").write_text("[os-core]\n[editors]\ngroup=editors\n")
    header = {"Status": "Experimental", "Description": "Editors"}
    write_info(
        version,
        "editors",
        {"/usr/bin/vi": True},
        Header=header,
        DirectIncludes=["libs", "x"],
        OptionalIncludes=["docs"],
        AllPackages={"vim": True},
    )

    bundle = composition.load(version, 10).bundles["editors"]

    assert bundle.is_experimental
    assert bundle.includes == ("libs", "x")
    assert bundle.also_adds == ("docs",)
    assert bundle.files == {"/usr/bin/vi": True}
    assert (bundle.packages, bundle.description) == (("vim",), "Editors")


def test_what_is_saved_is_loaded_again(version: Path) -> None:
    bundles = {
        "os-core": ComposedBundle("os-core", files={"/usr": False, "/usr/na\udcffme": False}, packages=("base",)),
        "b": ComposedBundle("b", "Experimental", ("os-core",), ("c",), {"/usr/bin/b\\x2d": True}, (), "about b"),
    }
    saved = Composition(10, version / "full", bundles)

    composition.save(saved, version)

    assert composition.load(version, 10) == saved


def test_saving_removes_what_is_no_longer_in_the_mix(version: Path) -> None:
    write_info(version, "old", {})

    composition.save(Composition(10, version / "full", {"os-core": ComposedBundle("os-core")}), version)

    assert not (version / "old-info").exists()


def test_equal_paths_of_two_bundles_are_one_object(version: Path) -> None:
    (version / "groups.ini").write_text("[os-core]\n[b]\n")
    write_info(version, "b", {"/usr/bin": False})

    bundles = composition.load(version, 10).bundles

    in_core = next(path for path in bundles["os-core"].files if path == "/usr/bin")
    in_b = next(iter(bundles["b"].files))
    assert in_core is in_b


def test_a_bundle_without_info_brings_its_own_directory(version: Path) -> None:
    (version / "groups.ini").write_text("[os-core]\n[own]\n")
    (version / "own/usr/bin").mkdir(parents=True)
    (version / "own/usr/bin/new").write_text("own")
    (version / "own/usr/bin/both").write_text("own")
    (version / "full/usr/bin/both").write_text("full")
    (version / "own-includes").write_text("os-core\n")

    composed = composition.load(version, 10)

    assert set(composed.bundles["own"].files) == {"/usr", "/usr/bin", "/usr/bin/new", "/usr/bin/both"}
    assert composed.bundles["own"].includes == ("os-core",)
    assert composed.locate("/usr/bin/new") == str(version / "own/usr/bin/new")
    assert composed.locate("/usr/bin/both") == str(version / "full/usr/bin/both")


def test_an_empty_directory_is_a_bundle_without_files(version: Path) -> None:
    (version / "groups.ini").write_text("[os-core]\n[gone]\n")
    (version / "gone").mkdir()

    assert composition.load(version, 10).bundles["gone"].files == {}


def test_extra_files_are_added_from_both_places(version: Path) -> None:
    (version / "os-core-extra-files").write_text("/usr/a\n\n# no path\n")
    (version.parent / "os-core-extra-files").write_text("/usr/b\n/usr/bin\n")

    files = composition.load(version, 10, shared=version.parent).bundles["os-core"].files

    assert files == {"/usr": False, "/usr/bin": False, "/usr/a": False, "/usr/b": False}


def test_groups_can_be_shared_by_all_versions(version: Path) -> None:
    (version / "groups.ini").rename(version.parent / "groups.ini")

    assert list(composition.load(version, 10, shared=version.parent).bundles) == ["os-core"]


@pytest.mark.parametrize(
    "path",
    ["usr/bin", "/", "", "/usr//bin", "/usr/../bin", "/usr/.", "/usr/", "/a\nb", "/a\tb", "/a\x7fb", "/" + "x" * 4095],
)
def test_a_path_that_no_manifest_can_have_names_file_and_bundle(version: Path, path: str) -> None:
    write_info(version, "os-core", {path: False})

    with pytest.raises(BuildError, match=r"os-core-info \(bundle os-core\)"):
        composition.load(version, 10)


@settings(max_examples=100, deadline=None)
@given(st.text())
def test_a_path_that_is_accepted_is_canonical(text: str) -> None:
    try:
        path = composition.check_path(f"/{text}", source="x")
    except BuildError:
        return
    parts = path.split("/")[1:]
    assert all(part not in {"", ".", ".."} for part in parts)
    assert all(ord(character) >= 0x20 and character != "\x7f" for character in path)


@pytest.mark.parametrize(
    ("info", "message"),
    [
        ("{", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ("[]", "is not a JSON object"),
        ('{"Files": []}', "Files is not an object"),
        ('{"Files": {"/usr": 1}}', "export flag of '/usr'"),
        ('{"DirectIncludes": "b"}', "DirectIncludes is not a list"),
        ('{"DirectIncludes": ["../b"]}', "'../b' is not a bundle name"),
        ('{"OptionalIncludes": [1]}', "OptionalIncludes is not a list"),
    ],
)
def test_a_damaged_info_file_is_refused(version: Path, info: str, message: str) -> None:
    (version / "os-core-info").write_text(info)

    with pytest.raises(BuildError, match=message):
        composition.load(version, 10)


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ("[b]\n", "does not name os-core"),
        ("[os-core]\n[MoM]\n", "'MoM' is not a bundle name"),
        ("[os-core]\n[x\n", "is not a section"),
        ("[os-core]\n[nowhere]\n", "bundle nowhere has neither"),
    ],
)
def test_wrong_groups_are_refused(version: Path, groups: str, message: str) -> None:
    (version / "groups.ini").write_text(groups)

    with pytest.raises(BuildError, match=message):
        composition.load(version, 10)


def test_missing_groups_and_a_missing_root_are_refused(version: Path) -> None:
    (version / "groups.ini").unlink()
    with pytest.raises(BuildError, match=r"no groups\.ini"):
        composition.load(version, 10)
    with pytest.raises(BuildError, match="version 20 has no root"):
        composition.load(version.parent / "20", 20)


def test_a_file_over_the_limit_is_refused(version: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(composition, "MAX_INFO_BYTES", 10)

    with pytest.raises(BuildError, match="is larger than 10 bytes"):
        composition.load(version, 10)
