"""The delta store: how each object is best made from an older one, found out once (mixer specification, 10.4 and 10.5).

`cache/deltas` has one record for each pair (hash of the old file, hash of the new one) that any update needed, whatever
number of bundles, packs and versions use it. A record is a delta, or says why the object itself is the better choice.
Guarantees:

* A delta was applied to the old file, and gave the new one, in the process that made it.
* Of the candidates the one counts that is smallest as it will be compressed: in a pack everything is one zstd stream,
  so a delta is left uncompressed, and its size is that of a zstd frame of it alone at ESTIMATE_LEVEL.
* What it costs to find out is limited: see `_candidates`.

A pair of gzip files has a second record, for update packs: the delta between their contents (docs/update-pack.md).

Deltas are made by the engine in batches; both files of a pair are in memory, in this process and in a worker.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from mixer.cache import Cache
from mixer.content import ContentStore
from mixer.engine import Engine
from mixer.errors import BuildError
from mixer.inflight import batched
from mixer.matching import Match, TooCostly, by_bsdiff, by_hdiffpatch, by_hdiffpatch_limited, proved
from swupd import process
from swupd.formats import delta, gzipped
from swupd.formats.archive import Member, ObjectType
from swupd.formats.compression import compress, decompressed
from swupd.report import Report

MINIMUM_BYTES = 200
"""A smaller file is never worth a delta; original clients expect none."""
NEW_LIMIT = 112 << 20
"""A larger file is taken as it is: its delta, not compressed by itself, would be more than our clients read."""
BSDIFF_BYTES = 16 << 10
"""Both candidates are tried for files up to this size, hdiffpatch alone above: some 0.06 CPU s
for each MB of a large file and 0.3 for each MB of a small one. mixer.matching tells what more would gain."""
LIMITED_BYTES = 32 << 20
"""Old and new file together; above, the matcher runs in a process of its own with the limits below."""
SECONDS_PER_MIB = 0.5
MINIMUM_SECONDS = 30
MEMORY_PER_BYTE = 8
"""Limits of that process for each MiB and byte of both files; a browser binary of 129 MB needs 0.1 s and 3 bytes."""
OLD_LIMIT = 256 << 20
"""Of the old file; above, the new one is taken as it is, so that workers stay within their memory."""
ESTIMATE_LEVEL = 3
"""zstd level of a candidate's size; 9 and 12 choose as well, but not faster."""

BATCH_BYTES = 8 << 20
"""Content of one task."""
BATCH_COUNT = 64
_STORED_LEVEL = 3
_HEADER_LIMIT = 4096

FULL = "full"
"""The algorithm of a record without a delta."""
TOO_COSTLY = "too costly"
"""The same, because of the limits above: nobody knows whether a delta would be smaller."""
SAME = "same"
"""Both files have the same content: a rename, or another mode or owner."""

_PATH = "/usr/bin:/bin"


@dataclass(frozen=True, slots=True)
class Record:
    """What is known about a pair."""

    algorithm: str
    """Of the delta (hdiffpatch, bsdiff, same; after a "gzip " if it is one between contents), or FULL or
    TOO_COSTLY."""
    reason: str
    """Why there is no delta; empty otherwise."""
    estimate: int
    """Bytes of the best candidate, compressed alone; 0 if none was tried."""
    full: int
    """Bytes of the new file, compressed likewise."""

    @property
    def is_delta(self) -> bool:
        return self.algorithm not in (FULL, TOO_COSTLY)


@dataclass(frozen=True, slots=True, order=True)
class DeltaKey:
    """A pair, and which of its two records."""

    from_hash: str
    to_hash: str
    is_gzip: bool = False

    def __str__(self) -> str:
        return f"{self.from_hash}-{self.to_hash}{'.gzip' if self.is_gzip else ''}"


@dataclass(frozen=True, slots=True)
class DeltaTask:
    """A pair with its content."""

    key: DeltaKey
    old: bytes
    new: bytes
    member: Member
    """Mode and owner of the new file."""


