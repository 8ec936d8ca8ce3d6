"""The content store: every object that was ever published, compressed once, under its swupd hash.

`cache/objects/<first two digits>/<hash>` is the very file that is published as `files/<hash>.tar`: a zstd-compressed
archive of one member (mixer specification, section 9). A later version compresses only what the store does not have;
fullfiles are hard links to it, and packs are made from it. So a build costs what changed. Rules:

* An object is right or not there. Its content is hashed again while it is read from the root, and BuildError names a
  file that is not what its manifest says (the original packs whatever is in the root by then).
* An object appears whole and durable: objects are written under `.new`, and renamed only after one `syncfs` for many
  of them. An interrupted build loses at most the last COMMIT_BYTES of its work; what it left behind is removed by the
  next one.
* The archive of a hash keeps the time stamp of the path it was first made from (the first in byte order of its
  version), because times are not part of the hash.
* The store may be removed at any time: what is needed again is made again from the root.

Work is spread over threads: zstandard releases the interpreter lock (measured: two threads on two cores are 1.87 times
as fast as one), and threads need neither copies of the data nor a second start of the interpreter. One process at a
time works on a store; the workspace's lock sees to it. Reading (`open`, `path`) is possible from any thread.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import zstandard

from mixer.errors import BuildError
from swupd.errors import ArchiveError
from swupd.formats import archive, filehash
from swupd.formats.archive import Member, ObjectType
from swupd.formats.tarheader import ZERO_BLOCK, padding
from swupd.fs import Directory
from swupd.report import Report

FULLFILE_LEVEL = 17
"""zstd level of a fullfile. 331 MB of a server OS (10,244 objects):

    level    3      9      12     15     17     19
    MB     135.7  128.3  127.6  124.6  121.0  118.1
    CPU s    3      7      12     29     45     72

