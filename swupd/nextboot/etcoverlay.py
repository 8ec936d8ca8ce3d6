"""What of /etc is the user's: his layer over the factory's, compared with it (stateless specification, section 3).

A stateless system ships its /etc as /usr/share/factory/etc. Where our initrd has booted, /etc is an overlay: the
factory of the booted version below, above it `/run/state/etc/upper` with what was changed. Everywhere else the first
start has filled /etc from the factory, and the two are compared as they are. `find_layers` tells which it is.

* Nothing follows a link, and nothing is changed but the record of bases.
* A *base* is what a change was made against: the digest of the factory's object when the change was first seen, in
  `/run/state/etc/base.json`. A change whose factory counterpart is another one by now is a *conflict*. The record is
  replaced in one step; whoever writes it holds the system's lock. A damaged one counts as empty. The mode of a
  directory has no base: it is compared with the factory's of today.

Paths are relative to /etc and have no slash at the ends; "" is /etc itself.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path

from swupd.errors import UnsafePathError, UsageError
from swupd.fs import Directory
from swupd.nextboot.etccompare import Difference, differences, digest_at
from swupd.nextboot.place import STATE
from swupd.report import Report
from swupd.system import MOUNTS, read_mounts

FACTORY = "usr/share/factory/etc"
MACHINE_MADE = (".pwd.lock", "*-", "hostname", "ld.so.cache", "machine-id", "mtab", "ssh/ssh_host_*")
"""What a machine makes for itself; `*-` are the backups of passwd and the like."""
MACHINE_MADE_LINKS = ("resolv.conf",)
UPPER = "upper"
"""The user's layer in the directory of its state."""
QUEUE = "revert"
"""What the initrd removes from the user's layer before it mounts it: paths, one a line."""
RECORD = "base.json"
RECORD_LIMIT = 8 << 20
"""Bytes; a larger file is no record of ours."""
QUEUE_LIMIT = 4 << 20
NOTED_LIMIT = 20_000
"""Paths in the record; what is beyond them has no conflicts."""

_DIGEST = re.compile(r"(?:[0-9a-f]{64})?")


@dataclass(frozen=True)
class Layers:
    """Where the two layers of a root are."""

    root: Path
    is_overlay: bool
    """Otherwise there is one directory: what the user has changed and what he has not."""

    @property
    def state(self) -> Path:
        """The directory of the user's layer, the queue and the record; only where /etc is an overlay."""
        return self.root / STATE / "etc"

    def open_etc(self) -> Directory:
        """What programs see."""
        return _open(self.root, "etc")

    def open_factory(self) -> Directory:
        return _open(self.root, FACTORY)

    def is_machine_made(self, path: str) -> bool:
        """Whether what is there was made by the machine for itself."""
        return is_machine_made(path, is_link=os.path.islink(self.root / "etc" / path))

    def open_changed(self) -> Directory:
        """The user's layer, or all of /etc where there are no layers."""
        return _open(self.state, UPPER) if self.is_overlay else self.open_etc()


def find_layers(root: Path, mounts: Path = MOUNTS) -> Layers:
    """Where the layers of a root are. Raises UsageError for a root that is not stateless, OSError."""
    # Ordinary systems may have a few files there as well.
    if not (root / FACTORY / "passwd").is_file():
        raise UsageError(
            f"{root} is not a stateless system: {root / FACTORY} does not hold its /etc",
            hint="choose the system with --path; builder.yaml makes stateless ones with `stateless: convert`",
        )
    point = os.fspath(root / "etc")
    types = [mount.type for mount in read_mounts(mounts) if mount.point == point]
    layers = Layers(root, is_overlay=types[-1:] == ["overlay"])
    if layers.is_overlay:
        try:
            (layers.state / UPPER).stat()
        except FileNotFoundError as error:
            raise UsageError(
                f"{point} is an overlay, but the layer of its changes is not {layers.state / UPPER}",
                hint="boot with the initrd of the system's own kernel bundle",
            ) from error
    return layers


