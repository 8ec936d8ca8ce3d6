from __future__ import annotations

import json
import os
from typing import Any

import pytest

from swupd.errors import ExitCode

Machine = Any


@pytest.fixture
def updated(machine_disk: Any) -> Any:
    """10 has been left for 20, which runs."""
    machine_disk.publish(20)
    machine_disk.run("update", "--next-boot")
    machine_disk.boot()
    machine_disk.bless()
    return machine_disk


def errors(disk: Any) -> list[str]:
    return [line for line in disk.err.splitlines() if line.startswith("Error: ")]


def test_they_are_listed_as_the_loader_takes_them(updated: Any) -> None:
    updated.run("snapshots", "list")
    lines = updated.out.splitlines()
    assert [line.split()[:4] for line in lines[1:]] == [
        ["20", "20", "running", "good"],
        ["10", "10", "previous", "good"],
    ]
    updated.run("snapshots", "list", "--quiet")
    assert updated.out == "20\n10\n"


def test_programs_get_an_event_for_each(updated: Any) -> None:
    updated.run("snapshots", "list", "--json-output")
    found = [json.loads(line["msg"]) for line in json.loads(updated.out) if line.get("msg", "").startswith("{")]
    assert [(one["name"], one["role"], one["pinned"]) for one in found] == [
        ("20", "running", False),
        ("10", "previous", False),
    ]
    assert all(one["made"] > 1_600_000_000 for one in found)


def test_one_is_deleted_and_the_running_one_is_not(updated: Any) -> None:
    updated.run("snapshots", "delete", "10", "20", status=ExitCode.NEXT_BOOT)
    assert "20 cannot be removed: it is running" in errors(updated)[0]
    assert updated.deployments() == ["10", "20"]
    updated.run("snapshots", "delete", "10")
    assert updated.deployments() == ["20"]
    assert updated.entries() == ["os-20.conf"]


def test_a_pinned_one_stays_until_it_is_unpinned(updated: Any) -> None:
    updated.run("snapshots", "pin", "10")
    assert updated.out == "Pinned: 10\n"
    updated.run("snapshots", "delete", "10", status=ExitCode.NEXT_BOOT)
    updated.run("snapshots", "unpin", "10")
    assert updated.out == "Pinned: nothing\n"
    updated.run("snapshots", "delete", "10")
    assert updated.deployments() == ["20"]


@pytest.mark.parametrize("arguments", [("delete",), ("pin",), ("list", "10")])
def test_names_are_given_where_they_are_needed(machine: Machine, arguments: tuple[str, ...]) -> None:
    machine.run("snapshots", *arguments, status=ExitCode.INVALID_OPTION)


def test_an_ordinary_root_has_none(machine: Machine) -> None:
    machine.run("snapshots", "list", status=ExitCode.NEXT_BOOT)
    assert "is not a mount point" in machine.errors[0]


def test_an_ordinary_user_cannot_list_them(machine_disk: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    machine_disk.run("snapshots", "list", status=ExitCode.NO)
    assert "only be read by root" in errors(machine_disk)[0]
