from __future__ import annotations

import json
import signal
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

HEAVY = ("requests", "zstandard", "cryptography", "asn1crypto", "rich")


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


@pytest.mark.parametrize("name", [name for name in (*cli.COMMANDS, *cli.GROUP_COMMANDS) if name != "search"])
def test_every_subcommand_has_a_description_an_example_and_a_line_for_each_option(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    parser = cli.subcommand_parser(name, cli.load(name))
    assert cli.main([*name.split(), "--help"]) == 0
    text = capsys.readouterr().out
    assert f"\n  swupd {name}" in text
    assert all(action.help for action in parser._actions)


LIGHT = [
    ["info", "--path", "{root}"],
    ["bundle-list", "--path", "{root}"],
    ["history", "--path", "{root}"],
    ["mirror", "--path", "{root}"],
    ["autoupdate", "--path", "{root}"],
    ["hashdump", "/"],
    ["--help"],
    ["--version"],
    ["update", "-h"],
    ["3rd-party", "-h"],
    ["3rd-party", "update", "-h"],
]


@pytest.mark.parametrize("argv", LIGHT, ids=" ".join)
def test_light_commands_import_nothing_heavy(argv: list[str], tmp_path: Path) -> None:
    (tmp_path / "usr/lib").mkdir(parents=True)
    (tmp_path / "usr/lib/os-release").write_text("VERSION_ID=10\n")
    argv = [text.format(root=tmp_path) for text in argv]
    code = f"import sys; from swupd.cli import main; main({argv!r}); print([m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    ("argv", "quiet", "verbose"),
    [
        (["--quiet", "--verbose"], True, False),
        (["--quiet", "--verbose", "--debug"], False, True),
        (["--debug"], False, True),
        (["--verbose"], False, True),
    ],
)
def test_debugging_wins_over_quiet_and_quiet_over_verbose(
    argv: list[str], quiet: bool, verbose: bool, command: Callable[..., None]
) -> None:
    args = parsed(command, *argv)
    assert (args.quiet, args.verbose) == (quiet, verbose)


