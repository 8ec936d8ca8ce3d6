"""What there is: the bundles of a mix or the definitions of a place, as rows and as a tree of includes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mixer.bundles import BundleSet, Definitions


@dataclass(frozen=True)
class Row:
    """One bundle."""

    name: str
    origin: str
    """local or upstream"""
    kind: str
    """bundle or package"""
    in_mix: str
    """listed, included or an empty string"""
    hidden: str
    """For a local bundle: masking (an upstream one); for an upstream one: masked."""
    status: str
    description: str


def listing(definitions: Definitions, mix: BundleSet, which: str) -> list[Row]:
    """What `which` of "mix", "local" and "upstream" has, by name. Raises DefinitionError."""
    local, upstream = set(definitions.local_names()), set(definitions.upstream_names())
    names = {"mix": set(mix), "local": local, "upstream": upstream}[which]
    rows = []
    for name in sorted(names):
        definition = definitions.find_upstream(name) if which == "upstream" else definitions.find(name)
        if definition is None:
            continue
        is_local = which != "upstream" and name in local
        in_mix = "" if name not in mix else "listed" if name in mix.requested else "included"
        rows.append(
            Row(
                name=name,
                origin="local" if is_local else "upstream",
                kind="package" if definition.is_pundle else "bundle",
                in_mix=in_mix,
                hidden=("masking" if is_local else "masked") if name in local and name in upstream else "",
                status=definition.status,
                description=definition.description,
            )
        )
    return rows


def tree(definitions: Definitions, names: Sequence[str]) -> list[str]:
    """One line for each bundle, below it what it includes; what was opened before is not opened again."""
    lines: list[str] = []
    opened: set[str] = set()
    stack = [(name, 0, "") for name in reversed(names)]
    while stack:
        name, depth, mark = stack.pop()
        definition = definitions.find(name)
        below: list[tuple[str, int, str]] = []
        note = " (unknown)" if definition is None else ""
        if definition is not None:
            below = [(item.name, depth + 1, "") for item in definition.includes]
            below += [(item.name, depth + 1, "also-add ") for item in definition.also_adds]
            if name in opened and below:
                below, note = [], " (see above)"
        opened.add(name)
        lines.append(f"{'    ' * depth}{mark}{name}{note}")
        stack += reversed(below)
    return lines
