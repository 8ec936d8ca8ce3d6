"""What a deployment is, and what the retention policy removes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from swupd.formats.bootentry import BootEntry
from swupd.nextboot.deployments import (
    KEEP,
    Deployment,
    Role,
    assign_roles,
    following,
    previous,
    running,
    surplus,
)
from swupd.nextboot.record import Failure


def deployment(
    version: int, left: int | None = None, done: int = 0, *, runs: bool = False, entry: bool = True, **more: object
) -> Deployment:
    found = BootEntry(str(version), "OS", version, "k", "i", "", left, done) if entry else None
    return Deployment(str(version), found, is_running=runs, is_current=runs, **more)  # type: ignore[arg-type]


def roles(*deployments: Deployment) -> dict[str, Role]:
    return {d.name: d.role for d in assign_roles(deployments)}


def kept(*deployments: Deployment) -> set[str]:
    found = assign_roles(deployments)
    return {d.name for d in found} - {d.name for d in surplus(found)}


def test_an_update_waits_for_the_next_boot() -> None:
    assert roles(deployment(10, runs=True), deployment(20, 3)) == {"20": Role.NEXT, "10": Role.RUNNING}


def test_what_boots_next_may_be_what_runs() -> None:
    found = assign_roles([deployment(10), deployment(20, 2, 1, runs=True)])
    assert following(found) is None
    assert [d.role for d in found] == [Role.RUNNING, Role.PREVIOUS]


def test_one_that_used_up_its_tries_has_failed() -> None:
    found = roles(deployment(10, runs=True), deployment(20, 0, 3), deployment(30, 0), deployment(5))
    assert found == {"10": Role.RUNNING, "5": Role.PREVIOUS, "30": Role.SET_ASIDE, "20": Role.FAILED}


def test_one_on_record_has_failed_whatever_its_entry_says() -> None:
    found = roles(deployment(10, runs=True), deployment(5, failure=Failure("5", 0, "why")))
    assert found["5"] is Role.FAILED


def test_what_no_entry_names_never_boots() -> None:
    found = assign_roles([deployment(10, runs=True), deployment(20, entry=False), deployment(30, 3, is_sealed=False)])
    assert following(found) is None
    assert {d.name: d.role for d in found}["30"] is Role.UNFINISHED


def test_the_newest_two_stay_beside_the_running_one() -> None:
    all_of_them = [deployment(version) for version in (10, 20, 30, 40)]
    assert kept(*all_of_them, deployment(50, runs=True)) == {"50", "40", "30"}


def test_what_is_pinned_stays() -> None:
    all_of_them = [deployment(version) for version in (20, 30, 40)]
    assert "10" in kept(deployment(10, is_pinned=True), *all_of_them, deployment(50, runs=True))


def test_an_update_that_another_one_has_replaced_before_it_was_tried_goes() -> None:
    found = [deployment(10, runs=True), deployment(20, 3), deployment(30, 3)]
    assert kept(*found) == {"10", "30"}
    assert kept(*found[:2]) == {"10", "20"}
    assert kept(deployment(10, runs=True), deployment(20, 2, 1), deployment(30, 3)) == {"10", "20", "30"}


def test_the_one_to_go_back_to_stays_whatever_else_was_tried() -> None:
    assert kept(deployment(10), deployment(20, 1, 1), deployment(30, 1, 1), deployment(40, runs=True)) == {
        "10",
        "30",
        "40",
    }


def test_leftovers_go() -> None:
    found = [deployment(20, entry=False), deployment(30, 3, is_sealed=False), deployment(40, 0, 2)]
    assert kept(deployment(10, runs=True), *found) == {"10"}


some = st.lists(
    st.builds(
        lambda version, tries, entry, sealed, pinned: deployment(
            version, *tries, entry=entry, is_sealed=sealed, is_pinned=pinned
        ),
        st.integers(1, 30),
        st.one_of(st.just((None, 0)), st.tuples(st.integers(0, 3), st.integers(0, 3))),
        st.booleans(),
        st.booleans(),
        st.booleans(),
    ),
    unique_by=lambda d: d.name,
    max_size=8,
)


@given(some, st.integers(31, 40))
def test_what_is_needed_is_never_removed(others: list[Deployment], version: int) -> None:
    found = assign_roles([*others, deployment(version, runs=True)])
    gone = set(surplus(found))
    assert not [d for d in gone if d.is_running or d.is_pinned or d.role is Role.NEXT]
    assert running(found) is not None
    back = previous(found)
    assert back is None or back not in gone
    free = [d for d in found if not (d.is_running or d.is_pinned or d.role is Role.NEXT)]
    assert len([d for d in free if d not in gone]) <= KEEP


@given(some)
def test_roles_are_given_once(found: list[Deployment]) -> None:
    given_roles = [d.role for d in assign_roles(found)]
    assert given_roles.count(Role.NEXT) <= 1
    assert given_roles.count(Role.PREVIOUS) <= 1
    assert assign_roles(found) == assign_roles(found[::-1])
