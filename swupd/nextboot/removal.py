"""Removing deployments, so that an interruption leaves nothing that boots into half of one; pinning those that stay.

The order: all boot entries, on disk; what is known of good boots, so that the name can be given again; the subvolumes;
at last the kernels that no entry names any more. What an interruption leaves of it has no entry, and the retention
policy removes it next time. The caller holds the system's lock and has decided that the deployments may go.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress

from swupd.errors import NextBootError
from swupd.nextboot import health, record, subvolumes
from swupd.nextboot.deployments import LIST_HINT, Deployment, Role, named, survey
from swupd.nextboot.place import GOOD, Place


def check(deployments: Sequence[Deployment], names: Iterable[str]) -> list[Deployment]:
    """The deployments with these names, if all of them may be removed. Raises UsageError, NextBootError."""
    chosen = [named(deployments, name) for name in dict.fromkeys(names)]
    for deployment in chosen:
        if deployment.is_removable:
            continue
        name = deployment.name
        if deployment.is_running:
            why, hint = "it is running", "boot another one before: swupd rollback"
        elif deployment.is_current:
            why, hint = "the running system uses its /usr since it was updated", "reboot before"
        elif deployment.is_mounted:
            why, hint = "a later live update is mounted on it", "reboot before"
        elif deployment.role is Role.NEXT:
            why, hint = "it boots next", "choose another one before: swupd rollback"
        else:
            why, hint = "it is pinned", f"swupd snapshots unpin {name}"
        raise NextBootError(f"{name} cannot be removed: {why}", hint=hint)
    return chosen


def remove(place: Place, deployments: Sequence[Deployment]) -> None:
    """Remove these deployments, and kernels that nobody needs. Raises NextBootError, OSError."""
    for deployment in deployments:
        if deployment.entry is not None:
            place.entries.remove(deployment.name)
    with place.boot_state() as boot:
        with boot.descend(GOOD) as good:
            for deployment in deployments:
                with suppress(FileNotFoundError):
                    good.unlink(deployment.name)
            good.sync_names()
        names = {deployment.name for deployment in deployments}
        reports = health.read(boot)
        if names & reports.keys():
            health.write(boot, {name: report for name, report in reports.items() if name not in names})
    for deployment in deployments:
        subvolumes.delete(place.path(deployment.name))
    if deployments:
        place.entries.collect()


def pin(place: Place, names: Sequence[str]) -> frozenset[str]:
    """Keep deployments from being removed; returns all that are pinned. Raises UsageError, NextBootError, OSError."""
    found = survey(place)
    for deployment in (named(found, name) for name in names):
        if deployment.role is Role.UNFINISHED:
            raise NextBootError(f"{deployment.name} cannot be pinned: it is unfinished", hint=LIST_HINT)
    with place.boot_state() as boot:
        known = record.read(boot)
        pinned = known.pinned | set(names)
        record.write(boot, known.with_pinned(pinned))
    return pinned


def unpin(place: Place, names: Sequence[str]) -> frozenset[str]:
    """The opposite; of names that are not pinned nothing is said."""
    with place.boot_state() as boot:
        known = record.read(boot)
        pinned = known.pinned - set(names)
        record.write(boot, known.with_pinned(pinned))
    return pinned
