"""What a bundle leaves to the bundles that it includes (mixer specification, section 7.2, steps 2 and 3). Pure.

The lists of a composition have everything that a bundle's users need, because they come from the closure of packages. A
manifest only has what its includes do not have: whoever installs the bundle installs those as well.

* A file or link belongs to a bundle unless one that it includes, directly or not, lists it.
* A directory is left to os-core if that lists it. If another include lists it, it is repeated where something that this
  bundle lists is below it, so that it exists whatever is installed first.
* Include cycles lose nothing: of the members of a cycle, which are only ever installed together, the first (os-core,
  then by name) keeps a common path. (In the original each of them leaves it to the other.)
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from mixer.composition import ComposedBundle
from mixer.scan import Record
from swupd.formats import layout
from swupd.formats.manifest import FileType


def includes_of(bundle: ComposedBundle, names: Mapping[str, object]) -> tuple[str, ...]:
    """The includes of a manifest's header: os-core first, then the declared ones that are in the mix."""
    first = () if bundle.name == layout.OS_CORE else (layout.OS_CORE,)
    declared = (name for name in bundle.includes if name in names and name != bundle.name)
    return tuple(dict.fromkeys([*first, *declared]))


def also_adds_of(bundle: ComposedBundle, names: Mapping[str, object]) -> tuple[str, ...]:
    """The also-add lines of a manifest's header: those in the mix that are not included anyway."""
    includes = includes_of(bundle, names)
    return tuple(dict.fromkeys(name for name in bundle.also_adds if name in names and name not in includes))


def subtracted(bundles: Mapping[str, ComposedBundle]) -> dict[str, list[str]]:
    """For each bundle, the bundles whose paths it does not repeat: what it includes directly and indirectly.

    Within a cycle only the members that come earlier (os-core first, then by name) are subtracted from a later one, so
    that the relation has no cycle and each path of a bundle stays with somebody whom its users have.
    """
    direct = {name: includes_of(bundle, bundles) for name, bundle in bundles.items()}
    reach = {name: _reachable(name, direct) for name in bundles}

    def stays(name: str, other: str) -> bool:
        return name in reach[other] and _rank(name) < _rank(other)

    return {name: sorted((other for other in reach[name] if not stays(name, other)), key=_rank) for name in bundles}


class Listings:
    """Which bundles list a path: a set of bundles is an integer with a bit for each.

    A real mix lists each path a dozen times, and most bundles include dozens of others, so asking each list of each
    include for each path would be the larger part of a build; one integer per path answers for all of them at once.
    """

    def __init__(self, bundles: Mapping[str, ComposedBundle]) -> None:
        self._bits = {name: 1 << number for number, name in enumerate(bundles)}
        self._of_path: dict[str, int] = {}
        of_path = self._of_path
        for name, bundle in bundles.items():
            bit = self._bits[name]
            for path in bundle.files:
                of_path[path] = of_path.get(path, 0) | bit

    def select(
        self, bundle: ComposedBundle, above: Iterable[str], records: Mapping[str, Record]
    ) -> tuple[set[str], list[str]]:
        """The paths that a bundle's manifest has as present (7.2 step 3), and those that it lists but the root lacks.

        `above` are the bundles that are subtracted from it.
        A file or link stays unless one of those bundles lists it. A directory goes if os-core lists it; if another one
        does, it stays only where something that this bundle lists is below it.
        """
        mask = 0
        for name in above:
            mask |= self._bits[name]
        core = mask & self._bits.get(layout.OS_CORE, 0)
        of_path = self._of_path
        kept: set[str] = set()
        others: list[str] = []
        repeated: list[str] = []
        """Directories that an include has as well."""
        missing: list[str] = []
        for path in bundle.files:
            record = records.get(path)
            if record is None:
                missing.append(path)
            elif record.type is not FileType.DIRECTORY:
                others.append(path)
                if not of_path[path] & mask:
                    kept.add(path)
            elif not of_path[path] & mask:
                kept.add(path)
            elif not of_path[path] & core:
                repeated.append(path)
        if repeated:
            kept |= parents(others).intersection(repeated)
        return kept, missing


def parents(paths: Iterable[str]) -> set[str]:
    """The direct parents of these paths and all above, without "/"."""
    found: set[str] = set()
    for path in paths:
        parent = path.rpartition("/")[0]
        while parent and parent not in found:
            found.add(parent)
            parent = parent.rpartition("/")[0]
    return found


def _reachable(start: str, direct: Mapping[str, Iterable[str]]) -> set[str]:
    """What `start` includes directly or indirectly, without itself."""
    found: set[str] = set()
    pending = [start]
    while pending:
        for name in direct[pending.pop()]:
            if name not in found and name != start:
                found.add(name)
                pending.append(name)
    return found


def _rank(name: str) -> tuple[bool, str]:
    return (name != layout.OS_CORE, name)
