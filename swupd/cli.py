"""The command line `swupd SUBCOMMAND [options] [arguments]` (specification section 6).

* What a subcommand is lies in its own module of `swupd.commands`, imported only when it is called for.
* Defaults come from the configuration files (section 6.4), then the command line overrides them.
* A mistake on the command line prints the help on standard error and ends with status 15.
* Every error passes `_run`: an expected one becomes one line, a hint and its exit status; an interruption and a full
  disk are expected. Anything else is a bug of ours and keeps its traceback.
* Output that cannot be written (a closed pipe, a full disk) never stops a command in the middle of a change.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
import traceback
from argparse import Action, ArgumentError, ArgumentParser, HelpFormatter, Namespace, RawDescriptionHelpFormatter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from types import FrameType
from typing import TYPE_CHECKING, NoReturn, Protocol, TextIO, cast

from swupd import __version__
from swupd.commands.global_options import add_global_options
from swupd.errors import ExitCode, ProjectError, UsageError, is_disk_full
from swupd.report import JsonReport, Report, TextReport, show_error
from swupd.timings import TimedReport

if TYPE_CHECKING:
    from swupd.configfile import Setting

COMMANDS = (
    "info",
    "check-update",
    "update",
    "bundle-add",
    "bundle-remove",
    "bundle-list",
    "diagnose",
    "repair",
    "os-install",
    "clean",
    "hashdump",
)
_WITHOUT_GLOBAL_OPTIONS = frozenset({"hashdump"})
_SIGNALLED = 128
"""Exit status after a signal, without the signal's number, as shells have it."""
_HELP_WIDTH = 110
_NOT_WRITABLE = frozenset({errno.EACCES, errno.EPERM, errno.EROFS, errno.EIO, errno.EMFILE, errno.ENFILE, errno.EFBIG})


class Command(Protocol):
    """What a module of `swupd.commands` has."""

    HELP: str
    """One line for the list of subcommands."""
    EXAMPLES: str
    """What to type, for the end of the help."""

    def add_arguments(self, parser: ArgumentParser) -> None: ...

    def run(self, args: Namespace, report: Report) -> int: ...


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    # What a command makes has the modes that it names, whatever the umask of the shell.
    os.umask(0o022)
    out, err = PatientStream(sys.stdout), PatientStream(sys.stderr)
    try:
        name, rest = _subcommand(arguments)
        command = load(name)
        parser = subcommand_parser(name, command)
        complaints = [] if name in _WITHOUT_GLOBAL_OPTIONS else _apply_configuration(parser, name)
        args = parser.parse_intermixed_args(_known(parser, rest))
    except UsageError as error:
        show_error(TextReport(), error)
        return error.exit_code
    except SystemExit as exit_:
        return exit_.code if isinstance(exit_.code, int) else ExitCode.UNEXPECTED
    args.quiet = args.quiet and not args.debug
    report = _report(args, out, err)
    report.start(name)
    for complaint in complaints:
        report.warning(complaint)
    with _signals():
        status = _run(command, args, report)
    report.end(status)
    return out.close(status)


def load(name: str) -> Command:
    """The module of a subcommand."""
    return cast("Command", import_module(f"swupd.commands.{name.replace('-', '_')}"))


def subcommand_parser(name: str, command: Command) -> ArgumentParser:
    """The parser of one subcommand, with its help."""
    parser = Parser(
        prog=f"swupd {name}",
        description=command.HELP[0].upper() + command.HELP[1:] + ".",
        epilog=f"examples:\n{command.EXAMPLES}",
        formatter_class=_formatter,
        add_help=False,
    )
    command.add_arguments(parser)
    parser.usage = " ".join([f"swupd {name} [options]", *map(_usage, parser._get_positional_actions())])
    if name not in _WITHOUT_GLOBAL_OPTIONS:
        add_global_options(parser)
    return parser


def _usage(argument: Action) -> str:
    """An argument as usage lines show it."""
    text = f"{argument.metavar}{'...' if argument.nargs in ('+', '*') else ''}"
    return f"[{text}]" if argument.nargs in ("?", "*") else text


