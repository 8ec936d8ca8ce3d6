"""An update that another one has to follow is one command for whoever began it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from swupd.commands.rerun import CONFIRMED, is_confirmed, own_command
from swupd.errors import ExitCode
from swupd.formats import layout
from swupd.history import read

Bundles = dict[str, Any]
Machine = Any
Publisher = Any


def process(machine: Machine, *argv: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "swupd.cli", *machine.argv("update", "--no-scripts", *argv)],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"SWUPD_CONFIG_PATH": ""},
    )


def steps_of(machine: Machine) -> list[tuple[int, int]]:
    """From which version to which one each update went."""
    return [(e.from_version, e.to_version) for e in read(machine.state) if e.command == "update"]


@pytest.fixture
def four_versions(published: Publisher, ten: Bundles) -> Publisher:
    """Versions 10 to 40, all of them named by the server."""
    for version in (20, 30, 40):
        ten["os-core"].files["/usr/bin/core"] = f"core of {version}"
        published.publish(version, ten)
    (published.directory / layout.latest(30)).write_text("40\n30\n20\n10\n")
    return published


@pytest.mark.usefixtures("four_versions")
def test_an_incremental_update_goes_through_all_versions(machine: Machine) -> None:
    done = process(machine, "--incremental", "--json-output")
    assert done.returncode == 0, done.stderr
    assert steps_of(machine) == [(10, 20), (20, 30), (30, 40)]
    stream = json.loads(done.stdout)
    assert [record["type"] for record in stream].count("end") == 1


@pytest.mark.usefixtures("four_versions")
def test_an_incremental_update_ends_at_the_version_that_was_asked_for(machine: Machine) -> None:
    assert process(machine, "--incremental", "--version", "30").returncode == 0
    assert steps_of(machine) == [(10, 20), (20, 30)]


@pytest.mark.usefixtures("four_versions")
def test_any_other_update_goes_to_the_newest_version_at_once(machine: Machine) -> None:
    machine.run("update", "--no-scripts", "--version", "latest")
    assert steps_of(machine) == [(10, 40)]


def test_a_new_format_is_handled_by_the_new_program(machine: Machine, published: Publisher, ten: Bundles) -> None:
    """The client is a file of the OS; version 20 replaces it."""
    script = f"#!{sys.executable}\nimport sys\nfrom swupd.cli import main\nprint('{{}} program')\nsys.exit(main())\n"
    old, new = script.format("old"), script.format("new")
    core = ten["os-core"]
    core.executable = ["/usr/bin/swupd"]
    core.files["/usr/bin/swupd"] = old
    published.publish(20, ten)
    machine.run("update", "--no-scripts")
    core.files["/usr/bin/swupd"] = new
    published.publish(30, ten, says=(40, 31))
    published.publish(40, ten, number=31)
    core.files["/usr/bin/core"] = "newest"
    published.publish(50, ten, number=31)
    done = subprocess.run(
        [machine.root / "usr/bin/swupd", *machine.argv("update", "--no-scripts")],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"SWUPD_CONFIG_PATH": ""},
    )
    assert done.returncode == 0, done.stderr
    assert [line for line in done.stdout.splitlines() if line.endswith(" program")] == ["old program", "new program"]
    assert machine.read("/usr/bin/core") == "newest"


def test_a_system_that_denies_its_new_version_is_not_updated_in_circles(
    machine: Machine, published: Publisher, ten: Bundles
) -> None:
    published.publish(20, ten, says=(10, 30))
    published.publish(30, ten)
    (published.directory / layout.latest(30)).write_text("30\n20\n")
    done = process(machine, "--incremental")
    assert done.returncode == ExitCode.VERSION_UNKNOWN
    assert "the system says that it has version 10" in done.stderr


def test_a_script_is_called_by_its_own_name(tmp_path: Path) -> None:
    script = tmp_path / "swupd"
    script.touch(mode=0o755)
    assert own_command([str(script), "update"], ["python3", str(script), "update"], "/usr/bin/python3") == (
        [str(script), "update"]
    )


def test_a_module_is_called_with_its_interpreter(tmp_path: Path) -> None:
    assert own_command([str(tmp_path / "cli.py"), "update"], ["python3", "-m", "swupd.cli", "update"], "/bin/py") == (
        ["/bin/py", "-m", "swupd.cli", "update"]
    )


def test_a_confirmation_holds_for_this_process_and_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CONFIRMED, str(os.getpid() + 1))
    assert not is_confirmed()
    monkeypatch.setenv(CONFIRMED, str(os.getpid()))
    assert is_confirmed()
    assert not is_confirmed()
