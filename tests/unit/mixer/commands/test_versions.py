"""`mixer versions`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mixer.cli import main
from mixer.workspace import State, Workspace


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    assert main(["--quiet", "--workspace", str(tmp_path), "init"]) == 0
    return Workspace(tmp_path)


def versions(workspace: Workspace, *arguments: str) -> int:
    return main(["--workspace", str(workspace.path), "versions", *arguments])


def test_versions_are_shown(workspace: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    workspace.set_mix_version(30)
    workspace.set_last_version(20)
    assert versions(workspace) == 0
    assert capsys.readouterr().out == "mix version     30\nprevious        0\nlast published  20\nformat          30\n"


def test_scripts_get_json(workspace: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    assert versions(workspace, "--json") == 0
    assert json.loads(capsys.readouterr().out) == {"mix_version": 10, "previous": 0, "last_published": 0, "format": 30}


def test_update_goes_on_by_ten_and_compares_with_the_last_published_version(workspace: Workspace) -> None:
    workspace.set_last_version(10)
    workspace.set_state(State(7, 0))
    assert versions(workspace, "update") == 0
    assert (workspace.mix_version(), workspace.state()) == (20, State(7, 10))


def test_update_takes_an_increment_or_a_version(workspace: Workspace) -> None:
    assert versions(workspace, "update", "--increment", "5") == 0
    assert workspace.mix_version() == 15
    assert versions(workspace, "update", "--mix-version", "500") == 0
    assert workspace.mix_version() == 500


def test_the_first_version_may_be_set_once_more_before_it_is_published(workspace: Workspace) -> None:
    assert versions(workspace, "update", "--mix-version", "10") == 0
    assert workspace.mix_version() == 10


@pytest.mark.parametrize(
    ("last", "arguments"),
    [
        (10, ["--mix-version", "10"]),
        (0, ["--mix-version", "9"]),
        (0, ["--increment", "-5"]),
        (10, ["--increment", "0"]),
        (0, ["--mix-version", str(2**31)]),
    ],
)
def test_versions_only_ever_grow(
    workspace: Workspace, last: int, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    workspace.set_last_version(last)
    before = workspace.state()
    assert versions(workspace, "update", *arguments) == 1
    assert "the new mix version must" in capsys.readouterr().err
    assert (workspace.mix_version(), workspace.state()) == (10, before)


def test_nothing_changes_while_another_mixer_is_at_work(
    workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    with workspace.lock():
        assert versions(workspace, "update") == 1
    assert "another mixer is working" in capsys.readouterr().err
    assert workspace.mix_version() == 10
