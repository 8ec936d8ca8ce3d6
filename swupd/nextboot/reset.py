"""Back to the factory state: all of /etc, all of /var, or single paths of /var.

A running system that our initrd has booted uses its /etc and /var all the time. So that they go as a whole is only
written down, in `/run/state/boot/reset`, and done by the initrd of the next boot before anything uses them. A root that
is not running is emptied at once, because its next start fills it. A single path of /var goes at once, too, and is made
again by systemd-tmpfiles, whose rules are the factory state of /var.

* Nothing follows a link and nothing that is mounted is entered: a mount point refuses the whole before it begins.
* /etc loses `passwd` first, which is how the next start sees that it has to be filled, whatever interrupted us.
* Everything may be done again after an interruption. /home and all other state is never touched.

The caller holds the system's lock. Single paths of /etc are `swupd.nextboot.etcrevert`'s.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from swupd import process
from swupd.errors import UnsafePathError, UsageError
from swupd.fs import Directory, components, make_directories
from swupd.nextboot.etccompare import is_within
from swupd.nextboot.place import BOOT_STATE, STATE
from swupd.report import Report
from swupd.system import MOUNTS, read_mounts
from swupd.walker import split

PARTS = ("etc", "var")
REQUEST = "reset"
"""What the initrd empties, one of PARTS a line."""
TEMPORARY = ".swupd.reset"
"""The name of what is about to be removed."""
TMPFILES = "/usr/bin/systemd-tmpfiles"

_REQUEST_LIMIT = 4096
_FIRST = "passwd"


def requested(root: Path) -> tuple[str, ...]:
    """The parts that the next boot will reset; of PARTS, in their order. Raises OSError."""
    try:
        with Directory.open(root / STATE / BOOT_STATE) as boot, boot.open_file(REQUEST) as file:
            lines = file.read(_REQUEST_LIMIT).decode(errors="replace").split()
    except (FileNotFoundError, UnsafePathError):
        return ()
    return tuple(part for part in PARTS if part in lines)


def request(root: Path, parts: Iterable[str]) -> tuple[str, ...]:
    """Let the next boot reset some parts, besides those of earlier requests; returns all. Raises OSError."""
    wanted = {*requested(root), *parts}
    lines = tuple(part for part in PARTS if part in wanted)
    make_directories(root / STATE / BOOT_STATE)
    with Directory.open(root / STATE / BOOT_STATE) as boot:
        boot.replace_file(REQUEST, "".join(f"{part}\n" for part in lines).encode())
        boot.sync_names()
    return lines


def cancel(root: Path) -> tuple[str, ...]:
    """Withdraw what was requested; returns it. Raises OSError."""
    parts = requested(root)
    with suppress(FileNotFoundError), Directory.open(root / STATE / BOOT_STATE) as boot:
        boot.remove_tree(REQUEST)
        boot.sync_names()
    return parts


def empty(root: Path, parts: Sequence[str], mounts: Path = MOUNTS) -> None:
    """Remove all that is in some parts of a root that is not running. Raises UsageError, UnsafePathError, OSError."""
    for part in parts:
        _check_mounts(root, f"/{part}", mounts)
    for part in parts:
        with Directory.open(root) as top, top.descend(part) as directory:
            for name in sorted(directory.names(), key=lambda name: name != _FIRST):
                directory.remove_tree(name)
                if name == _FIRST:
                    directory.sync_names()
            directory.sync()


def var_path(text: str, state_dirs: Sequence[Path], root: Path, mounts: Path = MOUNTS) -> str:
    """A path of the command line as one that can be removed: "/var/lib/x".

    state_dirs: where swupd itself keeps its state. Raises UsageError.
    """
    try:
        path = "/" + "/".join(components(text))
    except UnsafePathError as error:
        raise UsageError(str(error), hint="give the path without it") from error
    if not text.startswith("/") or not path.startswith("/var/"):
        raise UsageError(
            f"{text} is neither in /etc nor below /var",
            hint="all else belongs to the version (swupd repair) or to users; --var resets /var as a whole",
        )
    for state in state_dirs:
        own = f"/{os.path.relpath(state, root)}"
        if is_within(own, path) or is_within(path, own):
            raise UsageError(
                f"{path} holds the state of swupd itself ({own})",
                hint="swupd clean --all empties the cache; --var resets all of /var",
            )
    _check_mounts(root, path, mounts)
    return path


def reset_var(root: Path, path: str, report: Report, *, is_host: bool) -> None:
    """Remove what is at a path of `var_path`, and let systemd-tmpfiles make again what the factory has there.

    is_host: whether the root is the running system; any other one does that when it starts. Raises CommandError,
    UnsafePathError, OSError.
    """
    directory, name = split(path)
    with suppress(FileNotFoundError, NotADirectoryError), Directory.open(root) as top, top.descend(directory) as parent:
        parent.remove_tree(TEMPORARY)
        if parent.lstat(name) is not None:
            # In one step: nobody meets a half of it.
            parent.rename(name, TEMPORARY)
            parent.remove_tree(TEMPORARY)
        parent.sync()
    if not is_host or not os.access(TMPFILES, os.X_OK):
        report.info(f"{path} is removed; what the factory has there comes back with the next start")
        return
    argv = [TMPFILES, "--create", f"--prefix={path}"]
    done = process.run(argv, check=False)
    if done.returncode != 0:
        report.warning(f"{path} is removed, but {process.failure(argv, done.returncode, done.stderr)}")
    else:
        report.info(f"{path} is as the factory has it")


def _check_mounts(root: Path, path: str, mounts: Path) -> None:
    point = os.path.join(root, path[1:])
    for mount in read_mounts(mounts):
        if is_within(mount.point, point):
            raise UsageError(f"{path} cannot be reset: {mount.point} is mounted", hint=f"umount {mount.point}")
