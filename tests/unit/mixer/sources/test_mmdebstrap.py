"""What surrounds a run of mmdebstrap; the run itself is in tests/system/test_apt_source.py."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from mixer.errors import SourceError
from mixer.sources import PackageFile, mmdebstrap
from swupd.report import TextReport

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="mounts")
needs_mmdebstrap = pytest.mark.skipif(not shutil.which("mmdebstrap"), reason="needs mmdebstrap")


def test_the_name_of_a_package_file_tells_name_version_and_architecture() -> None:
    parts = mmdebstrap.NameParts("libcap2_1%3a2.66-4+deb12u3+b1_amd64.deb")
    assert (parts.name, parts.version, parts.architecture) == ("libcap2", "1:2.66-4+deb12u3+b1", "amd64")


@pytest.mark.parametrize("name", ["a.deb", "a_b.deb", "a_b_c_d.deb"])
def test_another_name_is_refused(name: str) -> None:
    with pytest.raises(SourceError, match="unexpected name"):
        mmdebstrap.NameParts(name)


@pytest.fixture
def installation(tmp_path: Path) -> mmdebstrap.Installation:
    """One that cannot succeed: its only package file is no package."""
    tree = tmp_path / "apt"
    for directory in ("var/lib/apt/lists/partial", "var/lib/apt/lists/auxfiles", "var/cache/apt"):
        (tree / directory).mkdir(parents=True)
    for file in ("var/lib/apt/lists/lock", "var/cache/apt/pkgcache.bin", "var/cache/apt/srcpkgcache.bin"):
        (tree / file).write_text("")
    (tree / "mix.sources").write_text("Types: deb\nURIs: copy:/nowhere\nSuites: stable\nComponents: main\n")
    (tmp_path / "debs").mkdir()
    (tmp_path / "debs/shell_1.0_amd64.deb").write_text("no package")
    files = [PackageFile("shell_1.0_amd64.deb", "0" * 64)]
    return mmdebstrap.Installation(
        files, tmp_path / "debs", tree, tree / "mix.sources", "amd64", ("/usr/share/doc/*",), tmp_path / "install.log"
    )


@needs_root
@needs_mmdebstrap
def test_a_failed_run_leaves_a_log_and_no_root(installation: mmdebstrap.Installation, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="installing the packages failed: ") as caught:
        mmdebstrap.install(installation, tmp_path / "root", TextReport(quiet=True))
    assert "\n" not in str(caught.value)
    assert str(installation.log) in caught.value.hint
    assert installation.log.stat().st_size > 0
    assert not (tmp_path / "root").exists()


def test_a_missing_package_file_leaves_no_root(installation: mmdebstrap.Installation, tmp_path: Path) -> None:
    (tmp_path / "debs/shell_1.0_amd64.deb").unlink()
    with pytest.raises(SourceError, match="cannot make a root"):
        mmdebstrap.install(installation, tmp_path / "root", TextReport(quiet=True))
    assert not (tmp_path / "root").exists()


@needs_root
def test_a_root_with_something_mounted_in_it_is_never_removed(tmp_path: Path) -> None:
    place = tmp_path / "root/pro c"
    place.mkdir(parents=True)
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious/file").write_text("")
    mounted = subprocess.run(["mount", "--bind", tmp_path / "precious", place], check=False, capture_output=True)
    if mounted.returncode:
        pytest.skip("mounting is not permitted here")
    try:
        with pytest.raises(SourceError, match=r"pro c is still mounted"):
            mmdebstrap.remove_root(tmp_path / "root")
    finally:
        subprocess.run(["umount", place], check=True)
    assert (tmp_path / "precious/file").exists()
    mmdebstrap.remove_root(tmp_path / "root")
    assert not (tmp_path / "root").exists()
