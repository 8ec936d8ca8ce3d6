"""Choosing what boots next. What the loader would do is checked after every single step."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from swupd import history
from swupd.errors import NextBootError, ProjectError, UsageError
from swupd.formats.bootentry import BootEntry, loader_order
from swupd.fs import Directory
from swupd.nextboot import record, selecting
from swupd.nextboot.deployments import Deployment, assign_roles
from swupd.nextboot.place import GOOD, Located, Place
from swupd.nextboot.record import Failure, Record
from swupd.nextboot.selecting import Selection, choose
from tests.unit.swupd.nextboot.disk import recorded


def deployment(
    name: str, sequence: int, left: int | None = None, done: int = 0, *, running: bool = False, failed: bool = False
) -> Deployment:
    """With an entry: good unless tries are given."""
    entry = BootEntry(name, "Test", sequence, "vmlinuz-" + "0" * 16, "initrd-" + "0" * 16, "quiet", left, done)
    failure = Failure(name, 1, "no network") if failed else None
    return Deployment(name, entry, is_running=running, is_current=running, failure=failure)


def chosen(*deployments: Deployment, name: str = "", good: frozenset[str] = frozenset()) -> Selection:
    return choose(assign_roles(deployments), good, name)


def after(deployments: tuple[Deployment, ...], selection: Selection, steps: int | None = None) -> list[str]:
    """What the loader would start, in its order, after so many changes."""
    entries = {d.name: d.entry for d in deployments if d.entry is not None}
    for old, new in selection.changes[:steps]:
        assert entries[old.name] == old
        entries[new.name] = new
    return [entry.name for entry in loader_order(entries.values())]


def test_the_running_version_is_set_aside_for_the_previous_one() -> None:
    found = deployment("10", 1), deployment("20", 2, running=True)
    selection = chosen(*found)
    assert selection.target.name == "10"
    assert selection.set_aside == ("20",)
    assert after(found, selection) == ["10", "20"]


def test_the_newest_is_set_aside_last() -> None:
    found = deployment("10", 1), deployment("20", 2, 3), deployment("30", 3, running=True)
    selection = chosen(*found)
    assert selection.set_aside == ("20", "30")
    assert [after(found, selection, steps)[0] for steps in range(3)] == ["30", "30", "10"]


def test_a_version_that_never_booted_is_not_gone_back_to() -> None:
    with pytest.raises(NextBootError, match="no earlier version that has booted well"):
        chosen(deployment("10", 1, 3), deployment("20", 2, running=True))


def test_a_version_that_failed_is_not_gone_back_to() -> None:
    with pytest.raises(NextBootError):
        chosen(deployment("10", 1, failed=True), deployment("20", 2, running=True))


def test_an_update_that_waits_is_set_aside_and_the_running_version_stays() -> None:
    found = deployment("10", 1), deployment("20", 2, running=True), deployment("30", 3, 3)
    selection = chosen(*found)
    assert (selection.target.name, selection.set_aside) == ("20", ("30",))


def test_going_back_twice_before_the_reboot_goes_back_once() -> None:
    found = deployment("5", 1), deployment("10", 2), deployment("20", 3, 0, running=True)
    assert (chosen(*found).target.name, chosen(*found).changes) == ("10", ())


def test_one_that_was_set_aside_becomes_good_again_if_it_was() -> None:
    found = deployment("10", 1, running=True), deployment("20", 2, 0)
    selection = chosen(*found, name="20", good=frozenset({"20"}))
    assert [new.file_name for _, new in selection.changes] == ["os-20.conf"]


def test_one_that_was_set_aside_before_it_booted_is_on_trial_again() -> None:
    found = deployment("10", 1, running=True), deployment("20", 2, 0)
    assert [new.file_name for _, new in chosen(*found, name="20").changes] == ["os-20+3.conf"]


def test_the_running_version_comes_back_after_it_was_set_aside() -> None:
    found = deployment("10", 1), deployment("20", 2, 0, running=True)
    selection = chosen(*found, name="20", good=frozenset({"20"}))
    assert after(found, selection) == ["20", "10"]


def test_a_running_version_on_its_last_try_is_set_aside_too() -> None:
    """Otherwise it would be blessed later on, and preferred."""
    found = deployment("10", 1), deployment("20", 2, 0, 3, running=True)
    assert chosen(*found).set_aside == ("20",)


def test_what_boots_next_anyhow_needs_no_change() -> None:
    assert chosen(deployment("10", 1, running=True), name="10").changes == ()


def test_a_failed_version_cannot_be_chosen() -> None:
    found = deployment("10", 1, running=True), deployment("20", 2, 0, 3, failed=True)
    with pytest.raises(NextBootError, match="20 failed its boot: no network") as caught:
        chosen(*found, name="20")
    assert "--retry" in caught.value.hint


def test_an_unknown_name_is_a_mistake() -> None:
    with pytest.raises(UsageError, match="no deployment 30"):
        chosen(deployment("10", 1, running=True), name="30")


def test_what_has_no_entry_cannot_be_chosen() -> None:
    with pytest.raises(NextBootError, match="no boot entry"):
        chosen(deployment("10", 1, running=True), Deployment("20"), name="20")


@given(
    st.permutations(range(1, 6)),
    st.lists(st.sampled_from([(None, 0), (3, 0), (1, 2), (0, 3), (0, 0)]), min_size=1, max_size=5),
    st.integers(0, 4),
    st.integers(0, 5),
    st.frozensets(st.integers(1, 5).map(str)),
)
def test_whatever_there_is_the_chosen_one_boots_and_after_an_interruption_that_or_what_booted_before(
    sequences: list[int], states: list[tuple[int | None, int]], runs: int, wanted: int, good: frozenset[str]
) -> None:
    assume(runs < len(states))
    found = tuple(
        deployment(str(index + 1), sequences[index], *state, running=index == runs)
        for index, state in enumerate(states)
    )
    try:
        selection = chosen(*found, name=str(wanted) if wanted else "", good=good)
    except ProjectError:
        return
    target, before = selection.target.name, after(found, selection, 0)[0]
    assert after(found, selection)[0] == target
    assert {after(found, selection, steps)[0] for steps in range(len(selection.changes))} <= {before, target}


# -- on a boot partition


@pytest.fixture
def place(tmp_path: Path, no_sync: None) -> Iterator[Place]:
    """A place of plain directories."""
    for name in ("esp/loader/entries", f"root/run/state/boot/{GOOD}"):
        (tmp_path / name).mkdir(parents=True)
    with ExitStack() as resources:
        partition = resources.enter_context(Directory.open(tmp_path / "esp"))
        yield Place(Located(tmp_path / "root", "", "20", "20"), tmp_path, partition, "uuid", resources)


def test_it_is_carried_out_and_kept_on_record(place: Place) -> None:
    found = deployment("10", 1), deployment("20", 2, running=True), deployment("20.1", 3, 3)
    for one in found:
        assert one.entry is not None
        place.entries.add(one.entry)
    with place.boot_state() as boot:
        record.write(boot, Record((Failure("10", 1, "old"),)))
    selecting.carry_out(place, chosen(*found, name="10"))
    assert [entry.file_name for entry in place.entries.read()] == ["os-10.conf", "os-20.1+0.conf", "os-20+0.conf"]
    known = recorded(place.located.boot_state)
    assert known.failure("10") is None
    assert known.failed_version(20) is not None
    assert "set aside" in known.failures[0].sentence


def test_of_the_same_version_nothing_is_kept_on_record(place: Place) -> None:
    found = deployment("20", 2, running=True), deployment("20.1", 3, 3)
    for one in found:
        assert one.entry is not None
        place.entries.add(one.entry)
    selecting.carry_out(place, chosen(*found))
    assert recorded(place.located.boot_state) == Record()


def test_the_names_that_have_booted_well_are_known(place: Place) -> None:
    (place.located.boot_state / GOOD / "10").touch()
    assert selecting.good_names(place) == {"10"}


def test_it_is_in_the_history(tmp_path: Path, no_sync: None) -> None:
    selecting.note(tmp_path, "20.1", "10")
    (event,) = history.read(tmp_path)
    assert (event.command, event.from_version, event.to_version) == ("rollback to 10", 20, 10)
