"""The published tree: a directory of static files that a web server shows to clients (mixer specification, section 13).

    <www>/<V>/                    a version: Manifest.*, format, files/, packs, delta/
    <www>/version/format<F>/      latest, latest.sig, first
    <www>/version/latest_version  and .sig: the newest version of all formats

What a client can see, whatever happens to the builder:

* A version is made in a hidden directory `.<V>.new` and renamed to its number in one step when all of it is on disk. A
  version that is built again is exchanged with its former directory in one step.
* The latest files, the only names by which clients find a version, are replaced last, each in one step. So nobody
  learns of a version that is not there.
* A latest file and its signature are two files, and no order makes them one: a client that has read the old number may
  get the signature of the new one. Both are prepared first and renamed back to back, signature first, so a client can
  only see it if the exchange happens between its two requests; clients ask again. After a crash exactly there,
  publishing the version again heals it.
* Publishing holds no lock of its own (the workspace's does) and is idempotent: the same version again leaves the same
  bytes, including the signatures and what others added to the directory while its manifests stay the same.

What was published is only read through its hashes: a manifest that is not what its MoM says raises BuildError.
"""

from __future__ import annotations

import ctypes
import errno
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from mixer.content import PUBLISHED_MODE, link_or_copy
from mixer.errors import BuildError
from mixer.manifests import manifest_hash
from mixer.release import Signer
from swupd.errors import ManifestError
from swupd.formats import layout
from swupd.formats.manifest import MANIFEST_BYTES_LIMIT, Manifest, parse
from swupd.fs import Directory

DIRECTORY_MODE = 0o755
MAX_NUMBER_BYTES = 64
"""A latest, format or first file."""

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2
_CANNOT_EXCHANGE = frozenset({errno.EINVAL, errno.ENOSYS, errno.ENOTSUP})
_LEFT_OVER = re.compile(r"\.([0-9]+)\.(new|old)")


class PublishedVersion:
    """A version as it was published; manifests are read when asked for, and only if their hashes are right."""

    def __init__(self, tree: PublishedTree, version: int) -> None:
        """Raises BuildError if the version is not there or its MoM is not a MoM."""
        self._tree = tree
        path = layout.manifest(version, layout.MOM)
        self.mom = _parse(tree.read(path), path, layout.MOM, is_mom=True)
        if self.mom.version != version:
            raise BuildError(f"{tree.path / path} belongs to version {self.mom.version}")
        self._lines = {entry.name: entry for entry in self.mom.entries}

    @property
    def format(self) -> int:
        return self.mom.format

    def manifest(self, bundle: str) -> Manifest | None:
        """The manifest of a bundle, or of layout.FULL; None if the version does not have it.

        Raises BuildError if the file is missing or is not the one that the MoM names. (Manifest.full is named by
        nobody: it can be missing, and only its form is checked.)
        """
        if bundle == layout.FULL:
            path = layout.manifest(self.mom.version, bundle)
            return _parse(self._tree.read(path), path, bundle) if self._tree.has(path) else None
        line = self._lines.get(bundle)
        if line is None:
            return None
        path = layout.manifest(line.version, bundle)
        data = self._tree.read(path)
        if manifest_hash(data) != line.hash:
            raise BuildError(
                f"{self._tree.path / path} is damaged: its hash is not the one in Manifest.MoM of version "
                f"{self.mom.version}",
                hint="restore it from a copy of the published tree",
            )
        return _parse(data, path, bundle)


class NothingPublished:
    """What the first version of a mix is compared with."""

    mom = None
    format = 0

    def manifest(self, bundle: str) -> None:
        """There is none."""


@dataclass(frozen=True, slots=True)
class Draft:
    """A version being made, which no client can see."""

    version: int
    directory: Path

    def write(self, name: str, data: bytes) -> int:
        """Write a file of the version; returns its size."""
        with Directory.open(self.directory) as directory:
            directory.write_file(name, [data], mode=PUBLISHED_MODE)
        return len(data)


