"""What commands have to say about manifests that do not fit: to this system, or to each other."""

from __future__ import annotations

from collections.abc import Callable

from swupd.errors import ManifestError
from swupd.formats import layout
from swupd.formats.manifest import Manifest
from swupd.session import Session


def check_format(session: Session, mom: Manifest, *, force: bool) -> None:
    """Raise ManifestError if a version is of another format than ours (section 5.12), unless that is forced."""
    ours = session.settings.format
    if ours in (layout.STAGING_FORMAT, str(mom.format)):
        return
    message = f"version {mom.version} has the format {mom.format}, this system has {ours}"
    if not force:
        raise ManifestError(message, hint=f"choose a version of that format, or give --format {mom.format} or --force")
    session.report.warning(message)


def disagreement(session: Session) -> Callable[[str], None]:
    """What is told when bundles contradict each other."""

    def tell(name: str) -> None:
        session.report.warning(f"bundles disagree about {name}; it is left as it is")

    return tell
