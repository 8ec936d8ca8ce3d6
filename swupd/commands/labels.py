"""Whether a bundle is installed, and why, as commands show it (specification section 6.6).

A bundle is explicitly installed if somebody asked for it by name. Where nothing was remembered yet, all that is
installed counts as asked for, as an update would record it (section 5.2).
"""

from __future__ import annotations

from dataclasses import dataclass, field

from swupd.errors import StateDirectoryError
from swupd.session import Session

EXPLICIT = "explicitly installed"
INSTALLED = "installed"
NOT_INSTALLED = "not installed"
EXPERIMENTAL = "experimental"


@dataclass(frozen=True)
class Status:
    """Which bundles a system has."""

    installed: set[str] = field(default_factory=set)
    asked_for: set[str] = field(default_factory=set)

    def of(self, bundle: str) -> str:
        """The label of a bundle; empty if it is not installed."""
        if bundle not in self.installed:
            return ""
        return EXPLICIT if bundle in self.asked_for else INSTALLED


def status(session: Session) -> Status:
    """What is installed; a user who may not see what was asked for is told so."""
    installed = session.system.installed_bundles()
    try:
        return Status(installed, asked_for(session))
    except StateDirectoryError as error:
        session.report.warning(f"{error}; which bundles were asked for is not shown")
        return Status(installed)


def asked_for(session: Session) -> set[str]:
    """The bundles that were asked for; StateDirectoryError if we may not look."""
    try:
        return session.system.tracked() or session.system.installed_bundles()
    except PermissionError as error:
        raise StateDirectoryError(f"cannot read {error.filename}: {error.strerror}", hint="run this as root") from error
