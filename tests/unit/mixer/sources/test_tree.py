from __future__ import annotations

from pathlib import Path

import pytest

from mixer.errors import BuildError, SourceError
from mixer.sources import tree


@pytest.fixture
def prepared(tmp_path: Path) -> Path:
    (tmp_path / "10/full/usr").mkdir(parents=True)
    (tmp_path / "10/os-core-info").write_text('{"Files": {"/usr": false}}')
    (tmp_path / "groups.ini").write_text("[os-core]\n")
    return tmp_path


def test_a_version_is_used_in_place(prepared: Path) -> None:
    composed = tree.load(prepared, 10)

    assert composed.version == 10
    assert composed.root == prepared / "10/full"
    assert composed.bundles["os-core"].files == {"/usr": False}


def test_nothing_is_written_to_a_prepared_tree(prepared: Path) -> None:
    before = sorted(prepared.rglob("*"))

    tree.load(prepared, 10)

    assert sorted(prepared.rglob("*")) == before


def test_lists_beside_the_versions_hold_for_all_of_them(prepared: Path) -> None:
    (prepared / "os-core-extra-files").write_text("/usr/extra\n")

    assert "/usr/extra" in tree.load(prepared, 10).bundles["os-core"].files


def test_a_version_that_is_not_prepared_is_named(prepared: Path) -> None:
    with pytest.raises(SourceError, match="no version 20") as caught:
        tree.load(prepared, 20)
    assert "next version is" not in caught.value.hint


def test_a_version_without_a_root_is_wrong(prepared: Path) -> None:
    (prepared / "20").mkdir()

    with pytest.raises(BuildError, match="version 20 has no root"):
        tree.load(prepared, 20)
