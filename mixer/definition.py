"""One bundle definition, in either of its forms (mixer specification, section 5.1).

Text, the original's form, in a file named like the bundle:

    # [TITLE]: web-server            headers: TITLE DESCRIPTION STATUS CAPABILITIES MAINTAINER
    # any other comment
    include(os-core)                 a bundle that this one needs
    also-add(editors)                a bundle installed along with this one
    content(files/web-server)        a directory tree that is merged into the root
    un-export(/usr/bin/helper)       a program that is not offered on the PATH
    nginx-light                      a package

YAML, in a file with the suffix .yaml: the keys title, description, status, capabilities, maintainer (texts) and
includes, also_add, content, un_export, packages (lists).

Any text gives a BundleDefinition or raises DefinitionError with file and line; nothing else is opened here. Names keep
the line they stand in. What one form can say the other can: `serialise_text` and `serialise_yaml` are read back equal.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from mixer.errors import DefinitionError
from mixer.located import Located, Node, Origin, did_you_mean, parse_yaml, read_text
from swupd.formats.manifest import is_bundle_name

YAML_SUFFIX = ".yaml"
HEADERS = ("title", "description", "status", "capabilities", "maintainer")
STATUSES = ("Active", "WIP", "Experimental", "Deprecated", "Pending-Delete")
EXPERIMENTAL = "Experimental"

_HEADER = re.compile(r"# \[([A-Z]+)\]:(.*)")
_CALL = re.compile(r"([A-Za-z_-]+)\s*\((.*)")
_PACKAGE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]{0,254}")
_LISTS = {
    "include": "includes",
    "also-add": "also_add",
    "content": "content",
    "un-export": "un_export",
    "package": "packages",
}
"""Each list by its directive in the text form and its key in YAML."""


@dataclass(frozen=True)
class BundleDefinition:
    """What a definition says; names in the order given, each once."""

    name: str
    path: Path
    """The file it stands in."""
    shown: str
    """That file in messages."""
    headers: Mapping[str, Located] = field(default_factory=dict)
    """Those given, by lower-case name."""
    includes: tuple[Located, ...] = ()
    also_adds: tuple[Located, ...] = ()
    contents: tuple[Located, ...] = ()
    """Directories as they are written; `BundleSet.content_trees` finds them."""
    un_exports: tuple[Located, ...] = ()
    packages: tuple[Located, ...] = ()
    is_pundle: bool = False
    """True for a bundle that exists only as a name in a list of packages."""

    @property
    def title(self) -> str:
        return self._header("title")

    @property
    def description(self) -> str:
        return self._header("description")

    @property
    def status(self) -> str:
        return self._header("status")

    @property
    def capabilities(self) -> str:
        return self._header("capabilities")

    @property
    def maintainer(self) -> str:
        return self._header("maintainer")

    def wanted(self) -> list[tuple[str, Located]]:
        """The other bundles that this one names, with the verb that a message has for it."""
        return [("includes", item) for item in self.includes] + [("also adds", item) for item in self.also_adds]

    def error(self, line: int, message: str, *, hint: str = "") -> DefinitionError:
        return DefinitionError(self.shown, line, message, hint=hint)

    def _header(self, name: str) -> str:
        return self.headers[name].name if name in self.headers else ""


def read(path: Path, shown: str) -> BundleDefinition:
    """Read a definition file of either form. Raises DefinitionError; OSError if it cannot be read."""
    name = path.name.removesuffix(YAML_SUFFIX)
    text = read_text(path, Origin(shown, DefinitionError))
    parse = parse_yaml_form if path.name.endswith(YAML_SUFFIX) else parse_text_form
    return parse(text, name, path, shown)


def parse_text_form(text: str, name: str, path: Path, shown: str) -> BundleDefinition:
    """A definition from the text form."""
    builder = _Builder(name, path, shown)
    for line, content in enumerate(text.split("\n"), start=1):
        header = _HEADER.fullmatch(content)
        if header and header[1].lower() in HEADERS:
            builder.add_header(header[1].lower(), header[2], line)
            continue
        statement = content.split("#", 1)[0].strip()
        if not statement:
            continue
        call = _CALL.fullmatch(statement)
        if not call:
            builder.add("package", statement, line)
            continue
        directive, argument = call[1], call[2]
        if directive not in _LISTS or directive == "package":
            hint = did_you_mean(directive, [*_LISTS][:-1]) or "known: include, also-add, content, un-export"
            raise builder.error(line, f"unknown directive {directive}()", hint=hint)
        if not statement.startswith(f"{directive}("):
            raise builder.error(line, f"no blank may stand between {directive} and its parenthesis")
        if not argument.endswith(")"):
            raise builder.error(line, f"{directive}( has no closing parenthesis at the end of the line")
        builder.add(directive, argument[:-1], line)
    return builder.definition()


def parse_yaml_form(text: str, name: str, path: Path, shown: str) -> BundleDefinition:
    """A definition from the YAML form."""
    builder = _Builder(name, path, shown)
    keys = parse_yaml(text, Origin(shown, DefinitionError)).section((*HEADERS, *_LISTS.values()))
    for header in HEADERS:
        if header in keys:
            # The text form has one line for it.
            builder.add_header(header, " ".join(keys[header].text().split("\n")), keys[header].line)
    for directive, key in _LISTS.items():
        for item in _items(keys, key):
            builder.add(directive, item.name, item.line)
    return builder.definition()


def serialise_text(definition: BundleDefinition) -> str:
    """The text form."""
    lines = [f"# [{header.upper()}]: {definition._header(header)}".rstrip() for header in HEADERS]
    for directive, names in _lists_of(definition):
        lines += names if directive == "package" else [f"{directive}({name})" for name in names]
    return "\n".join(lines) + "\n"


def serialise_yaml(definition: BundleDefinition) -> str:
    """The YAML form."""
    document: dict[str, str | list[str]] = {header: definition._header(header) for header in HEADERS}
    document |= {_LISTS[directive]: names for directive, names in _lists_of(definition) if names}
    return yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=10_000)


def strict_problems(definition: BundleDefinition) -> list[DefinitionError]:
    """What keeps a valid definition from being a well-kept one (section 5.4)."""
    problems = []
    title = definition.headers.get("title")
    if title is not None and title.name and title.name != definition.name:
        problems.append(definition.error(title.line, f"the title is {title.name}, but the bundle is {definition.name}"))
    problems += [
        definition.error(definition.headers[header].line if header in definition.headers else 0, f"{header} is empty")
        for header in HEADERS
        if not definition._header(header)
    ]
    status = definition.headers.get("status")
    if status is not None and status.name and status.name not in STATUSES:
        problems.append(
            definition.error(status.line, f"unknown status {status.name}", hint=f"known: {', '.join(STATUSES)}")
        )
    return problems


class _Builder:
    """Collects and checks the parts; the rules are the same for both forms."""

    def __init__(self, name: str, path: Path, shown: str) -> None:
        self._name = name
        self._path = path
        self._shown = shown
        self._headers: dict[str, Located] = {}
        self._lists: dict[str, dict[str, int]] = {directive: {} for directive in _LISTS}
        if not is_bundle_name(name):
            raise self.error(0, f"{name} is no name for a bundle", hint="letters, digits, and any of - _ + .")

    def error(self, line: int, message: str, *, hint: str = "") -> DefinitionError:
        return DefinitionError(self._shown, line, message, hint=hint)

    def add_header(self, header: str, value: str, line: int) -> None:
        if header in self._headers:
            raise self.error(line, f"{header} is given twice (before in line {self._headers[header].line})")
        self._headers[header] = Located(value.strip(), line)

    def add(self, directive: str, value: str, line: int) -> None:
        if directive in ("include", "also-add"):
            if not is_bundle_name(value):
                raise self.error(line, f"{value!r} is no name for a bundle", hint="letters, digits, and any of - _ + .")
        elif directive == "package":
            if not _PACKAGE.fullmatch(value):
                hint = "one name a line: letters, digits, and any of - _ + ."
                raise self.error(line, f"{value!r} is no name for a package", hint=hint)
        else:
            value = self._path_argument(directive, value, line)
        self._lists[directive].setdefault(value, line)

    def _path_argument(self, directive: str, value: str, line: int) -> str:
        path = value.rstrip("/") if directive == "content" else value
        if not path or path != path.strip() or not path.isprintable() or "#" in path:
            raise self.error(line, f"{value!r} is no path for {directive}()", hint="plain text without #")
        if directive == "un-export" and not path.startswith("/"):
            raise self.error(line, f"un-export() needs an absolute path, not {path}")
        return path

    def definition(self) -> BundleDefinition:
        includes = self._located("include")
        needed = {include.name for include in includes}
        return BundleDefinition(
            name=self._name,
            path=self._path,
            shown=self._shown,
            headers=self._headers,
            includes=tuple(include for include in includes if include.name != self._name),
            also_adds=tuple(
                added for added in self._located("also-add") if added.name not in needed and added.name != self._name
            ),
            contents=self._located("content"),
            un_exports=self._located("un-export"),
            packages=self._located("package"),
        )

    def _located(self, directive: str) -> tuple[Located, ...]:
        return tuple(Located(name, line) for name, line in self._lists[directive].items())


def _items(keys: Mapping[str, Node], key: str) -> list[Located]:
    return keys[key].texts() if key in keys else []


def _lists_of(definition: BundleDefinition) -> Iterable[tuple[str, list[str]]]:
    lists = (
        definition.includes,
        definition.also_adds,
        definition.contents,
        definition.un_exports,
        definition.packages,
    )
    return [(directive, [item.name for item in items]) for directive, items in zip(_LISTS, lists, strict=True)]
