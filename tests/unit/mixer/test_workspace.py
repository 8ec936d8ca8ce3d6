"""The workspace's state files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mixer.errors import WorkspaceError
from mixer.workspace import State, Workspace


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path)


def test_a_directory_without_configuration_is_no_workspace(workspace: Workspace) -> None:
    with pytest.raises(WorkspaceError, match="is not a workspace") as caught:
        workspace.require()
    assert "mixer init" in caught.value.hint


def test_a_workspace_of_the_original_is_recognised(workspace: Workspace) -> None:
    (workspace.path / "builder.conf").write_text("#VERSION 1.2\n")
    with pytest.raises(WorkspaceError) as caught:
        workspace.require()
    assert "original" in caught.value.hint


def test_versions_are_read_back_as_written(workspace: Workspace) -> None:
    workspace.set_mix_version(30)
    workspace.set_last_version(20)
    workspace.set_state(State(format=2, previous=10))
    assert (workspace.mix_version(), workspace.last_version(), workspace.state()) == (30, 20, State(2, 10))


def test_state_of_the_original_is_read(workspace: Workspace) -> None:
    workspace.state_file.write_text('#VERSION 1.1\n\n[Mix]\n  FORMAT = "30"\n  PREVIOUS_MIX_VERSION = "120"\n')
    assert workspace.state() == State(30, 120)


def test_without_last_version_nothing_was_published(workspace: Workspace) -> None:
    assert workspace.last_version() == 0


def test_a_lost_state_follows_from_what_was_published(workspace: Workspace) -> None:
    assert workspace.state() == State(30, 0)
    workspace.set_last_version(20)
    workspace.published(20).mkdir(parents=True)
    (workspace.published(20) / "format").write_text("7")
    assert workspace.state() == State(7, 20)


@pytest.mark.parametrize("content", ["", "ten", "-1", "0", "1.5", "²", "9" * 30, "\udcff10"])
def test_a_damaged_mix_version_is_refused(workspace: Workspace, content: str) -> None:
    workspace.version_file.write_bytes(os.fsencode(content))
    with pytest.raises(WorkspaceError, match="mixversion"):
        workspace.mix_version()


def test_a_missing_mix_version_is_refused(workspace: Workspace) -> None:
    with pytest.raises(WorkspaceError, match="mixversion is missing"):
        workspace.mix_version()


@pytest.mark.parametrize(
    "content",
    [b"FORMAT =", b"\xff", b'FORMAT = "1"', b'[Mix]\nFORMAT = "0"\nPREVIOUS_MIX_VERSION = "0"', b'[Mix]\nFORMAT = "1"'],
)
def test_a_damaged_state_is_refused(workspace: Workspace, content: bytes) -> None:
    workspace.state_file.write_bytes(content)
    with pytest.raises(WorkspaceError, match=r"mixer\.state") as caught:
        workspace.state()
    assert caught.value.hint


def test_mix_bundles_are_written_sorted_and_once(workspace: Workspace) -> None:
    workspace.set_mix_bundles(["web", "os-core", "web", "App"])
    assert workspace.bundles_file.read_text() == "App\nos-core\nweb\n"


def test_mix_bundles_are_read_with_their_lines(workspace: Workspace) -> None:
    workspace.bundles_file.write_text("# the mix\nweb\n\n os-core # always\nweb\n")
    assert workspace.mix_bundles() == (("web", 2), ("os-core", 4))


def test_without_a_list_the_mix_is_empty(workspace: Workspace) -> None:
    assert workspace.mix_bundles() == ()


def test_a_locked_workspace_is_refused_at_once(workspace: Workspace) -> None:
    with workspace.lock(), pytest.raises(WorkspaceError, match=f"process {os.getpid()}"), workspace.lock():
        pass
    with workspace.lock():
        pass


def test_paths_inside_are_shown_relative(workspace: Workspace) -> None:
    assert workspace.shown(workspace.local_bundles / "web") == "local-bundles/web"
    assert workspace.shown(Path("/srv/other")) == "/srv/other"
