"""What a plan costs is estimated from what is there, and said exactly where the publisher says it."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from swupd.cost import (
    BLOCK_BYTES,
    COMPRESSED_SHARE,
    DELTA_SHARE,
    LARGEST_CORRECTION,
    Changes,
    Kinds,
    changes_of,
    download_of,
    on_disk,
    seconds_of,
    sizes_of,
)
from swupd.formats.manifest import Entry, FileType, Manifest
from swupd.history import Event
from swupd.plan import PackNeed, Plan
from swupd.route import Way


def entry(name: str, kind: FileType = FileType.FILE, version: int = 20) -> Entry:
    return Entry.present(kind, f"hash of {name}", version, name)


def manifest(size: int, *names: str) -> Manifest:
    return Manifest(30, 20, 10, 0, size, entries=tuple(map(entry, names)))


# -- what changes ------------------------------------------------------------------------------------------------------


def test_paths_are_counted_by_kind_and_by_what_becomes_of_them() -> None:
    link, directory = entry("/usr/lib/lib.so", FileType.LINK), entry("/usr/share/new", FileType.DIRECTORY)
    current = {e.name: e for e in (entry("/usr/bin/a"), entry("/usr/bin/b"), link)}
    plan = Plan(
        install=(entry("/usr/bin/a"), entry("/usr/bin/new"), directory), remove=(link.name,), skipped=("/etc/hosts",)
    )
    assert changes_of(plan, current) == Changes(
        added=Kinds(files=1, directories=1), changed=Kinds(files=1), removed=Kinds(links=1), left_alone=1
    )


def test_a_tombstone_is_not_there_and_its_file_is_added() -> None:
    plan = Plan(install=(entry("/usr/bin/a"),), remove=("/usr/bin/b",))
    current = {name: Entry.deleted(10, name) for name in ("/usr/bin/a", "/usr/bin/b")}
    assert changes_of(plan, current) == Changes(Kinds(files=1), Kinds(), Kinds(), 0)


def test_kinds_are_told_in_words() -> None:
    assert str(Kinds()) == "none"
    assert str(Kinds(1, 2, 1)) == "1 file, 2 links, 1 directory"
    assert str(Kinds(directories=3)) == "3 directories"


# -- sizes -------------------------------------------------------------------------------------------------------------


def test_a_changed_file_is_as_large_as_the_one_that_it_replaces() -> None:
    assert sizes_of([entry("/usr/bin/a")], {"/usr/bin/a": 700}, [manifest(9, "/usr/bin/a")]) == {
        "hash of /usr/bin/a": 700
    }


def test_a_new_kernel_is_as_large_as_the_old_one() -> None:
    new = entry("/usr/lib/kernel/org.clearlinux.native.6.2.0-11")
    old = {"/usr/lib/kernel/org.clearlinux.native.6.1.9-10": 9_000_000, "/usr/lib/kernel/cmdline-6.1.9-10": 100}
    assert sizes_of([new], old, []) == {new.hash: 9_000_000}


def test_a_new_file_has_the_average_size_of_its_bundle() -> None:
    new = entry("/usr/bin/b")
    bundles = [manifest(5000, "/usr/bin/other"), manifest(900, "/usr/bin/a", "/usr/bin/b", "/usr/bin/c")]
    assert sizes_of([new], {}, bundles) == {new.hash: 300}


def test_links_and_directories_have_no_size() -> None:
    entries = [entry("/l", FileType.LINK), entry("/d", FileType.DIRECTORY)]
    assert set(sizes_of(entries, {}, []).values()) == {0}


@pytest.mark.parametrize(("size", "taken"), [(0, 0), (1, BLOCK_BYTES), (BLOCK_BYTES, BLOCK_BYTES)])
def test_a_file_takes_whole_blocks(size: int, taken: int) -> None:
    assert on_disk(size) == taken


# -- downloads ---------------------------------------------------------------------------------------------------------

SIZES = {"a": 100_000, "b": 50_000}


def test_a_way_with_prices_is_what_the_publisher_says() -> None:
    found = download_of({"a", "b"}, Way(content=12_345, cost=20_000), SIZES)
    assert (found.bytes, found.is_known, found.objects) == (12_345, True, 2)


def test_without_prices_objects_count_by_their_sizes_and_deltas_less() -> None:
    packs = (PackNeed("editors", 10, 20, frozenset("a")), PackNeed("games", 0, 20, frozenset("b")))
    found = download_of({"a", "b"}, Way(packs, unpriced=frozenset("ab")), SIZES)
    assert not found.is_known
    assert found.bytes == int(100_000 * DELTA_SHARE + 50_000 * COMPRESSED_SHARE)


def test_only_missing_objects_need_room() -> None:
    assert download_of({"b"}, Way(unpriced=frozenset("b")), SIZES).staged == on_disk(50_000)


# -- time --------------------------------------------------------------------------------------------------------------


def update(seconds: float, received: int = 5_000_000, files: int = 300, outcome: str = "done") -> Event:
    return Event(1, "update", outcome, 10, 20, replaced=files, received=received, seconds=seconds)


def test_a_machine_that_was_slower_is_expected_to_be_slower() -> None:
    first = seconds_of(5_000_000, 300, [])
    assert seconds_of(5_000_000, 300, [update(first * 3)] * 2) == pytest.approx(first * 3)
    assert seconds_of(5_000_000, 300, [update(first / 2)]) == pytest.approx(first / 2)


def test_only_updates_that_were_done_teach_anything() -> None:
    events = [update(100, outcome="failed"), Event(1, "bundle-add x", "done", seconds=100), update(0)]
    assert seconds_of(1000, 10, events) == seconds_of(1000, 10, [])


def test_an_update_that_stood_still_for_hours_teaches_nothing() -> None:
    assert seconds_of(1000, 10, [update(36_000)]) == seconds_of(1000, 10, [])


def test_the_last_updates_count() -> None:
    first = seconds_of(5_000_000, 300, [])
    assert seconds_of(5_000_000, 300, [update(9 * first)] * 20 + [update(first)] * 5) == pytest.approx(first)


@given(
    st.integers(0, 1 << 40),
    st.integers(0, 1 << 24),
    st.lists(st.builds(update, st.floats(0, 1e9), st.integers(0, 1 << 40), st.integers(0, 1 << 24))),
)
@example(0, 0, [update(5e-324, 0, 1500)])
def test_a_prediction_is_a_sane_number_whatever_the_history_says(received: int, files: int, past: list[Event]) -> None:
    plain = seconds_of(received, files, [])
    assert 0 < seconds_of(received, files, past) <= plain * LARGEST_CORRECTION * 1.001


@given(st.dictionaries(st.text("ab/01.", min_size=1), st.integers(0, 1 << 50)), st.lists(st.text("ab/01.", min_size=1)))
def test_every_object_has_a_size_if_a_bundle_has_it(there: dict[str, int], names: list[str]) -> None:
    entries = [entry(name) for name in names]
    found = sizes_of(entries, there, [manifest(1000, *names)])
    assert found.keys() == {e.hash for e in entries}
    assert all(size >= 0 for size in found.values())
