"""The content store: every object that was ever published, compressed once, under its swupd hash.

A file of `cache/objects` is the very file that is published as `files/<hash>.tar`: a compressed archive of one member
(mixer specification, section 9). A later version compresses only what the store does not have; fullfiles are hard links
to it, and deltas begin and end with it. So a build costs what changed. Rules:

* An object is right or not there. Its content is hashed again while it is read from the root, and BuildError names a
  file that is not what its manifest says (the original packs whatever is in the root by then).
* The archive of a hash keeps the time stamp of the path it was first made from (the first in byte order of its
  version), because times are not part of the hash.
* The store may be removed at any time: what is needed again is made again from the root, or taken from what was
  published (`fetch`).

Objects are compressed by the engine in batches; those above LARGE_BYTES as a stream in a thread of this process, so
that neither memory nor a connection has to hold them. Reading (`open`, `path`) is possible from any thread.
"""

from __future__ import annotations

import lzma
import os
import shutil
import stat
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

import zstandard

from mixer.cache import PUBLISHED_MODE, Cache, link_or_copy
from mixer.engine import Engine
from mixer.errors import BuildError
from mixer.inflight import batched
from swupd.errors import ArchiveError
from swupd.formats import archive, filehash
from swupd.formats.archive import Member, ObjectType
from swupd.formats.tarheader import BLOCK_BYTES, padding
from swupd.report import Report

ZSTD_LEVEL = 17
"""zstd level of an object that is not a program. 331 MB of a server OS (10,244 objects), all of them with zstd:

    level    3      9      12     15     17     19
    MB     135.7  128.3  127.6  124.6  121.0  118.1
    CPU s    3      7      12     29     45     72

Fullfiles are what clients take when a pack has not got it, and every byte of content passes here once in its life. Up
to 17 each second of the computer saves 0.2 MB for good, from there on half as much."""

XZ_PRESET = 5
PROGRAM_BYTES = 16 * 1024
"""From this size on, x86 programs and libraries are compressed by xz with its filter for their machine code. 165 MB of
them in that OS: zstd 17 makes 59.0 MB of them (26 CPU s), zstd 19 56.8 (38), xz -6 52.2 (46), with the filter 49.4
(44). Preset 5 takes 8 % less time for 0.2 % more bytes. For what is not a program xz saves 4 % in twice the time."""

BATCH_BYTES = 8 * 1024 * 1024
"""Content of one task: enough to make the cost of a task disappear, little enough to keep all cores busy to the end."""
BATCH_COUNT = 256
"""Objects of one task at most."""
LARGE_BYTES = 32 * 1024 * 1024
"""Content of an object that is compressed in this process."""

