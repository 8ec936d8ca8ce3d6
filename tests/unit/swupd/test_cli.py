from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from swupd import cli
from swupd.configfile import parse
from swupd.errors import ExitCode, UnknownBundleError, UsageError
from swupd.report import Report

HEAVY = ("requests", "zstandard", "cryptography", "asn1crypto", "bsdiff4")


@pytest.fixture(autouse=True)
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty configuration directory instead of the host's."""
    directory = tmp_path / "config"
    directory.mkdir()
    monkeypatch.setenv("SWUPD_CONFIG_PATH", str(directory))
    return directory


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[Namespace, Report], int]], None]:
    """Puts a function in the place of what every subcommand does."""

    def install(run: Callable[[Namespace, Report], int]) -> None:
        def add_arguments(parser: ArgumentParser) -> None:
            parser.add_argument("bundles", nargs="*")
            parser.add_argument("-x", "--force", action="store_true")

        module = SimpleNamespace(HELP="do it", EXAMPLES="  it", add_arguments=add_arguments, run=run)
        monkeypatch.setattr(cli, "load", lambda name: module)

    return install


def parsed(command: Callable[..., None], *argv: str) -> Namespace:
    seen: list[Namespace] = []

    def run(args: Namespace, report: Report) -> int:
        seen.append(args)
        return 0

    command(run)
    assert cli.main(["update", *argv]) == 0
    return seen[0]


