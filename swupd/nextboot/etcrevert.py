"""Putting paths of /etc back to the factory: right at once, and following the factory from the next boot on.

Where /etc is an overlay, a revert is a copy of the factory's object at its place, made through the mount, because the
kernel does not allow changes of a layer that is in use. Such a copy would stay when the factory's object changes, so
its path is queued in `/run/state/etc/revert`, and the initrd takes it out of the user's layer before it mounts it.

* What is restored appears in one step: a copy beside it, on disk, that changes its name. Directories that the user has
  replaced are put right entry by entry. Nothing follows a link; what is a mount point, or holds one, is refused.
* Everything is looked at before anything is changed. After an interruption the same command finishes what it began.
* The queue holds each object by itself, a directory after all that the user's layer has below it. A queued path that
  was changed afterwards is the user's again: `settle_queue` takes it out of the queue, with the directories above it.
* What the machine makes for itself (`etcoverlay.MACHINE_MADE`) stays unless it is asked for.

The caller holds the system's lock. Paths are as in `swupd.nextboot.etcoverlay`.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from swupd.errors import InstallError, UnsafePathError, UsageError
from swupd.fs import CANNOT_EXCHANGE, Directory, components
from swupd.nextboot import etccompare, etcoverlay
from swupd.nextboot.etccompare import Difference, Kind, is_within
from swupd.nextboot.etcoverlay import Layers
from swupd.report import Report
from swupd.system import MOUNTS, read_mounts
from swupd.walker import parents, split

TEMPORARY = ".swupd.revert"
"""The name of a copy that is being made; an interrupted run leaves one at most."""

_HIDING = frozenset({Kind.DELETED, Kind.OPAQUE, Kind.TYPE})
_CANNOT_EXCHANGE_HERE = CANNOT_EXCHANGE | {errno.EXDEV}
"""An overlay does not rename directories that have a part in the factory."""


@dataclass
class Reverted:
    """What a revert did; paths in tree order."""

    restored: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    """Added by the user."""
    unchanged: list[str] = field(default_factory=list)
    """Asked for, but not different from the factory."""
    missing: list[str] = field(default_factory=list)
    """Asked for, but neither there nor in the factory: a mistake, or removed by an earlier run."""
    queued: frozenset[str] = frozenset()
    """What follows the factory from the next boot on, of this revert and of earlier ones."""


def relative(text: str) -> str:
    """A path of the command line, as the system has it ("/etc/hosts"), as one below /etc. Raises UsageError."""
    try:
        parts = components(text)
    except UnsafePathError as error:
        raise UsageError(str(error), hint="give the path without it") from error
    if not text.startswith("/") or parts[:1] != ["etc"]:
        raise UsageError(f"{text} is not in /etc", hint="give a path such as /etc/hosts")
    return "/".join(parts[1:])


def revert(
    layers: Layers, paths: Sequence[str], report: Report, *, machine_made: bool = False, mounts: Path = MOUNTS
) -> Reverted:
    """Put paths back to the factory, directories with all that differs below them.

    machine_made: also what the machine makes for itself. Raises UsageError for paths that cannot be reverted, before
    anything is changed, InstallError, OSError.
    """
    result = Reverted()
    differences = etcoverlay.survey(layers, {})
    chosen: dict[str, Difference] = {}
    for path in paths:
        found = _concerned(layers, differences, path, machine_made=machine_made)
        if not found:
            is_known = _exists(layers.open_factory, path) or _exists(layers.open_etc, path)
            (result.unchanged if is_known else result.missing).append(path)
        chosen |= {difference.path: difference for difference in found}
    for path in list(chosen):
        inside = any(parent in chosen and chosen[parent].kind is Kind.ADDED for parent in parents(path))
        if inside or split(path)[1] == TEMPORARY:
            del chosen[path]
    _check(layers, chosen.values(), mounts, machine_made=machine_made)
    with layers.open_etc() as etc, layers.open_factory() as factory:
        for difference in differences:
            directory, name = split(difference.path)
            if name == TEMPORARY:
                with etc.descend(directory) as here:
                    here.remove_tree(name)
        for difference in chosen.values():
            _put_back(etc, factory, difference)
            if difference.kind is Kind.ADDED:
                result.removed.append(difference.path)
            elif difference.kind is not Kind.SAME:
                result.restored.append(difference.path)
        etc.sync()
    if layers.is_overlay:
        result.queued = _queue(layers, paths, chosen, report)
    return result


def bring_up_to_date(layers: Layers, report: Report) -> tuple[dict[str, str], frozenset[str]]:
    """Look at what the user has changed since the last time. Returns the bases and the queue. Raises OSError."""
    queue = settle_queue(layers, report)
    return etcoverlay.note_bases(layers, report), queue


def settle_queue(layers: Layers, report: Report) -> frozenset[str]:
    """Take out of the queue what was changed after its revert. Returns the queue. Raises OSError."""
    if not layers.is_overlay:
        return frozenset()
    queue = etcoverlay.read_queue(layers.state)
    if not queue:
        return queue
    bases = etcoverlay.read_bases(layers.state, report)
    with layers.open_changed() as mine, layers.open_factory() as factory:
        settled = frozenset(_unchanged(mine, factory, lambda path: path in queue, bases))
        for path in sorted(queue - settled):
            directory, name = split(path)
            with suppress(FileNotFoundError, NotADirectoryError, UnsafePathError), mine.descend(directory) as parent:
                status = parent.lstat(name)
                if status is not None and not stat.S_ISDIR(status.st_mode):
                    report.warning(f"/etc/{path} was changed after its revert: it stays as it is")
    if settled != queue:
        _write_queue(layers.state, settled)
    return settled


# -- what is meant


def _concerned(layers: Layers, differences: Sequence[Difference], path: str, *, machine_made: bool) -> list[Difference]:
    """The differences at and below a path."""
    above = set(parents(path))
    for difference in differences:
        if difference.path in above and difference.kind in _HIDING:
            raise UsageError(
                f"/etc/{path} cannot be reverted by itself: /etc/{difference.path} differs as a whole "
                f"({difference.kind.value})",
                hint=f"swupd etc revert /etc/{difference.path}",
            )
        if difference.path in above and difference.kind is Kind.ADDED:
            return [Difference(path, Kind.ADDED)] if _exists(layers.open_etc, path) else []
    found = [difference for difference in differences if is_within(difference.path, path)]
    if machine_made:
        return found
    if any(difference.path == path and layers.is_machine_made(path) for difference in found):
        raise UsageError(
            f"/etc/{path} is what the machine made for itself",
            hint="--all reverts it all the same; the next boot makes another one",
        )
    return [difference for difference in found if not layers.is_machine_made(difference.path)]


def _check(layers: Layers, chosen: Iterable[Difference], mounts: Path, *, machine_made: bool) -> None:
    """Whether all of it can be carried out. Raises UsageError."""
    top = os.fspath(layers.root / "etc")
    mounted = [mount.point for mount in read_mounts(mounts) if mount.point.startswith(f"{top}/")]
    for difference in chosen:
        path = difference.path
        if layers.is_overlay and difference.kind is not Kind.ADDED and not _can_be_queued(path):
            raise UsageError(f"/etc/{path!a} has a name that cannot be queued", hint="rename or remove it by hand")
        if difference.kind is Kind.MODE and difference.is_directory:
            continue
        for point in mounted:
            if is_within(point, f"{top}/{path}"):
                raise UsageError(f"/etc/{path} cannot be replaced: {point} is mounted", hint=f"umount {point}")
        if not machine_made and difference.kind in (Kind.ADDED, Kind.OPAQUE):
            for inner in _machine_made_below(layers, path):
                raise UsageError(
                    f"/etc/{path} holds what the machine made for itself: /etc/{inner}",
                    hint="--all removes it as well; the next boot makes another one",
                )


def _machine_made_below(layers: Layers, path: str) -> Iterator[str]:
    for pattern in etcoverlay.MACHINE_MADE:
        directory, _ = split(pattern)
        if directory and is_within(directory, path) and _exists(layers.open_etc, directory):
            with layers.open_etc() as etc, etc.descend(directory) as below:
                names = [f"{directory}/{name}" for name in sorted(below.names())]
            yield from (name for name in names if etcoverlay.is_machine_made(name))


def _exists(opening: Callable[[], Directory], path: str) -> bool:
    directory, name = split(path)
    try:
        with opening() as top, top.descend(directory) as parent:
            return parent.lstat(name or ".") is not None
    except (FileNotFoundError, NotADirectoryError, UnsafePathError):
        return False


# -- right at once


def _put_back(etc: Directory, factory: Directory, difference: Difference) -> None:
    path, kind = difference.path, difference.kind
    if kind in (Kind.SAME, Kind.STALE):
        return
    directory, name = split(path)
    with etc.descend(directory) as here:
        if kind is Kind.ADDED:
            here.remove_tree(name)
            return
        with factory.descend(directory) as there:
            if kind is Kind.OPAQUE or (kind is Kind.MODE and difference.is_directory):
                _restore_attributes(here, there, name or ".")
            else:
                _replace(here, there, name)
    if kind is Kind.OPAQUE:
        with etc.descend(path) as here, factory.descend(path) as there:
            for inner in list(etccompare.differences(here, there, plain=True)):
                _put_back(here, there, inner)


def _replace(here: Directory, there: Directory, name: str) -> None:
    """Make the factory's object beside the one that is to go, and let it take its name."""
    here.remove_tree(TEMPORARY)
    try:
        _copy(there, name, here, TEMPORARY)
        old, new = here.lstat(name), here.lstat(TEMPORARY)
        if old is not None and new is not None and (stat.S_ISDIR(old.st_mode) or stat.S_ISDIR(new.st_mode)):
            try:
                here.exchange(TEMPORARY, name)
                return
            except OSError as error:
                if error.errno not in _CANNOT_EXCHANGE_HERE:
                    raise
            here.remove_tree(name)
        here.rename(TEMPORARY, name)
    finally:
        # The copy that nobody wants, or what has changed its name with it.
        with suppress(OSError):
            here.remove_tree(TEMPORARY)


