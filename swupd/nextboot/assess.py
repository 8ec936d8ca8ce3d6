"""The assessment of a boot: the running deployment is blessed, and what became of the others is written down.

* `bless` comes first and needs nothing but the boot partition and the shared state, no lock and no network: the running
  deployment's boot entry loses its counter. It may be said again at every boot, and may be interrupted anywhere.
* `keep_house` comes afterwards, if the system's lock is free: an entry whose tries are used up is a failure, recorded
  once with its reason, in the record and in the history; then what the retention policy removes is removed. Nothing of
  that can undo a blessing.

A deployment that was set aside stays so, also if it is the running one: that is what somebody wants for the next boot.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from swupd import history
from swupd.formats.bootentry import version_of
from swupd.fs import Directory, make_directories
from swupd.history import Event
from swupd.nextboot import health, record, removal
from swupd.nextboot.deployments import Deployment, surplus, survey
from swupd.nextboot.place import GOOD, RUN, TRIAL, Located, Place
from swupd.nextboot.record import Failure

_NO_CHECKS = "it did not get as far as its health checks"
_NOT_IN_TIME = "its health checks passed, but its boot was not completed"


@dataclass(frozen=True)
class Housekeeping:
    """What `keep_house` did."""

    failures: tuple[Failure, ...]
    """Those that were not known before."""
    removed: tuple[str, ...]
    """Names of deployments."""


def is_on_trial(located: Located) -> bool:
    """Whether the running deployment has not been blessed yet."""
    return (located.root / TRIAL).exists()


def remember(located: Located, found: health.Health) -> None:
    """Keep what the health checks of this boot found. Raises OSError."""
    make_directories(located.boot_state)
    with Directory.open(located.boot_state) as boot:
        health.add(boot, found)


def bless(place: Place) -> bool:
    """The running deployment has booted well: it needs no more tries. Returns whether it has a boot entry.

    Raises NextBootError, OSError.
    """
    name = place.located.running
    entry = next((entry for entry in place.entries.read() if entry.name == name), None)
    is_wanted = entry is None or not entry.is_set_aside
    if entry is not None and is_wanted:
        place.entries.change(entry, entry.good())
    with place.boot_state() as boot:
        with boot.descend(GOOD) as good:
            if good.lstat(name) is None:
                good.write_file(name, [], mode=0o644)
                good.sync_names()
        known = record.read(boot)
        if is_wanted and known.failure(name) is not None:
            record.write(boot, known.without_failure(name))
    with suppress(FileNotFoundError), Directory.open(place.located.root / RUN) as run:
        run.unlink(Path(TRIAL).name)
    return entry is not None


def keep_house(place: Place, data_dir: Path) -> Housekeeping:
    """Write down what failed and remove what is not needed; the caller holds the system's lock.

    data_dir: where the history is. Raises NextBootError, OSError.
    """
    found = survey(place)
    failures = _note_failures(place, found, data_dir)
    superfluous = surplus(found)
    removal.remove(place, superfluous)
    return Housekeeping(failures, tuple(deployment.name for deployment in superfluous))


def _note_failures(place: Place, found: Sequence[Deployment], data_dir: Path) -> tuple[Failure, ...]:
    running, now = place.located.running, int(time.time())
    with place.boot_state() as boot:
        known, reports = record.read(boot), health.read(boot)
        told = {failure.name for failure in known.failures if not failure.is_set_aside}
        new = [
            Failure(d.name, now, _reason(reports.get(d.name)))
            for d in found
            if d.entry is not None and d.entry.is_failed and not d.is_running and d.name not in told
        ]
        if not new:
            return ()
        for failure in new:
            known = known.with_failure(failure)
        record.write(boot, known)
    for failure in new:
        event = Event(
            when=failure.when,
            command="boot",
            outcome=history.FAILED,
            from_version=version_of(running),
            to_version=failure.version,
            detail=f"version {failure.name} failed its boot and was left for {running}: {failure.why}",
        )
        history.append(data_dir, event)
    return tuple(new)


def _reason(report: health.Health | None) -> str:
    """Why a deployment failed, by the last report about it."""
    if report is None:
        return _NO_CHECKS
    if report.is_good:
        return _NOT_IN_TIME
    return "; ".join(f"health check {result.name}: {result.reason}" for result in report.failed)
