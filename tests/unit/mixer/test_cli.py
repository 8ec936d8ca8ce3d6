"""The command line as a whole: help, global options, and how errors come out."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from mixer.cli import COMMANDS, main

SUBCOMMANDS = [
    ["init"],
    ["bundle"],
    *(["bundle", name] for name in ("add", "remove", "list", "validate", "create")),
    ["versions"],
    ["versions", "update"],
    ["build"],
    *(["build", name] for name in ("all", "bundles", "update")),
    ["serve"],
]


def wrong(argv: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as caught:
        main(argv)
    assert caught.value.code == 1
    return capsys.readouterr().err


@pytest.mark.parametrize("command", [[], *SUBCOMMANDS], ids=" ".join)
def test_every_command_has_a_help_with_an_example(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main([*command, "--help"])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    assert text.startswith(f"usage: {' '.join(['mixer', *command])}")
    assert "--workspace" in text
    assert "\n  mixer " in text or "\n  sudo mixer " in text


def test_the_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    text = capsys.readouterr().out
    assert all(f"    {command.NAME} " in text and command.HELP in text for command in COMMANDS)


def test_the_version_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--version"])
    assert caught.value.code == 0
    assert capsys.readouterr().out.startswith("mixer ")


@pytest.mark.parametrize(
    ("argv", "usage", "message"),
    [
        ([], "usage: mixer", "required: COMMAND"),
        (["bild"], "usage: mixer", "invalid choice: 'bild'"),
        (["versions", "update", "--bogus"], "usage: mixer versions update", "Error: unknown argument --bogus"),
        (["build", "all", "x", "y"], "usage: mixer build all", "Error: unknown arguments x y"),
        (["bundle", "add"], "usage: mixer bundle add", "required: NAME"),
        (["versions", "update", "--increment", "ten"], "usage: mixer versions update", "invalid int value: 'ten'"),
        (["versions", "update", "--incr", "5"], "usage: mixer versions update", "unknown arguments --incr 5"),
    ],
)
def test_a_wrong_command_line_shows_the_help_of_its_command(
    argv: list[str], usage: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    text = wrong(argv, capsys)
    assert text.startswith(usage)
    assert message in text.splitlines()[-1]


@pytest.mark.parametrize(
    "argv", [["--workspace", "{}", "versions"], ["versions", "--workspace", "{}"], ["versions", "-w", "{}"]]
)
def test_global_options_are_taken_before_and_after_the_command(
    argv: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--workspace", str(tmp_path), "init"]) == 0
    assert main([word.format(tmp_path) for word in argv]) == 0
    assert "mix version" in capsys.readouterr().out


def test_a_directory_that_is_no_workspace_is_one_line_and_a_hint(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--workspace", str(tmp_path), "versions"]) == 1
    first, second = capsys.readouterr().err.splitlines()
    assert first == f"Error: {tmp_path} is not a workspace: it has no builder.yaml"
    assert second.startswith("Hint: ")


def test_a_file_that_cannot_be_used_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--workspace", str(tmp_path), "init"]) == 0
    (tmp_path / "mixversion").unlink()
    (tmp_path / "mixversion").mkdir()
    assert main(["--workspace", str(tmp_path), "versions"]) == 1
    assert capsys.readouterr().err == f"Error: {tmp_path}/mixversion: Is a directory\n"


def test_quiet_prints_results_only(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--quiet", "--workspace", str(tmp_path), "init"]) == 0
    assert capsys.readouterr().out == ""
    assert main(["versions", "--quiet", "--workspace", str(tmp_path)]) == 0
    assert "mix version" in capsys.readouterr().out


def test_a_reader_that_stops_reading_is_no_error(tmp_path: Path) -> None:
    assert main(["--quiet", "--workspace", str(tmp_path), "init"]) == 0
    command = [sys.executable, "-m", "mixer.cli", "--workspace", str(tmp_path), "bundle", "list", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""


def test_help_needs_no_heavy_module() -> None:
    code = (
        "import contextlib, sys; from mixer.cli import main\n"
        "with contextlib.suppress(SystemExit): main(['--help'])\n"
        "print([name for name in ('cryptography', 'debian', 'zstandard', 'requests') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
