from __future__ import annotations

import json
import os
from typing import Any

import pytest

from swupd.errors import ExitCode

Machine = Any


def errors(disk: Any) -> list[str]:
    return [line for line in disk.err.splitlines() if line.startswith("Error: ")]


def test_they_are_listed_as_the_loader_takes_them(blessed: Any) -> None:
    blessed.run("snapshots", "list")
    lines = blessed.out.splitlines()
    assert [line.split()[:4] for line in lines[1:]] == [
        ["20", "20", "running", "good"],
        ["10", "10", "previous", "good"],
    ]
    blessed.run("snapshots", "list", "--quiet")
    assert blessed.out == "20\n10\n"


def test_programs_get_an_event_for_each(blessed: Any) -> None:
    blessed.run("snapshots", "list", "--json-output")
    found = [json.loads(line["msg"]) for line in json.loads(blessed.out) if line.get("msg", "").startswith("{")]
    assert [(one["name"], one["role"], one["pinned"]) for one in found] == [
        ("20", "running", False),
        ("10", "previous", False),
    ]
    assert all(one["made"] > 1_600_000_000 for one in found)


def test_one_is_deleted_and_the_running_one_is_not(blessed: Any) -> None:
    blessed.run("snapshots", "delete", "10", "20", status=ExitCode.NEXT_BOOT)
    assert "20 cannot be removed: it is running" in errors(blessed)[0]
    assert blessed.deployments() == ["10", "20"]
    blessed.run("snapshots", "delete", "10")
    assert blessed.deployments() == ["20"]
    assert blessed.entries() == ["os-20.conf"]


def test_a_pinned_one_stays_until_it_is_unpinned(blessed: Any) -> None:
    blessed.run("snapshots", "pin", "10")
    assert blessed.out == "Pinned: 10\n"
    blessed.run("snapshots", "delete", "10", status=ExitCode.NEXT_BOOT)
    blessed.run("snapshots", "unpin", "10")
    assert blessed.out == "Pinned: nothing\n"
    blessed.run("snapshots", "delete", "10")
    assert blessed.deployments() == ["20"]


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
