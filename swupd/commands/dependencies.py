"""Who needs whom among bundles (specification sections 2.5 and 5.11). Pure functions over manifests by bundle name.

A dependency is *firm* (includes: the bundle does not work without it) or *optional* (also-add: it came along). Names
without a manifest are no nodes of the graph: they are reached, and lead nowhere. Cycles are harmless.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import NamedTuple

from swupd.formats.layout import OS_CORE
from swupd.formats.manifest import Manifest

Manifests = Mapping[str, Manifest]
Edges = Mapping[str, Mapping[str, bool]]
"""Where each bundle leads, and whether that is optional."""


class Branch(NamedTuple):
    """One line of a tree."""

    depth: int
    bundle: str
    optional: bool
    is_repeated: bool
    """The bundle was shown above with what lies below it."""


def reachable(manifests: Manifests, start: Iterable[str], *, optional: bool) -> set[str]:
    """The bundles of `start` and all that they depend on, directly or not."""
    found: set[str] = set()
    waiting = list(start)
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        found.add(name)
        manifest = manifests.get(name)
        if manifest is not None:
            waiting.extend(manifest.includes)
            if optional:
                waiting.extend(manifest.also_add)
    return found


def needs(manifests: Manifests) -> Edges:
    """From each bundle to what it depends on; what is firm and optional at once is firm."""
    return {
        name: dict.fromkeys(manifest.also_add, True) | dict.fromkeys(manifest.includes, False)
        for name, manifest in manifests.items()
    }


def users(manifests: Manifests) -> Edges:
    """From each bundle to those that depend on it."""
    found: dict[str, dict[str, bool]] = {}
    for user, needed in needs(manifests).items():
        for name, optional in needed.items():
            found.setdefault(name, {})[user] = optional
    return found


def tree(edges: Edges, top: str) -> Iterator[Branch]:
    """All that can be reached from a bundle, each line below the one that leads to it, in alphabetical order; what lies
    below a bundle is shown once."""
    shown = {top}
    waiting = [(0, name, optional) for name, optional in sorted(edges.get(top, {}).items(), reverse=True)]
    while waiting:
        depth, name, optional = waiting.pop()
        further = edges.get(name, {})
        yield Branch(depth, name, optional, name in shown and bool(further))
        if name not in shown:
            shown.add(name)
            waiting += [(depth + 1, below, choice) for below, choice in sorted(further.items(), reverse=True)]


def dependants(manifests: Manifests, names: Collection[str], *, optional: bool = False) -> set[str]:
    """The bundles that depend on any of `names`, directly or not, without `names` themselves."""
    edges = users(manifests)
    found = set(names)
    waiting = list(names)
    while waiting:
        for user, is_optional in edges.get(waiting.pop(), {}).items():
            if user not in found and (optional or not is_optional):
                found.add(user)
                waiting.append(user)
    return found.difference(names)


def orphans(installed: Manifests, tracked: Collection[str]) -> set[str]:
    """Installed bundles that nobody asked for and that nothing asked for needs, not even optionally."""
    return set(installed) - reachable(installed, {OS_CORE, *tracked}, optional=True)


def unneeded(installed: Manifests, removed: Collection[str], tracked: Collection[str]) -> set[str]:
    """Dependencies of `removed` that nobody asked for and that no bundle which remains needs."""
    candidates = reachable(installed, removed, optional=True) & set(installed)
    candidates -= {OS_CORE, *removed, *tracked}
    # What remains needs its firm and optional dependencies; a candidate stays if something else that stays needs it.
    staying = set(installed) - candidates - set(removed)
    return candidates - reachable(installed, staying, optional=True)
