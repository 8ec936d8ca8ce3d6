"""The two words of a subcommand: help, mistakes, configuration, and the section in the JSON stream."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from swupd.cli import GROUP_COMMANDS, load, main, subcommand_parser
from swupd.errors import ExitCode


@pytest.mark.parametrize("argv", [[], ["--help"], ["-h"]])
def test_help_lists_the_subcommands(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["3rd-party", *argv]) == 0
    out = capsys.readouterr().out
    assert all(f"  {name.partition(' ')[2]} " in out and load(name).HELP in out for name in GROUP_COMMANDS)


def test_the_overview_names_the_group(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--help"])
    assert "\n  3rd-party " in capsys.readouterr().out


@pytest.mark.parametrize("argv", [["nonsense"], ["--nonsense"], ["update", "--nonsense"], ["add", "only-a-name"]])
def test_a_mistake_is_15_with_help(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["3rd-party", *argv]) == ExitCode.INVALID_OPTION
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("usage: swupd 3rd-party")
    assert "\nError: " in captured.err


@pytest.mark.parametrize("name", GROUP_COMMANDS)
def test_each_subcommand_has_help_with_examples_that_parse(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*name.split(), "--help"]) == 0
    assert f"usage: swupd {name}" in capsys.readouterr().out
    parser = subcommand_parser(name, load(name))
    for line in load(name).EXAMPLES.splitlines():
        words = line.strip().partition("   ")[0].split()
        assert words[:3] == ["swupd", *name.split()]
        parser.parse_args(words[3:])


def test_a_subcommand_has_its_own_section_of_the_configuration(
    machine: Any, mine: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.add("mine", mine)
    (tmp_path / "config").write_text("[info]\nrepo=nonsense\n[3rd-party-info]\nquiet=true\nrepo=mine\n")
    monkeypatch.setenv("SWUPD_CONFIG_PATH", str(tmp_path))
    machine.run("info")
    assert machine.out == "10\n"


def test_an_error_is_in_the_json_stream(machine: Any) -> None:
    machine.run("remove", "nonsense", "--json-output", status=ExitCode.THIRD_PARTY_REPOSITORY)
    assert [record["type"] for record in json.loads(machine.out)] == ["start", "error", "end"]
