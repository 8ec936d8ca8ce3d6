from __future__ import annotations

from collections.abc import Iterable

from hypothesis import given
from hypothesis import strategies as st

from swupd.formats.updateindex import BundleCost, PackFile, Update
from swupd.plan import PackNeed
from swupd.route import REQUEST_BYTES, Way, all_packs, ways

SHA = "0" * 64


def need(bundle: str, objects: Iterable[str], old: int = 10) -> PackNeed:
    return PackNeed(bundle, old, 20, frozenset(objects))


def update(pack: int | None, **bundles: BundleCost) -> Update:
    return Update(10, None if pack is None else PackFile(pack, SHA), bundles)


def objects(prefix: str, number: int) -> frozenset[str]:
    return frozenset(f"{prefix}{index}" for index in range(number))


def best(missing: Iterable[str], needs: list[PackNeed], update: Update) -> Way:
    return ways(frozenset(missing), needs, update, 20)[0]


CORE, LIBS = objects("core", 100), objects("libs", 100)
BOTH = [need("core", CORE), need("libs", LIBS)]


def test_without_an_index_all_packs_are_fetched() -> None:
    assert all_packs(CORE, BOTH) == (Way(tuple(BOTH), unpriced=CORE),)


def test_a_pack_that_is_smaller_than_its_single_files_is_fetched() -> None:
    found = best(
        CORE | LIBS, BOTH, update(None, core=BundleCost(10, 9_000, 50_000), libs=BundleCost(10, 8_000, 50_000))
    )
    assert (found.packs, found.update_pack, found.single_files) == (tuple(BOTH), None, 0)
    assert found.cost == 17_000 + 2 * REQUEST_BYTES


def test_single_files_are_fetched_where_few_objects_of_a_large_pack_are_missing() -> None:
    index = update(None, core=BundleCost(10, 900_000, 1_000_000), libs=BundleCost(10, 900_000, 1_000_000))
    found = best({*CORE, "libs1", "libs2"}, BOTH, index)
    assert (found.packs, found.single_files) == ((BOTH[0],), 2)
    assert found.cost == 900_000 + REQUEST_BYTES + 2 * (10_000 + REQUEST_BYTES)


def test_a_pack_that_does_not_exist_is_not_asked_for() -> None:
    found = best(CORE, BOTH, update(None, core=BundleCost(10, None, 50_000)))
    assert (found.packs, found.single_files) == ((), 100)


def test_a_pack_whose_objects_all_come_with_another_one_is_not_fetched() -> None:
    index = update(None, core=BundleCost(10, 9_000, 50_000), libs=BundleCost(10, 8_000, 50_000))
    assert best(CORE, [need("core", CORE), need("libs", CORE)], index).packs == (need("core", CORE),)


def test_the_update_pack_is_fetched_if_it_is_smaller_than_what_it_replaces() -> None:
    index = update(12_000, core=BundleCost(10, 9_000, 50_000), libs=BundleCost(10, 8_000, 50_000))
    first, second = ways(CORE | LIBS, BOTH, index, 20)
    assert first.update_pack is not None
    assert (first.update_pack.path, first.update_pack.hashes) == ("20/update-from-10.tar", CORE | LIBS)
    assert (first.packs, first.single_files, first.cost) == ((), 0, 12_000 + REQUEST_BYTES)
    assert (second.update_pack, second.packs) == (None, tuple(BOTH))


def test_the_packs_are_fetched_if_the_update_pack_is_mostly_for_others() -> None:
    index = update(20_000, core=BundleCost(10, 9_000, 50_000), libs=BundleCost(10, 8_000, 50_000))
    (only,) = ways(CORE, BOTH, index, 20)
    assert (only.packs, only.update_pack) == ((BOTH[0],), None)


def test_single_files_are_fetched_if_only_few_objects_are_missing_at_all() -> None:
    index = update(500_000, core=BundleCost(10, 400_000, 1_000_000))
    (only,) = ways(frozenset({"core7"}), BOTH[:1], index, 20)
    assert (only.packs, only.update_pack, only.single_files) == ((), None, 1)


def test_the_packs_of_bundles_that_were_not_installed_come_beside_the_update_pack() -> None:
    """The index speaks of the bundle's step from 10; the machine needs all of it."""
    needs = [need("core", CORE), need("libs", LIBS, old=0)]
    index = update(5_000, core=BundleCost(10, 9_000, 50_000), libs=BundleCost(10, 100, 50_000))
    found = best(CORE | LIBS, needs, index)
    assert found.update_pack is not None
    assert found.update_pack.hashes == CORE
    assert found.packs == (needs[1],)


def test_the_pack_of_a_bundle_that_the_index_does_not_have_is_fetched_on_every_way() -> None:
    for pack in (5_000, None, 500_000):
        assert BOTH[1] in best(CORE | LIBS, BOTH, update(pack, core=BundleCost(10, 9_000, 50_000))).packs


def test_the_packs_of_bundles_that_are_new_in_the_version_come_beside_the_update_pack() -> None:
    needs = [need("core", CORE), need("new", LIBS, old=0)]
    index = update(5_000, core=BundleCost(10, 9_000, 50_000), new=BundleCost(0, 60_000, 0))
    found = best(CORE | LIBS, needs, index)
    assert found.update_pack is not None
    assert (found.update_pack.hashes, found.packs) == (CORE, (needs[1],))


def test_objects_that_no_pack_has_are_single_files_on_every_way() -> None:
    index = update(9_000, core=BundleCost(10, 20_000, 50_000))
    first, second = ways(CORE | {"lost"}, BOTH[:1], index, 20)
    assert (first.single_files, second.single_files) == (1, 1)


def test_a_way_is_told_in_one_line() -> None:
    index = update(900_000, core=BundleCost(10, 1_000_000, 5_000_000))
    found = ways(CORE | {"lost"}, BOTH[:1], index, 20)
    assert [str(way) for way in found] == [
        "the update pack of 900.0 kB, 1 single file: about 904.1 kB",
        "1 pack, 1 single file: about 1.0 MB",
    ]


some = st.frozensets(st.sampled_from("abcdefgh"))
costs = st.builds(BundleCost, st.sampled_from([0, 10]), st.none() | st.integers(0, 50_000), st.integers(0, 50_000))


@given(
    some,
    st.lists(some, max_size=3).map(lambda found: [need(f"b{n}", hashes) for n, hashes in enumerate(found)]),
    st.none() | st.integers(0, 50_000),
    st.dictionaries(st.sampled_from(["b0", "b1", "b2"]), costs),
)
def test_ways_are_sorted_and_bring_or_count_everything(
    missing: frozenset[str], needs: list[PackNeed], pack: int | None, bundles: dict[str, BundleCost]
) -> None:
    found = ways(missing, needs, update(pack, **bundles), 20)
    assert list(found) == sorted(found, key=lambda way: way.cost)
    assert found[-1].update_pack is None
    for way in found:
        brought = frozenset().union(*(chosen.hashes for chosen in way.packs))
        if way.update_pack is not None:
            brought |= way.update_pack.hashes
        assert len(missing - brought) == way.single_files
