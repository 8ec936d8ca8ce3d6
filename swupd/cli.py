"""The command line `swupd SUBCOMMAND [options] [arguments]` (specification section 6).

* What a subcommand is lies in its own module of `swupd.commands`, imported only when it is called for.
* Defaults come from the configuration files (section 6.4), then the command line overrides them.
* A mistake on the command line prints the help on standard error, with the nearest thing that there is, and ends with
  status 15.
* Every error passes `_run`: an expected one becomes one line, a hint and its exit status; an interruption and a full
  disk are expected. Anything else is a bug of ours and keeps its traceback.
* With --json-output, what a subcommand prints is one array however it ends, also if it executes itself anew.
"""

from __future__ import annotations

import errno
import os
import sys
import traceback
from argparse import Action, ArgumentError, ArgumentParser, HelpFormatter, Namespace, RawDescriptionHelpFormatter
from collections.abc import Iterable, Mapping, MutableMapping, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, NoReturn, Protocol, TextIO, cast

from swupd import __version__
from swupd.commands.global_options import add_global_options
from swupd.errors import ExitCode, ProjectError, UsageError, is_disk_full
from swupd.faces.patientstream import PatientStream
from swupd.faces.timings import TimedReport
from swupd.report import CONTINUES, JsonReport, Report, TextReport, show_error
from swupd.signals import endings_raised, exit_status

if TYPE_CHECKING:
    from swupd.configfile import Setting

COMMANDS = (
    "info",
    "check-update",
    "update",
    "bundle-add",
    "bundle-remove",
    "bundle-list",
    "bundle-info",
    "search-file",
    "search",
    "diagnose",
    "repair",
    "os-install",
    "autoupdate",
    "verify",
    "mirror",
    "rollback",
    "status",
    "snapshots",
    "boot",
    "etc",
    "reset",
    "clean",
    "history",
    "hashdump",
)
GROUP = "3rd-party"
GROUP_COMMANDS = tuple(
    f"{GROUP} {name}"
    for name in (
        *("add", "remove", "list", "info", "check-update", "update", "bundle-add", "bundle-remove", "bundle-list"),
        *("bundle-info", "diagnose", "repair", "clean"),
    )
)
"""Subcommands of two words, for everything here; only their section in the JSON stream is called otherwise."""
GROUP_HELP = "install and update bundles of other publishers, each in a place of its own"
_OLD_SECTIONS = frozenset({"add", "remove", "list", "info"})
HIDDEN = frozenset({"verify"})
"""Kept for old scripts; neither help nor completion nor manual pages show them."""
_PASSED_ON = frozenset({"search"})
"""Other programs: their arguments are not looked at."""
_WITHOUT_GLOBAL_OPTIONS = frozenset({"hashdump"}) | _PASSED_ON
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
    continues = _begun_array(os.environ)
    try:
        name, rest = _subcommand(arguments)
        command = load(name)
        if name in _PASSED_ON:
            return _run(command, Namespace(arguments=rest, debug=False), TextReport())
        parser = subcommand_parser(name, command)
        complaints = [] if name in _WITHOUT_GLOBAL_OPTIONS else _apply_configuration(parser, name)
        args = parser.parse_intermixed_args(_known(parser, rest))
    except (UsageError, SystemExit) as error:
        if isinstance(error, UsageError):
            show_error(TextReport(), error)
        status = error.exit_code if isinstance(error, UsageError) else int(error.code or 0)
        JsonReport(continues=continues).end(status)
        return status
    # Debugging wins over quiet, quiet over verbose.
    args.quiet = args.quiet and not args.debug
    args.verbose = args.debug or (args.verbose and not args.quiet)
    report = _report(args, out, err, continues)
    status = ExitCode.UNEXPECTED
    with endings_raised() as ignore_endings:
        try:
            report.start(_section(name))
            for complaint in complaints:
                report.warning(complaint)
            status = _run(command, args, report)
        except KeyboardInterrupt as error:
            report.error("interrupted", "run the same command again to finish what it began")
            status = exit_status(error)
        finally:
            ignore_endings()
            report.end(status)
    return out.close(status)


def load(name: str) -> Command:
    """The module of a subcommand."""
    module = name.replace(GROUP, "thirdparty").replace(" ", ".").replace("-", "_")
    return cast("Command", import_module(f"swupd.commands.{module}"))


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


def _subcommand(arguments: Sequence[str]) -> tuple[str, Sequence[str]]:
    """The subcommand and what follows it; help and version end here."""
    parser = Parser(prog="swupd", usage="swupd [-h] [-v] SUBCOMMAND [options] [arguments]", add_help=False)
    parser.add_argument("-h", "--help", action="store_true")
    parser.add_argument("-v", "--version", action="store_true")
    first = next((index for index, text in enumerate(arguments) if not text.startswith("-")), len(arguments))
    args, unknown = parser.parse_known_args(arguments[:first])
    if unknown:
        _top_level_error(f"unknown option {unknown[0]}{_nearest(unknown[0], ('--help', '--version'))}")
    if args.help or not arguments:
        sys.stdout.write(_overview())
        raise SystemExit(0)
    if args.version:
        sys.stdout.write(f"swupd {__version__}\nconfiguration, state and published trees as in swupd-client 7.0.0\n")
        raise SystemExit(0)
    if first == len(arguments):
        _top_level_error("a subcommand is needed")
    name = arguments[first]
    if name == GROUP:
        return _subcommand_of_group(arguments[first + 1 :])
    if name not in COMMANDS:
        _top_level_error(f"unknown subcommand {name}{_nearest(name, (*COMMANDS, GROUP))}")
    return name, arguments[first + 1 :]


