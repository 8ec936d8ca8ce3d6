"""The cheapest way to the objects that an update lacks (docs/update-pack.md, section 5). Pure.

The update index of the target version says what the ways from the installed version cost. There are two:

* *by bundles*: of each bundle its pack, or single files where there is no pack or only few of its objects are missing;
* *the update pack*, which holds what the installed bundles need, each object once. Of a bundle that was not installed
  before it has at most what changed in it, so that the packs of such bundles come as well.

What the costs mean:

* Only missing objects count. A pack is paid for as a whole, a single file with the average of its bundle, and every
  request with REQUEST_BYTES.
* The packs of bundles that were not installed before, and what the index does not know, have no price: they are fetched
  on both ways, as they are without an index.
* All of this is an estimate. It decides which way is tried first and nothing else; whatever a way does not bring comes
  as single files.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

from swupd.formats import layout
from swupd.formats.updateindex import BundleCost, PackFile, Update
from swupd.plan import PackNeed
from swupd.report import counted, human_size

REQUEST_BYTES = 2048
"""What a request costs besides its content: headers of both sides, and the time of the way there and back."""


@dataclass(frozen=True)
class UpdatePack:
    """The pack of all bundles from one version to another."""

    from_version: int
    to_version: int
    file: PackFile
    """What it has to be."""
    hashes: frozenset[str] = field(repr=False)
    """Those objects that are expected from it."""

    @property
    def title(self) -> str:
        return "the update pack"

    @property
    def path(self) -> str:
        return layout.update_pack(self.to_version, self.from_version)

    @property
    def marker(self) -> str:
        return layout.update_pack_marker(self.from_version, self.to_version)


@dataclass(frozen=True)
class Way:
    """Packs to fetch; what they lack comes as single files."""

    packs: tuple[PackNeed, ...] = ()
    update_pack: UpdatePack | None = None
    single_files: int = 0
    cost: int = 0
    """Bytes, as far as they are known, requests included."""
    content: int = 0
    """The same without requests: what will be downloaded."""
    unpriced: frozenset[str] = field(default=frozenset(), repr=False)
    """Missing objects of which nobody has said what they cost."""

    def __str__(self) -> str:
        parts = []
        if self.update_pack is not None:
            parts.append(f"{self.update_pack.title} of {human_size(self.update_pack.file.bytes)}")
        if self.packs:
            parts.append(counted(len(self.packs), "pack"))
        if self.single_files:
            parts.append(counted(self.single_files, "single file"))
        return f"{', '.join(parts)}: about {human_size(self.cost)}"


Chooser = Callable[[frozenset[str], Sequence[PackNeed]], Sequence[Way]]
"""(missing objects, packs that have some of them) -> ways, the best first. If the update pack of a way turns out to be
of no use, the next way is tried."""


def all_packs(missing: frozenset[str], needs: Sequence[PackNeed]) -> tuple[Way, ...]:
    """The way without an index: every pack that has something."""
    return (Way(tuple(needs), unpriced=missing),)


def ways(missing: frozenset[str], needs: Sequence[PackNeed], update: Update, to_version: int) -> tuple[Way, ...]:
    """The ways to `missing` as the update index prices them, the best first."""
    costs = {need.bundle: update.bundles[need.bundle] for need in needs if _is_priced(need, update)}
    by_bundles = _by_bundles(missing, needs, costs)
    if update.pack is None:
        return (by_bundles,)
    expected = missing & {file_hash for need in needs if need.bundle in costs for file_hash in need.hashes}
    rest = _by_bundles(missing - expected, [need for need in needs if need.bundle not in costs], {})
    whole = Way(
        rest.packs,
        UpdatePack(update.from_version, to_version, update.pack, expected),
        rest.single_files,
        rest.cost + update.pack.bytes + REQUEST_BYTES,
        rest.content + update.pack.bytes,
        rest.unpriced,
    )
    return (whole, by_bundles) if whole.cost < by_bundles.cost else (by_bundles,)


def _is_priced(need: PackNeed, update: Update) -> bool:
    """Whether the index speaks of the same step, from an installed bundle."""
    cost = update.bundles.get(need.bundle)
    return cost is not None and 0 < need.from_version == cost.from_version


def _by_bundles(missing: Collection[str], needs: Sequence[PackNeed], costs: Mapping[str, BundleCost]) -> Way:
    prices: dict[str, int] = {}
    for need in needs:
        if need.bundle in costs and need.hashes:
            average = costs[need.bundle].fullfiles // len(need.hashes)
            prices.update(dict.fromkeys(need.hashes, average))

    def singly(hashes: Collection[str]) -> int:
        return sum(prices.get(file_hash, 0) for file_hash in hashes)

    left = set(missing)
    chosen = []
    content = requests = 0
    unpriced: set[str] = set()
    for need in needs:
        wanted = need.hashes & left
        if not wanted:
            continue
        if need.bundle in costs:
            pack = costs[need.bundle].pack
            if pack is None or pack + REQUEST_BYTES >= singly(wanted) + REQUEST_BYTES * len(wanted):
                continue
            content += pack
            requests += 1
        else:
            unpriced |= wanted
        chosen.append(need)
        left -= wanted
    content += singly(left)
    requests += len(left)
    return Way(
        tuple(chosen),
        single_files=len(left),
        cost=content + requests * REQUEST_BYTES,
        content=content,
        unpriced=frozenset(unpriced | (left - prices.keys())),
    )
