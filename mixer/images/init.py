"""Which program of a tree is the first one that a kernel starts."""

from __future__ import annotations

from mixer.errors import BuildError
from mixer.images.tree import ImageTree

INITS = ("/usr/lib/guest/init", "/usr/sbin/init", "/usr/lib/systemd/systemd")
"""That of a guest, the wrapper of a stateless system, systemd; the first that is there is taken."""


def init_of(tree: ImageTree) -> str:
    """Its path. Raises BuildError if there is none."""
    found = next((path for path in INITS if tree.find(path) is not None), None)
    if found is None:
        raise BuildError(
            f"the bundles {', '.join(tree.bundles)} have no init ({', '.join(INITS)})",
            hint="add guest-minimal or guest-systemd to --bundles",
        )
    return found
