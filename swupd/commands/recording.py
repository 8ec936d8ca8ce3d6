"""Every change of a system ends up in its history, whatever comes of it (swupd.history).

An event is written when the block is left: "done" if the work said what it did, "failed" with the reason if it said
so, or if an error or an interruption ends it, and nothing if there turned out to be nothing to do. A process that is
killed writes nothing here: whoever finishes or undoes its work does.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from swupd import history
from swupd.errors import ProjectError
from swupd.history import Event
from swupd.session import Session
from swupd.transaction.install import InstallResult
from swupd.transaction.journal import Purpose


class Record:
    """What a command tells about its work."""

    def __init__(self) -> None:
        self.is_done = False
        self.reason = ""
        self._begun_at = time.monotonic()
        self.installed = self.replaced = self.removed = 0

    @property
    def seconds(self) -> float:
        """Since the work began; what was asked and looked at before does not count."""
        return time.monotonic() - self._begun_at

    def done(self, result: InstallResult | None) -> None:
        """The work has succeeded; may be said several times if it has several parts. None: nothing was changed."""
        self.is_done = self.is_done or result is not None
        if result is not None:
            self.installed += result.installed
            self.replaced += result.replaced
            self.removed += len(result.removed)

    def failed(self, reason: str) -> None:
        """A part of the work could not be done."""
        self.reason = reason


@contextmanager
def recorded(session: Session, purpose: Purpose) -> Iterator[Record]:
    """Surrounds the part of a command that may change the system."""
    record = Record()

    def write(outcome: str, detail: str = "") -> None:
        event = Event(
            when=int(time.time()),
            command=purpose.command,
            outcome=outcome,
            from_version=purpose.from_version,
            to_version=purpose.to_version,
            installed=record.installed,
            replaced=record.replaced,
            removed=record.removed,
            # The fetcher comes into being when something is fetched.
            received=session.fetcher.bytes_received if "fetcher" in vars(session) else 0,
            seconds=round(record.seconds, 1),
            detail=detail,
        )
        history.append(session.statedir.data_dir, event)

    try:
        yield record
    except BaseException as error:
        write(history.FAILED, _reason(error))
        raise
    if record.reason:
        write(history.FAILED, record.reason)
    elif record.is_done:
        write(history.DONE)


def _reason(error: BaseException) -> str:
    if isinstance(error, KeyboardInterrupt):
        return "interrupted"
    return str(error) if isinstance(error, ProjectError | OSError) else f"{type(error).__name__}: {error}"
