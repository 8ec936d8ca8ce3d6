"""`mixer diff-image`: what the command itself does; what is compared is tested with mixer.images.compare."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mixer.cli import main
from mixer.images import spdx, tree
from swupd.report import TextReport


@pytest.fixture
def images(mix: Any, tmp_path: Path) -> tuple[str, str]:
    """The documents of two versions; where they are, no workspace is."""
    for version in (10, 20):
        mix.version(version, {"os-core": {"/usr/bin/sh": f"shell {version}"}})
        mix.build(packs=False)
        report = TextReport(quiet=True)
        found = tree.load(mix.workspace, mix.config, report)
        data = spdx.document(found, tree.Reader(found, report), name=f"{version}.img", time=1)
        (tmp_path / f"{version}.img.spdx.json").write_bytes(data)
    return str(tmp_path / "10.img"), str(tmp_path / "20.img")


def test_bundles_and_totals_are_shown(images: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["diff-image", *images]) == 0
    out = capsys.readouterr().out
    assert out.startswith("10.img, version 10  →  20.img, version 20\n")
    assert "\nos-core " in out
    assert " changed" in out.splitlines()[-1]


def test_scripts_get_an_object(images: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--quiet", "diff-image", "--json", *images]) == 0
    difference = json.loads(capsys.readouterr().out)
    assert [(part["name"], part["old"], part["new"]) for part in difference["bundles"]] == [("os-core", "10", "20")]


def test_an_image_without_a_document_is_one_line_with_a_hint(
    images: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["diff-image", images[0], str(tmp_path / "absent")]) == 1
    error, hint = capsys.readouterr().err.splitlines()
    assert f"cannot read {tmp_path}/absent.spdx.json" in error
    assert "mixer build image" in hint


@pytest.mark.parametrize("path", [".", "/"])
def test_a_path_without_a_name_is_no_image(
    images: tuple[str, str], path: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["diff-image", images[0], path]) == 1
    assert capsys.readouterr().err.startswith("Error: cannot read /")
