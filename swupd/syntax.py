"""The command line as values, read from the parsers: what manual pages and shell completion are made of.

Pure. What a value is follows from how the help calls it: DIR, FILE and PATH are of the file system, BUNDLE and `A,B`
are bundles, `a|b` is a choice, and a word in quotation marks in the help of a number stands for one.
"""

from __future__ import annotations

import re
from argparse import Action, ArgumentParser
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

GROUP = "3rd-party"
"""The subcommand that has subcommands of its own."""
_QUOTED = re.compile(r"'(\w+)'")
_OWN_TITLE = "options"
"""How argparse calls the options that are in no group of ours."""
_REPOSITORY_OPTION = "--repo"
_INSTALLED_ONLY = ("bundle-remove", "diagnose", "repair")
"""Subcommands whose bundles are among the installed ones."""


class Kind(Enum):
    """What can be completed."""

    TEXT = "text"
    DIRECTORY = "directory"
    FILE = "file"
    INSTALLED_BUNDLE = "installed"
    BUNDLE = "bundle"
    REPOSITORY = "repository"
    DEPLOYMENT = "deployment"


@dataclass(frozen=True)
class Value:
    """What an option or an argument takes."""

    name: str
    """As the help calls it."""
    kind: Kind = Kind.TEXT
    is_list: bool = False
    """Separated by commas."""
    words: tuple[str, ...] = ()
    """All possible values, or for a number those that are none."""


@dataclass(frozen=True)
class Option:
    flags: tuple[str, ...]
    help: str
    value: Value | None = None


@dataclass(frozen=True)
class Argument:
    value: Value
    help: str
    is_optional: bool
    is_repeated: bool


@dataclass(frozen=True)
class Subcommand:
    """One subcommand."""

    name: str
    """In two words for those of 3rd-party."""
    help: str
    description: tuple[str, ...]
    """Paragraphs."""
    examples: str
    usage: str
    arguments: tuple[Argument, ...]
    own_options: tuple[Option, ...]
    common_groups: tuple[tuple[str, tuple[Option, ...]], ...]
    """Titles and options of what most subcommands share; empty if this one has none of it."""

    @property
    def common_options(self) -> tuple[Option, ...]:
        return tuple(option for _, options in self.common_groups for option in options)


def describe(name: str, parser: ArgumentParser, *, summary: str, contract: str, examples: str) -> Subcommand:
    """The subcommand of a parser.

    contract: the docstring of its module; all but the first paragraph is for users, too.
    """
    groups = [
        (group.title or "", tuple(_options(group._group_actions, name)))
        for group in parser._action_groups
        if any(action.option_strings for action in group._group_actions)
    ]
    own = [options for title, options in groups if title == _OWN_TITLE]
    return Subcommand(
        name,
        summary,
        tuple(" ".join(paragraph.split()) for paragraph in contract.split("\n\n")[1:]),
        examples,
        parser.usage or "",
        tuple(_argument(action, name) for action in parser._get_positional_actions()),
        tuple(option for options in own for option in options),
        tuple((title, options) for title, options in groups if title != _OWN_TITLE),
    )


def _options(actions: Iterable[Action], command: str) -> Iterable[Option]:
    for action in actions:
        if action.option_strings:
            # Short ones first, as manuals have it.
            flags = tuple(sorted(action.option_strings, key=lambda flag: flag.startswith("--")))
            value = _value(action, command) if action.nargs != 0 else None
            yield Option(flags, action.help or "", value)


def _argument(action: Action, command: str) -> Argument:
    return Argument(
        _value(action, command),
        action.help or "",
        is_optional=action.nargs in ("?", "*"),
        is_repeated=action.nargs in ("+", "*"),
    )


def _value(action: Action, command: str) -> Value:
    name = action.metavar if isinstance(action.metavar, str) else action.dest.upper()
    if "|" in name:
        return Value(name, words=tuple(name.split("|")))
    if name in ("BUNDLE", "A,B"):
        installed = command.rpartition(" ")[2] in _INSTALLED_ONLY
        return Value(name, Kind.INSTALLED_BUNDLE if installed else Kind.BUNDLE, is_list=name != "BUNDLE")
    if name == "DEPLOYMENT":
        return Value(name, Kind.DEPLOYMENT)
    if name == "DIR" or (name == "PATH" and not action.option_strings):
        return Value(name, Kind.DIRECTORY)
    if name in ("FILE", "PATH"):
        return Value(name, Kind.FILE)
    if name == "NAME" and (_REPOSITORY_OPTION in action.option_strings or command.endswith(" remove")):
        return Value(name, Kind.REPOSITORY)
    return Value(name, words=tuple(_QUOTED.findall(action.help or "")) if name == "N" else ())
