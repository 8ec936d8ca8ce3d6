"""Going back to the factory state, below the command."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from swupd.fs import Directory
from swupd.nextboot import reset
from tests.unit.swupd.nextboot.overlayroot import Silent

pytestmark = pytest.mark.usefixtures("no_sync")


def test_a_request_that_cannot_be_read_is_none(tmp_path: Path) -> None:
    boot = tmp_path / "run/state/boot"
    boot.mkdir(parents=True)
    assert reset.requested(tmp_path) == ()
    (boot / "reset").write_bytes(b"home\n\xff\nvar\n../etc\n")
    assert reset.requested(tmp_path) == ("var",)
    (boot / "reset").unlink()
    (boot / "reset").symlink_to("/etc/passwd")
    assert reset.requested(tmp_path) == ()


def test_an_interrupted_reset_of_etc_is_one_that_the_next_start_fills(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "etc").mkdir()
    for name in ("alpha", "passwd", "zeta"):
        (tmp_path / "etc" / name).touch()

    def interrupted(directory: Directory, name: str) -> None:
        if name != "passwd":
            raise KeyboardInterrupt
        directory.unlink(name)

    with monkeypatch.context() as patched:
        patched.setattr(Directory, "remove_tree", interrupted)
        with pytest.raises(KeyboardInterrupt):
            reset.empty(tmp_path, ["etc"])
    assert sorted(os.listdir(tmp_path / "etc")) == ["alpha", "zeta"]
    reset.empty(tmp_path, ["etc"])
    assert os.listdir(tmp_path / "etc") == []


def test_what_an_interrupted_reset_left_goes_with_the_next(tmp_path: Path) -> None:
    (tmp_path / "var/lib" / reset.TEMPORARY / "deep").mkdir(parents=True)
    reset.reset_var(tmp_path, "/var/lib/app", Silent(), is_host=False)
    assert os.listdir(tmp_path / "var/lib") == []


@pytest.mark.skipif(not os.access(reset.TMPFILES, os.X_OK), reason="systemd-tmpfiles is not installed")
def test_a_running_system_has_the_path_made_again(tmp_path: Path) -> None:
    report = Silent()
    (tmp_path / "var/no-such-thing-of-a-factory").mkdir(parents=True)
    reset.reset_var(tmp_path, "/var/no-such-thing-of-a-factory", report, is_host=True)
    assert report.lines == ["/var/no-such-thing-of-a-factory is as the factory has it"]
    assert os.listdir(tmp_path / "var") == []


def test_a_program_that_fails_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "systemd-tmpfiles"
    program.write_text("#!/bin/sh\necho no such user >&2\nexit 73\n")
    program.chmod(0o755)
    monkeypatch.setattr(reset, "TMPFILES", str(program))
    report = Silent()
    reset.reset_var(tmp_path, "/var/lib/app", report, is_host=True)
    assert report.lines == [f"/var/lib/app is removed, but {program} failed with status 73: no such user"]