def survey(layers: Layers, bases: Mapping[str, str], queue: frozenset[str] = frozenset()) -> list[Difference]:
    """All differences, in tree order, with what is known of conflicts. Raises OSError."""
    with layers.open_changed() as mine, layers.open_factory() as factory:
        found = differences(mine, factory, plain=not layers.is_overlay)
        return [_judged(difference, factory, bases, queue) for difference in found]


def is_machine_made(path: str, *, is_link: bool = False) -> bool:
    """Whether it is what machines make for themselves."""
    patterns = MACHINE_MADE + (MACHINE_MADE_LINKS if is_link else ())
    return any(fnmatchcase(path, pattern) and path.count("/") == pattern.count("/") for pattern in patterns)


# -- conflicts


def read_bases(state: Path, report: Report) -> dict[str, str]:
    """The record of bases: path -> digest of the factory's object. Raises OSError."""
    try:
        with Directory.open(state) as directory, directory.open_file(RECORD) as file:
            raw = json.loads(file.read(RECORD_LIMIT))
    except FileNotFoundError:
        return {}
    except (ValueError, RecursionError, UnsafePathError) as error:
        report.verbose(f"{state / RECORD} is damaged and counts as empty: {error}")
        return {}
    if not isinstance(raw, dict) or not all(isinstance(v, str) and _DIGEST.fullmatch(v) for v in raw.values()):
        report.verbose(f"{state / RECORD} is damaged and counts as empty")
        return {}
    return raw


def note_bases(layers: Layers, report: Report) -> dict[str, str]:
    """Write down what changes since the last time were made against, and forget those that are gone.

    Called with the factory of the version that is running, before another one takes its place. Returns the record;
    without an overlay there is none. The caller holds the system's lock. Raises OSError.
    """
    if not layers.is_overlay:
        return {}
    old = read_bases(layers.state, report)
    new: dict[str, str] = {}
    with layers.open_changed() as mine, layers.open_factory() as factory:
        for difference in differences(mine, factory):
            if difference.is_whole and len(new) < NOTED_LIMIT:
                known = old.get(difference.path)
                new[difference.path] = digest_at(factory, difference.path) if known is None else known
    if new != old:
        write_bases(layers.state, new)
    return new


def write_bases(state: Path, bases: Mapping[str, str]) -> None:
    """Replace the record. Raises OSError."""
    with Directory.open(state) as directory:
        directory.replace_file(RECORD, json.dumps(bases).encode(), mode=0o600)


def conflicts(
    upper: Directory,
    old_factory: Directory,
    new_factory: Directory,
    bases: Mapping[str, str],
    queue: frozenset[str] = frozenset(),
) -> tuple[Difference, ...]:
    """The changes of the user whose counterpart in the new factory is neither that of the old one nor their base.

    They stay as they are. queue: what is reverted with the next boot, and so not concerned. Raises OSError.
    """
    found = []
    for difference in differences(upper, new_factory):
        path = difference.path
        if difference.is_whole and difference.is_visible and path not in queue:
            new = digest_at(new_factory, path)
            if new not in (digest_at(old_factory, path), bases.get(path)):
                found.append(replace(difference, is_conflict=True))
    return tuple(found)


def read_queue(state: Path) -> frozenset[str]:
    """The paths that follow the factory from the next boot on. Raises OSError."""
    try:
        with Directory.open(state) as directory, directory.open_file(QUEUE) as file:
            lines = file.read(QUEUE_LIMIT).split(b"\n")
    except (FileNotFoundError, UnsafePathError):
        return frozenset()
    return frozenset(os.fsdecode(line) for line in lines if line)


def _open(top: Path, path: str) -> Directory:
    """A directory below one that may be reached through links, but not further."""
    with Directory.open(top) as directory:
        return directory.descend(path)


def _judged(difference: Difference, factory: Directory, bases: Mapping[str, str], queue: frozenset[str]) -> Difference:
    base = bases.get(difference.path) if difference.is_whole else None
    return replace(
        difference,
        is_conflict=base is not None and difference.is_visible and base != digest_at(factory, difference.path),
        is_queued=difference.path in queue,
    )