class DeltaStore:
    """The records below one directory."""

    def __init__(self, directory: Path, objects: ContentStore) -> None:
        self._cache = Cache(directory)
        self.objects = objects
        """Where the files are."""

    def make(self, keys: Iterable[DeltaKey], engine: Engine, report: Report) -> int:
        """Find out about the pairs that have no record yet; returns how many those were.

        All objects have to be in the content store. Raises BuildError.
        """
        lacking = {str(key): key for key in keys}
        lacking = {name: lacking[name] for name in self._cache.missing(lacking)}
        if not lacking:
            return 0
        done = 0
        with self._cache.filling() as filler:
            for results in engine.map(make_deltas, self._batches(lacking.values())):
                for name, data in results:
                    filler.put(name, data)
                done += len(results)
                report.progress(done, len(lacking))
        return len(lacking)

    def record(self, key: DeltaKey) -> Record:
        """What is known about a pair that `make` was asked for. Raises BuildError if the store is damaged."""
        return self._read(key)[0]

    def packed(self, key: DeltaKey) -> bytes:
        """The delta as it is stored: a zstd frame. Raises BuildError if the store is damaged."""
        return self._read(key)[1]

    def _read(self, key: DeltaKey) -> tuple[Record, bytes]:
        path = self._cache.path(str(key))
        try:
            with path.open("rb") as file:
                record = Record(**json.loads(file.readline(_HEADER_LIMIT)))
                return record, file.read()
        except (OSError, ValueError, TypeError) as error:
            raise BuildError(
                f"the delta store is damaged at {path}: {error}", hint="remove this file, and build again"
            ) from error

    def _batches(self, keys: Iterable[DeltaKey]) -> Iterator[list[DeltaTask]]:
        """The pairs with their content, the largest first, so that no core is left with one at the end."""
        sized = sorted((-self._size(key), key) for key in keys)
        for batch in batched(sized, lambda item: -item[0], limit=BATCH_BYTES, count=BATCH_COUNT):
            yield [self._task(key) for _, key in batch]

    def _size(self, key: DeltaKey) -> int:
        """Compressed size of both files, which is enough to order them."""
        return sum(self.objects.path(file_hash).stat().st_size for file_hash in (key.from_hash, key.to_hash))

    def _task(self, key: DeltaKey) -> DeltaTask:
        with self.objects.open(key.from_hash) as (old_member, old), self.objects.open(key.to_hash) as (member, new):
            if old_member.size > OLD_LIMIT or member.size > NEW_LIMIT:
                return DeltaTask(key, b"", b"", member)
            return DeltaTask(key, b"".join(old), b"".join(new), member)


def make_deltas(batch: Sequence[DeltaTask]) -> list[tuple[str, bytes]]:
    """The engine's function for deltas: records as they are stored, by key."""
    done = []
    for task in batch:
        record, data = _best(task)
        done.append((str(task.key), json.dumps(asdict(record)).encode() + b"\n" + compress(data, _STORED_LEVEL)))
    return done


def unpacked(packed: bytes, limit: int = delta.NEW_SIZE_LIMIT) -> bytes:
    """A delta from its zstd frame."""
    return decompressed(io.BytesIO(packed), limit=limit).read()


def run_gzip(argv: Sequence[str], data: bytes) -> bytes:
    """Run gzip in an environment without settings."""
    return process.run(argv, stdin=data, env={"PATH": _PATH, "LC_ALL": "C"}).stdout


def _best(task: DeltaTask) -> tuple[Record, bytes]:
    """The smallest way to the new file."""
    if task.member.type is not ObjectType.FILE:
        return Record(FULL, "not a regular file", 0, 0), b""
    if len(task.new) != task.member.size:
        reason = f"larger than {NEW_LIMIT >> 20} MiB, or the old file than {OLD_LIMIT >> 20} MiB"
        return Record(TOO_COSTLY, reason, 0, 0), b""
    if len(task.new) < MINIMUM_BYTES:
        return Record(FULL, f"smaller than {MINIMUM_BYTES} bytes", 0, 0), b""
    if not task.old:
        return Record(FULL, "the old file is empty", 0, 0), b""
    full = _estimate(task.new)
    best: tuple[int, str, bytes] | None = None
    try:
        candidates = _gzip_candidates(task) if task.key.is_gzip else _candidates(task.old, task.new, task.member)
        best = min(((_estimate(data), name, data) for name, data in candidates), default=None)
    except TooCostly as error:
        return Record(TOO_COSTLY, str(error), 0, full), b""
    if best is None:
        return Record(FULL, "it cannot be compressed again to the same bytes", 0, full), b""
    estimate, name, data = best
    if estimate >= full:
        return Record(FULL, "a delta would not be smaller", estimate, full), b""
    return Record(name, "", estimate, full), data


def _candidates(old: bytes, new: bytes, member: Member) -> Iterator[tuple[str, bytes]]:
    """Deltas that were proved, by algorithm. Raises TooCostly."""
    if old == new:
        yield SAME, _proved(old, new, Match([(len(new), 0, 0)], bytes(len(new)), b""), member)
        return
    both = len(old) + len(new)
    if both > LIMITED_BYTES:
        seconds = max(MINIMUM_SECONDS, SECONDS_PER_MIB * (both >> 20))
        match = by_hdiffpatch_limited(old, new, seconds=seconds, memory_bytes=MEMORY_PER_BYTE * both)
    else:
        match = by_hdiffpatch(old, new)
    yield "hdiffpatch", _proved(old, new, match, member)
    if max(len(old), len(new)) <= BSDIFF_BYTES:
        yield "bsdiff", _proved(old, new, by_bsdiff(old, new), member)


def _gzip_candidates(task: DeltaTask) -> Iterator[tuple[str, bytes]]:
    """Deltas between the contents of two gzip files; none if the new one cannot be made again bit for bit."""
    old = gzipped.opened(task.old)
    if old is None:
        return
    found = gzipped.prove(task.new, run_gzip)
    if found is None or not old[1]:
        return
    recipe, content = found
    for name, data in _candidates(old[1], content, task.member):
        yield f"gzip {name}", gzipped.encode(recipe, data)


def _proved(old: bytes, new: bytes, match: Match, member: Member) -> bytes:
    data = proved(old, new, match, mode=member.mode, uid=member.uid, gid=member.gid)
    if data is None:
        raise TooCostly("clients would not take the delta")
    return data


def _estimate(data: bytes) -> int:
    return len(compress(data, ESTIMATE_LEVEL))
