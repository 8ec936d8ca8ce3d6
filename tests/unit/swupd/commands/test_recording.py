"""Every change is in the history afterwards, whatever came of it."""

from __future__ import annotations

import shutil
from argparse import Namespace
from typing import Any

import pytest

from swupd.commands.recording import recorded
from swupd.errors import ExitCode
from swupd.history import Event, read
from swupd.report import TextReport
from swupd.session import reading
from swupd.transaction.journal import Purpose

Bundles = dict[str, Any]
Machine = Any
Publisher = Any


def last(machine: Machine) -> Event:
    return read(machine.state)[-1]


def test_an_installation_is_the_first_event(machine: Machine) -> None:
    (event,) = read(machine.state)
    assert (event.command, event.outcome, event.to_version) == ("os-install", "done", 10)
    assert event.installed > 10
    assert event.received > 1000


def test_an_update_is_remembered_with_what_it_did(machine: Machine, published: Publisher, ten: Bundles) -> None:
    ten["editors"].files |= {"/usr/bin/edit": "new", "/usr/share/added": "added"}
    del ten["libs"].files["/usr/lib/lib.so"]
    published.publish(20, ten)
    machine.run("update", "--no-scripts")
    event = last(machine)
    assert (event.command, event.outcome, event.from_version, event.to_version) == ("update", "done", 10, 20)
    assert (event.installed, event.replaced, event.removed) == (1, 2, 1)


def test_what_does_nothing_is_not_remembered(machine: Machine, published: Publisher, ten: Bundles) -> None:
    machine.run("update", "--no-scripts")
    machine.run("repair", "--no-scripts")
    ten["editors"].files["/usr/bin/edit"] = "new"
    published.publish(20, ten)
    machine.run("update", "--dry-run")
    machine.run("update", "--download")
    machine.run("update", "--assume=no", status=ExitCode.NO)
    assert len(read(machine.state)) == 1


def test_a_failure_is_remembered_with_its_reason(machine: Machine, published: Publisher, ten: Bundles) -> None:
    ten["editors"].files["/usr/bin/edit"] = "new"
    published.publish(20, ten)
    shutil.rmtree(published.directory / "20/files")
    machine.run("update", "--no-scripts", status=ExitCode.DOWNLOAD)
    assert last(machine).outcome == "failed"
    assert last(machine).detail.startswith("cannot get /usr/")


def test_bundles_are_named(machine: Machine) -> None:
    machine.run("bundle-add", "games", "--no-scripts")
    assert (last(machine).command, last(machine).outcome) == ("bundle-add games", "done")
    machine.run("bundle-remove", "games")
    assert (last(machine).command, last(machine).removed) == ("bundle-remove games", 2)


def test_a_repair_is_remembered(machine: Machine) -> None:
    (machine.root / "usr/bin/edit").write_text("broken")
    machine.run("repair", "--no-scripts")
    assert (last(machine).command, last(machine).outcome, last(machine).replaced) == ("repair", "done", 1)


def test_an_interruption_is_a_failure(machine: Machine) -> None:
    with reading(Namespace(statedir=machine.state), TextReport()) as session:
        purpose = Purpose("update", 10, 20)
        with pytest.raises(KeyboardInterrupt), recorded(session, purpose):
            raise KeyboardInterrupt
    assert (last(machine).outcome, last(machine).detail) == ("failed", "interrupted")