Fullfiles are what clients take when a pack has not got it, and every byte of content passes here once in its life. Up
to 17 each second of the computer saves 0.2 MB for good, from there on half as much."""

BATCH_BYTES = 8 * 1024 * 1024
"""Content of one task: enough to make the cost of a task disappear, little enough to keep all cores busy to the end."""
BATCH_COUNT = 256
"""Objects of one task at most."""
COMMIT_BYTES = 256 * 1024 * 1024
"""Content after which finished objects are synced and renamed into the store."""

PUBLISHED_MODE = 0o644
"""Mode of every published file, whatever the umask is: a web server has to read them."""

_PIECE_BYTES = 1024 * 1024
_END_OF_ARCHIVE = 2 * ZERO_BLOCK
_OPEN_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
_NO_LINK = frozenset({errno.EXDEV, errno.EMLINK, errno.EPERM, errno.ENOTSUP})
"""Why a hard link is refused where a copy still works."""


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
    """The objects below one directory, which is created when the first one is added."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._new = directory / ".new"

    def path(self, file_hash: str) -> Path:
        """Where the archive of an object lies if the store has it."""
        return self._directory / file_hash[:2] / file_hash

    def missing(self, hashes: Iterable[str]) -> set[str]:
        """Those of the hashes that the store does not have."""
        have: dict[str, set[str]] = {}
        lacking: set[str] = set()
        for file_hash in hashes:
            shard = file_hash[:2]
            if shard not in have:
                try:
                    have[shard] = set(os.listdir(self._directory / shard))
                except FileNotFoundError:
                    have[shard] = set()
            if file_hash not in have[shard]:
                lacking.add(file_hash)
        return lacking

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

    def add(self, wanted: Mapping[str, Wanted], report: Report, *, workers: int = 0) -> Stored:
        """Make the objects (hash -> where it is) that the store does not have yet, on `workers` threads (0: all cores).

        Raises BuildError for a file that changed since it was hashed, or that cannot be read.
        """
        lacking = self.missing(wanted)
        if not lacking:
            return Stored()
        shutil.rmtree(self._new, ignore_errors=True)
        self._new.mkdir(parents=True)
        # Large objects first, so that no core is left with one at the end; ties by hash, to be the same every time.
        order = sorted(lacking, key=lambda file_hash: (-wanted[file_hash].size, file_hash))
        total = sum(wanted[file_hash].size for file_hash in order)
        stored = uncommitted = done = 0
        finished: list[str] = []
        with ThreadPoolExecutor(workers or os.cpu_count() or 1, thread_name_prefix="objects") as pool:
            try:
                for batch, size in pool.map(self._add_batch, _batches(order, wanted)):
                    finished += [file_hash for file_hash, _ in batch]
                    content = sum(wanted.size for _, wanted in batch)
                    stored += size
                    done += content
                    uncommitted += content
                    if uncommitted >= COMMIT_BYTES:
                        self._commit(finished)
                        finished, uncommitted = [], 0
                    report.progress(done, total)
            except BaseException:
                pool.shutdown(wait=True, cancel_futures=True)
                raise
            finally:
                self._commit(finished)
                shutil.rmtree(self._new, ignore_errors=True)
        return Stored(len(order), total, stored)

    def link(self, file_hash: str, target: Path) -> int:
        """Give the archive of an object a second name, by a copy where there can be no hard link; returns its size."""
        return link_or_copy(self.path(file_hash), target)

    def _add_batch(self, batch: _Batch) -> tuple[_Batch, int]:
        compressor = zstandard.ZstdCompressor(level=FULLFILE_LEVEL, write_checksum=True, write_content_size=True)
        return batch, sum(self._add_object(file_hash, wanted.path, compressor) for file_hash, wanted in batch)

    def _add_object(self, file_hash: str, path: str, compressor: zstandard.ZstdCompressor) -> int:
        """Write one archive; returns its size."""
        place = self._new / file_hash
        try:
            member, chunks = read_object(path, file_hash)
            header = archive.pack_header(member)
            end = padding(member.size) + _END_OF_ARCHIVE
            size = len(header) + member.size + len(end)
            with place.open("xb") as target:
                os.fchmod(target.fileno(), PUBLISHED_MODE)
                # Not a `with`: on an error its end would try to complete the frame, and complain about that instead.
                writer = compressor.stream_writer(target, size=size, closefd=False)
                writer.write(header)
                for chunk in chunks:
                    writer.write(chunk)
                writer.write(end)
                writer.flush(zstandard.FLUSH_FRAME)
            return place.stat().st_size
        except (OSError, zstandard.ZstdError) as error:
            raise BuildError(f"cannot store {path}: {error}") from error

    def _commit(self, hashes: list[str]) -> None:
        """Make finished objects durable, then visible."""
        if not hashes:
            return
        for shard in {file_hash[:2] for file_hash in hashes}:
            (self._directory / shard).mkdir(exist_ok=True)
        with Directory.open(self._new) as new:
            new.sync()
        for file_hash in hashes:
            os.rename(self._new / file_hash, self.path(file_hash))


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


def link_or_copy(source: Path, target: Path) -> int:
    """Hard link, or copy where the system refuses one (another device); returns the size."""
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError as error:
        if error.errno not in _NO_LINK:
            raise
        shutil.copyfile(source, target)
        shutil.copymode(source, target)
    return target.stat().st_size


_Batch = list[tuple[str, Wanted]]


def _batches(order: Sequence[str], wanted: Mapping[str, Wanted]) -> Iterator[_Batch]:
    batch: _Batch = []
    size = 0
    for file_hash in order:
        batch.append((file_hash, wanted[file_hash]))
        size += wanted[file_hash].size
        if size >= BATCH_BYTES or len(batch) >= BATCH_COUNT:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


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


def _changed(path: str) -> BuildError:
    return BuildError(
        f"{path} changed after it was hashed",
        hint="let nothing write to the root while it is published, and build again",
    )
