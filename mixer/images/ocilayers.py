"""Layers of container images: one bundle each, a compressed tar that is made once.

* A layer depends on its nodes, on their times, and on how it is compressed; on nothing else of an image. So what did
  not change is the same layer, byte for byte, in every image and in every later version.
* Layers are kept in a cache under the hash of all that decides their bytes, the version of the compressing library
  among it. A layer from there is hashed before it is used; one that is damaged is made again.
* Content passes once, one file at a time: it is archived, compressed and hashed in one go.
* Every layer begins with the root directory, 0755 and root's: runtimes do not agree on what it is otherwise.

The cache may be removed at any time. One process at a time; the caller holds the workspace's lock.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import zlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Protocol

from mixer.cache import PUBLISHED_MODE, Cache
from mixer.errors import BuildError
from mixer.images import tarball
from mixer.images.tree import Node
from swupd.errors import is_disk_full
from swupd.formats.manifest import FileType

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

ROOT = Node("/.", FileType.DIRECTORY, 0o755, 0, 0, 0, "", "")

RECIPE = 1
"""Counts the ways in which layers were made: another one makes other bytes of the same nodes."""

_WHITEOUT = ".wh."
_BUFFER_BYTES = 1 << 20
_MAX_RECORD_BYTES = 4096


class Compression(Enum):
    """How layers are compressed."""

    GZIP = "gzip"
    ZSTD = "zstd"

    @property
    def media_type(self) -> str:
        """Of a layer (OCI image specification, media types)."""
        return f"application/vnd.oci.image.layer.v1.tar+{self.value}"


LEVELS: Mapping[Compression, int] = {Compression.GZIP: 6, Compression.ZSTD: 12}
"""60 MB of programs and texts:

            gzip 6   gzip 9   zstd 9  zstd 12  zstd 15  zstd 19
    MB       25.3     25.1     20.5     20.2     20.0     18.0
    CPU s     2.4      7.2      1.1      2.4     12.0     30.2

A layer is made again as a whole when one of its files changes, so what counts is where time stops to pay."""


@dataclass(frozen=True, slots=True)
class StoredLayer:
    """A layer in the cache."""

    path: Path
    compression: Compression
    digest: str
    """"sha256:" and the hash of the file."""
    diff_id: str
    """The same of the tar in it."""
    size: int
    """Bytes of the file."""
    reused: bool
    """It had been made before."""


class LayerStore:
    """The layers below one directory."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._cache = Cache(directory)

    def layer(
        self,
        nodes: Sequence[Node],
        content: Callable[[Node], bytes],
        *,
        time: int | None,
        compression: Compression = Compression.GZIP,
    ) -> StoredLayer:
        """The layer of these nodes, which are sorted and without "/"; `time`, that of its files, in seconds since 1970;
        None: each has its own.

        Raises BuildError for a name that cannot be in a layer, and if the layer cannot be kept.
        """
        for node in nodes:
            if node.path.rpartition("/")[2].startswith(_WHITEOUT):
                raise BuildError(
                    f"{node.path} cannot be in a container image: names that begin with {_WHITEOUT} remove other files",
                    hint="remove it from its bundle, or make an image of another type",
                )
        key = _key(nodes, time, compression)
        try:
            return self._find(key, compression) or self._make(key, nodes, content, time, compression)
        except OSError as error:
            raise BuildError(
                f"cannot keep a layer in {self._directory}: {error.strerror or error}",
                hint="free some space there" if is_disk_full(error) else "",
            ) from error

    def _find(self, key: str, compression: Compression) -> StoredLayer | None:
        """The layer of a key if it is there and what it was when it was made."""
        path = self._cache.path(key)
        try:
            with path.with_suffix(".json").open("rb") as file:
                digest, diff_id, size = _unpack(file.read(_MAX_RECORD_BYTES), key)
            with path.open("rb") as file:
                actual = _digest(hashlib.file_digest(file, "sha256").hexdigest())
        except (FileNotFoundError, ValueError):
            return None
        return StoredLayer(path, compression, digest, diff_id, size, reused=True) if actual == digest else None

    def _make(
        self,
        key: str,
        nodes: Sequence[Node],
        content: Callable[[Node], bytes],
        time: int | None,
        compression: Compression,
    ) -> StoredLayer:
        with self._cache.filling() as filler:
            with filler.place(key).open("xb") as file:
                os.fchmod(file.fileno(), PUBLISHED_MODE)
                packer = _Packer(file, _compressor(compression))
                with closing(io.BufferedWriter(packer, _BUFFER_BYTES)) as archive:
                    tarball.write(archive, (ROOT, *nodes), content, time=time)
            digest, diff_id = _digest(packer.packed.hexdigest()), _digest(packer.plain.hexdigest())
            filler.done(key, packer.size)
            filler.put(f"{key}.json", _pack(digest, diff_id, packer.size, key))
        return StoredLayer(self._cache.path(key), compression, digest, diff_id, packer.size, reused=False)


