"""/etc of a stateless system: what packages have there becomes the factory's, which nobody changes.

* What every machine makes for itself never ships (`is_never_shipped`): identities, keys, locks, backups.
* Services of PAM go to /usr/lib/pam.d, which libpam reads for what is not in /etc/pam.d. What they name in an @include
  stays: Debian's libpam looks for it in /etc/pam.d alone, and so do the services that an administrator adds.
* The rest moves to FACTORY as it is. It is the lower layer of /etc of the running system, so every file of a version is
  seen at once unless an administrator's hides it. That needs no tmpfiles lines; they would bring back what he deleted.
  /etc/mtab is among it, because systemd-tmpfiles would make it in the administrator's layer otherwise.
"""

from __future__ import annotations

import os
import re
from fnmatch import fnmatchcase

from mixer.sources.scrub import OF_ONE_MACHINE
from mixer.stateless.draft import Draft

FACTORY = "/usr/share/factory"
FACTORY_ETC = f"{FACTORY}/etc"
PAM = "/etc/pam.d"
PAM_TARGET = "/usr/lib/pam.d"

_INCLUDE = re.compile(rb"^[ \t]*@include[ \t]+(\S+)", re.MULTILINE)

NEVER_SHIPPED = (
    *OF_ONE_MACHINE,
    "*.dpkg-*",
    "*.ucf-*",
    "*~",
    ".resolv.conf.*",
    ".updated",
    "adjtime",
    "machine-id",
    "rc[0-6S].d",
)
"""Patterns of names below /etc."""


def is_never_shipped(name: str) -> bool:
    """True for a name relative to /etc that belongs to one machine alone."""
    return any(fnmatchcase(name, pattern) for pattern in NEVER_SHIPPED)


def drop_never_shipped(draft: Draft) -> list[str]:
    """Remove it; the paths that there were."""
    unwanted = [path for path, _ in draft.below("/etc") if is_never_shipped(path.removeprefix("/etc/"))]
    for path in unwanted:
        draft.drop(path)
    return unwanted


def convert_pam(draft: Draft) -> int:
    """Move the services of PAM; how many there were. What is in /etc wins, as it does for libpam."""
    found = [path for path, _ in draft.below(PAM) if path.rpartition("/")[0] == PAM]
    readers = [*found, *(path for path, _ in draft.below(PAM_TARGET))]
    included = {name for path in readers for name in _INCLUDE.findall(draft.read(path) or b"")}
    services = [path for path in found if os.fsencode(path.removeprefix(f"{PAM}/")) not in included]
    for path in services:
        draft.move(path, PAM_TARGET + path.removeprefix(PAM))
    return len(services)


def convert(draft: Draft) -> int:
    """Move what is left; how many objects there were."""
    found = sum(1 for _ in draft.below("/etc"))
    if draft.is_directory("/etc"):
        draft.move("/etc", FACTORY_ETC)
    return found
