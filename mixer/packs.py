"""Zero packs: everything of one bundle at one version in one archive (mixer specification, section 10.2).

A pack is a tar in independent zstd frames, one after the other, which every stock `zstd -d | tar -t` reads as one
stream. Each frame holds a run of members and is kept in `cache/frames` under a key over their hashes, so that the pack
of the next version takes the frames of unchanged runs as they are. What keeps runs unchanged:

* Members stand sorted by path, large ones apart from the many small ones; each hash comes once.
* Where a run ends is decided by the path of its last member alone: by its hash, the more likely the larger the member
  is. So a changed file changes the run that it is in, a new or removed one at most two, and no other ones.

The bytes of a pack follow from the hashes of its members and the time stamps of their first paths. Content is read from
the root, and hashed again while it is read. Frames are compressed by the engine, one a task; a member above LARGE_BYTES
is a run of its own and is compressed as a stream in a thread of this process.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

import zstandard

from mixer.cache import PUBLISHED_MODE, Cache
from mixer.content import LARGE_BYTES, Wanted, read_object
from mixer.engine import Engine
from mixer.errors import BuildError
from swupd.formats import archive, layout
from swupd.formats.manifest import Entry
from swupd.formats.tarheader import padding
from swupd.report import Report

LEVEL = 18
"""zstd level of a frame. The eight packs of a server OS, 348 MB of content in runs of 4 MiB:

    level    9      15     16     17     18     19
    MB     104.3  103.0  100.5   98.8   95.3   95.2
    CPU s    5      40     57     69     84     100"""
SEARCH_LOG = 4
"""How long a match is looked for: a quarter of what the level says, for 6 % less time and 0.25 % more bytes."""

RUN_BYTES = 4 << 20
"""Content of a run on average. The same packs at level 9, and how much content the next version (53 % of the bytes
changed) has to compress again:

    runs of     all     16 MiB   8 MiB   4 MiB   1 MiB
    MB          98.6    102      103     104     112
    MB again    360     348      340     314     261

