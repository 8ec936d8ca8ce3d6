"""Who needs whom among bundles (specification sections 2.5 and 5.11). Pure functions over manifests by bundle name.

A dependency is *firm* (includes: the bundle does not work without it) or *optional* (also-add: it came along). Names
without a manifest are no nodes of the graph: they are reached, and lead nowhere. Cycles are harmless.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from swupd.formats.layout import OS_CORE
from swupd.formats.manifest import Manifest

Manifests = Mapping[str, Manifest]


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


def dependants(manifests: Manifests, names: Collection[str], *, optional: bool = False) -> set[str]:
    """The bundles that depend on any of `names`, directly or not, without `names` themselves."""
    users: dict[str, list[str]] = {}
    for manifest_name, manifest in manifests.items():
        for needed in (*manifest.includes, *(manifest.also_add if optional else ())):
            users.setdefault(needed, []).append(manifest_name)
    found = set(names)
    waiting = list(names)
    while waiting:
        for user in users.get(waiting.pop(), ()):
            if user not in found:
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
