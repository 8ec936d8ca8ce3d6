"""Packs -> verified objects in the staged directory (swupd client specification, sections 1.4 and 4.4; update packs:
docs/update-pack.md).

Guarantees and rules:

* An object gets its name `<hash>` only with content that was verified to have this hash: small ones before the first
  byte is written, large ones under another name until their end. Members that nobody asked for are skipped unread.
* A delta is applied to an installed file only if that file, as it is now on the disk, has the hash that the delta
  starts from; it is found by the manifests and read through directory descriptors. What comes out is hashed.
* Whatever is wrong with a member or a delta leaves its object missing, also a program gzip that is missing or writes
  other bytes than the publisher's; a broken archive ends the pack. Errors of the system (a full disk) are raised as the
  OSError that they are.
* The archive is read in the caller's thread. Hashing, writing and deltas are work for other threads, in batches;
  what waits for them is limited in bytes. When `unpack` returns, nothing is being worked on.
"""

from __future__ import annotations

import os
import stat
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import BinaryIO, NamedTuple

from swupd import process
from swupd.closing import Closing
from swupd.errors import ArchiveError, DeltaError, UnsafePathError
from swupd.formats import delta, gzipped, layout
from swupd.formats.archive import (
    PACK_LIMITS,
    WHOLE_BYTES,
    ArchiveLimits,
    Member,
    ObjectType,
    read_members,
    verified_chunks,
)
from swupd.formats.filehash import hash_content
from swupd.formats.manifest import Entry, FileType
from swupd.fs import Directory
from swupd.plan import FileList
from swupd.report import Report

DELTA_BYTES_LIMIT = 128 << 20
"""Bytes of a delta that is applied; a larger one is as good as its object."""
WAITING_BYTES_LIMIT = 24 << 20
"""Bytes of members, old and new files in memory at a time; a single delta may need more, and is then alone."""
PROGRAM_PATH = "/usr/bin:/bin"
"""Where the program gzip is looked for. Its environment has nothing else: GZIP would change what it writes."""
UNFINISHED = ".new"
"""Suffix of the name that a large object has while it is written."""

_BATCH_BYTES = 1 << 20
_BATCH_COUNT = 64
_FILE_BYTES = 1024
"""What a small member costs besides its content, for the limit."""


_Apply = Callable[[bytes, bytes], tuple[bytes, delta.DeltaHeader]]
"""(old file, delta) -> (new file, header with its mode and owner); raises DeltaError."""


class _Done(NamedTuple):
    """What became of a member."""

    file_hash: str
    problem: str = ""
    """Why the object is still missing."""
    from_delta: bool = False


