"""A root and the lists of its bundles, changed together while a composition is converted.

Whatever is moved, dropped or written in the root is so in every list that names it; so after each call the lists are
as true as they were before, and `origins` knows where each path came from. Names are those of the root: absolute and
canonical. A path that is listed but not in the root stays listed until something above it is dropped. Nothing is
followed: a link is moved and dropped as a link.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from mixer.composition import ComposedBundle
from mixer.errors import BuildError
from mixer.subtraction import parents, subtracted

FILE_MODE = 0o644
DIRECTORY_MODE = 0o755


class Draft:
    """The composition as far as it is converted. Raises OSError for what the system refuses."""

    def __init__(self, root: Path, bundles: Mapping[str, ComposedBundle]) -> None:
        self.root = root
        self._bundles = bundles
        self._lists = {name: dict(bundle.files) for name, bundle in bundles.items()}
        self._above = {name: frozenset(above) for name, above in subtracted(bundles).items()}
        self._origins = {path: path for paths in self._lists.values() for path in paths}

    # -- looking ---------------------------------------------------------------------------------------------------

    def place(self, path: str) -> str:
        """Where the object of a path lies on this machine."""
        return f"{self.root}{path}"

    def status(self, path: str) -> os.stat_result | None:
        """What is at a path; None if there is nothing."""
        try:
            return os.lstat(self.place(path))
        except FileNotFoundError:
            return None

    def is_directory(self, path: str) -> bool:
        status = self.status(path)
        return status is not None and stat.S_ISDIR(status.st_mode)

    def below(self, directory: str) -> Iterator[tuple[str, os.stat_result]]:
        """Everything below a directory, sorted by name, parents first; nothing if it is no directory.

        The names of a directory are read when its turn comes, so what is yielded may be moved or dropped.
        """
        if not self.is_directory(directory):
            return
        for name in sorted(os.listdir(self.place(directory)), key=os.fsencode):
            path = f"{directory}/{name}"
            status = self.status(path)
            if status is not None:
                yield path, status
                yield from self.below(path)

    def read(self, path: str) -> bytes | None:
        """The content of a regular file; None if there is none."""
        status = self.status(path)
        if status is None or not stat.S_ISREG(status.st_mode):
            return None
        return Path(self.place(path)).read_bytes()

    def owners(self, path: str) -> list[str]:
        """The bundles that list a path and do not have it by a bundle that they include."""
        holders = {name for name, paths in self._lists.items() if path in paths}
        return [name for name in self._lists if name in holders and not holders & self._above[name]]

    def listed(self, bundle: str, directory: str) -> set[str]:
        """The paths directly in a directory that a system with this bundle has: its own and those of its includes."""
        return {
            path for name in (bundle, *self._above[bundle]) for path in self._lists[name] if _parent(path) == directory
        }

    # -- changing --------------------------------------------------------------------------------------------------

    def write(self, bundle: str, path: str, data: bytes) -> None:
        """Write a file of root's, with the directories that lead to it; what was there is replaced."""
        self.make_directories(_parent(path))
        self.drop(path)
        self.rewrite(path, data)
        os.chmod(self.place(path), FILE_MODE)
        self.add(bundle, path)

    def rewrite(self, path: str, data: bytes) -> None:
        """Give a file other content; mode, owner and lists stay."""
        with open(self.place(path), "wb") as stream:
            stream.write(data)

    def link(self, bundle: str, path: str, target: str) -> None:
        """Make a link where nothing is."""
        os.symlink(target, self.place(path))
        self.add(bundle, path)

    def make_directories(self, path: str) -> None:
        """A directory and those above it, as far as they are missing. Raises BuildError if one is something else."""
        for directory in sorted({path, *parents([path])}):
            if self.is_directory(directory):
                continue
            if self.status(directory) is not None:
                raise BuildError(
                    f"{directory} is in the root, but not as a directory, which a stateless OS has there",
                    hint="remove it from the package or the content() tree that brings it",
                )
            os.mkdir(self.place(directory))
            os.chmod(self.place(directory), DIRECTORY_MODE)

    def add(self, bundle: str, path: str) -> None:
        """List a path in a bundle."""
        self._lists[bundle].setdefault(path, False)

    def add_only(self, bundle: str, path: str) -> None:
        """List a path in one bundle and no other."""
        for paths in self._lists.values():
            paths.pop(path, None)
        self.add(bundle, path)

    def move(self, path: str, target: str) -> None:
        """Move an object with all below it. Directories are merged; a file that is in the way is replaced."""
        self.make_directories(_parent(target))
        if self.is_directory(path) and self.is_directory(target):
            for name in sorted(os.listdir(self.place(path)), key=os.fsencode):
                self.move(f"{path}/{name}", f"{target}/{name}")
            status = os.lstat(self.place(path))
            os.chown(self.place(target), status.st_uid, status.st_gid)
            os.chmod(self.place(target), stat.S_IMODE(status.st_mode))
            os.rmdir(self.place(path))
        else:
            if self.status(target) is not None:
                self.drop(target)
            os.rename(self.place(path), self.place(target))
        was_directory = self.is_directory(target)
        moved: dict[str, str] = {}
        for paths in self._lists.values():
            for old in _at(paths, path, below=was_directory):
                moved[old] = target + old[len(path) :]
                paths[moved[old]] = paths.pop(old)
        self._origins.update({new: self._origins.pop(old) for old, new in moved.items() if old in self._origins})

    def drop(self, path: str) -> None:
        """Remove an object with all below it."""
        is_directory = self.is_directory(path)
        if is_directory:
            shutil.rmtree(self.place(path))
        elif self.status(path) is not None:
            os.unlink(self.place(path))
        for paths in self._lists.values():
            for old in _at(paths, path, below=is_directory):
                del paths[old]
                self._origins.pop(old, None)

    def finished(self) -> dict[str, ComposedBundle]:
        """The bundles with the lists as they are now, and with all directories above their paths."""
        return {name: replace(bundle, files=_complete(self._lists[name])) for name, bundle in self._bundles.items()}

    def origins(self) -> dict[str, str]:
        """Path -> what it was called at the beginning, for all that was there then and still is."""
        return dict(self._origins)


def _at(paths: Mapping[str, bool], path: str, *, below: bool) -> list[str]:
    """What a list has at a path, and below it if that is wanted."""
    if not below:
        return [path] if path in paths else []
    return [listed for listed in paths if listed == path or listed.startswith(f"{path}/")]


def _complete(paths: Mapping[str, bool]) -> dict[str, bool]:
    return {path: paths.get(path, False) for path in sorted({*paths, *parents(paths)}, key=os.fsencode)}


def _parent(path: str) -> str:
    return path.rpartition("/")[0]
