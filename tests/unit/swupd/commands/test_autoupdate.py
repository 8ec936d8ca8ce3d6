"""Real systemctl on the files of a root; what it is told on a running system is recorded by a program in its place."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from swupd.cli import main
from swupd.commands import autoupdate
from swupd.errors import ExitCode

UNITS = Path("usr/lib/systemd/system")

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="changing a system needs root"),
    pytest.mark.skipif(not Path(autoupdate.SYSTEMCTL).exists(), reason="there is no systemd here"),
]


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A root with the units, wanted by the distribution as it ships them."""
    monkeypatch.setenv("SWUPD_CONFIG_PATH", "")
    (tmp_path / UNITS / "multi-user.target.wants").mkdir(parents=True)
    (tmp_path / UNITS / autoupdate.SERVICE).write_text("[Service]\nType=oneshot\nExecStart=/usr/bin/swupd update\n")
    (tmp_path / UNITS / autoupdate.TIMER).write_text(
        "[Timer]\nOnBootSec=45min\n[Install]\nWantedBy=multi-user.target\n"
    )
    wants_link(tmp_path).symlink_to(f"../{autoupdate.TIMER}")
    return tmp_path


def wants_link(root: Path) -> Path:
    return root / UNITS / "multi-user.target.wants" / autoupdate.TIMER


def swupd(root: Path, *arguments: str) -> int:
    return main(["autoupdate", "--path", str(root), *arguments])


def test_updates_are_on_if_the_distribution_wants_them(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert swupd(root) == ExitCode.OK
    assert capsys.readouterr().out == "Automatic updates are on\n"


def test_they_can_be_switched_off_and_on_again(root: Path) -> None:
    assert swupd(root, "--disable") == ExitCode.OK
    for unit in (autoupdate.SERVICE, autoupdate.TIMER):
        assert os.readlink(root / "etc/systemd/system" / unit) == "/dev/null"
    assert swupd(root) == ExitCode.NO
    assert swupd(root, "--enable") == ExitCode.OK
    assert swupd(root) == ExitCode.OK


def test_a_timer_that_nothing_wants_is_off_and_gets_wanted(root: Path) -> None:
    wants_link(root).unlink()
    assert swupd(root) == ExitCode.NO
    assert swupd(root, "--enable") == ExitCode.OK
    assert swupd(root) == ExitCode.OK
    assert (root / "etc/systemd/system/multi-user.target.wants" / autoupdate.TIMER).is_symlink()


def test_a_system_without_the_units_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / UNITS).mkdir(parents=True)
    assert swupd(tmp_path) == ExitCode.SUBPROCESS
    assert "systemd does not know swupd-update.service" in capsys.readouterr().err


def test_a_machine_without_systemd_is_an_error(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(autoupdate, "SYSTEMCTL", "/nonexistent/systemctl")
    assert swupd(root) == ExitCode.SUBPROCESS
    assert swupd(root, "--disable") == ExitCode.SUBPROCESS


def test_both_ways_at_once_are_refused(root: Path) -> None:
    assert swupd(root, "--enable", "--disable") == ExitCode.INVALID_OPTION


def test_quiet_prints_nothing(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for option in (["--disable"], ["--enable"], []):
        swupd(root, "--quiet", *option)
    assert capsys.readouterr().out == ""


def test_json_is_valid(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    swupd(root, "--json-output")
    stream = json.loads(capsys.readouterr().out)
    assert [each["type"] for each in stream] == ["start", "info", "end"]
    assert stream[0]["section"] == "autoupdate"


def test_on_a_running_system_units_are_stopped_and_the_timer_is_restarted(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program, told = tmp_path / "systemctl", tmp_path / "told"
    program.write_text(f'#!/bin/sh\necho "$@" >> {told}\nif [ "$1" = is-enabled ]; then echo static enabled; fi\n')
    program.chmod(0o755)
    monkeypatch.setattr(autoupdate, "SYSTEMCTL", str(program))
    monkeypatch.setattr(autoupdate, "runs_systemd", lambda _: True)
    assert main(["autoupdate", "--disable"]) == ExitCode.OK
    assert main(["autoupdate", "--enable"]) == ExitCode.OK
    units = f"{autoupdate.SERVICE} {autoupdate.TIMER}"
    assert told.read_text().splitlines() == [
        f"mask --now {units}",
        f"unmask --now {units}",
        f"is-enabled {units}",
        f"restart {autoupdate.TIMER}",
    ]
