"""What people and programs are told about the deployments of a machine.

`look` gathers it without a lock and without changing anything. Who cannot mount the boot partition, as an ordinary
user, is told what the shared state knows, and why the rest is missing.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from swupd.errors import NextBootError, ProjectError
from swupd.formats.bootentry import BootEntry, version_of
from swupd.fs import Directory
from swupd.nextboot import health, record, reset
from swupd.nextboot.assess import is_on_trial
from swupd.nextboot.deployments import Deployment, Role, following, survey
from swupd.nextboot.health import Health
from swupd.nextboot.place import Located, Place, locate
from swupd.nextboot.record import Failure, Record, moment


@dataclass(frozen=True)
class Overview:
    """A machine of deployments."""

    running: str
    current: str
    """The deployment whose /usr is in use."""
    is_on_trial: bool
    health: Health | None
    """Of the last boot of the running deployment."""
    failures: tuple[Failure, ...]
    pinned: tuple[str, ...]
    reset: tuple[str, ...] = ()
    """What the next boot empties, of `reset.PARTS`."""
    deployments: tuple[Deployment, ...] = ()
    obstacle: str = ""
    """Why `deployments` could not be found out, and is empty."""

    def named(self, role: Role) -> tuple[str, ...]:
        """The deployments with a role, in the loader's order."""
        return tuple(deployment.name for deployment in self.deployments if deployment.role is role)

    @property
    def failed(self) -> tuple[Failure, ...]:
        """What is on record as failed, the oldest first."""
        return tuple(failure for failure in self.failures if not failure.is_set_aside)

    @property
    def set_aside(self) -> tuple[str, ...]:
        """What somebody went back from: deployments that are there, and those of which only the record tells."""
        told = (failure.name for failure in self.failures if failure.is_set_aside)
        return tuple(dict.fromkeys([*self.named(Role.SET_ASIDE), *told]))

    @property
    def next(self) -> str:
        """What boots next; empty if that is not known."""
        return "" if self.obstacle else next(iter(self.named(Role.NEXT)), self.running)

    @property
    def tries_left(self) -> int | None:
        """Of the running deployment; None if nothing is counted or known."""
        entry = next((d.entry for d in self.deployments if d.is_running), None)
        return entry.tries_left if entry is not None else None


def look(located: Located) -> Overview:
    """Gather what can be known."""
    known, reports = _remembered(located)
    found: tuple[Deployment, ...] = ()
    emptied: tuple[str, ...] = ()
    with suppress(OSError):
        emptied = reset.requested(located.root)
    obstacle = "" if os.geteuid() == 0 else "only root can look at the boot entries"
    if not obstacle:
        try:
            with Place.open(located) as place:
                found = survey(place)
        except (ProjectError, OSError) as error:
            obstacle = str(error)
    return Overview(
        running=located.running,
        current=located.current,
        is_on_trial=is_on_trial(located),
        health=reports.get(located.running),
        failures=known.failures,
        pinned=tuple(sorted(known.pinned)),
        reset=emptied,
        deployments=found,
        obstacle=obstacle,
    )


def failure_of(root: Path, version: int) -> Failure | None:
    """Why a version is not offered to the machine with this root; None if it is, or if that is no such machine."""
    try:
        located = locate(root)
    except NextBootError:
        return None
    known, _ = _remembered(located)
    return known.failed_version(version)


def _remembered(located: Located) -> tuple[Record, dict[str, Health]]:
    """What the shared state knows, for whoever may read it."""
    try:
        with Directory.open(located.boot_state) as boot:
            return record.read(boot), health.read(boot)
    except OSError:
        return Record(), {}


def lines(seen: Overview) -> list[str]:
    """For people."""
    rows = [("Running:", f"{seen.running} ({_running_state(seen)})")]
    if seen.current != seen.running:
        rows.append(("In use:", f"{seen.current} (its /usr, since an update of the running system)"))
    if not seen.obstacle:
        waiting = following(seen.deployments)
        rows.append(("Next boot:", f"{waiting.name} ({state(waiting.entry)})" if waiting else seen.running))
    else:
        rows.append(("Next boot:", f"not known: {seen.obstacle}"))
    if seen.reset:
        parts = " and ".join(f"/{part}" for part in seen.reset)
        rows.append(("Reset:", f"{parts} with the next boot; to withdraw that: swupd reset --cancel"))
    for heading, names in (
        ("Previous:", seen.named(Role.PREVIOUS)),
        ("Kept:", seen.named(Role.KEPT)),
        ("Set aside:", seen.set_aside),
        ("Pinned:", seen.pinned),
    ):
        if names:
            rows.append((heading, ", ".join(names)))
    rows += [("Failed:", f"{f.name} ({moment(f.when)}): {f.why}") for f in reversed(seen.failed)]
    if seen.health is not None:
        rows += [("Unhealthy:", f"{result.name}: {result.reason}") for result in seen.health.failed]
    return [f"{heading:<11}{text}" for heading, text in rows]


def as_json(seen: Overview) -> dict[str, Any]:
    """For programs; `next`, `tries_left` and `deployments` are null where they are not known.

    No version in `failed` or `set_aside` is offered again, but only in `failed` something went wrong.
    """
    report = seen.health
    return {
        "running": seen.running,
        "version": version_of(seen.running),
        "in_use": seen.current,
        "on_trial": seen.is_on_trial,
        "tries_left": seen.tries_left,
        "healthy": report.is_good if report is not None else None,
        "checked": report.when if report is not None else None,
        "next": seen.next or None,
        "previous": next(iter(seen.named(Role.PREVIOUS)), None),
        "failed": [{"name": f.name, "when": f.when, "why": f.why} for f in seen.failed],
        "set_aside": list(seen.set_aside),
        "pinned": list(seen.pinned),
        "reset": list(seen.reset),
        "deployments": None if seen.obstacle else [deployment_json(d) for d in seen.deployments],
    }


def deployment_json(deployment: Deployment) -> dict[str, Any]:
    """One deployment for programs."""
    entry = deployment.entry
    return {
        "name": deployment.name,
        "version": deployment.version,
        "role": deployment.role.value,
        "state": state(entry),
        "tries_left": entry.tries_left if entry is not None else None,
        "pinned": deployment.is_pinned,
    }


def state(entry: BootEntry | None) -> str:
    """What became of a boot entry so far, in words."""
    if entry is None:
        return "no boot entry"
    if entry.tries_left is None:
        return "good"
    if entry.is_set_aside:
        return "set aside"
    if entry.is_failed:
        return f"failed after {_tries(entry.tries_done)}"
    return f"on trial, {_tries(entry.tries_left)} left"


def table(found: Sequence[tuple[Deployment, int]]) -> list[str]:
    """Deployments with the time when they were made (seconds since 1970, 0 if unknown)."""
    rows = [("name", "version", "role", "boot entry", "pinned", "made")]
    for deployment, made in found:
        pinned = "yes" if deployment.is_pinned else ""
        when = moment(made) if made else ""
        version, role = str(deployment.version), deployment.role.value
        if deployment.is_current and not deployment.is_running:
            role += ", in use"
        rows.append((deployment.name, version, role, state(deployment.entry), pinned, when))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _running_state(seen: Overview) -> str:
    left = f", {_tries(seen.tries_left)} left" if seen.tries_left is not None else ""
    standing = f"on trial{left}" if seen.is_on_trial else "good"
    if seen.health is None:
        return standing
    well = "healthy" if seen.health.is_good else "degraded"
    return f"{standing}; {well}, checked {moment(seen.health.when)}"


def _tries(number: int) -> str:
    return "1 try" if number == 1 else f"{number} tries"
