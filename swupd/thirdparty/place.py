"""Where a 3rd-party repository has its files (specification section 7.1), and what was begun with them.

A repository is a root of its own below `/opt/3rd-party/bundles`, with its own cache and data below those of the system.

* A *note* in the data directory says that something was begun with a repository. It is written before the first
  change and goes away after the last one, so that whoever finds one knows what to finish, whatever the kill hit.
* Directories are reached component by component: a link below the root is an error (UnsafePathError), no way out.
* Nothing is removed while something is mounted in the content.

Everything that changes something here is for whoever holds the lock of the system.
"""

from __future__ import annotations

import stat
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from swupd.errors import RepositoryError, StateDirectoryError
from swupd.formats import layout
from swupd.fs import Directory, components, replace_file
from swupd.settings import Settings, below
from swupd.statedir import StateDir
from swupd.system import System
from swupd.thirdparty.repositories import is_name

OWN = "/opt/3rd-party"
CONTENT = f"{OWN}/bundles"
STATE = "3rd-party"
"""Below the cache directory and below the data directory."""
_CERTIFICATE = "Swupd_Root.pem"
_NOTE = ".unfinished-"
_READABLE = 0o755


class Place:
    """The files of one repository of a system."""

    def __init__(self, host: Settings, name: str) -> None:
        self._host = host
        self._name = name
        self.prefix = below(host.root, CONTENT) / name
        self.cache = host.cache_dir / STATE / name
        self.data = host.data_dir / STATE / name

    def settings(self, url: str, *, certificate: Path | None = None) -> Settings:
        """What commands work with in this repository: no scripts, and its own certificate if no other one is named."""
        return replace(
            self._host,
            root=self.prefix,
            cache_dir=self.cache,
            data_dir=self.data,
            content_url=url,
            version_url=url,
            content_mirrors=(),
            version_mirrors=(),
            certificate=certificate or below(self.prefix, layout.CERTIFICATE),
            ignore_time=True,  # it was looked at for the system
            # "No" is about what a repository may do (RepositoryGuard), not about whether it is updated at all.
            assume=None if self._host.assume is None else True,
            run_scripts=False,
            update_boot=False,
            warnings=(),
        )

    def is_empty(self) -> bool:
        """Whether there is no content."""
        try:
            with open_below(self._host.root, CONTENT) as parent:
                status = parent.lstat(self._name)
                if status is None or not stat.S_ISDIR(status.st_mode):
                    return status is None
                with parent.descend(self._name) as directory:
                    return not directory.names()
        except FileNotFoundError:
            return True

    def make(self) -> None:
        """Make the directory of the content."""
        open_below(self._host.root, f"{CONTENT}/{self._name}", make=True).close()

    def keep_certificate(self, url: str, pem: bytes) -> Path:
        """Write a certificate into the data directory, for as long as the repository has none of its own there."""
        StateDir(self.cache, self.data, url).prepare()
        replace_file(self.data / _CERTIFICATE, pem, mode=0o600)
        return self.data / _CERTIFICATE

    def drop_certificate(self) -> None:
        """The repository has its own now."""
        with suppress(FileNotFoundError), Directory.open(self.data) as data:
            data.unlink(_CERTIFICATE)

    def check_removable(self) -> None:
        """Raise RepositoryError if something is mounted in the content: that is not the repository's."""
        mounts = System(self.prefix, StateDir(self.cache, self.data, "")).mount_points()
        if mounts:
            raise RepositoryError(
                f"repository {self._name} cannot be removed: something is mounted on {self.prefix}{min(mounts)}",
                hint="unmount it, then try again",
            )

    def wipe(self) -> None:
        """Remove content and state; RepositoryError as above."""
        self.check_removable()
        for root, path in ((self._host.root, CONTENT), (self._host.cache_dir, STATE), (self._host.data_dir, STATE)):
            with suppress(FileNotFoundError), open_below(root, path) as parent:
                parent.remove_tree(self._name)

    def note(self) -> None:
        """Remember that something is begun with this repository."""
        with open_below(self._host.data_dir, STATE, make=True) as parent:
            with suppress(FileExistsError):
                parent.write_file(f"{_NOTE}{self._name}", [])
            parent.sync_names()

    def is_noted(self) -> bool:
        """Whether something was begun and is not finished."""
        return self._name in noted(self._host)

    def forget_note(self) -> None:
        """What was begun is finished."""
        with suppress(FileNotFoundError), open_below(self._host.data_dir, STATE) as parent:
            parent.unlink(f"{_NOTE}{self._name}")


def noted(host: Settings) -> list[str]:
    """The names of the repositories with which something was begun and not finished."""
    try:
        with open_below(host.data_dir, STATE) as directory:
            names = [name.removeprefix(_NOTE) for name in directory.names() if name.startswith(_NOTE)]
    except (FileNotFoundError, NotADirectoryError):
        return []
    return sorted(name for name in names if is_name(name))


def open_below(root: Path, path: str, *, make: bool = False) -> Directory:
    """Open a directory below `root` without following links; `make` makes what is missing of the way.

    Raises UnsafePathError for a link on the way, FileNotFoundError, and with `make` StateDirectoryError for what cannot
    be made.
    """
    directory = Directory.open(root)
    for component in components(path):
        with directory as parent:
            if make and parent.lstat(component) is None:
                try:
                    parent.make_directory(component, mode=_READABLE)
                except OSError as error:
                    raise StateDirectoryError(
                        f"cannot make {parent.path}/{component}: {error.strerror}", hint="check the file system"
                    ) from error
            directory = parent.descend(component)
    return directory
