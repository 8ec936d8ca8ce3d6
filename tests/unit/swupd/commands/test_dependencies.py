from __future__ import annotations

from swupd.commands.dependencies import dependants, orphans, reachable, unneeded
from swupd.formats.manifest import Manifest


def bundle(*includes: str, also_add: tuple[str, ...] = ()) -> Manifest:
    return Manifest(format=30, version=10, previous=0, timestamp=0, contentsize=0, includes=includes, also_add=also_add)


SYSTEM = {
    "os-core": bundle(),
    "libs": bundle("os-core"),
    "docs": bundle("os-core"),
    "editors": bundle("os-core", "libs", also_add=("docs",)),
    "desktop": bundle("os-core", "editors"),
    "games": bundle("os-core"),
}


def test_dependencies_are_followed_to_the_end() -> None:
    assert reachable(SYSTEM, ["desktop"], optional=False) == {"desktop", "editors", "libs", "os-core"}


def test_optional_dependencies_are_followed_on_request() -> None:
    assert "docs" in reachable(SYSTEM, ["desktop"], optional=True)


def test_cycles_and_unknown_names_are_harmless() -> None:
    assert reachable({"a": bundle("b"), "b": bundle("a", "gone")}, ["a"], optional=False) == {"a", "b", "gone"}


def test_dependants_are_found_through_others() -> None:
    assert dependants(SYSTEM, ["libs"]) == {"editors", "desktop"}


def test_dependants_do_not_contain_what_was_asked_for() -> None:
    assert dependants(SYSTEM, ["libs", "editors"]) == {"desktop"}


def test_optional_dependants_count_on_request() -> None:
    assert dependants(SYSTEM, ["docs"]) == set()
    assert dependants(SYSTEM, ["docs"], optional=True) == {"editors", "desktop"}


def test_orphans_are_what_no_tracked_bundle_reaches() -> None:
    assert orphans(SYSTEM, {"editors"}) == {"desktop", "games"}
    assert orphans(SYSTEM, {"desktop", "games"}) == set()


def test_removal_makes_untracked_dependencies_unneeded() -> None:
    assert unneeded(SYSTEM, {"desktop"}, {"desktop", "games"}) == {"editors", "libs", "docs"}


def test_a_tracked_dependency_stays_with_all_that_it_needs() -> None:
    assert unneeded(SYSTEM, {"desktop"}, {"desktop", "editors"}) == set()


def test_a_dependency_of_another_bundle_stays() -> None:
    system = SYSTEM | {"tools": bundle("os-core", "libs")}
    assert unneeded(system, {"desktop"}, {"desktop", "tools"}) == {"editors", "docs"}