class PublishedTree:
    """The directory that is served."""

    def __init__(self, path: Path) -> None:
        self.path = path

    # -- what is there ---------------------------------------------------------------------------------------------

    def latest(self) -> int:
        """The newest published version, 0 if there is none."""
        return self._number(layout.latest_overall())

    def version(self, version: int) -> PublishedVersion:
        """Raises BuildError if it was not published or cannot be read."""
        if not self.has(layout.manifest(version, layout.MOM)):
            raise BuildError(
                f"version {version} is not in {self.path}",
                hint="the next version is compared with it: restore it, or set PREVIOUS_MIX_VERSION in mixer.state",
            )
        return PublishedVersion(self, version)

    def has(self, name: str) -> bool:
        return (self.path / name).is_file()

    def read(self, name: str, *, limit: int = MANIFEST_BYTES_LIMIT) -> bytes:
        """Content of a published file; raises BuildError if it cannot be read or has more than `limit` bytes."""
        try:
            with (self.path / name).open("rb") as file:
                data = file.read(limit + 1)
        except OSError as error:
            raise BuildError(f"cannot read {self.path / name}: {error.strerror}") from error
        if len(data) > limit:
            raise BuildError(f"{self.path / name} has more than {limit} bytes")
        return data

    def former(self, name: str) -> bytes | None:
        """Content of a published file that may be missing."""
        return self.read(name) if self.has(name) else None

    def check_follows(self, version: int) -> None:
        """Raises BuildError unless `version` is newer than everything published, or the newest itself."""
        if version < self.latest():
            raise BuildError(
                f"version {version} cannot be published after version {self.latest()}",
                hint="only the newest version can be built again; set a later one with `mixer versions update`",
            )

    # -- publishing ------------------------------------------------------------------------------------------------

    @contextmanager
    def draft(self, version: int) -> Iterator[Draft]:
        """An empty directory for a version; removed at the end unless it was published."""
        if not self.path.exists():
            self.path.mkdir(parents=True)
            self.path.chmod(DIRECTORY_MODE)
        self._remove_left_overs()
        directory = self.path / f".{version}.new"
        directory.mkdir()
        try:
            for path in (directory, directory / "files", directory / layout.DELTA_DIRECTORY):
                path.mkdir(exist_ok=True)
                path.chmod(DIRECTORY_MODE)
            yield Draft(version, directory)
        finally:
            shutil.rmtree(directory, ignore_errors=True)

    def publish(self, draft: Draft, format_number: int, signer: Signer | None) -> None:
        """Make a finished draft visible, then make it the latest version of all and of its format.

        Raises BuildError if a later one is published already, or if the disk refuses.
        """
        self.check_follows(draft.version)
        try:
            self._keep_additions(draft)
            with Directory.open(draft.directory) as directory:
                directory.sync()
            _replace_directory(draft.directory, self.path / str(draft.version))
            self._make_latest(draft.version, format_number, signer)
        except OSError as error:
            raise BuildError(f"cannot publish version {draft.version} in {self.path}: {error}") from error

    def _keep_additions(self, draft: Draft) -> None:
        """Delta packs and the like stay with a version that is built again as it was."""
        former = self.path / str(draft.version)
        mom = layout.manifest_name(layout.MOM)
        try:
            if (former / mom).read_bytes() != (draft.directory / mom).read_bytes():
                return
        except FileNotFoundError:
            return
        for directory, _, names in os.walk(former):
            beside = draft.directory / os.path.relpath(directory, former)
            beside.mkdir(exist_ok=True)
            for name in names:
                if not (beside / name).exists():
                    link_or_copy(Path(directory, name), beside / name)

    def _make_latest(self, version: int, format_number: int, signer: Signer | None) -> None:
        """Let the latest files name a version, with as little time as possible between a file and its signature."""
        number = str(version).encode()
        latest = layout.latest(format_number)
        first = str(Path(latest).with_name("first"))
        contents: dict[str, bytes] = {}
        for name in (layout.latest_overall(), latest):
            if signer is not None:
                signed = layout.signature(name)
                former = self.former(signed) if self.former(name) == number else None
                contents[signed] = signer.sign_again(number, former)
            contents[name] = number
        if not self.has(first):
            contents[first] = number
        directory = (self.path / latest).parent
        directory.mkdir(parents=True, exist_ok=True)
        for path in (directory, directory.parent):
            path.chmod(DIRECTORY_MODE)
        with Directory.open(self.path) as top:
            for name, data in contents.items():
                new = self._new(name)
                new.unlink(missing_ok=True)
                new.write_bytes(data)
                new.chmod(PUBLISHED_MODE)
            # This makes the new version's own name durable as well, before anything points to it.
            top.sync()
            for name in contents:
                os.rename(self._new(name), self.path / name)
            for name in (layout.latest_overall(), latest):
                if signer is None:
                    (self.path / layout.signature(name)).unlink(missing_ok=True)
            top.sync()

    def _new(self, name: str) -> Path:
        """Where the next content of a latest file is prepared."""
        path = self.path / name
        return path.with_name(f".{path.name}.new")

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

    def _number(self, name: str) -> int:
        data = self.read(name, limit=MAX_NUMBER_BYTES).strip() if self.has(name) else b"0"
        if not data.isdigit():
            raise BuildError(f"{self.path / name} is damaged: it is not a number", hint="restore it by hand")
        return int(data)


def total_size(directory: Path) -> tuple[int, int]:
    """Number of files and bytes below a directory."""
    sizes = [os.lstat(os.path.join(path, name)).st_size for path, _, names in os.walk(directory) for name in names]
    return len(sizes), sum(sizes)


def _parse(data: bytes, path: str, bundle: str, *, is_mom: bool = False) -> Manifest:
    try:
        return parse(data, name=bundle, is_mom=is_mom)
    except ManifestError as error:
        raise BuildError(
            f"the published {path} is damaged: {error}", hint="restore it from a copy of the published tree"
        ) from error


def _replace_directory(new: Path, target: Path) -> None:
    """Give `new` the name `target`; what had it before is removed."""
    if not target.exists():
        os.rename(new, target)
        return
    try:
        _exchange(new, target)
    except OSError as error:
        if error.errno not in _CANNOT_EXCHANGE:
            raise
        # A file system without exchange: for a moment neither is there.
        old = target.with_name(f".{target.name}.old")
        os.rename(target, old)
        os.rename(new, target)
        shutil.rmtree(old)
    else:
        shutil.rmtree(new)


def _exchange(one: Path, other: Path) -> None:
    """Exchange two directories in one step (Linux 3.15, glibc 2.28)."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.renameat2(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(other))
