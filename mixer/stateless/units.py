"""Units that packages enabled: from /etc/systemd to /usr/lib/systemd, where a factory reset does not lose them.

What `systemctl enable` makes is moved: the links in *.wants and *.requires directories and the aliases beside them. A
link to a unit becomes a relative one that ends at the same unit. What stays in /etc, and with it in the factory:

* masks (links to /dev/null) and everything whose name is taken in /usr/lib by something else: they are there to
  override the unit in /usr/lib, which they only do in /etc;
* unit files and drop-ins of the administrator's kind.
"""

from __future__ import annotations

import os
import stat

from mixer.sources.dpkg import Canonical
from mixer.stateless.draft import Draft

MANAGERS = ("system", "user")
MASK = "/dev/null"
_DEPENDENCIES = (".requires", ".wants")


def convert(draft: Draft) -> int:
    """Move the links; how many there were."""
    return sum(_convert(draft, f"/etc/systemd/{manager}", f"/usr/lib/systemd/{manager}") for manager in MANAGERS)


def _convert(draft: Draft, source: str, target: str) -> int:
    canonical = Canonical(str(draft.root))
    moved = 0
    for path, status in list(draft.below(source)):
        name = path[len(source) + 1 :]
        directory = name.rpartition("/")[0]
        if not stat.S_ISLNK(status.st_mode) or (directory and not directory.endswith(_DEPENDENCIES)):
            continue
        text = os.readlink(draft.place(path))
        unit = canonical(os.path.normpath(os.path.join(os.path.dirname(path), text)))
        new = f"{target}/{name}"
        # A unit that stays in /etc keeps its absolute name.
        wanted = os.path.relpath(unit, os.path.dirname(new)) if unit.startswith("/usr/") else unit
        if unit == MASK or not _is_free(draft, new, wanted):
            continue
        if wanted != text:
            _relink(draft, path, wanted)
        draft.move(path, new)
        moved += 1
    for path, status in reversed(list(draft.below(source))):
        if stat.S_ISDIR(status.st_mode) and path.endswith(_DEPENDENCIES) and not os.listdir(draft.place(path)):
            draft.drop(path)
    return moved


def _is_free(draft: Draft, path: str, text: str) -> bool:
    """True if nothing is at a path, or the same link."""
    status = draft.status(path)
    return status is None or (stat.S_ISLNK(status.st_mode) and os.readlink(draft.place(path)) == text)


def _relink(draft: Draft, path: str, text: str) -> None:
    """Give a link another text; owner and lists stay."""
    status = os.lstat(draft.place(path))
    os.unlink(draft.place(path))
    os.symlink(text, draft.place(path))
    os.lchown(draft.place(path), status.st_uid, status.st_gid)
