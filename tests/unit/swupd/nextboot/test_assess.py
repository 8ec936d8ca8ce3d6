"""Blessing, and what became of the others. Blessing needs plain directories only; the rest has a real disk."""

from __future__ import annotations

import fcntl
import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from swupd import history
from swupd.formats.bootentry import BootEntry
from swupd.fs import Directory
from swupd.nextboot import assess, health, record
from swupd.nextboot.health import Health, Outcome, Result
from swupd.nextboot.place import GOOD, TRIAL, Located, Place, locate
from swupd.nextboot.record import Failure, Record
from tests.unit.swupd.nextboot.disk import recorded

ENTRY = BootEntry("20", "Test", 2, "vmlinuz-" + "0" * 16, "initrd-" + "0" * 16, "quiet")


@pytest.fixture
def place(tmp_path: Path, no_sync: None) -> Iterator[Place]:
    """A place of plain directories; 20 runs, on trial."""
    for name in ("esp/loader/entries", "esp/os", "root/run/state", "root/run/swupd"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "root" / TRIAL).touch()
    with ExitStack() as resources:
        partition = resources.enter_context(Directory.open(tmp_path / "esp"))
        yield Place(Located(tmp_path / "root", "", "20", "20"), tmp_path, partition, "uuid", resources)


def entries(place: Place) -> list[str]:
    return sorted(entry.file_name for entry in place.entries.read())


@pytest.mark.parametrize(("left", "done"), [(3, 0), (2, 1), (0, 1), (None, 0)])
def test_the_running_deployment_loses_its_counter(place: Place, left: int | None, done: int) -> None:
    place.entries.add(replace(ENTRY, tries_left=left, tries_done=done))
    place.entries.add(replace(ENTRY, name="10", sequence=1))
    assert assess.is_on_trial(place.located)
    assert assess.bless(place)
    assert entries(place) == ["os-10.conf", "os-20.conf"]
    assert (place.located.boot_state / GOOD / "20").exists()
    assert not assess.is_on_trial(place.located)


def test_it_may_be_said_again(place: Place) -> None:
    place.entries.add(replace(ENTRY, tries_left=2, tries_done=1))
    assert assess.bless(place)
    assert assess.bless(place)
    assert entries(place) == ["os-20.conf"]


def test_one_that_somebody_went_back_from_stays_set_aside(place: Place) -> None:
    place.entries.add(ENTRY.set_aside())
    with place.boot_state() as boot:
        record.write(boot, Record((Failure("20", 1, record.SET_ASIDE),)))
    assert assess.bless(place)
    assert entries(place) == ["os-20+0.conf"]
    assert recorded(place.located.boot_state).failed_version(20) is not None


def test_a_deployment_without_an_entry_is_told(place: Place) -> None:
    assert not assess.bless(place)
    assert not assess.is_on_trial(place.located)


def test_a_failure_on_record_is_forgotten_when_it_boots_well(place: Place) -> None:
    other = Failure("30", 2, "no init")
    with place.boot_state() as boot:
        record.write(boot, Record((Failure("20", 1, "no network"), other)))
    assess.bless(place)
    assert recorded(place.located.boot_state).failures == (other,)


@pytest.mark.parametrize("name", ["os-20+2-1.conf", "os-20.conf"])
def test_what_an_interrupted_blessing_left_is_completed(place: Place, tmp_path: Path, name: str) -> None:
    """A renaming on FAT that was interrupted may leave the old name, the new one, or both."""
    directory = tmp_path / "esp/loader/entries"
    (directory / "os-20+2-1.conf").write_text(ENTRY.text())
    (directory / name).write_text(ENTRY.text())
    assess.bless(place)
    assert "os-20.conf" in os.listdir(directory)
    assert entries(place) == ["os-20.conf"]


# -- on a disk


def report(name: str, *results: Result) -> Health:
    return Health(name, 1, results)


@pytest.fixture
def fallen_back(machine_disk: Any) -> Any:
    """Version 10, good, after 20 (good once), 30 and 40 have failed."""
    disk = machine_disk
    import btrfsutil

    with disk.top() as top:
        for name in ("20", "30", "40", "50.part"):
            btrfsutil.create_snapshot(str(top / "@/10"), str(top / "@" / name), read_only=not name.endswith("part"))
        (top / "@state/boot/good/20").touch()
        with Directory.open(top / "@state/boot") as boot:
            health.add(boot, report("30", Result("dns", Outcome.FAILED, "no answer"), Result("x", Outcome.PASSED)))
            health.add(boot, report("40", Result("dns", Outcome.PASSED)))
    with Place.open(locate(disk.root)) as place:
        (ten,) = place.entries.read()
        for number in (20, 30, 40):
            place.entries.add(replace(ten, name=str(number), sequence=number, tries_left=0, tries_done=3))
    return disk


def test_failures_are_recorded_once_with_their_reasons_and_superfluous_deployments_go(fallen_back: Any) -> None:
    disk = fallen_back
    disk.run("boot", "check")
    disk.run("snapshots", "pin", "40")
    disk.run("boot", "complete")
    assert "version 30 failed its boot: health check dns: no answer" in disk.err
    assert "Removed 50.part" in disk.out
    assert disk.deployments() == ["10", "40"]
    assert disk.entries() == ["os-10.conf", "os-40+0-3.conf"]
    assert os.listdir(disk.root / "run/state/boot/good") == ["10"]
    known = recorded(disk.root / "run/state/boot")
    assert {failure.name: failure.why for failure in known.failures} == {
        "20": "it did not get as far as its health checks",
        "30": "health check dns: no answer",
        "40": "its health checks passed, but its boot was not completed",
    }
    events = history.read(disk.state)
    assert [(event.command, event.outcome, event.from_version, event.to_version) for event in events[-3:]] == [
        ("boot", "failed", 10, number) for number in (40, 30, 20)
    ]
    assert "version 30 failed its boot and was left for 10" in events[-2].detail

    disk.run("boot", "complete")
    assert disk.err.count("failed its boot") == 0
    assert history.read(disk.state) == events


@contextmanager
def held_elsewhere(lock: Path) -> Iterator[None]:
    """Another process holds a lock: those of one's own do not count."""
    with lock.open("w") as file:
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            fcntl.lockf(file, fcntl.LOCK_EX)
            os.write(writing, b"x")
            signal.pause()
        try:
            assert os.read(reading, 1) == b"x"
            yield
        finally:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            os.close(reading)
            os.close(writing)


def test_while_another_swupd_runs_a_boot_is_blessed_all_the_same(fallen_back: Any) -> None:
    disk = fallen_back
    with disk.esp() as esp:
        (esp / "loader/entries/os-10.conf").rename(esp / "loader/entries/os-10+1-2.conf")
    (disk.root / TRIAL).touch()
    with held_elsewhere(disk.state / "swupd_lock"):
        disk.run("boot", "complete")
    assert "os-10.conf" in disk.entries()
    assert not (disk.root / TRIAL).exists()
    assert "another swupd is running" in disk.out
    assert "50.part" in disk.deployments()
