"""`mixer build`: what the command itself does; what a build makes is tested with mixer.build."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from mixer.cli import main
from mixer.workspace import State, Workspace


def build(prepared: Workspace, *arguments: str) -> int:
    return main(["--workspace", str(prepared.path), "build", *arguments])


def test_packages_can_only_be_built_by_root(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--quiet", "--workspace", str(tmp_path), "init"]) == 0
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    before = sorted(tmp_path.rglob("*"))
    assert main(["--workspace", str(tmp_path), "build", "all"]) == 1
    error, hint = capsys.readouterr().err.splitlines()
    assert error == "Error: `mixer build all` must be run as root"
    assert "sudo" in hint
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["all", "--workers", "-1"], "--workers must be between 0 and"),
        (["bundles", "--format", "0"], "--format must be between 1 and"),
        (["update", "--increment", "0"], "--increment must be between 1 and"),
        (["update", "--min-version", "-1"], "--min-version must be between 0 and"),
        (["delta-packs", "--from", "0"], "--from must be between 1 and"),
        (["delta-packs", "--to", "-5"], "--to must be between 1 and"),
        (["delta-manifests", "--previous-versions", "0"], "--previous-versions must be between 1 and"),
    ],
)
def test_numbers_out_of_range_are_refused(
    prepared: Workspace, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert build(prepared, *arguments) == 1
    assert message in capsys.readouterr().err


def test_a_prepared_root_becomes_a_published_version(prepared: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    assert build(prepared, "all", "--workers", "1") == 0
    assert (prepared.published(10) / "Manifest.os-core").is_file()
    assert prepared.last_version() == 10
    assert prepared.mix_version() == 10
    assert re.search(r"^version +10 ", capsys.readouterr().out, re.MULTILINE)


def test_increment_goes_on_to_the_next_version(prepared: Workspace) -> None:
    assert build(prepared, "all", "--no-signing", "--increment") == 0
    assert (prepared.mix_version(), prepared.state()) == (20, State(30, 10))
    assert not (prepared.published(10) / "Manifest.MoM.sig").exists()


def test_content_can_be_left_out(prepared: Workspace) -> None:
    options = ["--no-signing", "--skip-fullfiles", "--skip-packs", "--format", "30"]
    assert build(prepared, "update", *options) == 0
    assert (prepared.published(10) / "format").read_text() == "30"
    assert not list(prepared.published(10).glob("pack-*"))
    assert not list(prepared.published(10).glob("files/*"))


def test_a_version_that_is_not_prepared_is_refused(prepared: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    prepared.set_mix_version(30)
    assert build(prepared, "all") == 1
    assert "has no version 30" in capsys.readouterr().err


def test_delta_packs_are_added_and_listed(changed: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    assert build(changed, "delta-packs", "--no-signing", "--workers", "1", "--report") == 0

    out = capsys.readouterr().out
    for name in ("20/update-from-10.tar", "20/pack-os-core-from-10.tar"):
        assert (changed.www / name).is_file()
        assert re.search(rf"^{name} +1 +0 ", out, re.MULTILINE)
    assert re.search(r"delta .*/usr/bin/hello +(hdiffpatch|bsdiff)", out)


def test_packs_that_are_there_are_not_made_again(changed: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    assert build(changed, "delta-packs", "--no-signing", "--from", "10", "--to", "20") == 0
    capsys.readouterr()

    assert build(changed, "delta-packs", "--no-signing") == 0

    assert capsys.readouterr().out.count("was there") == 2


def test_delta_manifests_are_added(changed: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    assert build(changed, "delta-manifests", "--no-signing", "--workers", "1") == 0

    assert re.search(r"Version 20 has \d new delta manifest", capsys.readouterr().out)


def test_deltas_need_two_versions(prepared: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    assert build(prepared, "delta-packs", "--no-signing") == 1
    assert "nothing is published" in capsys.readouterr().err

    assert build(prepared, "all", "--no-signing", "--workers", "1") == 0
    assert build(prepared, "delta-packs", "--no-signing") == 1
    error, hint = capsys.readouterr().err.splitlines()
    assert error.endswith("there is no version before 10 that it could be compared with")
    assert "build the next one first" in hint


def test_one_start_is_enough(prepared: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        build(prepared, "delta-packs", "--from", "10", "--previous-versions", "2")
    assert "not allowed with argument" in capsys.readouterr().err