@pytest.mark.parametrize(
    ("argv", "meant"),
    [
        (["bundel-add"], "bundle-add"),
        (["bundle-add", "--skip-optinal"], "--skip-optional"),
        (["info", "--contentrul=x"], "--contenturl"),
        (["--verison"], "--version"),
    ],
)
def test_a_typing_mistake_is_answered_with_what_was_probably_meant(
    argv: list[str], meant: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(argv) == ExitCode.INVALID_OPTION
    assert capsys.readouterr().err.endswith(f"; did you mean {meant}?\n")


def test_what_resembles_nothing_gets_no_suggestion(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["zzz"]) == ExitCode.INVALID_OPTION
    assert capsys.readouterr().err.endswith("\nError: unknown subcommand zzz\n")


def test_after_two_dashes_everything_is_an_argument(command: Callable[..., None]) -> None:
    assert parsed(command, "one", "--", "-x", "--force").bundles == ["one", "-x", "--force"]


# -- one JSON array however a command ends, in a real process --------------------------------------------------------

PROCESS = """\
import os, signal, sys, time
from types import SimpleNamespace
from swupd import cli
from swupd.report import CONTINUES

def run(args, report):
    {body}
    return 0

def add_arguments(parser):
    pass

cli.load = lambda name: SimpleNamespace(HELP="do it", EXAMPLES="  it", add_arguments=add_arguments, run=run)
sys.exit(cli.main(["update", *sys.argv[1:]]))
"""


def start(body: str, *argv: str) -> subprocess.Popen[str]:
    code = PROCESS.format(body=body.replace("\n", "\n    "))
    return subprocess.Popen(
        [sys.executable, "-c", code, *argv], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def records(text: str) -> list[dict[str, object]]:
    array: list[dict[str, object]] = json.loads(text)
    assert [record["type"] for record in array if record["type"] in ("start", "end")] == ["start", "end"]
    return array


def test_a_command_that_executes_itself_anew_goes_on_with_its_array() -> None:
    body = """\
report.info(os.environ.get("ROUND", "first"))
assert CONTINUES not in os.environ
if "ROUND" not in os.environ:
    os.execve(sys.executable, sys.orig_argv, os.environ | {"ROUND": "second"} | report.hand_over())"""
    out, err = start(body, "-j").communicate()
    assert err == ""
    assert [record.get("msg") for record in records(out)] == [None, "first", "second", None]


def test_a_command_line_that_the_next_program_refuses_still_ends_the_array() -> None:
    body = """\
arguments = [*sys.orig_argv, "--path"]
os.execve(sys.executable, arguments, os.environ | report.hand_over())"""
    out, err = start(body, "-j").communicate()
    assert records(out)[-1] == {"type": "end", "section": "update", "status": ExitCode.INVALID_OPTION}
    assert "--path: expected one argument" in err


def test_the_variable_of_another_process_means_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SWUPD_JSON_CONTINUES", "1 update")
    out, _ = start("pass", "-j").communicate()
    assert records(out)[0] == {"type": "start", "section": "update"}


@pytest.mark.parametrize(("number", "status"), [("SIGTERM", 143), ("SIGHUP", 129), ("SIGINT", 130)])
def test_a_signal_ends_the_array_with_its_status(number: str, status: int) -> None:
    process = start('report.info("begun")\ntime.sleep(30)', "-j")
    assert process.stdout is not None
    seen = ""
    while "begun" not in seen:
        seen += process.stdout.readline()
    process.send_signal(getattr(signal, number))
    rest, err = process.communicate()
    assert err == ""
    assert process.returncode == status
    array = records(seen + rest)
    assert array[-2]["type"] == "error"
    assert array[-1]["status"] == status


def test_a_second_signal_does_not_interrupt_the_tidying_up() -> None:
    body = """\
try:
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(30)
finally:
    os.kill(os.getpid(), signal.SIGTERM)
    os.kill(os.getpid(), signal.SIGINT)
    report.info("tidied up")"""
    process = start(body, "-j")
    out, err = process.communicate()
    assert (process.returncode, err) == (143, "")
    assert [record.get("msg") for record in records(out)][1] == "tidied up"


def test_a_bug_ends_the_array_and_keeps_its_traceback() -> None:
    process = start("raise ZeroDivisionError", "-j")
    out, err = process.communicate()
    assert records(out)[-1]["status"] == ExitCode.UNEXPECTED
    assert "ZeroDivisionError" in err


SECTIONS = {"search-file": "search"} | {
    f"3rd-party {name}": f"third-party-{name}" for name in ("add", "remove", "list", "info")
}


ACTIONS = {"boot": ["check"], "etc": ["diff"], "snapshots": ["list"]}


@pytest.mark.parametrize(
    "name", [name for name in (*cli.COMMANDS, *cli.GROUP_COMMANDS) if name not in ("hashdump", "search")]
)
def test_every_command_prints_one_array(name: str, tmp_path: Path) -> None:
    argv = [*name.split(), "--path", str(tmp_path), "--statedir", str(tmp_path / "state"), "--json-output"]
    argv += ["--url", f"file://{tmp_path}", "--nosigcheck", "--ignore-time"]
    if name.endswith(("bundle-add", "bundle-remove", "bundle-info", "search-file", "party add", "party remove")):
        argv.append("editors")
    if name.endswith("party add"):
        argv.append(f"file://{tmp_path}")
    argv += ACTIONS.get(name, [])
    done = subprocess.run([sys.executable, "-m", "swupd.cli", *argv], capture_output=True, text=True, check=False)
    array = records(done.stdout)
    section = array[0]["section"]
    assert section == SECTIONS.get(name, name.replace(" ", "-"))
    assert array[-1] == {"type": "end", "section": section, "status": done.returncode}
    assert "Traceback" not in done.stderr