def _copy(there: Directory, name: str, here: Directory, new: str) -> None:
    """Copy an object of the factory with all below it."""
    status = os.stat(name, dir_fd=there.fd, follow_symlinks=False)
    if stat.S_ISREG(status.st_mode):
        here.copy_file(there, name, new, durable=True)
    elif stat.S_ISLNK(status.st_mode):
        here.make_link(new, there.readlink(name), owner=(status.st_uid, status.st_gid))
    elif stat.S_ISDIR(status.st_mode):
        here.make_directory(new, mode=0o700)
        with here.descend(new) as below, there.descend(name) as source:
            for entry in source.names():
                _copy(source, entry, below, entry)
        _restore_attributes(here, there, name, new)
    else:
        raise InstallError(
            f"{there.path}/{name} is neither a file nor a directory nor a symbolic link",
            hint="swupd repair puts the factory right",
        )


def _restore_attributes(here: Directory, there: Directory, name: str, new: str = "") -> None:
    """Give a directory the mode, owner and extended attributes that the factory's has."""
    status = os.stat(name, dir_fd=there.fd, follow_symlinks=False)
    new = new or name
    here.set_attributes(new, mode=stat.S_IMODE(status.st_mode), owner=(status.st_uid, status.st_gid))
    wanted = etccompare.extended_attributes(there, name)
    present = etccompare.extended_attributes(here, new)
    if wanted != present:
        here.set_extended_attributes(new, wanted, remove=present.keys() - wanted.keys())


