from __future__ import annotations

import json
import os
from typing import Any

import pytest

Machine = Any


def answer(machine: Machine) -> dict[str, Any]:
    """The one event with everything."""
    found = [json.loads(line["msg"]) for line in json.loads(machine.out) if line.get("msg", "").startswith("{")]
    assert len(found) == 1
    result: dict[str, Any] = found[0]
    return result


def test_on_an_ordinary_root_the_version_is_told_and_that_it_cannot_switch(machine: Machine) -> None:
    machine.run("status")
    lines = machine.out.splitlines()
    assert lines[0] == "Running:   10"
    assert lines[1].startswith("Next boot: the same; ")
    assert "is not a mount point" in lines[1]


def test_on_an_ordinary_root_scripts_get_the_version(machine: Machine) -> None:
    machine.run("status", "--quiet")
    assert machine.out == "10\n"
    machine.run("status", "--json-output")
    assert answer(machine) == {"version": 10, "running": None}


def test_before_and_after_an_update(machine_disk: Any) -> None:
    disk = machine_disk
    disk.run("status", "--quiet")
    assert disk.out == "10\n"
    disk.publish(20)
    disk.run("update", "--next-boot")
    disk.run("status")
    assert disk.out == "Running:   10 (good)\nNext boot: 20 (on trial, 3 tries left)\n"
    disk.run("status", "--quiet")
    assert disk.out == "10\n20\n"
    disk.boot()
    disk.run("status", "--json-output")
    found = answer(disk)
    assert (found["running"], found["on_trial"], found["tries_left"]) == ("20", True, 2)
    assert (found["next"], found["previous"]) == ("20", "10")


def test_a_live_update_and_a_reset_that_waits_are_told(machine_disk: Any) -> None:
    disk = machine_disk
    disk.publish(20)
    disk.run("update")
    disk.run("reset", "--etc", "--yes")
    disk.run("status")
    assert disk.out.splitlines() == [
        "Running:   10 (good)",
        "In use:    20 (its /usr, since an update of the running system)",
        "Next boot: 20 (on trial, 3 tries left)",
        "Reset:     /etc with the next boot; to withdraw that: swupd reset --cancel",
    ]
    disk.run("status", "--json-output")
    assert (answer(disk)["in_use"], answer(disk)["reset"]) == ("20", ["etc"])


def test_the_story_of_a_failure_is_told(machine_disk: Any) -> None:
    disk = machine_disk
    disk.publish(20)
    disk.run("update", "--next-boot")
    assert [disk.boot() for _ in range(4)] == ["20", "20", "20", "10"]
    disk.run("boot", "complete")
    disk.run("status")
    assert "Running:   10 (good)" in disk.out
    assert "Next boot: 10" in disk.out
    assert "): it did not get as far as its health checks" in disk.out


def test_an_ordinary_user_is_told_what_can_be_known(machine_disk: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    machine_disk.run("status")
    assert machine_disk.out.splitlines() == [
        "Running:   10 (good)",
        "Next boot: not known: only root can look at the boot entries",
    ]
