"""Delta packs and update packs: what a step needs, in one solid zstd stream (mixer specification, section 10.3).

A pack is planned first: each need of the step becomes a member, a delta where its record has one and the object where
not. The plan is what `mixer report delta` shows, and what `compress` is given. Rules of the format:

* Deltas come first, then objects; within each like stands beside like: by the ending of their names, then by path.
* Members are left uncompressed, the stream around them is compressed once (zstd LEVEL, WINDOW_LOG): deltas of an OS
  resemble each other. The original client reads it like any other archive.
* An update pack is a pack over all bundles, which may have gzip deltas as well (docs/update-pack.md).

Packs are compressed by the engine, one a task; those above LARGE_BYTES as a stream in this process, on all cores.
The same content store and delta store give the same bytes.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import zstandard

from mixer.cache import PUBLISHED_MODE
from mixer.deltas import FULL, DeltaKey, DeltaStore, Record, unpacked
from mixer.engine import Engine
from mixer.transition import Need, Step
from swupd.formats import archive, layout
from swupd.formats.archive import Member, ObjectType
from swupd.formats.tarheader import padding
from swupd.report import Report

LEVEL = 19
"""zstd level of a delta pack: it is made once and fetched by every machine. The update pack of a server OS, 198 MB of
members: level 17 8.95 MB (7 CPU s), 18 8.70 (9), 19 8.47 (16), and with the shorter search 8.50 (15)."""
SEARCH_LOG = 5
"""How long a match is looked for: half of what the level says."""
WINDOW_LOG = 23
"""8 MiB of history at most, which is memory of every client that unpacks the pack. 16 and 32 MiB make the packs of a
server OS smaller by less than 0.1 %."""
LARGE_BYTES = 256 << 20
"""Content of a pack that is compressed in this process."""
JOB_BYTES = 64 << 20
JOB_OVERLAP = 8
"""What one thread compresses at a time there, and half of the window before it."""

_GZIP_ENDING = ".gz"
_DELTA_MODE = 0o100600
_ENDING = re.compile(r"\.so[.0-9]*$|\.[^./]+$")
_FRAME_BYTES = len(archive.pack_head()) + len(archive.END_OF_ARCHIVE)
"""Of an archive without members."""


@dataclass(frozen=True, slots=True)
class Planned:
    """One member of a pack."""

    need: Need
    record: Record
    key: DeltaKey | None
    """Of the delta; None for an object as it is."""

    @property
    def name(self) -> str:
        """In the archive."""
        if self.key is None:
            return layout.staged_name(self.need.entry.hash)
        directory = layout.GZIP_DIRECTORY if self.key.is_gzip else layout.DELTA_DIRECTORY
        base = layout.gzip_delta_name if self.key.is_gzip else layout.delta_name
        return f"{directory}/{base(self.key.from_hash, self.key.to_hash)}"

    @property
    def estimate(self) -> int:
        """Bytes that the member adds to the pack, compressed alone."""
        return self.record.full if self.key is None else self.record.estimate


@dataclass(frozen=True, slots=True)
class PackPlan:
    """A pack that can be made."""

    file: str
    """Its name in the published tree, such as "20/pack-editors-from-10.tar"."""
    step: Step
    members: tuple[Planned, ...]


@dataclass(frozen=True, slots=True)
class PackTask:
    """A pack with its content: pieces of the archive, and zstd frames of such."""

    file: str
    size: int
    pieces: Sequence[tuple[bytes, bool]]
    """A piece, and whether it is a zstd frame."""


def wanted_deltas(steps: Iterable[Step], *, with_gzip: bool) -> list[DeltaKey]:
    """The records that the packs of these steps are planned with."""
    keys: dict[DeltaKey, None] = {}
    for step in steps:
        for need in step.needs:
            keys |= dict.fromkeys(_keys(need, with_gzip=with_gzip))
    return list(keys)


def plan(step: Step, file: str, deltas: DeltaStore, *, with_gzip: bool) -> PackPlan:
    """The members of the pack of a step; `with_gzip` for update packs. Needs all records. Raises BuildError."""
    members = []
    for need in step.needs:
        records = [(deltas.record(key), key) for key in _keys(need, with_gzip=with_gzip)]
        useful = [(record.estimate, key, record) for record, key in records if record.is_delta]
        if useful:
            _, key, record = min(useful, key=lambda item: item[:2])
            members.append(Planned(need, record, key))
        elif records:
            members.append(Planned(need, records[0][0], None))
        else:
            members.append(Planned(need, Record(FULL, "nothing like it in the older version", 0, 0), None))
    return PackPlan(file, step, tuple(sorted(members, key=_order)))


def compress(
    plans: Iterable[PackPlan], directory: Path, deltas: DeltaStore, engine: Engine, report: Report
) -> dict[str, Path]:
    """Make the packs as files in `directory`, by their names. Raises BuildError."""
    made: dict[str, Path] = {}
    archives = [_Archive(plan, deltas) for plan in plans]
    archives.sort(key=lambda archive: (-archive.size, archive.plan.file))
    total, done = sum(archive.size for archive in archives), 0
    large = [archive for archive in archives if archive.size > LARGE_BYTES]
    for one in large:
        made[one.plan.file] = one.write(directory / _flat(one.plan.file), engine.workers)
        done += one.size
        report.progress(done, total)
    for file, size, data in engine.map(compress_pack, (one.task() for one in archives[len(large) :])):
        path = directory / _flat(file)
        path.write_bytes(data)
        path.chmod(PUBLISHED_MODE)
        made[file] = path
        done += size
        report.progress(done, total)
    return made


def compress_pack(task: PackTask) -> tuple[str, int, bytes]:
    """The engine's function for delta packs: name, size of the content, pack."""
    compressor = _compressor(task.size, threads=0)
    parts = [compressor.compress(unpacked(piece) if is_frame else piece) for piece, is_frame in task.pieces]
    return task.file, task.size, b"".join((*parts, compressor.flush()))


