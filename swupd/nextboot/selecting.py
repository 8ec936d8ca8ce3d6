"""Choosing by hand which deployment boots next: back to the previous one, or to any that is there.

The boot loader takes the newest entry that has tries left or needs none. So a deployment is chosen by setting aside all
entries that the loader would prefer, the newest of them last: as long as that one is there, nothing has changed, and an
interruption leaves what booted before. A chosen one that had been set aside itself gets its earlier state back: good if
it had booted well, otherwise on trial.

What was set aside stays until the retention policy needs its place. Unless the chosen one has the same version, with
other bundles, it is on record as well, so that no update brings its version back by itself. `choose` is pure;
`carry_out` changes names on the boot partition, and its caller holds the lock.
"""

from __future__ import annotations

import time
from collections.abc import Container, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from swupd import history
from swupd.errors import NextBootError
from swupd.formats.bootentry import BootEntry, version_of
from swupd.formats.kernels import DEFAULT_TRIES
from swupd.history import Event
from swupd.nextboot import record
from swupd.nextboot.deployments import LIST_HINT, Deployment, Role, following, named, previous, running
from swupd.nextboot.place import GOOD, Place
from swupd.nextboot.record import Failure


@dataclass(frozen=True)
class Selection:
    """What has to be done so that a deployment boots next."""

    target: Deployment
    changes: tuple[tuple[BootEntry, BootEntry], ...]
    """Entries as they are and as they will be, in the order in which they have to be changed; empty if the target
    boots next anyhow."""

    @property
    def set_aside(self) -> tuple[str, ...]:
        """Names of the deployments that are set aside, the oldest first."""
        return tuple(new.name for _, new in self.changes if new.is_set_aside)


def choose(deployments: Sequence[Deployment], good: Container[str], name: str = "") -> Selection:
    """What makes the named deployment the next one; without a name, what goes back by one.

    deployments: as `survey` gives them. good: the names of those that have booted well. Going back by one means: an
    update that waits for its first boot is set aside, and the running deployment stays; if none waits, the previous one
    comes back. Raises NextBootError if that is impossible, UsageError for an unknown name.
    """
    target = named(deployments, name) if name else _one_back(deployments)
    entry = target.entry
    if entry is None or target.role is Role.UNFINISHED:
        raise NextBootError(f"{target.name} cannot be booted: it has no boot entry", hint=LIST_HINT)
    if entry.is_failed and not target.is_running:
        why = target.failure.why if target.failure else "all its tries were used up"
        raise NextBootError(
            f"{target.name} failed its boot: {why}",
            hint="to install its version again: swupd update --next-boot --retry",
        )
    chosen = entry
    if entry.tries_left == 0:
        chosen = entry.good() if target.name in good else replace(entry, tries_left=DEFAULT_TRIES, tries_done=0)
    preferred = [
        other.entry
        for other in deployments
        if other.entry is not None
        and other.entry.sequence > entry.sequence
        # The running one on its last try would be blessed yet.
        and (other.entry.tries_left != 0 or (other.is_running and not other.entry.is_set_aside))
    ]
    changes = [(entry, chosen)] if chosen != entry else []
    changes += [(other, other.set_aside()) for other in sorted(preferred, key=lambda other: other.sequence)]
    return Selection(target, tuple(changes))


def carry_out(place: Place, selection: Selection) -> None:
    """Make it so. Raises NextBootError, OSError."""
    for old, new in selection.changes:
        place.entries.change(old, new)
    target = selection.target
    with place.boot_state() as boot:
        before = known = record.read(boot)
        known = known.without_failure(target.name)
        for entry in (new for _, new in selection.changes if new.is_set_aside):
            failure = Failure(entry.name, int(time.time()), record.SET_ASIDE)
            # Two deployments of one version differ by their bundles: nothing is wrong with the version.
            if failure.version != target.version:
                known = known.with_failure(failure)
        if known != before:
            record.write(boot, known)


def note(data_dir: Path, running: str, chosen: str) -> None:
    """Write it into the history, which is in `data_dir`."""
    versions = version_of(running), version_of(chosen)
    history.append(data_dir, Event(int(time.time()), f"rollback to {chosen}", history.DONE, *versions))


def good_names(place: Place) -> frozenset[str]:
    """The names of the deployments that have booted well. Raises OSError."""
    with place.boot_state() as boot, boot.descend(GOOD) as good:
        return frozenset(good.names())


def _one_back(deployments: Sequence[Deployment]) -> Deployment:
    now, following_one = running(deployments), following(deployments)
    if following_one is not None and now is not None and now.entry is not None and following_one.entry is not None:
        # An older one that boots next was chosen by an earlier rollback: it is where one goes back to.
        return now if following_one.entry.sequence > now.entry.sequence else following_one
    before = previous(deployments)
    if before is None:
        raise NextBootError(
            "there is no earlier version that has booted well and could be gone back to", hint=LIST_HINT
        )
    return before