def test_no_subcommand_shows_help_and_succeeds(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([]) == 0
    assert "bundle-add" in capsys.readouterr().out


@pytest.mark.parametrize("argv", [["nonsense"], ["--nonsense"], ["info", "--nonsense"], ["update", "-V", "minus"]])
def test_a_mistake_on_the_command_line_shows_help_on_standard_error_and_ends_with_15(
    argv: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(argv) == ExitCode.INVALID_OPTION
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("usage: swupd")
    assert "\nError: " in captured.err


def test_an_unknown_option_is_named_even_if_arguments_are_missing_too(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["bundle-add", "--nonsense"]) == ExitCode.INVALID_OPTION
    assert "unknown option --nonsense" in capsys.readouterr().err


def test_version_is_printed_before_a_subcommand_only(
    command: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["-v"]) == 0
    assert capsys.readouterr().out.startswith("swupd ")
    assert parsed(command, "-v", "https://example.org/").versionurl == "https://example.org/"


def test_long_options_may_be_abbreviated_while_unambiguous(command: Callable[..., None]) -> None:
    assert parsed(command, "--max-par", "3", "--ignore").max_parallel_downloads == 3
    assert cli.main(["update", "--no"]) == ExitCode.INVALID_OPTION


def test_options_and_arguments_may_be_mixed(command: Callable[..., None]) -> None:
    args = parsed(command, "one", "-x", "two", "--path", "/tmp", "three")
    assert args.bundles == ["one", "two", "three"]
    assert args.force
    assert args.path == Path("/tmp")


def test_debug_wins_over_quiet(command: Callable[..., None]) -> None:
    assert not parsed(command, "--quiet", "--debug").quiet


@pytest.mark.parametrize(
    "argv",
    [
        ["-W", "0"],
        ["-d", "61"],
        ["-P", "65536"],
        ["-F", "0"],
        ["-F", "new"],
        ["-S", "relative"],
        ["--assume", "maybe"],
        ["-r", "-1"],
        ["-W", "٣"],
    ],
)
def test_values_out_of_range_are_refused(argv: list[str], command: Callable[..., None]) -> None:
    command(lambda args, report: 0)
    assert cli.main(["update", *argv]) == ExitCode.INVALID_OPTION


def test_yes_is_the_same_as_assume_yes(command: Callable[..., None]) -> None:
    assert parsed(command, "-y").assume is True
    assert parsed(command, "--assume", "n").assume is False
    assert parsed(command).assume is None


def test_the_configuration_file_gives_defaults_that_the_command_line_overrides(
    command: Callable[..., None], config: Path
) -> None:
    (config / "config").write_text("[GLOBAL]\nmax_parallel_downloads=8\nyes=true\n[update]\nforce=true\nquiet=false\n")
    args = parsed(command)
    assert (args.max_parallel_downloads, args.assume, args.force, args.quiet) == (8, True, True, False)
    assert parsed(command, "-W", "2").max_parallel_downloads == 2


def test_an_unknown_name_in_the_configuration_file_is_only_a_warning(
    command: Callable[..., None], config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (config / "config").write_text("colour=blue\n")
    parsed(command)
    assert capsys.readouterr().err == f"Warning: {config}/config:1: colour is no option of this command\n"


def test_a_wrong_value_in_the_configuration_file_is_an_error_with_its_line(
    command: Callable[..., None], config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (config / "config").write_text("\nmax_retries=many\n")
    command(lambda args, report: 0)
    assert cli.main(["update"]) == ExitCode.INVALID_OPTION
    assert f"{config}/config:2: max_retries: 'many' is not a number" in capsys.readouterr().err


def test_a_broken_configuration_file_is_one_line(
    command: Callable[..., None], config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (config / "config").write_text("[update\n")
    assert cli.main(["update"]) == ExitCode.INVALID_OPTION
    assert f"Error: {config}/config:1" in capsys.readouterr().err


def test_set_defaults_ignores_help() -> None:
    parser = ArgumentParser()
    settings = {setting.key: setting for setting in parse(b"help=true\n", "config")}
    assert cli.set_defaults(parser, settings) == ["config:1: help is no option of this command"]


def raising(error: BaseException) -> Callable[[Namespace, Report], int]:
    def run(args: Namespace, report: Report) -> int:
        raise error

    return run


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (UnknownBundleError("bundle x is unknown"), ExitCode.INVALID_BUNDLE, "Error: bundle x is unknown"),
        (UsageError("no"), ExitCode.INVALID_OPTION, "Error: no"),
        (OSError(28, "No space left on device", "/var/lib/x"), ExitCode.DISK_SPACE, "Error: /var/lib/x: No space left"),
        (OSError(30, "Read-only file system", "/usr"), ExitCode.CANNOT_WRITE_FILE, "Error: /usr: Read-only file"),
        (PermissionError(13, "Permission denied", "/etc"), ExitCode.CANNOT_WRITE_FILE, "Error: /etc: Permission"),
        (FileNotFoundError(2, "No such file", "/gone"), ExitCode.UNEXPECTED, "Error: /gone: No such file"),
        (MemoryError(), ExitCode.OUT_OF_MEMORY, "Error: out of memory"),
        (KeyboardInterrupt(), 130, "Error: interrupted"),
    ],
)
def test_an_expected_failure_is_one_line_and_its_exit_status(
    error: BaseException,
    status: int,
    line: str,
    command: Callable[..., None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    command(raising(error))
    assert cli.main(["update"]) == status
    err = capsys.readouterr().err
    assert err.startswith(line)
    assert "Traceback" not in err


def test_a_hint_follows_the_error(command: Callable[..., None], capsys: pytest.CaptureFixture[str]) -> None:
    command(raising(UsageError("no", hint="try yes")))
    cli.main(["update"])
    assert capsys.readouterr().err == "Error: no\nHint: try yes\n"


def test_a_bug_keeps_its_traceback(command: Callable[..., None]) -> None:
    command(raising(ZeroDivisionError()))
    with pytest.raises(ZeroDivisionError):
        cli.main(["update"])


def test_an_error_in_json_is_part_of_a_valid_stream(
    command: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    command(raising(UnknownBundleError('bundle "x"\tis unknown')))
    assert cli.main(["update", "-j"]) == ExitCode.INVALID_BUNDLE
    records = json.loads(capsys.readouterr().out)
    assert records[0] == {"type": "start", "section": "update"}
    assert records[1]["type"] == "error"
    assert records[-1] == {"type": "end", "section": "update", "status": ExitCode.INVALID_BUNDLE}


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_subcommand_has_a_description_an_example_and_a_line_for_each_option(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    parser = cli.subcommand_parser(name, cli.load(name))
    assert cli.main([name, "--help"]) == 0
    text = capsys.readouterr().out
    assert f"\n  swupd {name}" in text
    assert all(action.help for action in parser._actions)


def test_a_reader_who_goes_away_does_not_stop_the_command() -> None:
    stream = cli.PatientStream(io.TextIOWrapper(io.FileIO(os.pipe()[1], "w"), write_through=True))
    assert stream.write("x") == 1
    assert stream.close(0) == 0


def test_lost_output_is_a_failure(capfd: pytest.CaptureFixture[str]) -> None:
    with open("/dev/full", "w") as full:
        stream = cli.PatientStream(full)
        stream.write("x" * 100_000)
        assert stream.close(0) == ExitCode.CANNOT_WRITE_FILE
        assert stream.close(5) == 5
    assert "No space left on device" in capfd.readouterr().err


def test_a_closed_pipe_is_no_failure() -> None:
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as pipe:
        stream = cli.PatientStream(pipe)
        stream.write("x" * 100_000)
        assert stream.close(0) == 0


@pytest.mark.parametrize("argv", [["info", "--path", "/nonexistent"], ["hashdump", "/"], ["--help"], ["update", "-h"]])
def test_light_commands_import_nothing_heavy(argv: list[str]) -> None:
    code = f"import sys; from swupd.cli import main; main({argv!r}); print([m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
