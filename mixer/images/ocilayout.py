"""OCI image layouts: a directory of blobs under their digests, with an index of images by name.

    oci-layout                  which version of the layout this is
    index.json                  the images: descriptors of their manifests, with names
    blobs/sha256/<hash>         manifests, configurations, layers

Adding an image to a layout that is there (OCI image specification, "image layout"):

* The index changes in one step, last, when all blobs are on disk: readers find the old images or the new ones, whole.
* The image of the same name is replaced. All other images stay, whatever made them and whatever they are.
* Then those blobs go that the replaced image needed and that nobody in the layout names any more. After a failure those
  that were added go instead. Other blobs stay, named or not; only halves that a killed process left are removed.
* A blob that is there already is hashed; one that is damaged is replaced.
* A directory that was empty is empty again after a failure.
* Nothing in the layout is trusted: its documents have capped sizes, and links in it are errors, not followed.

Blobs that come as files are hard-linked where that is possible: they must not be written to afterwards.
One process at a time changes a layout.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import tarfile
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from mixer.cache import PUBLISHED_MODE, link_or_copy
from mixer.errors import BuildError
from mixer.places import DIRECTORY_MODE
from swupd.fs import Directory, chunks_of

MARKER = "oci-layout"
INDEX = "index.json"
BLOBS = "blobs/sha256"
_MARKER_CONTENT = b'{"imageLayoutVersion":"1.0.0"}'

INDEX_TYPE = "application/vnd.oci.image.index.v1+json"
NAME = "org.opencontainers.image.ref.name"
"""The annotation that is an image's name in its layout."""

MAX_DOCUMENT_BYTES = 4 << 20
"""Of an index or a manifest; registries take no larger ones."""
_MAX_MARKER_BYTES = 4096

_DIGEST = re.compile(r"[a-z0-9]+(?:[+._-][a-z0-9]+)*:[a-zA-Z0-9=_-]+")
_NAMED = re.compile(rb"sha256:([0-9a-f]{64})(?![0-9a-f])")
_HALF = re.compile(r"\.[0-9a-f]{64}\.new")

Index = Mapping[str, Any]
"""An index, as in JSON, with `manifests`: a list of objects whose digests and annotations are good."""

EMPTY: Index = {"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": []}


@dataclass(frozen=True, slots=True)
class Blob:
    """A manifest, configuration or layer."""

    media_type: str
    digest: str
    size: int
    source: Path | bytes
    """The file that it is, or its content."""

    @property
    def hash(self) -> str:
        """Its name in a layout."""
        return self.digest.partition(":")[2]

    def descriptor(self, **more: object) -> dict[str, object]:
        """How others name it."""
        return {"mediaType": self.media_type, "digest": self.digest, "size": self.size, **more}


def document(media_type: str, value: Mapping[str, object]) -> Blob:
    """A blob of JSON."""
    data = _json(value)
    return Blob(media_type, f"sha256:{hashlib.sha256(data).hexdigest()}", len(data), data)


# -- the index ---------------------------------------------------------------------------------------------------------


def with_image(index: Index, image: Mapping[str, Any]) -> bytes:
    """index.json with one more image, in place of those of the same name."""
    kept = [other for other in index["manifests"] if _name(other) != _name(image)]
    return _json({**index, "manifests": [*kept, image]})


def parse_index(data: bytes) -> Index:
    """Read index.json. Raises ValueError that says what is wrong with it."""
    if len(data) > MAX_DOCUMENT_BYTES:
        raise ValueError(f"it is larger than {MAX_DOCUMENT_BYTES >> 20} MiB")
    try:
        index = json.loads(data)
        _json(index)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"it is not JSON that can be read: {error}") from error
    if not isinstance(index, dict) or index.get("schemaVersion") != 2:
        raise ValueError("it is not an image index with schemaVersion 2")
    images = index.get("manifests")
    if not isinstance(images, list) or not all(isinstance(image, dict) for image in images):
        raise ValueError("it has no list of manifests")
    for image in images:
        digest, annotations = image.get("digest"), image.get("annotations") or {}
        if not (isinstance(digest, str) and _DIGEST.fullmatch(digest)):
            raise ValueError(f"{str(digest)[:80]!r} in it is not a digest")
        if not isinstance(annotations, dict) or not all(isinstance(value, str) for value in annotations.values()):
            raise ValueError(f"the annotations of {digest} in it are not texts by name")
    return index


def _name(image: Mapping[str, Any]) -> object:
    return (image.get("annotations") or {}).get(NAME)


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":"), allow_nan=False).encode()


# -- a layout as a file ------------------------------------------------------------------------------------------------


def write_archive(file: BinaryIO, image: Mapping[str, object], blobs: Sequence[Blob], *, time: int) -> None:
    """Write a tar of a layout with one image: its descriptor, and all blobs; `time` of files in seconds since 1970."""
    members: dict[str, bytes | Path] = {MARKER: _MARKER_CONTENT, INDEX: with_image(EMPTY, image)}
    members |= {f"{BLOBS}/{blob.hash}": blob.source for blob in blobs}
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name in ("blobs", BLOBS):
            directory = tarfile.TarInfo(name)
            directory.type, directory.mode, directory.mtime = tarfile.DIRTYPE, DIRECTORY_MODE, time
            archive.addfile(directory)
        for name, source in members.items():
            member = tarfile.TarInfo(name)
            member.mode, member.mtime = PUBLISHED_MODE, time
            with io.BytesIO(source) if isinstance(source, bytes) else source.open("rb") as content:
                member.size = content.seek(0, io.SEEK_END)
                content.seek(0)
                archive.addfile(member, content)


