"""Where somebody keeps manifests who may not write to the system's cache (swupd client specification, section 8, #14).

* An ordinary user has a cache of his own, `$XDG_CACHE_HOME/swupd` or `~/.cache/swupd`; so has root while another swupd
  holds the system's lock. Where --statedir or --cachedir names a directory of the user himself, that is it.
* It is for him alone (0700), and made only where nobody else could have prepared the way: the first directory that is
  there already belongs to him or to root.
* It has the layout of a state directory, and what is read from it is verified like everything else.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from swupd.errors import DiskSpaceError, StateDirectoryError, is_disk_full
from swupd.fs import Directory

_NAME = "swupd"
_PRIVATE = 0o700
_HINT = "give a directory of your own with --statedir"


def place(environ: Mapping[str, str]) -> Path:
    """The cache of the user whose environment this is; StateDirectoryError if it says nothing."""
    cache = environ.get("XDG_CACHE_HOME", "")
    if os.path.isabs(cache):
        return Path(cache, _NAME)
    home = environ.get("HOME", "")
    if os.path.isabs(home):
        return Path(home, ".cache", _NAME)
    raise StateDirectoryError("there is no place for your own cache: HOME is not set", hint=_HINT)


def is_ours(path: Path) -> bool:
    """Whether a directory belongs to us, or is not there and could be made by us."""
    try:
        return path.stat().st_uid == os.geteuid()
    except FileNotFoundError:
        return os.access(_first_that_exists(path), os.W_OK | os.X_OK)
    except OSError:
        return False


def make(path: Path) -> None:
    """Make a private directory, and what is missing above it; StateDirectoryError or DiskSpaceError if we cannot."""
    top = _first_that_exists(path)
    try:
        with Directory.open(top) as directory:
            if os.fstat(directory.fd).st_uid not in (0, os.geteuid()):
                raise StateDirectoryError(f"your own cache {path} lies in the directory of another user", hint=_HINT)
            _make_below(directory, path.relative_to(top).parts)
    except OSError as error:
        if is_disk_full(error):
            raise DiskSpaceError(f"cannot make your own cache {path}: the disk is full", hint=_HINT) from error
        raise StateDirectoryError(f"cannot make your own cache {path}: {error.strerror}", hint=_HINT) from error


def _make_below(directory: Directory, names: tuple[str, ...]) -> None:
    if names:
        directory.make_directory(names[0], mode=_PRIVATE)
        with directory.descend(names[0]) as below:
            _make_below(below, names[1:])


def _first_that_exists(path: Path) -> Path:
    while not os.path.lexists(path):
        path = path.parent
    return path
