"""What the builder adds to a bundle that runs commands in a guest: its tree of mixer/osfiles, and for guest-minimal a
link to busybox for each of its programs.

A bundle includes os-core whether its definition says so or not, and has no path that os-core has. For that reason all
that guest-minimal needs, and os-core has as well, lies in a place of its own, /usr/lib/guest. What the guest does with
it is told in mixer.guest.channels.
"""

from __future__ import annotations

from pathlib import Path

from mixer.errors import BuildError
from mixer.initrdparts import BUSYBOX
from mixer.rootfiles import RootFiles
from mixer.sources.dpkg import Canonical
from swupd import process
from swupd.errors import CommandError

MINIMAL = "guest-minimal"
SYSTEMD = "guest-systemd"
BUNDLES = frozenset({MINIMAL, SYSTEMD})
PROGRAMS = "/usr/lib/guest/bin"


def ship(root: Path, bundle: str) -> list[str]:
    """Put what one of BUNDLES has into a root; the names of all files and links that were written, sorted.

    Raises BuildError, OSError if it cannot be written.
    """
    written = RootFiles(root)
    written.tree(bundle)
    if bundle == MINIMAL:
        program = Canonical(str(root)).target(BUSYBOX)
        if program is None:
            raise BuildError(
                f"the root has no {BUSYBOX}, which the bundle {MINIMAL} consists of",
                hint=f"name the package busybox-static in the definition of {MINIMAL}",
            )
        for name in _applets(Path(f"{root}{program}")):
            written.link(f"{PROGRAMS}/{name}", f"../../../..{program}")
    return sorted(written.names)


def _applets(program: Path) -> list[str]:
    """The programs that a busybox has; it is run for that."""
    try:
        return process.run([program, "--list"]).stdout.decode().split()
    except CommandError as error:
        raise BuildError(f"{BUSYBOX} of the root does not tell which programs it has: {error}") from error
