"""The content of a published version proves itself: fullfiles, packs and deltas (a part of mixer.check).

* A fullfile is read to its end and is exactly one object with the hash in its name.
* A pack is read to its end. Each member is a part of what the pack is for: an object with the hash in its name, or a
  delta to one. A zero pack has every object of its bundle, an update pack every object that the way needs; for what the
  pack of one bundle lacks clients take fullfiles, and the original's packs do lack some.
* A delta, applied to the older version's object, gives the object in its name; a gzip delta with the zlib and the gzip
  of this machine. One that several packs have is applied once.

Unpacking fullfiles and applying deltas is work for the engine, in batches of bytes; packs are unpacked here, member by
member, and so are fullfiles above LARGE_BYTES. Content above some megabytes is never in memory as a whole, except for
both files of a delta.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import BinaryIO

from mixer.check.files import Files
from mixer.check.findings import Findings, reason
from mixer.check.older import OlderVersions
from mixer.deltas import run_gzip
from mixer.engine import Engine
from mixer.inflight import batched
from swupd.errors import ArchiveError, DeltaError, ProjectError
from swupd.formats import archive, delta, filehash, gzipped, layout
from swupd.formats.archive import Member, ObjectType
from swupd.report import Report, counted

BATCH_BYTES = 8 << 20
BATCH_COUNT = 256
"""Published bytes and items of one task."""
LARGE_BYTES = 32 << 20
"""A fullfile of more bytes is unpacked in this process."""
DELTA_LIMIT = delta.NEW_SIZE_LIMIT
"""Bytes of a delta, and of the file that it is applied to; clients take no larger ones."""
READERS = 8
"""Files that are read at a time: an object store answers each request late."""

_PIECE_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Pack:
    """A pack of the version that is checked."""

    file: str
    from_version: int
    """0 for a zero pack."""
    is_update: bool
    objects: Collection[str]
    """The hashes that it may have."""
    needed: Mapping[str, str]
    """Those that it should have, each with one of its paths."""

    @property
    def deltas(self) -> tuple[str, ...]:
        """The directories that it may have deltas in."""
        if self.is_update:
            return (layout.DELTA_DIRECTORY, layout.GZIP_DIRECTORY)
        return (layout.DELTA_DIRECTORY,) if self.from_version else ()

    @property
    def must_be_complete(self) -> bool:
        return self.is_update or not self.from_version


@dataclass(frozen=True, slots=True)
class Fullfile:
    """A published object."""

    file: str
    hash: str
    data: bytes = b""


@dataclass(frozen=True, slots=True)
class Delta:
    """A published delta."""

    key: str
    """The same for the same delta in several files."""
    old: Fullfile
    to_hash: str
    data: bytes
    is_gzip: bool


class ContentCheck:
    """Checks content of one tree; what is wrong goes to the findings."""

    def __init__(self, files: Files, older: OlderVersions, findings: Findings, engine: Engine, report: Report) -> None:
        self._tree = files.tree
        self._files = files
        self._older = older
        self._findings = findings
        self._engine = engine
        self._report = report
        self._carriers: dict[str, list[tuple[str, str]]] = {}
        """Key of a delta -> the files that have it, each with what to say before what is wrong with it."""
        self._without_old: dict[str, int] = {}
        """File -> how many of its deltas lead from what is not published any more."""
        self._done = self._total = 0

    def run(self, fullfiles: Sequence[Fullfile], packs: Sequence[Pack], deltas: Sequence[str]) -> None:
        """Check fullfiles (that exist), packs, and deltas that lie alone. Raises BuildError if the engine fails."""
        files = [*(fullfile.file for fullfile in fullfiles), *(pack.file for pack in packs), *deltas]
        self._total = sum(map(self._size, files))
        with ThreadPoolExecutor(READERS, thread_name_prefix="read") as readers:
            for failures in self._engine.map(prove, self._tasks(fullfiles, packs, deltas, readers)):
                for name, what in failures:
                    for file, member in self._carriers.get(name, [(name, "")]):
                        self._findings.problem(file, f"{member}{what}")
        for file, count in self._without_old.items():
            self._findings.note(file, f"{counted(count, 'delta')} not applied: the old files are not in the tree")

    def _tasks(
        self, fullfiles: Sequence[Fullfile], packs: Sequence[Pack], deltas: Sequence[str], readers: ThreadPoolExecutor
    ) -> Iterator[list[Fullfile] | list[Delta]]:
        for large in (fullfile for fullfile in fullfiles if self._size(fullfile.file) > LARGE_BYTES):
            self._large(large)
        small = (fullfile for fullfile in fullfiles if self._size(fullfile.file) <= LARGE_BYTES)
        for batch in batched(small, lambda fullfile: self._size(fullfile.file), limit=BATCH_BYTES, count=BATCH_COUNT):
            yield self._filled(batch, readers)
            self._advance(*(fullfile.file for fullfile in batch))
        self._findings.checked.fullfiles += len(fullfiles)
        oldest = min((pack.from_version for pack in packs if pack.from_version), default=1)
        both = (claim for source in (self._in_packs(packs), self._alone(deltas, oldest)) for claim in source)
        for claims in batched(
            both, lambda claim: len(claim.data) + self._size(claim.old.file), limit=BATCH_BYTES, count=BATCH_COUNT
        ):
            wanted = list(dict.fromkeys(claim.old for claim in claims))
            old = {fullfile.file: fullfile for fullfile in self._filled(wanted, readers)}
            yield [replace(claim, old=old[claim.old.file]) for claim in claims if claim.old.file in old]

    # -- fullfiles -------------------------------------------------------------------------------------------------

    def _filled(self, fullfiles: Sequence[Fullfile], readers: ThreadPoolExecutor) -> list[Fullfile]:
        """The fullfiles with their content, without those that cannot be read."""
        filled = []
        for fullfile, (data, why) in zip(fullfiles, readers.map(self._read, fullfiles), strict=True):
            if why:
                self._findings.problem(fullfile.file, why)
            else:
                filled.append(replace(fullfile, data=data))
        return filled

    def _read(self, fullfile: Fullfile) -> tuple[bytes, str]:
        try:
            return self._tree.read(fullfile.file), ""
        except (ProjectError, OSError) as error:
            return b"", reason(error, fullfile.file)

    def _large(self, fullfile: Fullfile) -> None:
        with self._findings.about(fullfile.file), self._tree.open(fullfile.file) as source:
            for _ in archive.read_fullfile(source, fullfile.hash)[1]:
                pass
        self._advance(fullfile.file)

    # -- packs -----------------------------------------------------------------------------------------------------

    def _in_packs(self, packs: Iterable[Pack]) -> Iterator[Delta]:
        """Unpack packs; the deltas in them are what is left to do."""
        for pack in packs:
            found: set[str] = set()
            with self._findings.about(pack.file), self._tree.open(pack.file) as source:
                for member, data in archive.read_members(source, archive.PACK_LIMITS):
                    directory, _, name = member.name.partition("/")
                    if not name and member.type is ObjectType.DIRECTORY and directory in _directories(pack):
                        continue
                    self._findings.checked.members += 1
                    pair = layout.parse_delta_name(name) if directory in pack.deltas else None
                    file_hash = pair[1] if pair is not None else name
                    is_known = pair is not None or directory == layout.STAGED_DIRECTORY
                    if not is_known or file_hash not in pack.objects:
                        self._findings.problem(pack.file, f"{member.name!r} does not belong into this pack")
                        continue
                    found.add(file_hash)
                    if member.link_to is not None:
                        self._second_name(pack, member, pair)
                    elif pair is None:
                        self._staged(pack, member, data)
                    elif claim := self._delta(pack, member, data, pair):
                        yield claim
                self._complete(pack, found)
            self._findings.checked.packs += 1
            self._advance(pack.file)

    def _second_name(self, pack: Pack, member: Member, pair: tuple[str, str] | None) -> None:
        """Old servers gave a delta a second name, which clients pass over; it has to be one for the same pair."""
        if pair is None or layout.parse_delta_name((member.link_to or "").partition("/")[2]) != pair:
            self._findings.problem(pack.file, f"{member.name} is another name of {member.link_to}")

    def _staged(self, pack: Pack, member: Member, data: BinaryIO) -> None:
        actual = archive.object_hash(member, iter(partial(data.read, _PIECE_BYTES), b""))
        if f"{layout.STAGED_DIRECTORY}/{actual}" != member.name:
            self._findings.problem(pack.file, f"{member.name} has the hash {actual}")

    def _delta(self, pack: Pack, member: Member, data: BinaryIO, pair: tuple[str, str]) -> Delta | None:
        if member.type is not ObjectType.FILE or member.size > DELTA_LIMIT:
            self._findings.problem(pack.file, f"{member.name} is not a delta that a client would take")
            return None
        is_gzip = member.name.startswith(layout.GZIP_DIRECTORY)
        return self._claim((pack.file, f"{member.name}: "), pair, data.read(member.size), pack.from_version, is_gzip)

    def _complete(self, pack: Pack, found: Collection[str]) -> None:
        lacking = sorted(path for file_hash, path in pack.needed.items() if file_hash not in found)
        if not lacking:
            return
        what = f"lacks {counted(len(lacking), 'object')}, such as that of {lacking[0]}"
        if pack.must_be_complete:
            self._findings.problem(pack.file, what)
        else:
            self._report.verbose(f"{pack.file} {what}; clients take fullfiles")

    # -- deltas ----------------------------------------------------------------------------------------------------

    def _alone(self, deltas: Iterable[str], since: int) -> Iterator[Delta]:
        """Deltas as files, which the original leaves in the version that they lead to; from `since` or later."""
        for file in deltas:
            pair = layout.parse_delta_name(file.rpartition("/")[2])
            with self._findings.about(file):
                data = self._tree.read(file, limit=DELTA_LIMIT)
                if pair is not None and (claim := self._claim((file, ""), pair, data, since, is_gzip=False)):
                    yield claim
            self._advance(file)

    def _claim(
        self, carrier: tuple[str, str], pair: tuple[str, str], data: bytes, since: int, is_gzip: bool
    ) -> Delta | None:
        """What is to be proved of a delta; None if that is on its way already, or impossible."""
        old_file = self._older.fullfile(pair[0], since)
        if old_file is None or not self._size(old_file):
            self._without_old[carrier[0]] = self._without_old.get(carrier[0], 0) + 1
            return None
        digest = hashlib.sha256(f"{pair} {is_gzip}".encode())
        digest.update(data)
        carriers = self._carriers.setdefault(digest.hexdigest(), [])
        carriers.append(carrier)
        if len(carriers) > 1:
            return None
        self._findings.checked.deltas += 1
        return Delta(digest.hexdigest(), Fullfile(old_file, pair[0]), pair[1], data, is_gzip)

    def _size(self, file: str) -> int:
        """Of a published file; 0 if it is not there."""
        return self._files.size(file) or 0

    def _advance(self, *files: str) -> None:
        size = sum(map(self._size, files))
        self._findings.checked.bytes += size
        self._done += size
        self._report.progress(self._done, self._total)


def prove(batch: Sequence[Fullfile | Delta]) -> list[tuple[str, str]]:
    """The engine's function: what is wrong with which fullfile (by its file) or delta (by its key)."""
    failures = []
    for claim in batch:
        failure = _prove_fullfile(claim) if isinstance(claim, Fullfile) else _prove_delta(claim)
        if failure is not None:
            failures.append(failure)
    return failures


def _prove_fullfile(fullfile: Fullfile) -> tuple[str, str] | None:
    try:
        for _ in archive.read_fullfile(io.BytesIO(fullfile.data), fullfile.hash)[1]:
            pass
    except ArchiveError as error:
        return fullfile.file, str(error)
    return None


def _prove_delta(claim: Delta) -> tuple[str, str] | None:
    try:
        member, chunks = archive.read_fullfile(io.BytesIO(claim.old.data), claim.old.hash)
        if member.size > DELTA_LIMIT:
            return claim.key, f"is for an old file of {member.size} bytes, which is too large for a delta"
        old = b"".join(chunks)
    except ArchiveError as error:
        return claim.old.file, str(error)
    try:
        new, header = gzipped.apply(old, claim.data, run_gzip) if claim.is_gzip else delta.apply(old, claim.data)
    except DeltaError as error:
        return claim.key, str(error)
    actual = filehash.hash_content(header.mode, header.uid, header.gid, new)
    if actual != claim.to_hash:
        return claim.key, f"gives an object with the hash {actual}"
    return None


def _directories(pack: Pack) -> tuple[str, ...]:
    return (layout.STAGED_DIRECTORY, layout.DELTA_DIRECTORY, *pack.deltas)
