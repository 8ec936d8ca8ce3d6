"""btrfs subvolumes, through btrfsutil: the one seam to that library, which only the next boot needs.

Everything here raises NextBootError: if the library is missing, with what to install; if btrfs refuses, with the path.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from swupd.errors import DiskSpaceError, NextBootError, is_disk_full

_FIRST_INODE = 256
"""The root directory of every subvolume has this number."""


def require() -> None:
    """Raise NextBootError if there is no library to do anything with."""
    _library()


def snapshot(source: Path, target: Path) -> None:
    """Make a writable snapshot; `target` must not exist. Raises DiskSpaceError too."""
    with _explained(f"cannot make a snapshot of {source}"):
        _library().create_snapshot(str(source), str(target))


def delete(path: Path) -> None:
    """Delete a subvolume, read-only ones and those with subvolumes in them as well."""
    with _explained(f"cannot delete the subvolume {path}"):
        _library().delete_subvolume(str(path), recursive=True)


def seal(path: Path) -> None:
    """Make a subvolume read-only."""
    with _explained(f"cannot make the subvolume {path} read-only"):
        _library().set_subvolume_read_only(str(path), True)


def is_sealed(path: Path) -> bool:
    """Whether a subvolume is read-only."""
    with _explained(f"cannot look at the subvolume {path}"):
        return bool(_library().get_subvolume_read_only(str(path)))


def made(path: Path) -> int:
    """When a subvolume was made, in seconds since 1970."""
    with _explained(f"cannot look at the subvolume {path}"):
        return int(_library().subvolume_info(str(path)).otime)


def is_subvolume(path: Path) -> bool:
    """Whether there is a directory that looks like one; no link is followed."""
    try:
        status = os.lstat(path)
    except OSError:
        return False
    return stat.S_ISDIR(status.st_mode) and status.st_ino == _FIRST_INODE


def _library() -> Any:
    try:
        import btrfsutil
    except ImportError as error:
        raise NextBootError(
            f"the library btrfsutil cannot be used: {error}", hint="install the package python3-btrfsutil"
        ) from error
    return btrfsutil


@contextmanager
def _explained(what: str) -> Iterator[None]:
    """Turn what btrfs refuses into one line; btrfsutil's errors are OSErrors."""
    try:
        yield
    except OSError as error:
        if is_disk_full(error):
            raise DiskSpaceError(
                f"{what}: the file system is full", hint="make room, for example with: swupd snapshots delete NAME"
            ) from error
        raise NextBootError(f"{what}: {error.strerror or error}", hint="check the file system (btrfs check)") from error
