from __future__ import annotations

import stat
from pathlib import Path

import pytest

from mixer.errors import BuildError
from mixer.rootfiles import UNITS, RootFiles


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    (root / "usr/lib").mkdir(parents=True)
    (root / "lib").symlink_to("usr/lib")
    return root


def test_a_file_gets_its_canonical_name(root: Path) -> None:
    written = RootFiles(root)
    assert written.file("/lib/new/file", b"x") == "/usr/lib/new/file"
    assert written.names == {"/usr/lib/new/file"}
    assert (root / "usr/lib/new/file").read_bytes() == b"x"
    assert stat.S_IMODE((root / "usr/lib/new/file").stat().st_mode) == 0o644
    assert stat.S_IMODE((root / "usr/lib/new").stat().st_mode) == 0o755


def test_what_is_in_the_way_is_replaced_and_not_followed(root: Path, tmp_path: Path) -> None:
    (tmp_path / "outside").write_text("outside")
    (root / "usr/lib/file").symlink_to(tmp_path / "outside")
    RootFiles(root).file("/usr/lib/file", b"new")
    assert (root / "usr/lib/file").read_bytes() == b"new"
    assert not (root / "usr/lib/file").is_symlink()
    assert (tmp_path / "outside").read_text() == "outside"


def test_a_directory_is_not_replaced(root: Path) -> None:
    with pytest.raises(BuildError, match="/usr/lib is a directory in the root"):
        RootFiles(root).link("/usr/lib", "elsewhere")


def test_links_are_written_and_named(root: Path) -> None:
    written = RootFiles(root)
    written.link("/lib/link", "target")
    assert (root / "usr/lib/link").readlink() == Path("target")
    assert written.names == {"/usr/lib/link"}


def test_a_tree_has_its_programs_and_enabled_units(root: Path) -> None:
    written = RootFiles(root)
    written.tree("os-core-update", not_enabled={"swupd-update.timer"})
    assert stat.S_IMODE((root / "usr/bin/swupd").stat().st_mode) == 0o755
    assert f"{UNITS}/swupd-update.timer" in written.names
    assert not any(name.endswith(".wants/swupd-update.timer") for name in written.names)
    assert any(".wants/" in name for name in written.names)
