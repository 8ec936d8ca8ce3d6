"""`mixer init`."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mixer.bundles import BundleSet
from mixer.cli import main
from mixer.config import AptSource, TreeSource, load
from mixer.workspace import State, Workspace


def init(path: Path, *options: str) -> int:
    return main(["--workspace", str(path), "init", *options])


def contents(path: Path) -> dict[str, bytes]:
    return {str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()}


def test_a_new_workspace_is_ready_to_be_built(tmp_path: Path) -> None:
    assert init(tmp_path / "mix") == 0
    workspace = Workspace(tmp_path / "mix")
    config = load(workspace, {})
    assert isinstance(config.source, AptSource)
    assert (workspace.mix_version(), workspace.last_version(), workspace.state()) == (10, 0, State(30, 0))
    assert list(BundleSet.load(workspace, config)) == ["os-core", "os-core-update"]


def test_versions_and_formats_can_be_chosen(tmp_path: Path) -> None:
    assert init(tmp_path, "--mix-version", "100", "--format", "30") == 0
    workspace = Workspace(tmp_path)
    assert (workspace.mix_version(), workspace.state()) == (100, State(30, 0))


def test_prepared_roots_are_found_from_the_workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert init(Path("mix"), "--source", "tree", "--tree-path", "roots") == 0
    workspace = Workspace(Path("mix"))
    source = load(workspace, {}).source
    assert isinstance(source, TreeSource)
    assert os.path.normpath(source.path) == str(tmp_path / "roots")
    assert workspace.mix_bundles() == ()
    assert list(workspace.local_bundles.iterdir()) == []


def test_definitions_that_exist_are_used(tmp_path: Path) -> None:
    bundles = tmp_path / "bundles"
    bundles.mkdir()
    (bundles / "os-core").write_text("base-files\n")
    assert init(tmp_path / "mix", "--bundles", str(bundles)) == 0
    workspace = Workspace(tmp_path / "mix")
    assert load(workspace, {}).bundle_directories == (bundles,)
    assert [path.name for path in workspace.local_bundles.iterdir()] == ["os-core-update"]


def test_a_workspace_is_not_made_twice(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert init(tmp_path) == 0
    before = contents(tmp_path)
    assert init(tmp_path, "--mix-version", "50") == 1
    assert "is a workspace already" in capsys.readouterr().err
    assert contents(tmp_path) == before


def test_a_workspace_of_the_original_is_taken_over(tmp_path: Path) -> None:
    original = {
        "mixversion": b"30",
        "mixer.state": b'#VERSION 1.1\n\n[Mix]\nFORMAT = "2"\nPREVIOUS_MIX_VERSION = "20"\n',
        "mixbundles": b"os-core\nos-core-update\nweb\n",
        "builder.conf": b"#VERSION 1.2\n",
    }
    for name, content in original.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "local-bundles").mkdir()
    (tmp_path / "local-bundles/web").write_text("nginx\n")
    assert init(tmp_path) == 0
    assert contents(tmp_path).items() >= original.items()
    assert Workspace(tmp_path).state() == State(2, 20)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--mix-version", "0"], "--mix-version must be between 1 and"),
        (["--format", "1000"], "--format must be between 1 and 999"),
        (["--source", "tree"], "belong together"),
        (["--tree-path", "x"], "belong together"),
        (["--bundles", "nowhere"], "nowhere is not a directory"),
    ],
)
def test_wrong_options_change_nothing(
    options: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert init(tmp_path / "mix", *options) == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "mix").exists()


@pytest.mark.parametrize(("option", "file"), [("--mix-version", "mixversion"), ("--format", "mixer.state")])
def test_an_option_does_not_overrule_a_file_that_is_kept(
    option: str, file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / file).write_text("x")
    assert init(tmp_path, option, "5") == 1
    assert f"{option} cannot be given, because {file} exists" in capsys.readouterr().err
