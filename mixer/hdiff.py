"""What two files have in common, as hdiffpatch finds it: in this process, or as a program with limits.

A *cover* is a part of the new file that resembles a part of the old one: position in the old file, position in the new
one, length. `covers` returns them one after the other, in the order of the new file, without overlaps there.

hdiffpatch returns them in a container, HDIFF13. With nothing compressed it is a name that ends with a NUL byte, eleven
packed integers, and the covers; the different bytes behind them do not matter here. A packed integer consists of groups
of seven bits, the highest first; the top bit of a byte says that another one follows. A signed one has its sign in the
top bit of the first byte, and six bits there. An hdiffpatch of the future that writes something else is a ValueError.

As a program it reads both files from standard input and writes the covers to standard output, as numbers of 64 bits.
Too little memory is a MemoryError, too much processor time SIGXCPU. It imports nothing of ours and so can be run by its
path, whatever the caller's way to find modules is.
"""

from __future__ import annotations

import resource
import sys
from array import array
from collections.abc import Callable

_NAME = b"HDIFF13&\0"
_INTEGERS = 11
"""New size, old size, count of covers, bytes of covers, their bytes compressed, and six that do not matter here."""


def covers(old: bytes, new: bytes) -> array[int]:
    """Old position, new position and length of each cover; raises ValueError for an hdiffpatch that is not understood.

    The match cache halves the time for unlike files and changes no byte of the result.
    """
    import hdiffpatch

    return parse(hdiffpatch.diff(old, new, None, validate=False, big_cache_match=True), len(old), len(new))


def parse(container: bytes, old_size: int, new_size: int) -> array[int]:
    """The covers in a container for files of these sizes; raises ValueError for anything else."""
    if not container.startswith(_NAME):
        raise ValueError("not an uncompressed HDIFF13 container")
    take = iter(memoryview(container)[len(_NAME) :]).__next__
    found = array("q")
    try:
        integers = [_integer(take, take()) for _ in range(_INTEGERS)]
        if integers[:2] != [new_size, old_size] or integers[4] != 0:
            raise ValueError("an HDIFF13 container for other files, or a compressed one")
        old_end = new_end = 0
        for _ in range(integers[2]):
            first = take()
            distance = _integer(take, first, 6)
            old_at = old_end - distance if first & 0x80 else old_end + distance
            new_at = new_end + _integer(take, take())
            length = _integer(take, take())
            old_end, new_end = old_at + length, new_at + length
            if not (old_at >= 0 and old_end <= old_size and new_end <= new_size):
                raise ValueError("an HDIFF13 container with a cover outside of the files")
            found.extend((old_at, new_at, length))
    except StopIteration:
        raise ValueError("an HDIFF13 container that is cut off") from None
    return found


def _integer(take: Callable[[], int], byte: int, bits: int = 7) -> int:
    """The packed integer that begins with the lowest `bits` of this byte; the bit above says whether it goes on."""
    value = byte & (1 << bits) - 1
    more = byte >> bits & 1
    while more:
        byte = take()
        value = value << 7 | byte & 0x7F
        more = byte >> 7
    return value


def main(old_size: int, new_size: int, seconds: int, memory_bytes: int) -> None:
    import hdiffpatch  # noqa: F401 - before the limit, under which it could fail for other reasons

    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_CPU, seconds)
    _limit(resource.RLIMIT_AS, memory_bytes)
    old = sys.stdin.buffer.read(old_size)
    new = sys.stdin.buffer.read(new_size)
    covers(old, new).tofile(sys.stdout.buffer)


def _limit(kind: int, value: int) -> None:
    """Lower a soft limit; the hard one, which would kill without saying why, stays."""
    hard = resource.getrlimit(kind)[1]
    resource.setrlimit(kind, (value if hard == resource.RLIM_INFINITY else min(value, hard), hard))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
