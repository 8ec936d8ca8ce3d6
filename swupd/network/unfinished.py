"""Downloads that have not arrived completely, on the disk.

`<name>.part` is the beginning of an object and `<name>.part.etag` says of which state of it, in the server's words. A
beginning without that note is worth nothing and is written over. The note goes first and comes first, so that it never
stands beside the beginning of something else. Nothing is believed: the server confirms the note, and whoever wanted
the object verifies it.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress

from swupd.errors import DiskSpaceError
from swupd.fs import Directory

PART = ".part"
TAG = ".part.etag"
TAG_LIMIT = 1024
"""Bytes of a note."""
CHECKED_BYTES = 1 << 20
"""From this size on the free space of the disk is looked at before anything is written."""


def resumable(directory: Directory, name: str, limit: int) -> tuple[int, str]:
    """Where to go on, and the note; (0, "") if nothing of at most `limit` bytes can be continued."""
    tag, part = directory.lstat(name + TAG), directory.lstat(name + PART)
    if tag is None or part is None or not stat.S_ISREG(part.st_mode) or not 0 < part.st_size <= limit:
        return 0, ""
    with directory.open_file(name + TAG) as file:
        validator = file.read(TAG_LIMIT).decode("latin-1").strip()
    return (part.st_size, validator) if validator.isprintable() and validator else (0, "")


def discard(directory: Directory, name: str) -> None:
    """Forget an unfinished download."""
    for suffix in (TAG, PART):
        if directory.lstat(name + suffix) is not None:
            directory.remove_tree(name + suffix)


def write_note(directory: Directory, name: str, validator: str) -> None:
    """Say what the beginning that follows is one of."""
    data = validator.encode("latin-1", "ignore")
    if len(data) <= TAG_LIMIT:
        directory.write_file(name + TAG, [data])


def finish(directory: Directory, name: str) -> None:
    """All of it is there: give it its name."""
    directory.rename(name + PART, name)
    with suppress(FileNotFoundError):
        directory.unlink(name + TAG)


def check_space(directory: Directory, needed: int) -> None:
    """Raise DiskSpaceError rather now than when the disk is full for everybody."""
    if needed >= CHECKED_BYTES:
        system = os.fstatvfs(directory.fd)
        free = system.f_bavail * system.f_frsize
        if free < needed:
            raise DiskSpaceError(
                f"{needed} bytes have to be downloaded to {directory.path}, but only {free} are free there",
                hint="free some space, or choose another directory with --cachedir",
            )
