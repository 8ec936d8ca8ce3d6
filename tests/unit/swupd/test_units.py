"""The units in contrib/systemd."""

from __future__ import annotations

import configparser
import shutil
import subprocess
from pathlib import Path

import pytest

from swupd import cli
from swupd.statedir import DEFAULT
from swupd.transaction.journal import State

UNITS = Path(__file__).parents[3] / "contrib" / "systemd"
NAMES = sorted(unit.name for unit in UNITS.iterdir())


def commands(unit: str) -> list[list[str]]:
    lines = (UNITS / unit).read_text().splitlines()
    return [line.partition("=")[2].split() for line in lines if line.startswith("ExecStart=")]


def read(unit: str) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(interpolation=None, strict=False)
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    parser.read(UNITS / unit)
    return parser


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd")
def test_systemd_has_no_complaint(tmp_path: Path) -> None:
    for name in NAMES:
        text = (UNITS / name).read_text()
        (tmp_path / name).write_text(
            text.replace("/usr/bin/swupd", "/bin/true").replace("/usr/bin/verifytime", "/bin/true")
        )
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *(str(tmp_path / name) for name in NAMES)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert [line for line in done.stderr.splitlines() if any(name in line for name in NAMES)] == []
    assert done.returncode == 0


def test_every_command_of_a_unit_is_one_that_the_parser_takes() -> None:
    ours = [command for name in NAMES for command in commands(name) if command[0] == "/usr/bin/swupd"]
    assert len(ours) == 3
    for _, *arguments in ours:
        name, rest = cli._subcommand(arguments)
        cli.subcommand_parser(name, cli.load(name)).parse_args(rest)


def test_the_timer_has_the_times_of_the_original() -> None:
    assert dict(read("swupd-update.timer")["Timer"]) == {
        "OnBootSec": "45min",
        "OnUnitActiveSec": "45min",
        "AccuracySec": "300s",
        "RandomizedDelaySec": "2700s",
    }
    assert read("swupd-update.timer")["Install"]["WantedBy"] == "multi-user.target"


def test_recovery_at_boot_looks_for_the_journal_in_every_state() -> None:
    pattern = read("swupd-recover.service")["Unit"]["ConditionPathExistsGlob"]
    assert all(Path(DEFAULT, state.value).match(pattern) for state in State)
