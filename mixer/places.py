"""Where a published tree lies: what the tree needs of a place, and the usual one, a directory of this machine.

A `Place` has files by names relative to the tree ("20/Manifest.MoM"). It changes in two ways only:

* `publish`: a draft becomes a version, and after that the latest files are replaced in the order given. The same
  version again leaves what others added to it, as long as its MoM is the same; otherwise the draft is all there is.
* `add`: further files for a version that is there, in the order given, each of them whole or not at all.

One process at a time changes a place; the workspace's lock sees to it. Reading is possible from any thread. Whatever
the place refuses is a BuildError that names the path or URL.

`LocalDirectory` keeps these promises by renames:

* A draft is a hidden directory `.<V>.new`, renamed to its number in one step when all of it is on disk. A version that
  is built again is exchanged with its former directory in one step.
* Latest files and additions are prepared under hidden names, made durable and then renamed.
* What an interrupted process left under hidden names is removed by the next draft.

`mixer.objectstore` is the other place.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import BinaryIO, Protocol

from mixer.cache import PUBLISHED_MODE, link_or_copy
from mixer.errors import BuildError
from swupd.errors import is_disk_full
from swupd.formats import layout
from swupd.fs import CANNOT_EXCHANGE, Directory

DIRECTORY_MODE = 0o755

_LEFT_OVER = re.compile(r"\.([0-9]+)\.(new|old|add)")

Addition = tuple[str, Path | bytes]
"""Name within the version's directory, and the content; a file has PUBLISHED_MODE already, because it is linked."""


class Place(Protocol):
    """Where a tree lies. All methods raise BuildError."""

    @property
    def shown(self) -> str:
        """The path or URL, for messages."""

    def has(self, name: str) -> bool: ...

    def open(self, name: str) -> AbstractContextManager[BinaryIO]:
        """A file to be read from beginning to end."""

    def names(self, directory: str) -> dict[str, int]:
        """All files below a directory of the tree with their sizes; empty if there is no such directory."""

    def draft(self, version: int) -> AbstractContextManager[Path]:
        """An empty local directory that no client sees; removed at the end."""

    def publish(self, draft: Path, version: int, latest: Mapping[str, bytes], obsolete: Sequence[str]) -> None:
        """Let a draft be the version, then give the latest files this content in this order; then remove `obsolete`."""

    def add(self, version: int, files: Sequence[Addition]) -> None:
        """Put further files into the directory of a version."""


