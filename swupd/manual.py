"""Manual pages, made from the command line as values; and what writes them and the completion scripts into files.

`python -m swupd.manual DIR` makes `DIR/man/*.1` and `DIR/completion/*` from the parsers of all subcommands. The pages
say nothing of the day or the machine they were made on: the same program makes the same bytes.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from swupd import __version__, completion
from swupd.errors import ExitCode
from swupd.formats import layout
from swupd.fs import replace_file
from swupd.syntax import GROUP, Option, Subcommand, describe

_HEADER = r""".\" Made from the program's own parsers by `make manual`.
"""
_ROFF = str.maketrans({"\\": "\\e", "-": "\\-", "'": "\\(aq", "~": "\\(ti", "^": "\\(ha"})
"""Signs that roff would not print as they are."""
_EXIT_STATUS = {
    ExitCode.OK: "Done, or there was nothing to do.",
    ExitCode.NO: "The answer is no (no newer version, something differs, declined), or the command needs root.",
    ExitCode.REQUIRED_BUNDLE: "A bundle is needed by others or by the system.",
    ExitCode.INVALID_BUNDLE: "There is no bundle of that name.",
    ExitCode.MOM: "The manifest of manifests cannot be loaded.",
    ExitCode.CANNOT_REMOVE_FILE: "A file cannot be removed.",
    ExitCode.CANNOT_RENAME_DIRECTORY: "A directory cannot be renamed.",
    ExitCode.CANNOT_CREATE_FILE: "A file cannot be created.",
    ExitCode.MANIFEST_RECURSION: "The manifests of the bundles cannot be loaded.",
    ExitCode.LOCKED: "Another swupd is at work.",
    ExitCode.INSTALL: "The files cannot be changed as planned.",
    ExitCode.HTTP_LIBRARY: "The network library cannot be used.",
    ExitCode.GLOBALS: "The settings cannot be used.",
    ExitCode.BUNDLE_NOT_INSTALLED: "The bundle is not installed.",
    ExitCode.MANIFEST: "A manifest cannot be loaded.",
    ExitCode.INVALID_OPTION: "The command line or a configuration file is wrong.",
    ExitCode.SERVER: "The server does not answer as it should.",
    ExitCode.DOWNLOAD: "A file cannot be downloaded.",
    ExitCode.UNTAR: "An archive cannot be unpacked.",
    ExitCode.CANNOT_CREATE_DIRECTORY: "A directory cannot be created.",
    ExitCode.VERSION_UNKNOWN: "The installed version is unknown.",
    ExitCode.SIGNATURE: "A signature is wrong, or the certificate cannot be used.",
    ExitCode.CLOCK: "The clock is wrong.",
    ExitCode.PACK: "A pack cannot be downloaded.",
    ExitCode.TLS: "No secure connection, or the certificate of a repository was not accepted.",
    ExitCode.DISK_SPACE: "There is not enough space on a disk.",
    ExitCode.NOT_IN_MANIFEST: "No manifest has this path.",
    ExitCode.UNEXPECTED: "Something that was not to be expected.",
    ExitCode.SUBPROCESS: "A program that was run has failed.",
    ExitCode.CANNOT_LIST_DIRECTORY: "A directory cannot be read.",
    ExitCode.HASH: "A hash cannot be computed.",
    ExitCode.TIME_UNKNOWN: "The time is unknown.",
    ExitCode.CANNOT_WRITE_FILE: "A file, or the output, cannot be written.",
    ExitCode.OUT_OF_MEMORY: "There is not enough memory.",
    ExitCode.INCOMPLETE: (
        "Not everything could be repaired or verified, or a new version could not be made active at once."
    ),
    ExitCode.BINARY_MISSING: "A program that is needed is not installed.",
    ExitCode.THIRD_PARTY_REPOSITORY: "The 3rd-party repository cannot be used.",
    ExitCode.FILE_INVALID: "A file is missing or not acceptable.",
    ExitCode.NEXT_BOOT: "This machine cannot boot into another version.",
}
_FILES = {
    "/etc/swupd/config": "Configuration of the administrator; see CONFIGURATION.",
    f"{layout.DEFAULTS}/config": "Configuration of the distribution.",
    "/etc/swupd/mirror_versionurl, /etc/swupd/mirror_contenturl": "Servers to use instead of the distribution's.",
    f"{layout.DEFAULTS}/versionurl, {layout.DEFAULTS}/contenturl, {layout.DEFAULTS}/format": (
        "The servers and the format of the distribution."
    ),
    f"/etc/swupd/alias.d/, {layout.DEFAULTS}/alias.d/": "Aliases, names that stand for several bundles.",
    "/etc/swupd/client.pem": "Certificate and key that the client shows to the server.",
    layout.CERTIFICATE: "The certificate that all signatures must lead to.",
    f"{layout.TRACKING}/": "One file for each installed bundle.",
    "/var/lib/swupd/": "Downloads, the lock, the journal of a change, and the bundles that were asked for by name.",
    "/var/tmp/swupd/Manifest.MoM": "Names of all bundles, for shell completion.",  # noqa: S108
    "/opt/3rd-party/": "Repositories of other publishers and what was installed from them.",
}
_CONFIGURATION = (
    "The files named config in /usr/share/defaults/swupd, /run/swupd and /etc/swupd are read in this order; later "
    "settings override earlier ones, and the command line overrides them all. A line is `[section]`, `key=value` "
    "without spaces, or a comment that begins with # or ;. Keys are long options with _ for -, flags are set by "
    "`true`. The section GLOBAL, like the part before any section, is for all subcommands; all others have the name of "
    "a subcommand, `3rd-party-update` for those of 3rd-party."
)
_CONFIGURATION_EXAMPLE = """\
[GLOBAL]
max_parallel_downloads=8
[update]
keepcache=true"""
_ENVIRONMENT = {
    "SWUPD_CONFIG_PATH": "Directories, separated by colons, in which configuration files are looked for instead.",
    "SWUPD_FALLBACK_CAPATHS": "Certificates of authorities, separated by colons, for servers that the system's own "
    "ones do not prove.",
    "NO_COLOR": "If set, progress is shown without colours.",
    "TERM": "With the value dumb, progress is shown as lines.",
    "http_proxy, https_proxy, no_proxy": "The proxy.",
}


def command_page(command: Subcommand) -> str:
    """The page of one subcommand, such as swupd-update(1)."""
    return "".join(
        [
            *_begin(f"swupd-{command.name}", command.help),
            *_section("SYNOPSIS", [_bold(command.usage)]),
            *_section("DESCRIPTION", [_description(command)]),
            *(_section("OPTIONS", [_options(command)]) if command.own_options or command.arguments else []),
            *_section("EXAMPLES", [_literal(command.examples)]),
            *_section("SEE ALSO", ["Options that all subcommands have, exit status and files: \n.BR swupd (1)\n"]),
        ]
    )


def group_page(help_text: str, commands: Sequence[Subcommand]) -> str:
    """The one page of all subcommands of 3rd-party."""
    parts = [*_begin(f"swupd-{GROUP}", help_text)]
    parts += _section("SYNOPSIS", [f".B swupd {_escaped(GROUP)}\nSUBCOMMAND [options] [arguments]\n"])
    for command in commands:
        parts.append(f".SH {_escaped(command.name.rpartition(' ')[2].upper())}\n")
        parts += [_bold(command.usage), ".PP\n", _description(command), _options(command), ".PP\nExamples:\n"]
        parts.append(_literal(command.examples))
    parts += _section("SEE ALSO", ["Options that all subcommands have, exit status and files: \n.BR swupd (1)\n"])
    return "".join(parts)


def overview_page(commands: Sequence[Subcommand], group_help: str) -> str:
    """The page swupd(1): subcommands, what they share, exit status, configuration and files."""
    top = [command for command in commands if " " not in command.name]
    common = next(command.common_groups for command in commands if command.common_groups)
    listed = [
        (f".BR swupd\\-{_escaped(name)} (1)\n", help_text)
        for name, help_text in [*((command.name, command.help) for command in top), (GROUP, group_help)]
    ]
    return "".join(
        [
            *_begin("swupd", "install, update and check an operating system that is made of bundles"),
            *_section("SYNOPSIS", [".B swupd\n[\\-h] [\\-v] SUBCOMMAND [options] [arguments]\n"]),
            *_section(
                "DESCRIPTION",
                [
                    _text(
                        "An operating system is published as numbered versions, made of bundles: named sets of files. "
                        "This program installs bundles, brings the system from one version to another, and checks and "
                        "repairs what is installed. Everything is verified before the first file is changed, and a "
                        "change that was interrupted is finished or undone by the next command."
                    )
                ],
            ),
            *_section("SUBCOMMANDS", [f".TP\n{name}{_text(_sentence(help_text))}" for name, help_text in listed]),
            *_section("OPTIONS", ["Most subcommands have these options; long ones may be abbreviated.\n"]),
            *(
                f".SS {_escaped(title[0].upper() + title[1:])}\n{''.join(map(_option, options))}"
                for title, options in common
            ),
            *_section("EXIT STATUS", _tagged({str(int(code)): text for code, text in _EXIT_STATUS.items()})),
            *_section("CONFIGURATION", [_text(_CONFIGURATION), _literal(_CONFIGURATION_EXAMPLE)]),
            *_section("ENVIRONMENT", _tagged(_ENVIRONMENT)),
            *_section("FILES", _tagged(_FILES)),
        ]
    )


def _begin(name: str, help_text: str) -> Iterator[str]:
    title = _escaped(name.upper().replace(" ", "-"))
    yield f'{_HEADER}.TH {title} 1 "" "swupd {__version__}" "User Commands"\n.nh\n.ad l\n'
    yield f".SH NAME\n{_escaped(name.replace(' ', '-'))} \\- {_escaped(help_text)}\n"


def _section(title: str, parts: Iterable[str]) -> Iterator[str]:
    yield f".SH {title}\n"
    yield from parts


def _description(command: Subcommand) -> str:
    return ".PP\n".join(_text(paragraph) for paragraph in (_sentence(command.help), *command.description))


def _options(command: Subcommand) -> str:
    arguments = "".join(
        f".TP\n.I {_escaped(argument.value.name)}\n{_text(_sentence(argument.help))}" for argument in command.arguments
    )
    return arguments + "".join(map(_option, command.own_options))


def _option(option: Option) -> str:
    value = f" \\fI{_escaped(option.value.name)}\\fR" if option.value is not None else ""
    flags = ", ".join(f"\\fB{_escaped(flag)}\\fR" for flag in option.flags)
    return f".TP\n{flags}{value}\n{_text(_sentence(option.help))}"


def _tagged(texts: dict[str, str]) -> Iterator[str]:
    for tag, text in texts.items():
        yield f".TP\n.B {_escaped(tag)}\n{_text(text)}"


def _bold(text: str) -> str:
    return f".B {_escaped(text)}\n"


def _text(text: str) -> str:
    """A paragraph; what stands in backquotes becomes bold."""
    return re.sub(r"`([^`]*)`", r"\\fB\1\\fR", _escaped(text)) + "\n"


def _literal(text: str) -> str:
    lines = "\n".join(_escaped(line) for line in text.splitlines())
    return f".PP\n.nf\n{lines}\n.fi\n"


def _sentence(help_text: str) -> str:
    return f"{help_text[:1].upper()}{help_text[1:]}."


def _escaped(text: str) -> str:
    """Text that roff prints as it is."""
    text = text.translate(_ROFF)
    return f"\\&{text}" if text.startswith(".") else text


def all_files() -> dict[str, str]:
    """The content of every file by its name below contrib."""
    from swupd import cli

    commands = [_described(name) for name in (*cli.COMMANDS, *cli.GROUP_COMMANDS) if name not in cli.HIDDEN]
    files = {
        "completion/swupd.bash": completion.bash(commands),
        "completion/_swupd": completion.zsh(commands, cli.GROUP_HELP),
        "man/swupd.1": overview_page(commands, cli.GROUP_HELP),
        f"man/swupd-{GROUP}.1": group_page(cli.GROUP_HELP, [c for c in commands if " " in c.name]),
    }
    for command in commands:
        if " " not in command.name:
            files[f"man/swupd-{command.name}.1"] = command_page(command)
    return files


def _described(name: str) -> Subcommand:
    from swupd import cli

    command = cli.load(name)
    parser = cli.subcommand_parser(name, command)
    return describe(name, parser, summary=command.HELP, contract=command.__doc__ or "", examples=command.EXAMPLES)


def main(arguments: Sequence[str]) -> int:
    """Write all files below the directory of the command line."""
    for name, text in all_files().items():
        replace_file(Path(arguments[0]) / name, text.encode())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
