"""Which deployments may be removed, and in which order they go."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from swupd.errors import NextBootError, UsageError
from swupd.fs import Directory
from swupd.nextboot import removal, subvolumes
from swupd.nextboot.deployments import Deployment, Role, survey
from swupd.nextboot.place import Place, locate
from tests.unit.swupd.nextboot.disk import recorded

FOUND = (
    Deployment("40", role=Role.NEXT),
    Deployment("30", is_current=True, role=Role.KEPT),
    Deployment("25", is_mounted=True),
    Deployment("20", is_running=True, role=Role.RUNNING),
    Deployment("15", is_pinned=True, role=Role.PREVIOUS),
    Deployment("10"),
    Deployment("5.part", is_sealed=False, role=Role.UNFINISHED),
)


@pytest.mark.parametrize(
    ("name", "why", "hint"),
    [
        ("20", "it is running", "swupd rollback"),
        ("30", "the running system uses its /usr", "reboot"),
        ("25", "a later live update is mounted on it", "reboot"),
        ("40", "it boots next", "swupd rollback"),
        ("15", "it is pinned", "swupd snapshots unpin 15"),
    ],
)
def test_what_is_needed_is_not_removed(name: str, why: str, hint: str) -> None:
    with pytest.raises(NextBootError, match=f"{name} cannot be removed: {why}") as caught:
        removal.check(FOUND, ["10", name])
    assert hint in caught.value.hint


def test_the_rest_may_go_each_once() -> None:
    assert removal.check(FOUND, ["5.part", "10", "10"]) == [FOUND[6], FOUND[5]]


def test_an_unknown_name_is_a_mistake() -> None:
    with pytest.raises(UsageError, match="no deployment 99"):
        removal.check(FOUND, ["99"])


@pytest.fixture
def two(machine_disk: Any) -> Any:
    """10 runs; 9 is another one, with a kernel of its own."""
    import btrfsutil

    with machine_disk.top() as top:
        btrfsutil.create_snapshot(str(top / "@/10"), str(top / "@/9"), read_only=True)
        (top / "@state/boot/good/9").touch()
    with machine_disk.esp() as esp:
        (esp / "os" / f"vmlinuz-{'9' * 16}").write_text("kernel")
    with Place.open(locate(machine_disk.root)) as place:
        (ten,) = place.entries.read()
        place.entries.add(replace(ten, name="9", sequence=9, kernel=f"vmlinuz-{'9' * 16}").set_aside())
    return machine_disk


def test_nothing_of_a_removed_one_stays(two: Any) -> None:
    before = two.kernels()
    with Place.open(locate(two.root)) as place:
        removal.remove(place, removal.check(survey(place), ["9"]))
    assert two.deployments() == ["10"]
    assert two.entries() == ["os-10.conf"]
    assert set(before) - set(two.kernels()) == {f"vmlinuz-{'9' * 16}"}
    assert os.listdir(two.root / "run/state/boot/good") == ["10"]


def test_the_entry_goes_before_the_subvolume_and_that_before_the_kernel(
    two: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[Sequence[str], int]] = []
    delete = subvolumes.delete

    def watch(path: Any) -> None:
        seen.append((two.entries(), len(two.kernels())))
        delete(path)

    monkeypatch.setattr(subvolumes, "delete", watch)
    with Place.open(locate(two.root)) as place:
        removal.remove(place, removal.check(survey(place), ["9"]))
    assert seen == [(["os-10.conf"], 3)]


def test_what_is_pinned_is_kept_until_it_is_unpinned(two: Any) -> None:
    with Place.open(locate(two.root)) as place:
        assert removal.pin(place, ["9"]) == {"9"}
        assert next(d for d in survey(place) if d.name == "9").is_pinned
        assert removal.unpin(place, ["9", "77"]) == set()
    assert recorded(two.root / "run/state/boot").pinned == set()


def test_only_what_is_there_and_finished_can_be_pinned(two: Any) -> None:
    with two.top() as top, Directory.open(top / "@") as directory:
        import btrfsutil

        btrfsutil.create_subvolume(os.path.join(directory.path, "11.part"))
    with Place.open(locate(two.root)) as place:
        with pytest.raises(NextBootError, match="unfinished"):
            removal.pin(place, ["11.part"])
        with pytest.raises(UsageError):
            removal.pin(place, ["10", "12"])
        assert recorded(place.located.boot_state).pinned == set()
