"""The published tree: static files that clients find below one URL (mixer specification, section 13).

    <V>/                    a version: Manifest.*, format, files/, packs, delta/
    version/format<F>/      latest, latest.sig, first
    version/latest_version  and .sig: the newest version of all formats

The tree lies in a place (`mixer.places`): a directory, or an object store (`mixer.objectstore`). What a client can see,
whatever happens to the builder:

* A version is made in a draft on this machine that no client sees, and becomes visible when all of it is in its place.
* The latest files, the only names by which clients find a version, are replaced last, each in one step. So nobody
  learns of a version that is not there.
* A latest file and its signature are two files, and no order makes them one: a client that has read the old number may
  get the signature of the new one. They are replaced back to back, signature first, so a client can only see it if the
  exchange happens between its two requests; clients ask again. After a crash exactly there, publishing the version
  again heals it.
* Publishing holds no lock of its own (the workspace's does) and is idempotent: the same version again leaves the same
  bytes, including the signatures and what others added to the version while its manifests stay the same.

What was published is only read through its hashes: a manifest that is not what its MoM says raises BuildError.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from mixer.cache import PUBLISHED_MODE
from mixer.errors import BuildError
from mixer.manifests import manifest_hash
from mixer.places import DIRECTORY_MODE, Addition, LocalDirectory, Place, files_below
from mixer.release import Signer, read_pem
from swupd.errors import ManifestError, SignatureError
from swupd.formats import layout, signature
from swupd.formats.manifest import MANIFEST_BYTES_LIMIT, Manifest, parse
from swupd.fs import Directory
from swupd.report import Report

MAX_NUMBER_BYTES = 64
"""A latest, format or first file."""

OBJECT_STORE = "s3://"
"""How the URL of a tree in an object store begins."""


def open_tree(published: str, default: Path, report: Report) -> PublishedTree:
    """The tree of a mix: at `published`, which is s3://bucket/path or an absolute directory, or in `default` if empty.

    An object store has its drafts in `drafts` beside `default`, and reports the progress of its uploads.
    Raises BuildError if it cannot be used at all.
    """
    if published.startswith(OBJECT_STORE):
        from mixer.objectstore import ObjectStore

        return PublishedTree(ObjectStore(published, default.with_name("drafts"), report))
    return PublishedTree(LocalDirectory(Path(published or default)))


class PublishedVersion:
    """A version as it was published; manifests are read when asked for, and only if their hashes are right."""

    def __init__(self, tree: PublishedTree, version: int) -> None:
        """Raises BuildError if the version is not there or its MoM is not a MoM."""
        self._tree = tree
        path = layout.manifest(version, layout.MOM)
        self.mom = _parse(tree.read(path), path, layout.MOM, is_mom=True)
        if self.mom.version != version:
            raise BuildError(f"{tree.shown}/{path} belongs to version {self.mom.version}")
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
        return _parse(self.text(bundle), layout.manifest(line.version, bundle), bundle)

    def text(self, bundle: str) -> bytes:
        """The manifest of a bundle of this version as it was published. Raises BuildError as `manifest` does."""
        line = self._lines[bundle]
        path = layout.manifest(line.version, bundle)
        data = self._tree.read(path)
        if manifest_hash(data) != line.hash:
            raise BuildError(
                f"{self._tree.shown}/{path} is damaged: its hash is not the one in Manifest.MoM of version "
                f"{self.mom.version}",
                hint="restore it from a copy of the published tree",
            )
        return data


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
    """All versions, in the place that is served. Names of files are relative to the tree, such as "20/Manifest.MoM"."""

    def __init__(self, place: Place) -> None:
        self._place = place

    @property
    def shown(self) -> str:
        """The path or URL, for messages."""
        return self._place.shown

    # -- what is there ---------------------------------------------------------------------------------------------

    def latest(self) -> int:
        """The newest published version, 0 if there is none."""
        return self._number(layout.latest_overall())

    def version(self, version: int) -> PublishedVersion:
        """Raises BuildError if it was not published or cannot be read; 0 is the latest of a tree without any."""
        if version == 0:
            raise BuildError(f"nothing is published in {self.shown}", hint="build a version first: `mixer build all`")
        if not self.has(layout.manifest(version, layout.MOM)):
            raise BuildError(
                f"version {version} is not in {self.shown}",
                hint="restore it from a copy of the published tree, or name one that is there",
            )
        return PublishedVersion(self, version)

    def names(self, version: int) -> dict[str, int]:
        """All files of a version with their sizes in bytes; empty if it is not there."""
        return self._place.names(str(version))

    def has(self, name: str) -> bool:
        return self._place.has(name)

    def open(self, name: str) -> AbstractContextManager[BinaryIO]:
        """A published file, to be read from beginning to end. Raises BuildError if it is missing or cannot be read."""
        return self._place.open(name)

    def read(self, name: str, *, limit: int = MANIFEST_BYTES_LIMIT) -> bytes:
        """Content of a published file; raises BuildError if it cannot be read or has more than `limit` bytes."""
        try:
            with self.open(name) as file:
                data = file.read(limit + 1)
        except OSError as error:
            raise BuildError(f"cannot read {self.shown}/{name}: {error.strerror}") from error
        if len(data) > limit:
            raise BuildError(f"{self.shown}/{name} has more than {limit} bytes")
        return data

    def former(self, name: str) -> bytes | None:
        """Content of a published file that may be missing."""
        return self.read(name) if self.has(name) else None

    def verify(self, name: str, data: bytes, certificate: Path) -> None:
        """Raises BuildError unless a published file with this content has a signature made with the certificate.

        Raises SignatureError for a certificate that cannot be used.
        """
        trusted = signature.load_certificates(read_pem(certificate, "certificate"))
        signed = layout.signature(name)
        if not self.has(signed):
            raise BuildError(f"{self.shown}/{name} is not signed", hint="build the version again, or give --no-signing")
        try:
            signature.verify(data, self.read(signed, limit=signature.SIGNATURE_BYTES), trusted)
        except SignatureError as error:
            raise BuildError(
                f"the signature of {self.shown}/{name} is not good: {error}",
                hint=error.hint or f"it has to be made with {certificate}",
            ) from error

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
        """An empty directory for a version, on this machine; it is gone at the end."""
        with self._place.draft(version) as directory:
            for path in (directory, directory / "files", directory / layout.DELTA_DIRECTORY):
                path.mkdir(exist_ok=True)
                path.chmod(DIRECTORY_MODE)
            yield Draft(version, directory)

    def publish(self, draft: Draft, format_number: int, signer: Signer | None) -> None:
        """Make a finished draft visible, then make it the latest version of all and of its format.

        Raises BuildError if a later one is published already, or if the place refuses.
        """
        self.check_follows(draft.version)
        number = str(draft.version).encode()
        latest = layout.latest(format_number)
        first = str(Path(latest).with_name("first"))
        contents: dict[str, bytes] = {}
        obsolete: list[str] = []
        for name in (layout.latest_overall(), latest):
            signed = layout.signature(name)
            if signer is None:
                obsolete.append(signed)
            else:
                former = self.former(signed) if self.former(name) == number else None
                contents[signed] = signer.sign_again(number, former)
            contents[name] = number
        if not self.has(first):
            contents[first] = number
        self._place.publish(draft.directory, draft.version, contents, obsolete)

    def add(self, version: int, files: Sequence[Addition]) -> None:
        """Put further files into a published version: pairs of the name in its directory and the content.

        They appear in the order given, each whole or not at all; one that is there already is replaced. A content that
        is a file is linked where possible: it is PUBLISHED_MODE already, and nobody changes it any more.
        Raises BuildError if the version is not published, or if the place refuses.
        """
        for name, _ in files:
            if any(not part or part.startswith(".") for part in name.split("/")):
                raise ValueError(f"not the name of a published file: {name!r}")
        if not self.has(layout.manifest(version, layout.MOM)):
            raise BuildError(f"version {version} is not in {self.shown}, so nothing can be added to it")
        self._place.add(version, files)

    def _number(self, name: str) -> int:
        data = self.read(name, limit=MAX_NUMBER_BYTES).strip() if self.has(name) else b"0"
        if not data.isdigit():
            raise BuildError(f"{self.shown}/{name} is damaged: it is not a number", hint="restore it by hand")
        return int(data)


def total_size(directory: Path) -> tuple[int, int]:
    """Number of files and bytes below a directory."""
    sizes = files_below(directory).values()
    return len(sizes), sum(sizes)


def _parse(data: bytes, path: str, bundle: str, *, is_mom: bool = False) -> Manifest:
    try:
        return parse(data, name=bundle, is_mom=is_mom)
    except ManifestError as error:
        raise BuildError(
            f"the published {path} is damaged: {error}", hint="restore it from a copy of the published tree"
        ) from error
