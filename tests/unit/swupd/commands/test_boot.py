from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from swupd.errors import ExitCode
from swupd.fs import Directory
from swupd.nextboot import health

Machine = Any


def add_check(root: Path, name: str, script: str) -> None:
    path = root / "etc/swupd/health.d" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def test_the_checks_are_a_table(machine: Machine) -> None:
    add_check(machine.root, "10-disk", "echo fine")
    machine.run("boot", "check")
    lines = machine.out.splitlines()
    assert lines[0].split() == ["10-disk", "passed", "0.0", "s"]
    assert lines[1].split() == ["no-failed-unit", "skipped", "0.0", "s", "systemd", "does", "not", "run", "here"]


def test_a_failed_check_is_1_and_the_only_thing_told_quietly(machine: Machine) -> None:
    add_check(machine.root, "10-disk", "echo fine")
    add_check(machine.root, "20-dns", "echo no answer; exit 2")
    machine.run("boot", "check", "--quiet", status=ExitCode.NO)
    assert machine.out.split() == ["20-dns", "failed", "0.0", "s", "no", "answer"]


def test_outside_of_deployments_there_is_nothing_to_complete(machine: Machine) -> None:
    machine.run("boot", "complete")
    assert "nothing to keep" in machine.out


def test_an_unknown_action_is_a_mistake(machine: Machine) -> None:
    machine.run("boot", "chekc", status=ExitCode.INVALID_OPTION)


def test_a_failed_check_on_trial_is_remembered_and_told(machine_disk: Any) -> None:
    disk = machine_disk
    (disk.root / "run/swupd/trial").touch()
    add_check(disk.root, "dns", "echo no answer; exit 1")
    disk.run("boot", "check", status=ExitCode.NO)
    assert "Version 10 is on trial and not healthy: the one before will be booted again" in disk.out
    with Directory.open(disk.root / "run/state/boot") as boot:
        (found,) = health.read(boot).values()
    assert [(result.name, result.reason) for result in found.failed] == [("dns", "no answer")]
    disk.run("status")
    assert "Unhealthy: dns: no answer" in disk.out


def test_a_version_that_was_good_before_is_only_degraded(machine_disk: Any) -> None:
    add_check(machine_disk.root, "dns", "exit 1")
    machine_disk.run("boot", "check", status=ExitCode.NO)
    assert "is degraded, but its version has booted well before: it stays" in machine_disk.out


def test_an_update_is_blessed_by_its_boot(machine_disk: Any) -> None:
    disk = machine_disk
    disk.publish(20)
    disk.run("update", "--next-boot")
    assert disk.boot() == "20"
    disk.run("boot", "check")
    disk.run("boot", "complete", "--json-output")
    assert "Version 20 has booted well and stays" in [line.get("msg") for line in json.loads(disk.out)]
    assert disk.entries() == ["os-10.conf", "os-20.conf"]
    disk.run("boot", "complete")
    assert disk.out == "Version 20 is good\n"


def test_an_ordinary_user_cannot_assess_a_boot(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    machine.run("boot", "check", status=ExitCode.NO)
    assert "must be run as root" in machine.errors[0]