_PIECE_BYTES = 1024 * 1024
_OPEN_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
_ELF = struct.Struct("<4s14xH")
_X86_MACHINES = frozenset({3, 62})
"""EM_386 and EM_X86_64."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """An object that a version needs."""

    path: str
    """Where it lies on this machine."""
    size: int
    """Bytes of content, for planning only."""


@dataclass(frozen=True, slots=True)
class Stored:
    """What `ContentStore.add` did."""

    objects: int = 0
    content_bytes: int = 0
    stored_bytes: int = 0


class ContentStore:
    """The objects below one directory."""

    def __init__(self, directory: Path) -> None:
        self._cache = Cache(directory)

    def path(self, file_hash: str) -> Path:
        """Where the archive of an object lies if the store has it."""
        return self._cache.path(file_hash)

    def missing(self, hashes: Iterable[str]) -> set[str]:
        """Those of the hashes that the store does not have."""
        return self._cache.missing(hashes)

    @contextmanager
    def open(self, file_hash: str) -> Iterator[tuple[Member, Iterator[bytes]]]:
        """Header and content of an object, checked while it is read. Raises BuildError if the store is damaged."""
        path = self.path(file_hash)
        try:
            with path.open("rb") as source:
                yield archive.read_fullfile(source, file_hash)
        except (ArchiveError, OSError) as error:
            raise BuildError(
                f"the content store is damaged at {path}: {error}", hint="remove this file, and build again"
            ) from error

    def add(self, wanted: Mapping[str, Wanted], engine: Engine, report: Report) -> Stored:
        """Make the objects (hash -> where it is) that the store does not have yet.

        Raises BuildError for a file that changed since it was hashed, or that cannot be read.
        """
        lacking = self.missing(wanted)
        if not lacking:
            return Stored()
        # Large objects first, so that no core is left with one at the end; ties by hash, to be the same every time.
        order = sorted(lacking, key=lambda file_hash: (-wanted[file_hash].size, file_hash))
        total = sum(wanted[file_hash].size for file_hash in order)
        stored = done = 0
        large = [file_hash for file_hash in order if wanted[file_hash].size > LARGE_BYTES]
        archives = _archives(order[len(large) :], wanted)
        batches = batched(archives, lambda item: len(item[1]), limit=BATCH_BYTES, count=BATCH_COUNT)
        with self._cache.filling() as filler, ThreadPoolExecutor(1, thread_name_prefix="large") as thread:
            streamed = [
                thread.submit(_compress_stream, wanted[file_hash].path, file_hash, filler.place(file_hash))
                for file_hash in large
            ]
            try:
                for results in engine.map(compress_objects, batches):
                    for file_hash, data in results:
                        filler.put(file_hash, data)
                        stored += len(data)
                        done += wanted[file_hash].size
                    report.progress(done, total)
                for file_hash, future in zip(large, streamed, strict=True):
                    size = future.result()
                    filler.done(file_hash, size)
                    stored += size
                    done += wanted[file_hash].size
                    report.progress(done, total)
            except BaseException:
                thread.shutdown(wait=True, cancel_futures=True)
                raise
        return Stored(len(order), total, stored)

    def fetch(self, published: Mapping[str, str], opened: Callable[[str], AbstractContextManager[BinaryIO]]) -> int:
        """Take objects that the store has lost from where they were published (hash -> name of the fullfile).

        `opened` opens such a file. Returns how many were missing. Raises BuildError.
        """
        lacking = sorted(self.missing(published))
        if not lacking:
            return 0
        with self._cache.filling() as filler:
            for file_hash in lacking:
                place = filler.place(file_hash)
                with opened(published[file_hash]) as source, place.open("xb") as target:
                    os.fchmod(target.fileno(), PUBLISHED_MODE)
                    shutil.copyfileobj(source, target, _PIECE_BYTES)
                try:
                    with place.open("rb") as source:
                        for _ in archive.read_fullfile(source, file_hash)[1]:
                            pass
                except ArchiveError as error:
                    raise BuildError(
                        f"the published {published[file_hash]} is damaged: {error}",
                        hint="restore it from a copy of the published tree",
                    ) from error
                filler.done(file_hash, place.stat().st_size)
        return len(lacking)

    def link(self, file_hash: str, target: Path) -> int:
        """Give the archive of an object a second name, by a copy where there can be no hard link; returns its size."""
        return link_or_copy(self.path(file_hash), target)


def compress_objects(batch: Sequence[tuple[str, bytes]]) -> list[tuple[str, bytes]]:
    """(hash, archive) -> (hash, compressed archive): the engine's function for fullfiles."""
    compressed = []
    for file_hash, data in batch:
        compressor = _compressor(data[BLOCK_BYTES : BLOCK_BYTES + _ELF.size], len(data))
        compressed.append((file_hash, compressor.compress(data) + compressor.flush()))
    return compressed