# -- from the next boot on


def _queue(layers: Layers, paths: Sequence[str], reverted: Iterable[str], report: Report) -> frozenset[str]:
    """Queue what is the factory's again at and below the paths; returns the whole queue."""
    old = etcoverlay.read_queue(layers.state)
    bases = etcoverlay.read_bases(layers.state, report)

    above = {directory for path in paths for directory in parents(path)}

    def is_wanted(path: str) -> bool:
        return path in old or path in above or any(is_within(path, top) for top in paths)

    with layers.open_changed() as mine, layers.open_factory() as factory:
        # What is the factory's again has today's factory as its base, whatever it was before.
        bases |= {path: etccompare.digest_at(factory, path) for path in reverted if path}
        queue = frozenset(_unchanged(mine, factory, is_wanted, bases))
    etcoverlay.write_bases(layers.state, bases)
    etcoverlay.note_bases(layers, report)
    if queue != old:
        _write_queue(layers.state, queue)
    return queue


def _unchanged(
    mine: Directory, factory: Directory, is_wanted: Callable[[str], bool], bases: Mapping[str, str], prefix: str = ""
) -> Iterator[str]:
    """The wanted paths of a layer that hold nothing of the user's; directories after what is in them."""
    for name in sorted(mine.names()):
        path = prefix + name
        kind, is_directory = etccompare.compare(mine, factory, name)
        if etccompare.is_merged(kind, is_directory=is_directory):
            with mine.descend(name) as own, factory.descend(name) as theirs:
                inner = list(_unchanged(own, theirs, is_wanted, bases, f"{path}/"))
                all_of_it = {f"{path}/{entry}" for entry in own.names()} <= set(inner)
            yield from inner
            if kind is None and all_of_it and is_wanted(path) and _can_be_queued(path):
                yield path
        elif is_wanted(path) and _can_be_queued(path):
            is_copy = kind in (Kind.SAME, Kind.STALE)
            if is_copy or (kind is Kind.CHANGED and etccompare.digest(mine, name) == bases.get(path)):
                yield path


def _can_be_queued(path: str) -> bool:
    """Whether one line can hold it."""
    return "\n" not in path


def _write_queue(state: Path, queue: frozenset[str]) -> None:
    with Directory.open(state) as directory:
        lines = sorted(queue, key=lambda path: (-path.count("/"), path))
        directory.replace_file(etcoverlay.QUEUE, b"".join(os.fsencode(path) + b"\n" for path in lines), mode=0o600)
        directory.sync_names()