class _Archive:
    """A pack on its way from a plan to a file."""

    def __init__(self, plan: PackPlan, deltas: DeltaStore) -> None:
        self.plan = plan
        self._deltas = deltas
        self._headers = [self._header(member) for member in plan.members]
        content = sum(header.size + len(padding(header.size)) for header in self._headers)
        self.size = content + sum(len(archive.pack_header(header)) for header in self._headers) + _FRAME_BYTES

    def task(self) -> PackTask:
        return PackTask(self.plan.file, self.size, list(self._pieces()))

    def write(self, target: Path, threads: int) -> Path:
        compressor = _compressor(self.size, threads=threads)
        with target.open("xb") as file:
            os.fchmod(file.fileno(), PUBLISHED_MODE)
            for piece, is_frame in self._pieces():
                file.write(compressor.compress(unpacked(piece) if is_frame else piece))
            file.write(compressor.flush())
        return target

    def _header(self, planned: Planned) -> Member:
        if planned.key is not None:
            size = zstandard.frame_content_size(self._deltas.packed(planned.key))
            return Member(planned.name, ObjectType.FILE, _DELTA_MODE, 0, 0, size)
        with self._deltas.objects.open(planned.need.entry.hash) as (member, _):
            return replace(member, name=planned.name)

    def _pieces(self) -> Iterator[tuple[bytes, bool]]:
        """The archive; true stands at pieces that are zstd frames of what belongs there."""
        yield archive.pack_head(), False
        for planned, header in zip(self.plan.members, self._headers, strict=True):
            yield archive.pack_header(header), False
            if planned.key is not None:
                yield self._deltas.packed(planned.key), True
            else:
                with self._deltas.objects.open(planned.need.entry.hash) as (_, chunks):
                    yield from ((chunk, False) for chunk in chunks)
            yield padding(header.size), False
        yield archive.END_OF_ARCHIVE, False


def _keys(need: Need, *, with_gzip: bool) -> list[DeltaKey]:
    if need.source is None:
        return []
    key = DeltaKey(need.source.hash, need.entry.hash)
    names = (need.source.name, need.entry.name)
    if with_gzip and key.from_hash != key.to_hash and all(name.endswith(_GZIP_ENDING) for name in names):
        return [key, replace(key, is_gzip=True)]
    return [key]


def _compressor(size: int, *, threads: int) -> zstandard.ZstdCompressionObj:
    parameters = zstandard.ZstdCompressionParameters.from_level(
        LEVEL,
        source_size=size,
        window_log=max(min(WINDOW_LOG, size.bit_length()), zstandard.WINDOWLOG_MIN),
        search_log=SEARCH_LOG,
        write_checksum=True,
        threads=threads,
        **({"job_size": JOB_BYTES, "overlap_log": JOB_OVERLAP} if threads else {}),
    )
    return zstandard.ZstdCompressor(compression_params=parameters).compressobj()


def _flat(file: str) -> str:
    return file.replace("/", "-")


def _order(planned: Planned) -> tuple[bool, bool, str, str]:
    path = planned.need.entry.name
    match = _ENDING.search(path.rpartition("/")[2])
    ending = match[0] if match else ""
    is_gzip = planned.key is not None and planned.key.is_gzip
    return planned.key is None, is_gzip, ".so" if ending.startswith(".so") else ending, path
