"""Two versions of a file → the triples of a BSDIFF4U delta (mixer specification, sections 10.5 and 11).

Two ways to find what they have in common: hdiffpatch, and bsdiff, the classic. A Match is right whoever found it: what
its triples say is exactly the new file. Only its size differs. `proved` applies a delta before it gives it away.

hdiffpatch and bsdiff need all of both files, a multiple of that as memory, and for some pairs minutes. With limits
hdiffpatch runs in a process of its own, which leaves nothing behind however it ends, and only makes TooCostly of it.
The limit that decides is processor time, so that the load of a machine does not decide what a build contains.

hdiffpatch alone is a good choice: for two versions of a server OS, with all deltas in one zstd stream, bsdiff for files
up to 4 MiB takes three times its time and makes the stream 0.9 % larger; the smaller of both deltas of each file, 0.8 %
smaller. Short covers can stay as well: leaving out those under 16 bytes, or joining neighbours, gains or costs 0.2 %.
"""

from __future__ import annotations

import bz2
import math
import os
import signal
import struct
import subprocess
import sys
from array import array
from dataclasses import dataclass

from mixer import hdiff
from mixer.errors import BuildError
from swupd.errors import DeltaError
from swupd.formats.delta import apply, encode

PATIENCE = 5
"""How many times its limit of processor time a process may take on the clock."""

_BSDIFF40_HEADER = struct.Struct("<8sQQQ")
_BSDIFF40_TRIPLE = struct.Struct("<QQQ")
_SIGN = 1 << 63


@dataclass(frozen=True, slots=True)
class Match:
    """What a new file consists of; the arguments of `swupd.formats.delta.encode`."""

    triples: list[tuple[int, int, int]]
    """Bytes to add to old ones, bytes to insert, step in the old file."""
    diff: bytes
    extra: bytes


class TooCostly(Exception):  # noqa: N818 - nothing is wrong
    """No match, for its time, its memory, or because the process crashed: the full file is to be taken."""


def by_hdiffpatch(old: bytes, new: bytes) -> Match:
    """Raises BuildError if this version of hdiffpatch is not understood."""
    try:
        covers = hdiff.covers(old, new)
    except ValueError as error:
        raise BuildError(f"hdiffpatch returned {error}", hint="install hdiffpatch 2.5 or 2.6") from error
    return _match(old, new, covers)


def by_hdiffpatch_limited(old: bytes, new: bytes, *, seconds: float, memory_bytes: int) -> Match:
    """The same match from a process that may use this much processor time (in whole seconds, rounded up), PATIENCE
    times that on the clock, and this much memory, its copy of both files included. Raises TooCostly.

    Eight times the size of the old file is usually enough memory. Besides, both files are in memory once more.
    """
    what = f"comparing files of {len(old)} and {len(new)} bytes"
    with os.fdopen(os.memfd_create("files"), "w+b") as files, os.fdopen(os.memfd_create("covers"), "w+b") as found:
        files.write(old)
        files.write(new)
        files.seek(0)
        numbers = (len(old), len(new), math.ceil(seconds), memory_bytes)
        argv = [sys.executable, "-P", hdiff.__file__, *map(str, numbers)]
        try:
            done = subprocess.run(
                argv, stdin=files, stdout=found, stderr=subprocess.PIPE, timeout=seconds * PATIENCE, check=False
            )
        except subprocess.TimeoutExpired:
            raise TooCostly(f"{what} took more than {seconds * PATIENCE:g} s") from None
        except OSError as error:
            raise TooCostly(f"{what} could not begin: {error.strerror}") from error
        if done.returncode == -signal.SIGXCPU:
            raise TooCostly(f"{what} took more than {math.ceil(seconds)} s of processor time")
        if done.returncode != 0:
            last = done.stderr.decode(errors="replace").strip().rpartition("\n")[2] or f"status {done.returncode}"
            if last.startswith(MemoryError.__name__):
                raise TooCostly(f"{what} needs more than {memory_bytes >> 20} MiB of memory")
            raise TooCostly(f"{what} failed: {last}")
        found.seek(0)
        return _match(old, new, array("q", found.read()))


def by_bsdiff(old: bytes, new: bytes) -> Match:
    """Needs 17 times the size of the old file as memory, and for a library of 22 MB half a minute.

    bsdiff4 returns the classic container, its one public interface: three bzip2 blocks, numbers with a separate sign.
    Unwrapping it costs a seventh of the time.
    """
    import bsdiff4

    container = bsdiff4.diff(old, new)
    _, control_length, diff_length, _ = _BSDIFF40_HEADER.unpack_from(container)
    diff_at = _BSDIFF40_HEADER.size + control_length
    extra_at = diff_at + diff_length
    control = bz2.decompress(container[_BSDIFF40_HEADER.size : diff_at])
    triples = [
        (add, insert, _SIGN - seek if seek & _SIGN else seek)
        for add, insert, seek in _BSDIFF40_TRIPLE.iter_unpack(control)
    ]
    if triples:
        triples[-1] = (*triples[-1][:2], 0)  # it leads nowhere, and not always to a place in the old file
    return Match(triples, bz2.decompress(container[diff_at:extra_at]), bz2.decompress(container[extra_at:]))


def proved(
    old: bytes, new: bytes, match: Match, *, mode: int, uid: int, gid: int, compressed: bool = False
) -> bytes | None:
    """The delta of a match, which was applied before it is returned; None if clients would not take it.

    `mode` (whole st_mode), `uid` and `gid` are those of the new file. `compressed` is for a delta that stands alone.
    """
    delta = encode(len(old), match.triples, match.diff, match.extra, mode=mode, uid=uid, gid=gid, compressed=compressed)
    try:
        return delta if apply(old, delta)[0] == new else None
    except DeltaError:  # more triples, or a larger file, than clients take
        return None


def _match(old: bytes, new: bytes, covers: array[int]) -> Match:
    """Triples from covers: a cover's bytes are added, what follows up to the next one is inserted."""
    import numpy as np

    table = np.frombuffer(covers, np.int64).reshape(-1, 3)
    if not len(table) or table[0, :2].any():
        table = np.vstack((np.zeros((1, 3), np.int64), table))  # adding nothing, to begin elsewhere
    old_at, new_at, lengths = table.T
    inserts = np.append(new_at[1:], len(new)) - (new_at + lengths)
    steps = np.append(old_at[1:] - (old_at + lengths)[:-1], 0)

    old_bytes, new_bytes = np.frombuffer(old, np.uint8), np.frombuffer(new, np.uint8)
    diff = np.empty(lengths.sum(), np.uint8)
    extra = []
    at = 0
    for start, position, length, insert in zip(
        old_at.tolist(), new_at.tolist(), lengths.tolist(), inserts.tolist(), strict=True
    ):
        end = position + length
        np.subtract(new_bytes[position:end], old_bytes[start : start + length], out=diff[at : at + length])
        extra.append(new[end : end + insert])
        at += length
    triples = list(zip(lengths.tolist(), inserts.tolist(), steps.tolist(), strict=True))
    return Match(triples, diff.tobytes(), b"".join(extra))
