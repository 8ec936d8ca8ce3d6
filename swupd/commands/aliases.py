"""Aliases: other names for one or several bundles (specification section 6.5).

Files of the administrator are read before those of the system, in the order of their names; a file of the
administrator hides the system's file of the same name (an empty one, or a link to /dev/null, switches it off). The
first definition of an alias counts. Links in these directories are followed: they are the administrator's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from swupd.report import Report
from swupd.settings import below

ADMINISTRATOR = "/etc/swupd/alias.d"
SYSTEM = "/usr/share/defaults/swupd/alias.d"
FILE_LIMIT = 1 << 20
"""Bytes of one file."""


@dataclass(frozen=True)
class Aliases:
    """Bundle names by alias."""

    bundles: Mapping[str, tuple[str, ...]]

    def expand(self, names: Iterable[str]) -> list[str]:
        """The names with aliases replaced, each one once."""
        found: dict[str, None] = {}
        for name in names:
            found |= dict.fromkeys(self.bundles.get(name, (name,)))
        return list(found)


def read_aliases(root: Path, report: Report) -> Aliases:
    """The aliases of a system; a file that cannot be read is a warning."""
    bundles: dict[str, tuple[str, ...]] = {}
    seen: set[str] = set()
    for directory in (below(root, ADMINISTRATOR), below(root, SYSTEM)):
        try:
            names = sorted(path.name for path in directory.iterdir())
        except (FileNotFoundError, NotADirectoryError):
            continue
        for name in names:
            if name in seen:
                continue
            seen.add(name)
            try:
                with (directory / name).open("rb") as file:
                    text = file.read(FILE_LIMIT).decode(errors="replace")
            except OSError as error:
                report.warning(f"the aliases in {directory / name} are not used: {error.strerror}")
                continue
            for alias, meaning in parse(text).items():
                bundles.setdefault(alias, meaning)
    return Aliases(bundles)


def parse(text: str) -> dict[str, tuple[str, ...]]:
    """The aliases of one file: lines of an alias and its bundles, separated by tabs; `#` begins a comment line."""
    found: dict[str, tuple[str, ...]] = {}
    for line in text.splitlines():
        alias, *bundles = line.split("\t")
        meaning = tuple(bundle.strip() for bundle in bundles if bundle.strip())
        if alias and not alias.startswith("#") and meaning:
            found.setdefault(alias, meaning)
    return found
