from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from swupd.commands.dependencies import Branch, dependants, needs, orphans, reachable, tree, unneeded, users
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


def test_a_tree_has_each_bundle_below_the_one_that_needs_it_and_repeats_nothing() -> None:
    assert list(tree(needs(SYSTEM), "desktop")) == [
        Branch(0, "editors", optional=False, is_repeated=False),
        Branch(1, "docs", optional=True, is_repeated=False),
        Branch(2, "os-core", optional=False, is_repeated=False),
        Branch(1, "libs", optional=False, is_repeated=False),
        Branch(2, "os-core", optional=False, is_repeated=False),
        Branch(1, "os-core", optional=False, is_repeated=False),
        Branch(0, "os-core", optional=False, is_repeated=False),
    ]
    diamond = {"top": bundle("left", "right"), "left": bundle("base"), "right": bundle("base"), "base": bundle("core")}
    assert [branch.bundle for branch in tree(needs(diamond), "top")] == ["left", "base", "core", "right", "base"]
    assert list(tree(needs(diamond), "top"))[-1].is_repeated


def test_a_tree_of_users_leads_the_other_way() -> None:
    assert [(branch.depth, branch.bundle, branch.optional) for branch in tree(users(SYSTEM), "docs")] == [
        (0, "editors", True),
        (1, "desktop", False),
    ]


def test_a_need_that_is_firm_and_optional_is_firm() -> None:
    assert needs({"a": bundle("b", also_add=("b", "c"))}) == {"a": {"b": False, "c": True}}


@given(st.dictionaries(st.sampled_from("abcdef"), st.lists(st.sampled_from("abcdef"), max_size=4)))
def test_a_tree_shows_all_that_can_be_reached_whatever_the_cycles(graph: dict[str, list[str]]) -> None:
    manifests = {name: bundle(*needed) for name, needed in graph.items()}
    shown = {branch.bundle for branch in tree(needs(manifests), "a")}
    assert shown | {"a"} == reachable(manifests, ["a"], optional=False)