Small runs lose what files have in common. Most updates change far less than half of an OS."""
RUN_LIMIT = 32 << 20
"""Content from which on a run ends in any case."""
WINDOW_LOG = 25
"""32 MiB of history at most, which is memory of every client that unpacks the pack."""
BIG_BYTES = 256 << 10
"""From this size on a member stands among the large ones."""

_RECIPE = b"frame 2"
"""First part of the key of a frame; to be changed together with what a frame is made like."""
_BLOCK = 512
_HASH_RANGE = 1 << 32


@dataclass(frozen=True, slots=True)
class Run:
    """Members that are one frame of a pack."""

    hashes: tuple[str, ...]
    size: int
    """Bytes of the archive without compression."""

    @property
    def key(self) -> str:
        digest = hashlib.sha256(b"%b %d %d\n" % (_RECIPE, LEVEL, WINDOW_LOG))
        digest.update("\n".join(self.hashes).encode())
        return digest.hexdigest()


@dataclass(frozen=True, slots=True)
class Pack:
    """One pack to make."""

    bundle: str
    runs: tuple[Run, ...]


class FrameStore:
    """Finished frames by what they contain."""

    def __init__(self, directory: Path) -> None:
        self._cache = Cache(directory)

    def missing(self, packs: Iterable[Pack]) -> list[Run]:
        """The runs that have to be compressed, the largest first."""
        runs = {run.key: run for pack in packs for run in pack.runs}
        return sorted((runs[key] for key in self._cache.missing(runs)), key=lambda run: (-run.size, run.hashes))

    def make(self, runs: Iterable[Run], wanted: Mapping[str, Wanted], engine: Engine, report: Report) -> int:
        """Make frames; returns the bytes of content in them. `wanted` tells where the members are.

        Raises BuildError for a file that changed since it was hashed, or that cannot be read.
        """
        runs = list(runs)
        total = sum(run.size for run in runs)
        if not runs:
            return 0
        done = 0
        large = [run for run in runs if run.size > LARGE_BYTES and len(run.hashes) == 1]
        small = [run for run in runs if run not in large]
        batches = ((run.key, run.size, b"".join(_members(run, wanted))) for run in small)
        with self._cache.filling() as filler, ThreadPoolExecutor(1, thread_name_prefix="large") as thread:
            streamed = [thread.submit(_compress_stream, run, wanted, filler.place(run.key)) for run in large]
            try:
                for key, size, frame in engine.map(compress_frame, batches):
                    filler.put(key, frame)
                    done += size
                    report.progress(done, total)
                for run, future in zip(large, streamed, strict=True):
                    filler.done(run.key, future.result())
                    done += run.size
                    report.progress(done, total)
            except BaseException:
                thread.shutdown(wait=True, cancel_futures=True)
                raise
        return total

    def write(self, pack: Pack, target: Path) -> int:
        """Put a pack together from its frames; returns its size in bytes. Raises BuildError for a missing frame."""
        with target.open("xb") as file:
            os.fchmod(file.fileno(), PUBLISHED_MODE)
            file.write(_frame(archive.pack_head()))
            for run in pack.runs:
                try:
                    with self._cache.path(run.key).open("rb") as frame:
                        _copy(frame, file)
                except FileNotFoundError as error:
                    raise BuildError(
                        f"the cache has lost {error.filename}, a part of the pack of bundle {pack.bundle}",
                        hint="let nothing remove it while a build runs, and build again",
                    ) from error
            file.write(_frame(archive.END_OF_ARCHIVE))
            return file.tell()


def zero_pack(bundle: str, entries: Iterable[Entry], sizes: Mapping[str, int]) -> Pack:
    """The zero pack of a bundle, given its entries and the size of the content at each path; it may have no runs."""
    present = sorted((entry.name, entry.hash) for entry in entries if entry.is_present)
    first = {file_hash: path for path, file_hash in reversed(present)}
    members = sorted((sizes[path] < BIG_BYTES, path, file_hash) for file_hash, path in first.items())
    runs: list[Run] = []
    hashes: list[str] = []
    size = 0
    for _, path, file_hash in members:
        member_size = _BLOCK + sizes[path] + len(padding(sizes[path]))
        alone = member_size > LARGE_BYTES
        if hashes and (alone or size + member_size > RUN_LIMIT):
            runs.append(Run(tuple(hashes), size))
            hashes, size = [], 0
        hashes.append(file_hash)
        size += member_size
        if alone or _ends_run(path, member_size):
            runs.append(Run(tuple(hashes), size))
            hashes, size = [], 0
    if hashes:
        runs.append(Run(tuple(hashes), size))
    return Pack(bundle, tuple(runs))


def compress_frame(batch: tuple[str, int, bytes]) -> tuple[str, int, bytes]:
    """(key, size, members) -> (key, size, frame): the engine's function for packs."""
    key, size, data = batch
    return key, size, _frame(data)


def _ends_run(path: str, size: int) -> bool:
    """Whether the member at this path is the last one of its run, with a probability of size / RUN_BYTES."""
    value = int.from_bytes(hashlib.sha256(os.fsencode(path)).digest()[:4])
    return value * RUN_BYTES < size * _HASH_RANGE


def _members(run: Run, wanted: Mapping[str, Wanted]) -> Iterator[bytes]:
    """The members of a run as they stand in the archive, in pieces."""
    for file_hash in run.hashes:
        path = wanted[file_hash].path
        try:
            member, chunks = read_object(path, file_hash)
            yield archive.pack_header(replace(member, name=layout.staged_name(file_hash)))
            yield from chunks
            yield padding(member.size)
        except OSError as error:
            raise BuildError(f"cannot pack {path}: {error}") from error


def _parameters(size: int) -> zstandard.ZstdCompressionParameters:
    window_log = max(min(WINDOW_LOG, size.bit_length()), zstandard.WINDOWLOG_MIN)
    return zstandard.ZstdCompressionParameters.from_level(
        LEVEL,
        source_size=size,
        window_log=window_log,
        search_log=SEARCH_LOG,
        write_checksum=True,
        write_content_size=True,
    )


def _frame(data: bytes) -> bytes:
    return zstandard.ZstdCompressor(compression_params=_parameters(len(data))).compress(data)


def _compress_stream(run: Run, wanted: Mapping[str, Wanted], place: Path) -> int:
    """Write the frame of a run that is too large for a task; returns its size."""
    compressor = zstandard.ZstdCompressor(compression_params=_parameters(run.size)).compressobj()
    with place.open("xb") as target:
        os.fchmod(target.fileno(), PUBLISHED_MODE)
        for piece in _members(run, wanted):
            target.write(compressor.compress(piece))
        target.write(compressor.flush())
        return target.tell()


def _copy(source: BinaryIO, target: BinaryIO) -> None:
    while piece := source.read(1 << 20):
        target.write(piece)
