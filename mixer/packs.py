"""Zero packs: everything of one bundle at one version in one archive (mixer specification, section 10.2).

A pack is one zstd stream over an uncompressed tar, made from the content store, so its content was checked against the
hashes of the manifest twice: when it was stored, and when it is read back. Every stock `zstd | tar` reads it.

Rules:

* The bytes of a pack follow from the hashes of its members and the objects in the store. It is kept in `cache/packs`
  under a key over both, so that building a version again costs a hard link.
* Members stand sorted by the ending of their names and then by path, like beside like; each hash comes once.
* Packs are made on threads, the largest first and each on several, so that one large bundle does not leave cores idle.
  The bytes do not depend on the number of threads. A pack appears in the cache whole and durable, as objects do.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Lock

import zstandard

from mixer.content import COMMIT_BYTES, PUBLISHED_MODE, ContentStore, link_or_copy
from swupd.formats import archive, layout
from swupd.formats.archive import Member
from swupd.formats.manifest import Entry
from swupd.fs import Directory
from swupd.report import Report

PACK_LEVEL = 17
"""zstd level of a pack. The eight packs of a server OS, 348 MB of content, with a window of 32 MiB:

    level    9      12     15     17     19
    MB     100.1   97.6   97.0   92.8   89.3
    CPU s    8      13     49     86    144     (both cores and their memory busy; the first core alone needs 2/3)

Every bundle that changed gets a whole new pack, though most of its content did not change, so this is the most
expensive step of a build. With 17 two versions of such an OS, all included, take 135 s on two cores. With frames that
are made once and used again by the next version, 19 will be worth its time."""

WINDOW_LOG = 25
"""32 MiB of history, which is memory of every client that unpacks the pack. 8 MiB make the packs of an OS 1.5 % larger,
128 MiB make them 0.4 % smaller.

The order of the members matters little within such a window: manifest order, order by ending and base name, and order
by ending and path differ by 0.2 % at level 9."""

JOB_BYTES = 32 << 20
JOB_OVERLAP = 6
"""Content that one thread compresses at a time, and how much before it is at hand (an eighth of the window). 100 MB of
libraries on two cores, against one job: 16.9 s instead of 28.4, 12 % more CPU, 0.4 % more bytes. With half a window of
overlap, the library's own choice, it is 28.1 s in jobs of 16 MiB and 21.1 in jobs of 32, and no byte more."""

_RECIPE = b"zero pack 3"
"""First part of the key of a cached pack; to be changed together with what a pack is made like."""

_BLOCK = 512
_ENDING = re.compile(r"\.so[.0-9]*$|\.[^./]+$")


@dataclass(frozen=True, slots=True)
class PackJob:
    """One pack to make."""

    name: str
    """The bundle."""
    hashes: Sequence[str]
    """Its members in the order of the archive."""
    size: int
    """Bytes of content."""


