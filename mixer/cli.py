"""The command line of `mixer`.

Global options are accepted before and after the command. Exit status: 0 done, 1 not done (a wrong command line
included), 130 interrupted. What went wrong is one line on standard error with a hint below it; everything that can be
expected to go wrong arrives here as a ProjectError or an OSError and nowhere else becomes visible. Heavy modules are
imported by the commands that need them, when they run.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from mixer.commands import build, bundle, check, diff_image, init, lint, report, run_guest, serve, versions
from mixer.workspace import Workspace
from swupd import __version__
from swupd.errors import ProjectError
from swupd.report import TextReport, show_error

COMMANDS = (init, bundle, versions, build, lint, check, serve, report, diff_image, run_guest)

_DESCRIPTION = """\
Build an operating system as numbered, signed versions made of bundles.

A mix lives in a workspace: a directory with builder.yaml (what it is built from),
mixbundles (which bundles it has) and local-bundles/ (its own definitions)."""

_EPILOG = """\
from nothing to a published version:
  mixer --workspace mix init
  cd mix
  mixer bundle create web-server     # then edit local-bundles/web-server
  mixer bundle add web-server
  sudo mixer build all               # the published tree is update/www
  mixer serve

the next version:
  mixer versions update
  sudo mixer build all

`mixer COMMAND --help` tells more about a command."""

_INTERRUPTED = 130


class CommandParser(argparse.ArgumentParser):
    """A parser that has the global options, as all parsers below it have; a mistake shows its help."""

    def __init__(self, **options: Any) -> None:
        super().__init__(
            formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False, add_help=False, **options
        )
        # Without a default: an option given before the command is not undone by the command's own parser.
        group = self.add_argument_group("global options")
        group.add_argument("-h", "--help", action="help", help="show this text and exit")
        group.add_argument(
            "-w",
            "--workspace",
            metavar="DIR",
            default=argparse.SUPPRESS,
            help="directory of the mix (default: the current one)",
        )
        group.add_argument(
            "-q", "--quiet", action="store_true", default=argparse.SUPPRESS, help="print results and errors only"
        )
        group.add_argument(
            "-v", "--verbose", action="store_true", default=argparse.SUPPRESS, help="print more about what is done"
        )
        group.add_argument(
            "--no-progress", action="store_true", default=argparse.SUPPRESS, help="never draw how far a step is"
        )

        # The parser that read last, so that a stray argument can be answered with the help of its command.
        self.set_defaults(parser=self)

    def error(self, message: str) -> NoReturn:
        self.print_help(sys.stderr)
        self.exit(1, f"\nError: {message}\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return the exit status; --help and a wrong command line raise SystemExit."""
    words = list(sys.argv[1:] if argv is None else argv)
    # argparse takes every "--" away; what follows the first one is not its business.
    end = words.index("--") if "--" in words else len(words)
    arguments, stray = parser().parse_known_args(words[:end])
    if end < len(words):
        if not hasattr(arguments, "command_words"):
            arguments.parser.error("this command takes no words after --")
        arguments.command_words = tuple(words[end + 1 :])
    if stray:
        arguments.parser.error(f"unknown argument{'s' if len(stray) > 1 else ''} {' '.join(stray)}")
    report = TextReport(quiet=arguments.quiet, verbose=arguments.verbose, show_progress=not arguments.no_progress)
    status = 1
    try:
        status = arguments.run(Workspace(Path(arguments.workspace)), arguments, report)
    except ProjectError as error:
        show_error(report, error)
    except BrokenPipeError:
        # Whoever read our output has seen enough; Python would complain once more when it closes the stream.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        place = f"{os.fsdecode(error.filename)}: " if error.filename is not None else ""
        report.error(f"{place}{error.strerror or error}")
    except KeyboardInterrupt:
        report.error("interrupted")
        status = _INTERRUPTED
    finally:
        report.end(status)
    return status


def parser() -> argparse.ArgumentParser:
    """The parser of the whole command line."""
    top = CommandParser(prog="mixer", description=_DESCRIPTION, epilog=_EPILOG)
    top.add_argument("--version", action="version", version=f"mixer {__version__}", help="show the version and exit")
    top.set_defaults(workspace=".", quiet=False, verbose=False, no_progress=False)
    commands = top.add_subparsers(title="commands", dest="command", metavar="COMMAND", required=True)
    for command in COMMANDS:
        below = commands.add_parser(
            command.NAME, help=command.HELP, description=command.DESCRIPTION, epilog=command.EXAMPLES
        )
        command.add_arguments(below)
        below.set_defaults(run=command.run)
    return top


if __name__ == "__main__":
    sys.exit(main())