def read_object(path: str, file_hash: str) -> tuple[Member, Iterator[bytes]]:
    """The object at a path as a member named by its hash, and its content, which is opened when it is first asked for.

    Raises BuildError, before the content ends, if it does not have this hash.
    """
    status = os.lstat(path)
    mode, uid, gid, mtime = status.st_mode, status.st_uid, status.st_gid, int(status.st_mtime)
    if stat.S_ISREG(mode):
        member = Member(file_hash, ObjectType.FILE, mode, uid, gid, status.st_size, mtime)
        return member, _verified_content(path, member)
    if stat.S_ISDIR(mode):
        member = Member(file_hash, ObjectType.DIRECTORY, mode, uid, gid, mtime=mtime)
    elif stat.S_ISLNK(mode):
        member = Member(file_hash, ObjectType.LINK, mode, uid, gid, mtime=mtime, target=os.readlink(path))
    else:
        raise _changed(path)
    if archive.object_hash(member) != file_hash:
        raise _changed(path)
    return member, iter(())


class _Compressor(Protocol):
    def compress(self, data: bytes, /) -> bytes: ...

    def flush(self) -> bytes: ...


def _compressor(head: bytes, size: int) -> _Compressor:
    """What compresses an archive of `size` bytes whose content begins with `head`."""
    if size >= PROGRAM_BYTES and len(head) == _ELF.size:
        magic, machine = _ELF.unpack(head)
        if magic == b"\x7fELF" and machine in _X86_MACHINES:
            filters = [{"id": lzma.FILTER_X86}, {"id": lzma.FILTER_LZMA2, "preset": XZ_PRESET}]
            return lzma.LZMACompressor(lzma.FORMAT_XZ, lzma.CHECK_CRC32, filters=filters)
    zstd = zstandard.ZstdCompressor(level=ZSTD_LEVEL, write_checksum=True, write_content_size=True)
    return zstd.compressobj(size=size)


def _compress_stream(path: str, file_hash: str, place: Path) -> int:
    """Write the compressed archive of an object that is too large for a batch; returns its size."""
    try:
        member, chunks = read_object(path, file_hash)
        first = next(chunks, b"")
        header, end = archive.pack_header(member), padding(member.size) + archive.END_OF_ARCHIVE
        compressor = _compressor(first[: _ELF.size], len(header) + member.size + len(end))
        with place.open("xb") as target:
            os.fchmod(target.fileno(), PUBLISHED_MODE)
            target.write(compressor.compress(header + first))
            for chunk in chunks:
                target.write(compressor.compress(chunk))
            target.write(compressor.compress(end) + compressor.flush())
            return target.tell()
    except OSError as error:
        raise _unreadable(path, error) from error


def _archives(order: Iterable[str], wanted: Mapping[str, Wanted]) -> Iterator[tuple[str, bytes]]:
    """(hash, archive) of the objects, read when they are asked for."""
    for file_hash in order:
        path = wanted[file_hash].path
        try:
            member, chunks = read_object(path, file_hash)
            data = archive.fullfile(member, b"".join(chunks))
        except OSError as error:
            raise _unreadable(path, error) from error
        yield file_hash, data


def _verified_content(path: str, member: Member) -> Iterator[bytes]:
    """The content of a file in pieces; the last one is given out only if the hash of all is right."""
    hasher = filehash.ContentHasher(member.mode, member.uid, member.gid, member.size)
    with open(os.open(path, _OPEN_FLAGS), "rb", buffering=0) as file:
        left = member.size
        while left:
            piece = file.read(min(left, _PIECE_BYTES))
            hasher.update(piece)
            left -= len(piece)
            if not piece or (not left and hasher.hexdigest() != member.name):
                raise _changed(path)
            yield piece
        if file.read(1) or hasher.hexdigest() != member.name:
            raise _changed(path)


def _unreadable(path: str, error: OSError) -> BuildError:
    return BuildError(f"cannot store {path}: {error}")


def _changed(path: str) -> BuildError:
    return BuildError(
        f"{path} changed after it was hashed",
        hint="let nothing write to the root while it is published, and build again",
    )
