"""Files that people write, read together with the lines that things stand in.

* Text is UTF-8 of at most `MAX_FILE_BYTES`, without control characters.
* YAML is a plain tree: one document, no anchors, aliases or tags, every key once, at most `MAX_NODES` nodes and
  `MAX_DEPTH` levels. It is checked event by event before anything is built, so a hostile file costs no more than its
  size.
* A scalar keeps the text that was written: `no`, `1.0` and `2024` are strings where a string is wanted. A key without
  a value counts as absent.

Every complaint is a LocatedError of the class that the reader chose (`ConfigError`, `DefinitionError`).
"""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import yaml

from mixer.errors import LocatedError

MAX_FILE_BYTES = 512 * 1024
MAX_NODES = 50_000
MAX_DEPTH = 16

_INTEGER = re.compile(r"0|-?[1-9][0-9]{0,18}")
_NULL = "tag:yaml.org,2002:null"
_INT = "tag:yaml.org,2002:int"


class Located(NamedTuple):
    """A name in a file, and the line it stands in (from 1)."""

    name: str
    line: int


@dataclass(frozen=True)
class Origin:
    """The file that nodes come from: its name in messages, and the class of error to raise."""

    name: str
    error: type[LocatedError]


@dataclass(frozen=True)
class Node:
    """A value in a YAML file. The methods give it a type, or raise the error that says what was expected where."""

    origin: Origin
    line: int
    value: str | list[Node] | dict[str, Node] | None
    tag: str
    key: str
    """What the value is called in messages, such as `source.suites`."""

    def error(self, message: str, *, hint: str = "") -> LocatedError:
        return self.origin.error(self.origin.name, self.line, message, hint=hint)

    def text(self) -> str:
        """A scalar as it was written."""
        if not isinstance(self.value, str):
            raise self._wrong("a string")
        return self.value

    def integer(self, minimum: int, maximum: int) -> int:
        if not isinstance(self.value, str) or self.tag != _INT or not _INTEGER.fullmatch(self.value):
            raise self._wrong("a whole number")
        number = int(self.value)
        if not minimum <= number <= maximum:
            raise self.error(f"{self.key} is {number}; it must be between {minimum} and {maximum}")
        return number

    def items(self) -> list[Node]:
        if not isinstance(self.value, list):
            raise self._wrong("a list")
        return self.value

    def texts(self) -> list[Located]:
        """A list of scalars with their lines."""
        return [Located(item.text(), item.line) for item in self.items()]

    def mapping(self) -> dict[str, Node]:
        """A mapping with any keys; keys without a value are left out."""
        if not isinstance(self.value, dict):
            raise self._wrong("a mapping (key: value)")
        return {key: node for key, node in self.value.items() if node.value is not None}

    def section(self, known: Collection[str]) -> dict[str, Node]:
        """A mapping that may have only the `known` keys."""
        if not isinstance(self.value, dict):
            raise self._wrong("a mapping (key: value)")
        for key, node in self.value.items():
            if key not in known:
                raise node.error(f"unknown key {key}", hint=did_you_mean(key, known) or f"known: {', '.join(known)}")
        return self.mapping()

    def choice(self, known: Collection[str]) -> str:
        text = self.text()
        if text not in known:
            hint = did_you_mean(text, known) or f"known: {', '.join(known)}"
            raise self.error(f"{self.key} cannot be {text}", hint=hint)
        return text

    def _wrong(self, expected: str) -> LocatedError:
        found = {list: "a list", dict: "a mapping", type(None): "nothing"}.get(type(self.value), str(self.value))
        return self.error(f"{self.key} must be {expected}, not {found}")


def read_text(path: Path, origin: Origin) -> str:
    """The text of a file, line ends as LF. Raises the origin's error if it is too large or no text; OSError."""
    with path.open("rb") as stream:
        data = stream.read(MAX_FILE_BYTES + 1)
    if len(data) > MAX_FILE_BYTES:
        raise origin.error(origin.name, 0, f"the file is larger than {MAX_FILE_BYTES // 1024} KiB")
    return decode(data, origin)


def decode(data: bytes, origin: Origin) -> str:
    """UTF-8 bytes as text, line ends as LF."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise origin.error(origin.name, line, "this is not UTF-8 text") from error
    text = text.replace("\r\n", "\n")
    for line, content in enumerate(text.split("\n"), start=1):
        if not content.isprintable() and any(unicodedata.category(char) == "Cc" and char != "\t" for char in content):
            raise origin.error(origin.name, line, "a control character is not allowed here")
    return text


def parse_yaml(text: str, origin: Origin) -> Node:
    """The tree of a YAML document. Raises the origin's error."""
    try:
        _check_events(text, origin)
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        raise origin.error(origin.name, mark.line + 1 if mark else 0, f"not YAML: {error.problem}") from error
    except yaml.YAMLError as error:  # characters that YAML does not know; these errors have no mark
        raise origin.error(origin.name, 0, f"not YAML: {str(error).splitlines()[0]}") from error
    if node is None:
        return Node(origin, 1, {}, "", "the document")
    return _convert(node, origin, "", node.start_mark.line + 1)


def did_you_mean(name: str, known: Collection[str]) -> str:
    """A hint that names what comes nearest to `name`; empty if nothing does."""
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.6)
    return f"did you mean {' or '.join(near)}?" if near else ""


def _check_events(text: str, origin: Origin) -> None:
    depth = nodes = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        line = event.start_mark.line + 1 if event.start_mark else 0
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise origin.error(origin.name, line, "anchors and aliases (& and *) are not supported; quote the text")
        if isinstance(event, yaml.NodeEvent):
            nodes += 1
            if getattr(event, "tag", None):
                raise origin.error(origin.name, line, "tags (!) are not supported; quote the text")
            if nodes > MAX_NODES:
                raise origin.error(origin.name, line, f"more than {MAX_NODES} values")
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > MAX_DEPTH:
                raise origin.error(origin.name, line, f"nested deeper than {MAX_DEPTH} levels")
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


def _convert(node: yaml.Node, origin: Origin, key: str, line: int) -> Node:
    shown = key or "the document"
    if isinstance(node, yaml.ScalarNode):
        return Node(origin, line, None if node.tag == _NULL else node.value, node.tag, shown)
    if isinstance(node, yaml.SequenceNode):
        items = [_convert(item, origin, f"an item of {shown}", item.start_mark.line + 1) for item in node.value]
        return Node(origin, line, items, node.tag, shown)
    values: dict[str, Node] = {}
    for key_node, value_node in node.value:
        # A value may begin below its key; people look for the key.
        key_line = key_node.start_mark.line + 1
        if not isinstance(key_node, yaml.ScalarNode):
            raise origin.error(origin.name, key_line, "a key must be a plain word")
        name = key_node.value
        if name in values:
            raise origin.error(origin.name, key_line, f"{name} is given twice (before in line {values[name].line})")
        values[name] = _convert(value_node, origin, f"{key}.{name}" if key else name, key_line)
    return Node(origin, line, values, node.tag, shown)
