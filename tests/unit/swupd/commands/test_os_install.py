from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path
from typing import Any

import pytest

from swupd.cli import main
from swupd.errors import ExitCode

Machine = Any
Publisher = Any


def test_a_system_is_installed_with_configuration_and_state(bare: Machine) -> None:
    bare.run("os-install", "--bundles", "editors,games", "--no-scripts")
    assert bare.bundles() == {"os-core", "libs", "editors", "docs", "games"}
    assert bare.read("/etc/hosts") == "hosts"
    assert bare.has("/var/lib/state")
    bare.run("diagnose")


def test_what_is_there_below_etc_is_kept(bare: Machine) -> None:
    (bare.root / "etc").mkdir(parents=True)
    (bare.root / "etc/hosts").write_text("mine")
    bare.run("os-install", "--no-scripts")
    assert bare.read("/etc/hosts") == "mine"


def test_the_umask_does_not_matter(bare: Machine) -> None:
    before = os.umask(0o077)
    try:
        bare.run("os-install", "--no-scripts")
    finally:
        os.umask(before)
    assert stat.S_IMODE(bare.root.stat().st_mode) == 0o755
    assert stat.S_IMODE((bare.root / "usr").stat().st_mode) == 0o755


def test_an_experimental_bundle_is_announced(bare: Machine) -> None:
    bare.run("os-install", "--bundles", "games", "--no-scripts")
    assert "Warning: bundle games is experimental" in bare.err


def test_a_download_installs_nothing_and_serves_the_installation(bare: Machine, published: Publisher) -> None:
    bare.run("os-install", "--download")
    assert not bare.has("/usr")
    shutil.rmtree(published.directory / "10/files")
    bare.run("os-install", "--no-scripts")
    bare.run("diagnose")


def test_an_unknown_bundle_is_3_and_nothing_is_installed(bare: Machine) -> None:
    bare.run("os-install", "--bundles", "nonsense", status=ExitCode.INVALID_BUNDLE)
    assert not bare.has("/usr")


@pytest.mark.parametrize("argv", [[], ["/tmp/a", "--path", "/tmp/b"], ["/tmp/a", "/tmp/b"]])
def test_exactly_one_directory_is_needed(argv: list[str]) -> None:
    assert main(["os-install", *argv]) == ExitCode.INVALID_OPTION


@pytest.mark.parametrize("own_file_system", [False, True])
def test_content_is_taken_from_another_state_directory(
    bare: Machine, published: Publisher, tmp_path: Path, own_file_system: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    bare.run("os-install", "--download", "--bundles", "editors")
    cache = tmp_path / "medium"
    bare.state.rename(cache)
    for directory in ("10/files", "10"):
        for path in (published.directory / directory).glob("*.tar"):
            path.unlink()
    if own_file_system:
        # Hard links end at the file system; a failing link stands for it.
        def fail(*args: object, **options: object) -> None:
            raise OSError(18, "Invalid cross-device link")

        monkeypatch.setattr("swupd.fs.Directory.hard_link", fail)
    bare.run("os-install", "--bundles", "editors", "--statedir-cache", str(cache), "--no-scripts")
    monkeypatch.undo()
    monkeypatch.setenv("SWUPD_CONFIG_PATH", "")
    bare.run("diagnose")


def test_damaged_content_of_another_state_directory_is_not_used(bare: Machine, tmp_path: Path) -> None:
    bare.run("os-install", "--download")
    cache = tmp_path / "medium"
    bare.state.rename(cache)
    for path in cache.rglob("staged/*"):
        if path.is_file():
            path.write_bytes(b"broken")
    for path in cache.rglob("Manifest.os-core"):
        path.write_bytes(b"broken")
    bare.run("os-install", "--statedir-cache", str(cache), "--no-scripts")
    bare.run("diagnose")


def test_another_state_directory_must_be_a_directory(bare: Machine) -> None:
    bare.run("os-install", "--statedir-cache", "/nonexistent", status=ExitCode.INVALID_OPTION)