class Unpacker(Closing):
    """Takes from packs what is missing. Close it, or use it in a `with` statement.

    missing: the objects that are wanted, by hash; those that were written are taken out. current: the files that the
    root should have now, for deltas.
    """

    def __init__(
        self,
        staged: Directory,
        missing: dict[str, Entry],
        root: Directory,
        current: FileList,
        report: Report,
        *,
        limits: ArchiveLimits = PACK_LIMITS,
    ) -> None:
        self._staged = staged
        self._missing = missing
        self._installed = _Installed(root, current)
        self._report = report
        self._limits = limits
        self._taken: dict[str, Entry] = {}
        """Objects that are being worked on."""
        self._wrong: list[str] = []
        self._pool = _Pool(self._collect)
        self.from_packs = 0
        """Objects that were in packs as a whole."""
        self.from_deltas = 0

    def close(self) -> None:
        self._pool.close()

    def unpack(self, source: BinaryIO, title: str) -> bool:
        """Take what is missing from one pack; whether it could be read to its end. Raises OSError.

        title: the pack in messages, "the pack for editors".
        """
        self._wrong = []
        damage: ArchiveError | None = None
        try:
            self._read(source)
        except ArchiveError as error:
            damage = error
        self._pool.drain()
        if damage is not None:
            self._report.warning(f"{title} is damaged; what it lacks comes file by file: {damage}")
        if self._wrong:
            more = f" (and {len(self._wrong) - 1} more)" if len(self._wrong) > 1 else ""
            self._report.warning(f"{title} has wrong objects: {self._wrong[0]}{more}")
        return damage is None

    def _read(self, source: BinaryIO) -> None:
        batch: list[tuple[str, Member, BinaryIO]] = []
        size = 0
        try:
            for member, data in read_members(source, self._limits):
                directory, _, name = member.name.partition("/")
                if member.link_to is not None:
                    continue  # a second name of a delta (old servers): the first one has served
                if directory in (layout.DELTA_DIRECTORY, layout.GZIP_DIRECTORY):
                    hashes = layout.parse_delta_name(name)
                    if hashes is not None and hashes[1] in self._missing:
                        self._take_delta(member, data, *hashes, gzip=directory == layout.GZIP_DIRECTORY)
                elif directory != layout.STAGED_DIRECTORY or name not in self._missing:
                    continue
                elif member.size > WHOLE_BYTES:
                    self._take(name)
                    self._collect(self._write([(name, member, data)]))
                else:
                    self._take(name)
                    batch.append((name, member, data))
                    size += member.size + _FILE_BYTES
                    if size >= _BATCH_BYTES or len(batch) >= _BATCH_COUNT:
                        self._pool.submit(size, partial(self._write, batch))
                        batch, size = [], 0
        finally:
            self._pool.submit(size, partial(self._write, batch))

    def _take(self, file_hash: str) -> None:
        self._taken[file_hash] = self._missing.pop(file_hash)

    def _take_delta(self, member: Member, data: BinaryIO, from_hash: str, to_hash: str, *, gzip: bool) -> None:
        name = self._installed.name(from_hash)
        if name is None or member.type is not ObjectType.FILE or member.size > DELTA_BYTES_LIMIT:
            return
        content = data.read(member.size)
        try:
            header = delta.read_header(gzipped.decode(content)[1] if gzip else content)
        except DeltaError as error:
            self._report.debug(f"the delta to {to_hash} cannot be applied: {error}")
            return
        self._take(to_hash)
        sizes = header.old_size + header.new_size
        # Of gzip files the contents are in memory beside the files, which are as large in the worst case.
        weight = len(content) + (2 * sizes if gzip else sizes)
        apply = _apply_gzip if gzip else delta.apply
        self._pool.submit(weight, partial(self._apply, apply, content, name, from_hash, to_hash))

    def _collect(self, outcomes: Iterable[_Done]) -> None:
        for done in outcomes:
            entry = self._taken.pop(done.file_hash)
            if done.problem:
                self._missing[done.file_hash] = entry
            if done.from_delta:
                self.from_deltas += not done.problem
                if done.problem:
                    self._report.debug(f"the delta to {done.file_hash} is of no use: {done.problem}")
            elif done.problem:
                self._wrong.append(done.problem)
            else:
                self.from_packs += 1

    # -- what the threads do ---------------------------------------------------------------------------------------

    def _write(self, members: list[tuple[str, Member, BinaryIO]]) -> list[_Done]:
        outcomes = []
        for file_hash, member, data in members:
            try:
                write_object(self._staged, file_hash, member, verified_chunks(member, data, file_hash))
                outcomes.append(_Done(file_hash))
            except ArchiveError as error:
                outcomes.append(_Done(file_hash, str(error)))
        return outcomes

    def _apply(self, apply: _Apply, content: bytes, name: str, from_hash: str, to_hash: str) -> list[_Done]:
        old = self._installed.read(name, from_hash)
        if old is None:
            return [_Done(to_hash, f"{name} was changed", from_delta=True)]
        try:
            new, header = apply(old, content)
        except DeltaError as error:
            return [_Done(to_hash, str(error), from_delta=True)]
        if hash_content(header.mode, header.uid, header.gid, new) != to_hash:
            return [_Done(to_hash, "it gives something else", from_delta=True)]
        self._staged.write_file(to_hash, [new], mode=stat.S_IMODE(header.mode), owner=(header.uid, header.gid))
        return [_Done(to_hash, from_delta=True)]