def _subcommand_of_group(arguments: Sequence[str]) -> tuple[str, Sequence[str]]:
    """The subcommand, as two words, and what follows it; help ends here."""
    if not arguments or arguments[0] in ("-h", "--help"):
        sys.stdout.write(_group_overview())
        raise SystemExit(0)
    name = f"{GROUP} {arguments[0]}"
    if name not in GROUP_COMMANDS:
        sys.stderr.write(f"{_group_overview()}\nError: unknown subcommand {name}{_nearest(name, GROUP_COMMANDS)}\n")
        raise SystemExit(int(ExitCode.INVALID_OPTION))
    return name, arguments[1:]


def _section(name: str) -> str:
    """The name of a subcommand in the JSON stream (section 6.7)."""
    if name == "search-file":
        return "search"
    group, _, subcommand = name.partition(" ")
    return f"third-party-{subcommand}" if subcommand in _OLD_SECTIONS else "-".join(filter(None, (group, subcommand)))


def _known(parser: ArgumentParser, arguments: Sequence[str]) -> Sequence[str]:
    """The arguments as they are; an unknown option ends here, before argparse complains of something less helpful."""
    options = [option for action in parser._actions for option in action.option_strings]
    for text in arguments:
        if text == "--":
            break
        if text.startswith("--") and not any(option.startswith(text.partition("=")[0]) for option in options):
            parser.error(f"unknown option {text}{_nearest(text.partition('=')[0], options)}")
    return arguments


def _nearest(word: str, known: Iterable[str]) -> str:
    """What was probably meant, as the end of an error's line; empty if nothing is near."""
    from difflib import get_close_matches

    found = get_close_matches(word, [name for name in known if name not in HIDDEN], n=1)
    return f"; did you mean {found[0]}?" if found else ""


def _top_level_error(message: str) -> NoReturn:
    sys.stderr.write(f"{_overview()}\nError: {message}\n")
    raise SystemExit(int(ExitCode.INVALID_OPTION))


def _overview() -> str:
    shown = [name for name in COMMANDS if name not in HIDDEN]
    lines = _listed({name: load(name).HELP for name in shown} | {GROUP: GROUP_HELP})
    return (
        "usage: swupd [-h] [-v] SUBCOMMAND [options] [arguments]\n\n"
        "Install, update and check an operating system that is made of bundles.\n\n"
        f"subcommands:\n{lines}\n\n"
        "options:\n"
        "  -h, --help     show this help\n"
        "  -v, --version  show the version of this program\n\n"
        "'swupd SUBCOMMAND --help' tells more about a subcommand and shows examples.\n"
    )


def _group_overview() -> str:
    lines = _listed({name.partition(" ")[2]: load(name).HELP for name in GROUP_COMMANDS})
    return (
        f"usage: swupd {GROUP} SUBCOMMAND [options] [arguments]\n\n"
        f"{GROUP_HELP[0].upper()}{GROUP_HELP[1:]}.\n\n"
        f"subcommands:\n{lines}\n\n"
        f"'swupd {GROUP} SUBCOMMAND --help' tells more about a subcommand and shows examples.\n"
    )


def _listed(helps: Mapping[str, str]) -> str:
    width = max(map(len, helps))
    return "\n".join(f"  {name:{width}}  {text}" for name, text in helps.items())


def _formatter(prog: str) -> HelpFormatter:
    return RawDescriptionHelpFormatter(prog, max_help_position=34, width=_HELP_WIDTH)


def _apply_configuration(parser: ArgumentParser, name: str) -> list[str]:
    """Make the values of the configuration files the parser's defaults; returns one complaint for each unknown name."""
    from swupd import configfile

    return set_defaults(
        parser, configfile.load(configfile.directories(os.environ)).settings_for(name.replace(" ", "-"))
    )


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


def _begun_array(environ: MutableMapping[str, str]) -> str:
    """The section of the JSON array that the program before us in this process has begun; empty if there is none.

    The variable says which process is meant; it is removed, so that programs that we run never see it.
    """
    pid, _, section = environ.pop(CONTINUES, "").partition(" ")
    return section if pid == str(os.getpid()) else ""


def _report(args: Namespace, out: PatientStream, err: PatientStream, continues: str) -> Report:
    report: Report
    if args.json_output:
        report = JsonReport(cast("TextIO", out), verbose=args.verbose, debug=args.debug, continues=continues)
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
    except MemoryError:
        report.error("out of memory", "close other programs or add swap space")
        return ExitCode.OUT_OF_MEMORY
    except OSError as error:
        report.error(_describe(error), _advice(error))
        status = _status(error)
    if args.debug:
        report.debug(traceback.format_exc())
    return status


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