class Parser(ArgumentParser):
    """Like argparse, but an error shows the help and ends with our exit status."""

    def error(self, message: str) -> NoReturn:
        self.print_help(sys.stderr)
        sys.stderr.write(f"\nError: {message}\n")
        raise SystemExit(int(ExitCode.INVALID_OPTION))


class PatientStream:
    """A text stream whose writes never raise: output that nobody can take must not interrupt a change of the system.

    The first failure is kept; `close` turns it into an exit status.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._failure: OSError | None = None

    def write(self, text: str) -> int:
        if self._failure is None:
            try:
                return self._stream.write(text)
            except OSError as error:
                self._fail(error)
        return len(text)

    def flush(self) -> None:
        if self._failure is None:
            try:
                self._stream.flush()
            except OSError as error:
                self._fail(error)

    def isatty(self) -> bool:
        return self._stream.isatty()

    def close(self, status: int) -> int:
        """The exit status of the process; a reader who went away is no failure, lost output is one."""
        self.flush()
        if self._failure is None or self._failure.errno == errno.EPIPE:
            return status
        sys.stderr.write(f"Error: cannot write the output: {self._failure.strerror}\n")
        return status or ExitCode.CANNOT_WRITE_FILE

    def _fail(self, error: OSError) -> None:
        self._failure = error
        # What is still buffered goes nowhere, so that the interpreter's own flush at exit stays silent.
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), self._stream.fileno())


def _subcommand(arguments: Sequence[str]) -> tuple[str, Sequence[str]]:
    """The subcommand and what follows it; help and version end here."""
    parser = Parser(prog="swupd", usage="swupd [-h] [-v] SUBCOMMAND [options] [arguments]", add_help=False)
    parser.add_argument("-h", "--help", action="store_true")
    parser.add_argument("-v", "--version", action="store_true")
    first = next((index for index, text in enumerate(arguments) if not text.startswith("-")), len(arguments))
    args, unknown = parser.parse_known_args(arguments[:first])
    if unknown:
        _top_level_error(f"unknown option {unknown[0]}")
    if args.help or not arguments:
        sys.stdout.write(_overview())
        raise SystemExit(0)
    if args.version:
        sys.stdout.write(f"swupd {__version__}\nconfiguration, state and published trees as in swupd-client 7.0.0\n")
        raise SystemExit(0)
    if first == len(arguments):
        _top_level_error("a subcommand is needed")
    name = arguments[first]
    if name not in COMMANDS:
        _top_level_error(f"unknown subcommand {name}")
    return name, arguments[first + 1 :]


def _known(parser: ArgumentParser, arguments: Sequence[str]) -> Sequence[str]:
    """The arguments as they are; an unknown option ends here, before argparse complains of something less helpful."""
    options = [option for action in parser._actions for option in action.option_strings]
    for text in arguments:
        if text == "--":
            break
        if text.startswith("--") and not any(option.startswith(text.partition("=")[0]) for option in options):
            parser.error(f"unknown option {text}")
    return arguments


def _top_level_error(message: str) -> NoReturn:
    sys.stderr.write(f"{_overview()}\nError: {message}\n")
    raise SystemExit(int(ExitCode.INVALID_OPTION))


def _overview() -> str:
    width = max(map(len, COMMANDS))
    lines = "\n".join(f"  {name:{width}}  {load(name).HELP}" for name in COMMANDS)
    return (
        "usage: swupd [-h] [-v] SUBCOMMAND [options] [arguments]\n\n"
        "Install, update and check an operating system that is made of bundles.\n\n"
        f"subcommands:\n{lines}\n\n"
        "options:\n"
        "  -h, --help     show this help\n"
        "  -v, --version  show the version of this program\n\n"
        "'swupd SUBCOMMAND --help' tells more about a subcommand and shows examples.\n"
    )


def _formatter(prog: str) -> HelpFormatter:
    return RawDescriptionHelpFormatter(prog, max_help_position=34, width=_HELP_WIDTH)


def _apply_configuration(parser: ArgumentParser, name: str) -> list[str]:
    """Make the values of the configuration files the parser's defaults; returns one complaint for each unknown name."""
    from swupd import configfile

    return set_defaults(parser, configfile.load(configfile.directories(os.environ)).settings_for(name))


