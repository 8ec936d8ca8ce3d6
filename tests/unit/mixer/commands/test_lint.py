"""`mixer lint`."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from mixer.cli import main
from mixer.workspace import Workspace

CONVERT = "`stateless: convert` in builder.yaml"


def lint(workspace: Workspace, *arguments: str) -> int:
    return main(["--workspace", str(workspace.path), "lint", *arguments])


@pytest.fixture
def program(prepared: Workspace) -> Path:
    """A program that everybody can write."""
    path = prepared.path.parent / "roots/10/full/usr/bin/hello"
    path.chmod(0o777)
    return path


def test_a_version_without_violations_ends_well(prepared: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert lint(prepared) == 0
    assert capsys.readouterr().out == "version 10: no violation\n"


def test_each_violation_is_a_line_with_its_mend(
    prepared: Workspace, program: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert lint(prepared, "--quiet") == 1
    heading, line = capsys.readouterr().out.splitlines()
    assert heading.split() == ["bundle", "path", "rule", "detail", "mend"]
    assert line.startswith("os-core  /usr/bin/hello  world-writable  -rwxrwxrwx  take write permission from others")


def test_scripts_get_json_alone(prepared: Workspace, program: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert lint(prepared, "--version", "10", "--json") == 1
    answer = json.loads(capsys.readouterr().out)
    assert answer["version"] == 10
    assert [(found["bundle"], found["path"], found["rule"]) for found in answer["findings"]] == [
        ("os-core", "/usr/bin/hello", "world-writable")
    ]


def test_what_a_build_could_convert_is_only_told_for_packages(
    prepared: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    full = prepared.path.parent / "roots/10/full"
    (full / "etc").mkdir()
    (full.parent / "os-core-info").write_text(json.dumps({"Name": "os-core", "Files": {"/etc": False, "/srv": False}}))
    (full / "srv").symlink_to("usr")
    capsys.readouterr()
    assert lint(prepared) == 1
    assert CONVERT not in capsys.readouterr().out
    shutil.copytree(full.parent, prepared.image(10), symlinks=True)
    prepared.config_file.write_text("source: {type: apt, suites: [bookworm]}\n")
    assert lint(prepared) == 1
    assert CONVERT in capsys.readouterr().out
    prepared.config_file.write_text("source: {type: apt, suites: [bookworm]}\nstateless: convert\n")
    assert lint(prepared) == 1
    assert CONVERT not in capsys.readouterr().out


def test_a_version_that_was_not_composed_is_one_clear_error(
    prepared: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    assert lint(prepared, "--version", "20") == 1
    assert "has no version 20" in capsys.readouterr().err


def test_a_mix_that_rejects_is_not_built_with_violations(
    prepared: Workspace, program: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with prepared.config_file.open("a") as stream:
        stream.write("stateless: reject\n")
    build = ["--workspace", str(prepared.path), "build", "update", "--no-signing"]
    assert main(build) == 1
    told = capsys.readouterr().err
    assert (
        "version 10 breaks the rules of a stateless OS 1 time, first with /usr/bin/hello of the bundle os-core" in told
    )
    assert "`mixer lint --version 10`" in told
    assert not (prepared.www / "10").exists()

    program.chmod(0o755)
    assert main(build) == 0