def _apply_gzip(old: bytes, content: bytes) -> tuple[bytes, delta.DeltaHeader]:
    return gzipped.apply(old, content, _run)


def _run(argv: Sequence[str], stdin: bytes) -> bytes:
    return process.run(argv, env={"PATH": PROGRAM_PATH}, stdin=stdin).stdout


def write_object(staged: Directory, file_hash: str, member: Member, chunks: Iterator[bytes]) -> None:
    """Write one object under its hash. `chunks` raises ArchiveError before its end if the content is another one;
    unless it is larger than WHOLE_BYTES, it must know that from the beginning."""
    mode, owner = stat.S_IMODE(member.mode), (member.uid, member.gid)
    if member.type is ObjectType.DIRECTORY:
        staged.make_directory(file_hash, mode=mode, owner=owner)
    elif member.type is ObjectType.LINK:
        staged.make_link(file_hash, member.target, owner=owner)
    elif member.size <= WHOLE_BYTES:
        staged.write_file(file_hash, chunks, mode=mode, owner=owner, mtime=member.mtime)
    else:
        unfinished = f".{file_hash}{UNFINISHED}"
        staged.remove_tree(unfinished)
        staged.write_file(unfinished, chunks, mode=mode, owner=owner, mtime=member.mtime)
        staged.rename(unfinished, file_hash)


class _Pool:
    """Threads that take work while it is not too much in memory. Results are collected in the submitting thread."""

    def __init__(self, collect: Callable[[list[_Done]], None]) -> None:
        self._collect = collect
        self._executor = ThreadPoolExecutor(max(2, os.cpu_count() or 1), thread_name_prefix="unpack")
        self._running: deque[tuple[int, Future[list[_Done]]]] = deque()
        self._weight = 0

    def submit(self, weight: int, work: Callable[[], list[_Done]]) -> None:
        """Have something done that needs `weight` bytes of memory. Raises what earlier work raised."""
        while self._running and self._weight + weight > WAITING_BYTES_LIMIT:
            self._wait()
        self._running.append((weight, self._executor.submit(work)))
        self._weight += weight

    def drain(self) -> None:
        """Wait for all work. Raises what it raised."""
        while self._running:
            self._wait()

    def close(self) -> None:
        self._executor.shutdown(cancel_futures=True)

    def _wait(self) -> None:
        weight, future = self._running.popleft()
        self._weight -= weight
        self._collect(future.result())


class _Installed:
    """The regular files of the root, found by their hashes."""

    def __init__(self, root: Directory, current: FileList) -> None:
        self._root = root
        self._current = current
        self._names: dict[str, str] | None = None

    def name(self, file_hash: str) -> str | None:
        """A file that should have this hash. Not for several threads."""
        if self._names is None:
            self._names = {entry.hash: entry.name for entry in self._files()}
        return self._names.get(file_hash)

    def read(self, name: str, file_hash: str) -> bytes | None:
        """The content of this file or of another one that really has the hash; None if there is none."""
        data = self._read(name, file_hash)
        if data is None:
            # Somebody has changed that file; perhaps the system has another one like it. This is rare, a scan will do.
            others = (entry.name for entry in self._files() if entry.hash == file_hash and entry.name != name)
            data = next(
                (found for found in (self._read(other, file_hash) for other in others) if found is not None), None
            )
        return data

    def _files(self) -> Iterator[Entry]:
        return (entry for entry in self._current.values() if entry.is_present and entry.flags[0] == FileType.FILE)

    def _read(self, name: str, file_hash: str) -> bytes | None:
        parent, _, base = name.rpartition("/")
        try:
            with self._root.descend(parent) as directory, directory.open_file(base) as file:
                status = os.fstat(file.fileno())
                if status.st_size > delta.NEW_SIZE_LIMIT:
                    return None
                data = file.read(status.st_size + 1)
        except (OSError, UnsafePathError):
            return None
        return data if hash_content(status.st_mode, status.st_uid, status.st_gid, data) == file_hash else None