# -- a layout as a directory -------------------------------------------------------------------------------------------


def check(path: Path) -> None:
    """Raises BuildError unless the directory is empty, or a layout to which images can be added."""
    with Directory.open(path) as layout:
        if layout.names():
            _check_marker(layout, path)
            _read_index(layout, path)


def add(path: Path, image: Mapping[str, object], blobs: Sequence[Blob]) -> None:
    """Add an image to a layout or to an empty directory: its descriptor, with a name, and all blobs that it needs.

    Raises BuildError as `check` does, UnsafePathError for links in it, OSError.
    """
    with Directory.open(path) as layout:
        is_new = not layout.names()
        try:
            if is_new:
                _begin(layout)
            _check_marker(layout, path)
            index = with_image(_read_index(layout, path), image)
            with layout.descend(BLOBS) as directory:
                _replace(layout, directory, path / BLOBS, index, blobs)
        except BaseException:
            for name in layout.names() if is_new else ():
                layout.remove_tree(name)
            raise


def _begin(layout: Directory) -> None:
    """Make an empty directory a layout without images."""
    layout.make_directory("blobs")
    with layout.descend("blobs") as above:
        above.make_directory("sha256")
    layout.write_file(MARKER, [_MARKER_CONTENT], mode=PUBLISHED_MODE)
    layout.write_file(INDEX, [_json(EMPTY)], mode=PUBLISHED_MODE)


def _replace(layout: Directory, directory: Directory, path: Path, index: bytes, blobs: Sequence[Blob]) -> None:
    """Add blobs to the directory, which is at `path`, then let the index be another one, then remove blobs."""
    _remove_halves(directory)
    former = _named(directory, _read(layout, INDEX, MAX_DOCUMENT_BYTES))
    added: set[str] = set()
    obsolete = added
    try:
        for blob in blobs:
            if directory.lstat(blob.hash) is None:
                added.add(blob.hash)
            _put(directory, path, blob)
        layout.sync()
        layout.replace_file(INDEX, index, mode=PUBLISHED_MODE)
        layout.sync_names()
        obsolete = former
    finally:
        _remove_halves(directory)
        for unneeded in obsolete - _named(directory, _read(layout, INDEX, MAX_DOCUMENT_BYTES)):
            if directory.lstat(unneeded):
                directory.unlink(unneeded)


def _remove_halves(directory: Directory) -> None:
    for half in filter(_HALF.fullmatch, directory.names()):
        directory.unlink(half)


def _put(directory: Directory, path: Path, blob: Blob) -> None:
    if _is_good(directory, blob):
        return
    half = f".{blob.hash}.new"
    if isinstance(blob.source, bytes):
        directory.write_file(half, [blob.source], mode=PUBLISHED_MODE)
    else:
        link_or_copy(blob.source, path / half)
    directory.rename(half, blob.hash)


def _is_good(directory: Directory, blob: Blob) -> bool:
    status = directory.lstat(blob.hash)
    if status is None or status.st_size != blob.size:
        return False
    with closing(directory.open_file(blob.hash)) as file:
        return _sha256(file) == blob.hash


def _sha256(file: BinaryIO) -> str:
    found = hashlib.sha256()
    for chunk in chunks_of(file):
        found.update(chunk)
    return found.hexdigest()


def _named(directory: Directory, text: bytes) -> set[str]:
    """The hashes of all that a document names, that those name, and so on.

    Everything that looks like a digest counts, so that of what others put there nothing is lost, whatever it is.
    """
    named: set[str] = set()
    waiting = [text]
    while waiting:
        for found in set(_NAMED.findall(waiting.pop())):
            if (name := found.decode()) not in named:
                named.add(name)
                waiting.append(_text(directory, name))
    return named


def _text(directory: Directory, name: str) -> bytes:
    """The content of a blob that may be a document; empty for others."""
    status = directory.lstat(name)
    if status is None or status.st_size > MAX_DOCUMENT_BYTES:
        return b""
    with closing(directory.open_file(name)) as file:
        data = file.read(MAX_DOCUMENT_BYTES)
    return data if data.lstrip().startswith(b"{") else b""


def _check_marker(layout: Directory, path: Path) -> None:
    hint = "name a directory with -o that is not there, that is empty, or that is an OCI image layout"
    if layout.lstat(MARKER) is None:
        raise BuildError(f"{path} is not empty, and not an OCI image layout: it has no file {MARKER}", hint=hint)
    try:
        marker = json.loads(_read(layout, MARKER, _MAX_MARKER_BYTES))
        version = marker["imageLayoutVersion"]
    except (ValueError, TypeError, LookupError, RecursionError) as error:
        raise BuildError(f"{path} is not an OCI image layout: {MARKER} in it says no version", hint=hint) from error
    if not (isinstance(version, str) and version.startswith("1.")):
        raise BuildError(f"{path} is an OCI image layout of version {str(version)[:20]!r}, not 1.0.0", hint=hint)


def _read_index(layout: Directory, path: Path) -> Index:
    if layout.lstat(INDEX) is None:
        raise BuildError(f"{path} is a damaged OCI image layout: it has no {INDEX}", hint="remove it, or name another")
    try:
        return parse_index(_read(layout, INDEX, MAX_DOCUMENT_BYTES + 1))
    except ValueError as error:
        raise BuildError(
            f"cannot add an image to {path}: {INDEX} is damaged: {error}", hint="remove it, or name another with -o"
        ) from error


def _read(layout: Directory, name: str, limit: int) -> bytes:
    with closing(layout.open_file(name)) as file:
        return file.read(limit)