class LocalDirectory:
    """A directory that a web server shows, created when the first version is published."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def shown(self) -> str:
        return str(self.path)

    # -- reading ---------------------------------------------------------------------------------------------------

    def has(self, name: str) -> bool:
        return (self.path / name).is_file()

    @contextmanager
    def open(self, name: str) -> Iterator[BinaryIO]:
        try:
            file = (self.path / name).open("rb")
        except OSError as error:
            raise BuildError(f"cannot read {self.path / name}: {error.strerror}") from error
        with file:
            yield file

    def names(self, directory: str) -> dict[str, int]:
        if not (self.path / directory).is_dir():
            return {}
        try:
            return {f"{directory}/{name}": size for name, size in files_below(self.path / directory).items()}
        except OSError as error:
            raise BuildError(f"cannot list {self.path / directory}: {error.strerror}") from error

    # -- changing --------------------------------------------------------------------------------------------------

    @contextmanager
    def draft(self, version: int) -> Iterator[Path]:
        if not self.path.exists():
            self.path.mkdir(parents=True)
            self.path.chmod(DIRECTORY_MODE)
        self._remove_left_overs()
        directory = self.path / f".{version}.new"
        directory.mkdir()
        try:
            yield directory
        finally:
            shutil.rmtree(directory, ignore_errors=True)

    def publish(self, draft: Path, version: int, latest: Mapping[str, bytes], obsolete: Sequence[str]) -> None:
        with self._changing(f"publish version {version} in"):
            self._keep_additions(draft, version)
            with Directory.open(draft) as directory:
                directory.sync()
            _replace_directory(draft, self.path / str(version))
            self._replace_files(latest)
            for name in obsolete:
                (self.path / name).unlink(missing_ok=True)
            with Directory.open(self.path) as top:
                top.sync()

    def add(self, version: int, files: Sequence[Addition]) -> None:
        """All are on disk before the first one appears; a crash of the machine may lose the last ones."""
        new = self.path / f".{version}.add"
        with self._changing(f"add to version {version} in"):
            try:
                shutil.rmtree(new, ignore_errors=True)
                new.mkdir()
                with Directory.open(new) as directory:
                    for number, (_, source) in enumerate(files):
                        if isinstance(source, bytes):
                            directory.write_file(str(number), [source], mode=PUBLISHED_MODE)
                        else:
                            link_or_copy(source, new / str(number))
                    directory.sync()
                    for number, (name, _) in enumerate(files):
                        self._make_parents(f"{version}/{name}")
                        os.rename(new / str(number), self.path / str(version) / name)
                    directory.sync()
            finally:
                shutil.rmtree(new, ignore_errors=True)

    def _keep_additions(self, draft: Path, version: int) -> None:
        """Delta packs and the like stay with a version that is built again as it was."""
        former = self.path / str(version)
        mom = layout.manifest_name(layout.MOM)
        try:
            if (former / mom).read_bytes() != (draft / mom).read_bytes():
                return
        except FileNotFoundError:
            return
        for directory, _, names in os.walk(former):
            beside = draft / os.path.relpath(directory, former)
            beside.mkdir(exist_ok=True)
            for name in names:
                if not (beside / name).exists():
                    link_or_copy(Path(directory, name), beside / name)

    def _replace_files(self, contents: Mapping[str, bytes]) -> None:
        """Give files new content, with as little time as possible between the first and the last."""
        with Directory.open(self.path) as top:
            for name, data in contents.items():
                self._make_parents(name)
                new = self._new(name)
                new.unlink(missing_ok=True)
                new.write_bytes(data)
                new.chmod(PUBLISHED_MODE)
            # This makes the new version's own name durable as well, before anything points to it.
            top.sync()
            for name in contents:
                os.rename(self._new(name), self.path / name)

    def _new(self, name: str) -> Path:
        """Where the next content of a latest file is prepared."""
        path = self.path / name
        return path.with_name(f".{path.name}.new")

    def _make_parents(self, name: str) -> None:
        for parent in reversed(Path(name).parents[:-1]):
            (self.path / parent).mkdir(exist_ok=True)
            (self.path / parent).chmod(DIRECTORY_MODE)

    def _remove_left_overs(self) -> None:
        """What interrupted builds left behind."""
        for entry in self.path.iterdir():
            match = _LEFT_OVER.fullmatch(entry.name)
            if match is None:
                continue
            if match[2] == "old" and not (self.path / match[1]).exists():
                os.rename(entry, self.path / match[1])
            else:
                shutil.rmtree(entry, ignore_errors=True)

    @contextmanager
    def _changing(self, what: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise BuildError(
                f"cannot {what} {self.path}: {error}",
                hint="free some space and run it again" if is_disk_full(error) else "repair the cause and run it again",
            ) from error


def files_below(directory: Path) -> dict[str, int]:
    """Regular files below a directory, by names relative to it, with their sizes in bytes. Raises OSError."""
    found: dict[str, int] = {}
    for path, _, names in os.walk(directory, onerror=_raise):
        for name in names:
            status = os.lstat(os.path.join(path, name))
            if stat.S_ISREG(status.st_mode):
                found[os.path.relpath(os.path.join(path, name), directory)] = status.st_size
    return found


def _raise(error: OSError) -> None:
    raise error


def _replace_directory(new: Path, target: Path) -> None:
    """Give `new` the name `target`, in the same directory; what had it before is removed."""
    if not target.exists():
        os.rename(new, target)
        return
    try:
        with Directory.open(target.parent) as directory:
            directory.exchange(new.name, target.name)
    except OSError as error:
        if error.errno not in CANNOT_EXCHANGE:
            raise
        # A file system without exchange: for a moment neither is there.
        old = target.with_name(f".{target.name}.old")
        os.rename(target, old)
        os.rename(new, target)
        shutil.rmtree(old)
    else:
        shutil.rmtree(new)
