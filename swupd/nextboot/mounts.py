"""Mounting over what is in use, as system calls.

Not the programs mount and umount: they lie in /usr, which is what is being exchanged, and what has to be undone must
not depend on them. Everything raises OSError with the path of the mount point.
"""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

OVERLAY_OPTIONS = "index=off,metacopy=off,redirect_dir=off,xino=off,nfs_export=off"
"""As the initrd mounts /etc; all are needed because the lower layer is another one after each update."""

_READ_ONLY = 1
_REMOUNT = 32
_BIND = 4096
_DETACH = 2


def bind(source: Path, point: Path) -> None:
    """Mount a directory over another one."""
    _mount(source, point, flags=_BIND)


def overlay(lower: Path, upper: Path, work: Path, point: Path) -> None:
    """Mount an overlay that keeps its changes in `upper`."""
    _mount("overlay", point, "overlay", data=f"lowerdir={lower},upperdir={upper},workdir={work},{OVERLAY_OPTIONS}")


def make_read_only(point: Path) -> None:
    """Let nobody write to the file system at a mount point any more; EBUSY if somebody is about to."""
    _mount(None, point, flags=_REMOUNT | _READ_ONLY)


def make_writable(point: Path) -> None:
    """The opposite."""
    _mount(None, point, flags=_REMOUNT)


def unmount(point: Path) -> None:
    """Take away the uppermost mount of a mount point; whoever uses it goes on with it."""
    _check(_libc().umount2(os.fsencode(point), _DETACH), point)


def shares_the_systems(pid: int = 1) -> bool:
    """Whether it is known that another process sees what this one mounts."""
    try:
        own, other = (os.stat(f"/proc/{number}/ns/mnt") for number in ("self", pid))
    except OSError:
        return False
    return (own.st_dev, own.st_ino) == (other.st_dev, other.st_ino)


def _mount(source: Path | str | None, point: Path, kind: str | None = None, *, flags: int = 0, data: str = "") -> None:
    arguments = (_bytes(source), os.fsencode(point), _bytes(kind), ctypes.c_ulong(flags), _bytes(data or None))
    _check(_libc().mount(*arguments), point)


def _bytes(text: Path | str | None) -> bytes | None:
    return None if text is None else os.fsencode(text)


def _check(result: int, point: Path) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(point))


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)
