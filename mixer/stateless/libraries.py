"""The cache of libraries: where they are, for programs whose packages have directories of their own for them.

Nobody runs ldconfig on a machine whose /usr is read-only and whose /etc follows the version, so the cache belongs to
the version. It is made over all bundles; what it names and a machine does not have is looked for in the usual places.
"""

from __future__ import annotations

from mixer.stateless.draft import Draft
from swupd import process
from swupd.formats import layout

CACHE = "/etc/ld.so.cache"
CONFIGURATION = "/etc/ld.so.conf"
_PROGRAM = "/usr/sbin/ldconfig"
_OWN_STATE = "/var/cache/ldconfig"


def make_cache(draft: Draft) -> None:
    """Make it, if the root has dynamic libraries at all; it is os-core's. Raises CommandError."""
    if draft.read(CONFIGURATION) is None:
        return
    # Only the cache: the links are what the packages have made.
    process.run([_PROGRAM, "-X", "-r", draft.root, "-C", CACHE], env=process.ENVIRONMENT)
    draft.drop(_OWN_STATE)
    draft.add(layout.OS_CORE, CACHE)
