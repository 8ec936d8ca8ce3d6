"""The deployments of a machine, as its subvolumes, boot entries and records show them.

`survey` looks at all of them; the rest is pure. The words:

* *running*: what the root is mounted from. *current*: what /usr comes from; the same until a live update.
* *next*: what the boot loader would start now, if that is not the running one.
* *previous*: the newest one besides these that has booted well: where `swupd rollback` leads.
* *failed*: its tries were used up, or it is on record. *set aside*: somebody went back from it (`selecting`).
* *unfinished*: an interrupted run left it. It never boots, because no entry names it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum

from swupd.errors import UsageError
from swupd.formats.bootentry import BootEntry, is_deployment_name, version_of
from swupd.nextboot import record, subvolumes
from swupd.nextboot.place import Place
from swupd.nextboot.record import Failure

UNFINISHED = ".part"
"""Ends the name of a subvolume that is being made."""
LIST_HINT = "to see what there is: swupd snapshots list"
KEEP = 2
"""How many deployments besides the running one stay: the one to go back to, and another."""


class Role(Enum):
    """What a deployment is at the moment."""

    NEXT = "next"
    RUNNING = "running"
    PREVIOUS = "previous"
    FAILED = "failed"
    SET_ASIDE = "set aside"
    KEPT = "kept"
    UNFINISHED = "unfinished"


@dataclass(frozen=True)
class Deployment:
    name: str
    """Of its subvolume; that of an unfinished one may end with UNFINISHED."""
    entry: BootEntry | None = None
    is_sealed: bool = True
    is_running: bool = False
    is_current: bool = False
    is_mounted: bool = False
    """Whether the running system has any of it mounted."""
    is_pinned: bool = False
    failure: Failure | None = None
    role: Role = Role.KEPT

    @property
    def version(self) -> int:
        return version_of(self.name)

    @property
    def is_bootable(self) -> bool:
        """Whether the loader may start it of its own accord."""
        return self.is_sealed and self.entry is not None and self.entry.tries_left != 0

    @property
    def is_good(self) -> bool:
        """Whether it is bootable and has booted well."""
        return self.is_bootable and self.entry is not None and self.entry.is_good

    @property
    def is_untried(self) -> bool:
        """Whether it was made for a next boot and has never been started."""
        return self.entry is not None and self.entry.is_on_trial and self.entry.tries_done == 0

    @property
    def is_removable(self) -> bool:
        in_use = self.is_running or self.is_current or self.is_mounted
        return not (in_use or self.is_pinned or self.role is Role.NEXT)


def survey(place: Place) -> tuple[Deployment, ...]:
    """All deployments, in the order in which the boot loader would start them. Raises NextBootError, OSError."""
    entries = {entry.name: entry for entry in place.entries.read()}
    with place.boot_state() as boot:
        known = record.read(boot)
    located = place.located
    found = []
    for name in place.names():
        base = name.removesuffix(UNFINISHED)
        if not is_deployment_name(base) or not subvolumes.is_subvolume(place.path(name)):
            continue
        if name != base:
            found.append(Deployment(name, is_sealed=False, role=Role.UNFINISHED))
            continue
        found.append(
            Deployment(
                name,
                entries.get(name),
                is_sealed=subvolumes.is_sealed(place.path(name)),
                is_running=name == located.running,
                is_current=name == located.current,
                is_mounted=name in located.mounted,
                is_pinned=name in known.pinned,
                failure=known.failure(name),
            )
        )
    return assign_roles(found)


def assign_roles(deployments: Sequence[Deployment]) -> tuple[Deployment, ...]:
    """Say what each is, in the loader's order; those that it does not know come last."""
    ordered = sorted(deployments, key=_loader_key)
    first = next((d for d in ordered if d.is_bootable), None)
    result = []
    previous_found = False
    for deployment in ordered:
        role = _role(deployment, first)
        if role is Role.KEPT and deployment.is_good and not previous_found:
            role, previous_found = Role.PREVIOUS, True
        result.append(replace(deployment, role=role))
    return tuple(result)


def named(deployments: Sequence[Deployment], name: str) -> Deployment:
    """The one with a name. Raises UsageError if there is none."""
    found = next((d for d in deployments if d.name == name), None)
    if found is None:
        raise UsageError(f"there is no deployment {name}", hint=LIST_HINT)
    return found


def running(deployments: Sequence[Deployment]) -> Deployment | None:
    return next((d for d in deployments if d.is_running), None)


def following(deployments: Sequence[Deployment]) -> Deployment | None:
    """What boots next, if that is not the running one."""
    return next((d for d in deployments if d.role is Role.NEXT), None)


def previous(deployments: Sequence[Deployment]) -> Deployment | None:
    return next((d for d in deployments if d.role is Role.PREVIOUS), None)


def surplus(deployments: Sequence[Deployment], *, keep: int = KEEP) -> tuple[Deployment, ...]:
    """What the policy removes: all that is failed, unfinished or without an entry, or that another one has replaced
    before it was tried; and of the others all but `keep`: the previous one and the first in the loader's order, so that
    one that was set aside stays only if there is nothing better. Never the running one, the current, the next, or a
    pinned one."""
    removable = [d for d in deployments if d.is_removable]
    roles = (Role.PREVIOUS, Role.KEPT, Role.SET_ASIDE)
    worth = [d for d in removable if d.role in roles and d.entry is not None and not d.is_untried]
    # Those that were tried and not found good may come before it.
    worth.sort(key=lambda d: d.role is not Role.PREVIOUS)
    return tuple(d for d in removable if d not in worth[:keep])


def _role(deployment: Deployment, first: Deployment | None) -> Role:
    if deployment.role is Role.UNFINISHED or not deployment.is_sealed:
        return Role.UNFINISHED
    if deployment.is_running:
        return Role.RUNNING
    if deployment is first:
        return Role.NEXT
    entry = deployment.entry
    if entry is not None and entry.is_set_aside:
        return Role.SET_ASIDE
    if deployment.failure is not None or (entry is not None and entry.is_failed):
        return Role.FAILED
    return Role.KEPT


def _loader_key(deployment: Deployment) -> tuple[bool, bool, int, int]:
    entry = deployment.entry
    if entry is None:
        return (True, True, 0, -deployment.version)
    return (False, entry.tries_left == 0, -entry.sequence, 0)