class PackCache:
    """Finished packs by what they contain."""

    def __init__(self, directory: Path, store: ContentStore) -> None:
        self._directory = directory
        self._new = directory / ".new"
        self._store = store

    def path(self, job: PackJob) -> Path:
        """Where the pack lies if it was made before."""
        return self._directory / self._key(job)

    def missing(self, jobs: Iterable[PackJob]) -> list[PackJob]:
        return [job for job in jobs if not self.path(job).exists()]

    def make(self, jobs: Iterable[PackJob], report: Report, *, workers: int = 0) -> int:
        """Make the packs that are not there yet, on `workers` threads (0: all cores); returns how many those were.

        Needs all their objects in the store. Raises BuildError.
        """
        lacking = sorted(self.missing(jobs), key=lambda job: (-job.size, job.name))
        if not lacking:
            return 0
        shutil.rmtree(self._new, ignore_errors=True)
        self._new.mkdir(parents=True)
        progress = _Progress(report, sum(job.size for job in lacking))
        finished: list[PackJob] = []
        threads = workers or os.cpu_count() or 1
        with ThreadPoolExecutor(threads, thread_name_prefix="packs") as pool:
            try:
                for made in as_completed([pool.submit(self._make, job, threads, progress) for job in lacking]):
                    finished.append(made.result())
                    if sum(done.size for done in finished) >= COMMIT_BYTES:
                        self._commit(finished)
                        finished = []
            except BaseException:
                progress.stop()
                pool.shutdown(wait=True, cancel_futures=True)
                raise
            finally:
                self._commit(finished)
                shutil.rmtree(self._new, ignore_errors=True)
        return len(lacking)

    def link(self, job: PackJob, target: Path) -> int:
        """Publish a finished pack; returns its size in bytes."""
        return link_or_copy(self.path(job), target)

    def _commit(self, jobs: list[PackJob]) -> None:
        """Make finished packs durable, then visible."""
        if jobs:
            with Directory.open(self._new) as new:
                new.sync()
            for job in jobs:
                os.rename(self._new / job.name, self.path(job))

    def _make(self, job: PackJob, threads: int, progress: _Progress) -> PackJob:
        expected = job.size + 2 * _BLOCK * (len(job.hashes) + 4)
        window_log = min(WINDOW_LOG, expected.bit_length())
        parameters = zstandard.ZstdCompressionParameters.from_level(
            PACK_LEVEL,
            source_size=expected,
            window_log=max(window_log, zstandard.WINDOWLOG_MIN),
            write_checksum=True,
            job_size=JOB_BYTES,
            overlap_log=JOB_OVERLAP,
            threads=threads,
        )
        compressor = zstandard.ZstdCompressor(compression_params=parameters)
        with (self._new / job.name).open("xb") as target:
            os.fchmod(target.fileno(), PUBLISHED_MODE)
            writer = compressor.stream_writer(target, closefd=False)
            archive.write_pack(writer, self._members(job, progress))
            writer.flush(zstandard.FLUSH_FRAME)
        return job

    def _members(self, job: PackJob, progress: _Progress) -> Iterator[tuple[Member, Iterable[bytes]]]:
        for file_hash in job.hashes:
            with self._store.open(file_hash) as (member, chunks):
                yield replace(member, name=layout.staged_name(file_hash)), chunks
            progress.add(member.size)

    def _key(self, job: PackJob) -> str:
        digest = hashlib.sha256(b"%b %d %d\n" % (_RECIPE, PACK_LEVEL, WINDOW_LOG))
        digest.update("\n".join(job.hashes).encode())
        return digest.hexdigest()


def zero_pack(bundle: str, entries: Iterable[Entry], sizes: Mapping[str, int]) -> PackJob:
    """What belongs into the zero pack of a bundle, given its entries and the size of the content at each path."""
    present = [entry for entry in entries if entry.is_present]
    present.sort(key=_order)
    first = {entry.hash: entry.name for entry in reversed(present)}
    hashes = list(dict.fromkeys(entry.hash for entry in present))
    return PackJob(bundle, hashes, sum(sizes[first[file_hash]] for file_hash in hashes))


class _Progress:
    """Content of all packs that is done, whichever thread did it."""

    def __init__(self, report: Report, total: int) -> None:
        self._report = report
        self._total = total
        self._done = 0
        self._lock = Lock()
        self._stopped = False

    def add(self, size: int) -> None:
        """Raises CancelledError after `stop`: nobody wants to wait for packs that are thrown away."""
        with self._lock:
            self._done += size
            if self._stopped:
                raise CancelledError
        self._report.progress(self._done, self._total)

    def stop(self) -> None:
        with self._lock:
            self._stopped = True


def _order(entry: Entry) -> tuple[str, str]:
    base = entry.name.rpartition("/")[2]
    match = _ENDING.search(base)
    ending = match[0] if match else ""
    return (".so" if ending.startswith(".so") else ending, entry.name)