def _key(nodes: Sequence[Node], time: int | None, compression: Compression) -> str:
    how = [RECIPE, compression.value, LEVELS[compression], _library(compression), time]
    return hashlib.sha256(json.dumps([how, [(node.path, node.hash, node.time) for node in nodes]]).encode()).hexdigest()


# -- what is remembered of a layer -------------------------------------------------------------------------------------


def _pack(digest: str, diff_id: str, size: int, key: str) -> bytes:
    record: dict[str, str | int] = {"digest": digest, "diff_id": diff_id, "size": size}
    return json.dumps({**record, "check": _check(record, key)}).encode()


def _unpack(data: bytes, key: str) -> tuple[str, str, int]:
    """(digest, diff_id, size). Raises ValueError if that is not what was written for this key."""
    try:
        record = json.loads(data)
    except RecursionError as error:
        raise ValueError("damaged") from error
    if not isinstance(record, dict) or record.pop("check", "") != _check(record, key):
        raise ValueError("damaged")
    return record["digest"], record["diff_id"], record["size"]


def _check(record: Mapping[str, str | int], key: str) -> str:
    return hashlib.sha256(json.dumps([key, record], sort_keys=True).encode()).hexdigest()


def _digest(sha256: str) -> str:
    return f"sha256:{sha256}"


# -- compressing -------------------------------------------------------------------------------------------------------


class _Compressor(Protocol):
    def compress(self, data: memoryview, /) -> bytes: ...

    def flush(self) -> bytes: ...


class _Packer(io.RawIOBase):
    """Takes an archive; what it writes is compressed. Closing it ends the compressed stream, not the file."""

    def __init__(self, file: BinaryIO, compressor: _Compressor) -> None:
        self._file = file
        self._compressor = compressor
        self.plain = hashlib.sha256()
        self.packed = hashlib.sha256()
        self.size = 0
        """Compressed bytes so far."""

    def writable(self) -> bool:
        return True

    def write(self, data: ReadableBuffer) -> int:
        view = memoryview(data)
        self.plain.update(view)
        self._put(self._compressor.compress(view))
        return view.nbytes

    def close(self) -> None:
        if not self.closed:
            self._put(self._compressor.flush())
        super().close()

    def _put(self, data: bytes) -> None:
        self.packed.update(data)
        self.size += len(data)
        self._file.write(data)


def _compressor(compression: Compression) -> _Compressor:
    level = LEVELS[compression]
    if compression is Compression.GZIP:
        return zlib.compressobj(level, zlib.DEFLATED, 16 + zlib.MAX_WBITS)  # a gzip header without time and name
    import zstandard

    return zstandard.ZstdCompressor(level=level, write_checksum=True).compressobj()


def _library(compression: Compression) -> str:
    if compression is Compression.GZIP:
        return zlib.ZLIB_RUNTIME_VERSION
    import zstandard

    return ".".join(map(str, zstandard.ZSTD_VERSION))
