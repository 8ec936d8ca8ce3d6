from __future__ import annotations

from typing import Any

from swupd.errors import ExitCode
from swupd.fs import Directory
from swupd.nextboot import record
from swupd.nextboot.record import Failure, Record

Machine = Any
Publisher = Any


def test_a_newer_version_is_0_and_named(machine: Machine, published: Publisher, ten: dict[str, Any]) -> None:
    published.publish(20, ten)
    machine.run("check-update")
    assert machine.out.splitlines() == [
        "Installed version: 10",
        "Newest version:    20",
        "There is a newer version: 20",
    ]


def test_no_newer_version_is_1(machine: Machine) -> None:
    machine.run("check-update", "--quiet", status=ExitCode.NO)
    assert machine.out == ""


def test_a_version_of_another_format_counts(machine: Machine, published: Publisher, ten: dict[str, Any]) -> None:
    published.publish(30, ten, number=31)
    machine.run("check-update", "--verbose")
    assert "Newest version:    30 (format 31)" in machine.out
    assert "Newest version in format 30: 10" in machine.out


def test_a_format_that_nobody_tells_is_no_failure(machine: Machine, published: Publisher) -> None:
    (published.directory / "10/format").unlink()
    machine.run("check-update", "--verbose", status=ExitCode.NO)
    assert "Installed version: 10 (format not known)" in machine.out


def test_nothing_is_left_behind(bare: Machine) -> None:
    bare.run("check-update", status=ExitCode.VERSION_UNKNOWN)
    assert not bare.root.exists()
    assert not bare.state.exists()


def test_a_version_that_failed_is_not_offered(machine_disk: Any) -> None:
    disk = machine_disk
    disk.publish(20)
    with Directory.open(disk.root / "run/state/boot") as boot:
        record.write(boot, Record((Failure("20.1", 1_700_000_000, "no network"),)))
    disk.run("check-update", status=ExitCode.NO)
    assert "It is not offered: version 20 is held back since 2023-11-1" in disk.out
    assert disk.out.endswith(": no network\n")
    disk.run("update", "--status", "--quiet", status=ExitCode.NO)
    assert disk.out == ""
    disk.publish(30)
    disk.run("check-update", "--quiet")
    assert disk.out == "30\n"
