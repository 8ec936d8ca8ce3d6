from __future__ import annotations

import json
from typing import Any

import pytest

from swupd.errors import ExitCode


def break_(machine: Any) -> None:
    (machine.root / "usr/bin/edit").write_text("broken")


def test_alone_it_is_diagnose(machine: Any) -> None:
    machine.run("verify")
    assert "use 'swupd diagnose'" in machine.err
    break_(machine)
    machine.run("verify", "--quiet", status=ExitCode.NO)
    assert machine.out == f"{machine.root}/usr/bin/edit\n"
    assert machine.read("/usr/bin/edit") == "broken"


def test_with_fix_it_is_repair(machine: Any) -> None:
    break_(machine)
    machine.run("verify", "--fix", "-m", "10", "--no-scripts")
    assert "use 'swupd repair'" in machine.err
    assert machine.read("/usr/bin/edit") == "edit"


@pytest.mark.parametrize("version", [["-m", "latest"], ["-V", "10"], []])
def test_with_install_it_is_os_install(bare: Any, version: list[str]) -> None:
    bare.run("verify", "--install", *version, "--bundles", "games", "--no-scripts")
    assert "use 'swupd os-install'" in bare.err
    assert bare.bundles() == {"os-core", "games"}


@pytest.mark.parametrize(
    "options", [["--install", "--fix"], ["--install", "--picky"], ["-m", "latest"], ["-m", "nonsense"]]
)
def test_what_does_not_fit_together_is_refused(machine: Any, options: list[str]) -> None:
    machine.run("verify", *options, status=ExitCode.INVALID_OPTION)


def test_json_is_valid_and_keeps_the_old_name(machine: Any) -> None:
    machine.run("verify", "--json-output")
    stream = json.loads(machine.out)
    assert stream[0] == {"type": "start", "section": "verify"}
    assert stream[-1] == {"type": "end", "section": "verify", "status": 0}