def set_defaults(parser: ArgumentParser, settings: Mapping[str, Setting]) -> list[str]:
    """Set defaults by long option names (`_` for `-`); UsageError with file and line for a value that is wrong."""
    actions = {
        option[2:].replace("-", "_"): action
        for action in parser._actions
        for option in action.option_strings
        if option.startswith("--") and action.dest != "help"
    }
    complaints = []
    for key, setting in settings.items():
        action = actions.get(key)
        if action is None:
            complaints.append(f"{setting.where}: {key} is no option of this command")
        elif action.nargs == 0:
            if setting.value == "true":
                parser.set_defaults(**{action.dest: action.const})
        else:
            try:
                value = parser._get_value(action, setting.value)
            except ArgumentError as error:
                raise UsageError(f"{setting.where}: {key}: {error.message}", hint="correct the file") from error
            parser.set_defaults(**{action.dest: value})
    return complaints


def _report(args: Namespace, out: PatientStream, err: PatientStream) -> Report:
    report: Report
    if args.json_output:
        report = JsonReport(cast("TextIO", out), verbose=args.verbose, debug=args.debug)
    else:
        report = TextReport(
            out=cast("TextIO", out),
            err=cast("TextIO", err),
            quiet=args.quiet,
            verbose=args.verbose,
            debug=args.debug,
            show_progress=not args.no_progress,
        )
    return TimedReport(report) if args.time else report


def _run(command: Command, args: Namespace, report: Report) -> int:
    """Run a command; whatever goes wrong that is no bug of ours is shown in one line."""
    try:
        return command.run(args, report)
    except ProjectError as error:
        show_error(report, error)
        status: int = error.exit_code
    except KeyboardInterrupt as error:
        report.error("interrupted", "run the same command again to finish what it began")
        return _SIGNALLED + (error.number if isinstance(error, _Ended) else signal.SIGINT)
    except MemoryError:
        report.error("out of memory", "close other programs or add swap space")
        return ExitCode.OUT_OF_MEMORY
    except OSError as error:
        report.error(_describe(error), _advice(error))
        status = _status(error)
    if args.debug:
        report.debug(traceback.format_exc())
    return status


class _Ended(KeyboardInterrupt):
    """A signal other than SIGINT asks us to end."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


@contextmanager
def _signals() -> Iterator[None]:
    """Whoever ends us gently (systemd at a shutdown, a closed terminal) gets the tidying up that SIGINT gets."""

    def end(number: int, frame: FrameType | None) -> NoReturn:  # noqa: ARG001 (what signal handlers are given)
        raise _Ended(number)

    chosen = [number for number in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(number) is signal.SIG_DFL]
    for number in chosen:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number in chosen:
            signal.signal(number, signal.SIG_DFL)


def _describe(error: OSError) -> str:
    paths = " and ".join(
        os.fsdecode(name) for name in (error.filename, error.filename2) if isinstance(name, str | bytes)
    )
    reason = error.strerror or str(error)
    return f"{paths}: {reason}" if paths else reason


def _advice(error: OSError) -> str:
    if is_disk_full(error):
        return "free some space, or move the cache with --cachedir"
    if error.errno in _NOT_WRITABLE:
        return "check permissions and whether the file system is writable"
    return "run again with --debug for details"


def _status(error: OSError) -> ExitCode:
    if is_disk_full(error):
        return ExitCode.DISK_SPACE
    if error.errno == errno.ENOMEM:
        return ExitCode.OUT_OF_MEMORY
    return ExitCode.CANNOT_WRITE_FILE if error.errno in _NOT_WRITABLE else ExitCode.UNEXPECTED


if __name__ == "__main__":
    sys.exit(main())
