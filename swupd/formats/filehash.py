"""The swupd hash of a file, a directory and a link (swupd client specification, section 3; mixer specification, 8).

A hash is 64 lower-case hexadecimal digits over mode, owner, size and data. Names, times, link counts and extended
attributes do not count. A path that does not exist has the hash ZERO_HASH, as deleted entries of manifests have.

Rules:

* Nothing follows a link at the path itself, and nothing blocks: a file that turns into a fifo between `lstat` and
  `open` is reported as unsupported instead of waiting for a writer.
* Mode, owner and size of a file come from the opened file, and no more than that size is read. So a file that changes
  meanwhile has the hash of one of its states or of no object at all, and a file that grows without end does not hold
  anybody up.
* A file up to WHOLE_READ_LIMIT is read at once, because one `read` and one `hmac.digest` are the cheapest way;
  a larger one goes through a constant amount of memory.
* `hash_paths` may be called from any thread. It reads large files on its own threads (`read` and `hmac.digest` release
  the interpreter lock) and returns when all of them have ended.

Other errors of the system (permission, I/O) are raised as the OSError that they are: the caller knows what the path was
for.
"""

from __future__ import annotations

import errno
import hmac
import os
import stat
import struct
from binascii import hexlify
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

from swupd.errors import FormatError

ZERO_HASH = "0" * 64
"""The hash of what does not exist."""
UNSUPPORTED = ""
"""What `hash_paths` says of a device, fifo or socket."""
DIRECTORY_DATA = b"DIRECTORY"

WHOLE_READ_LIMIT = 64 * 1024 * 1024
"""Bytes; a larger file is read in pieces."""
PIECE_BYTES = 1024 * 1024
"""Bytes of one such piece."""
LARGE_BYTES = 64 * 1024
"""A file of this size is worth another thread. A smaller one is not: its few microseconds are spent in the interpreter,
for whose lock threads would only wait (measured on two cores: 7 microseconds a file on one thread, 15 on two)."""
BATCH_BYTES = 8 * 1024 * 1024
"""Bytes of large files that make a task for a thread: enough that handing it over costs nothing, little enough that all
cores are busy until the end."""

_STAT = struct.Struct("<5Q")
_OPEN_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
_GONE = frozenset({errno.ENOENT, errno.ENOTDIR})
_NOT_A_FILE = frozenset({errno.ENXIO, errno.ELOOP, errno.ENODEV})


class UnsupportedTypeError(FormatError):
    """A device, fifo or socket: such objects have no hash and are never content."""


class Found(NamedTuple):
    """One name of a walked tree."""

    name: str
    """Absolute within the walked root: "/usr/bin/ls"."""
    path: str
    """The same below the root as it was given."""
    status: os.stat_result
    """From lstat."""


def hash_content(mode: int, uid: int, gid: int, data: bytes) -> str:
    """The hash of a regular file; `mode` is the whole st_mode, type bits included."""
    return hmac.digest(_key(mode, uid, gid, len(data)), data, "sha256").hex()


def hash_directory(mode: int, uid: int, gid: int) -> str:
    """The hash of a directory, whatever its name and content; `mode` is the whole st_mode."""
    return hmac.digest(_key(mode, uid, gid, 0), DIRECTORY_DATA, "sha256").hex()


def hash_link(uid: int, gid: int, target: bytes) -> str:
    """The hash of a symbolic link with this text; its mode never counts."""
    return hmac.digest(_key(0, uid, gid, len(target)), target, "sha256").hex()


class ContentHasher:
    """The hash of a regular file whose content arrives in pieces; `size` in bytes is known before the first one."""

    def __init__(self, mode: int, uid: int, gid: int, size: int) -> None:
        self._hmac = hmac.new(_key(mode, uid, gid, size), digestmod="sha256")

    def update(self, chunk: bytes) -> None:
        self._hmac.update(chunk)

    def hexdigest(self) -> str:
        """The hash of what was given; it is an object's only if that were exactly `size` bytes."""
        return self._hmac.hexdigest()


def hash_path(path: str | bytes, *, dir_fd: int | None = None) -> str:
    """The hash of what is at `path` (relative to the directory `dir_fd` if given), ZERO_HASH if there is nothing.

    Raises UnsupportedTypeError for devices, fifos and sockets, OSError for what the system refuses.
    """
    try:
        return _hash_object(path, os.lstat(path, dir_fd=dir_fd), dir_fd)
    except OSError as error:
        if error.errno in _GONE:
            return ZERO_HASH
        raise


def hash_paths(paths: Sequence[str], *, workers: int = 0) -> list[str]:
    """The hashes of many paths, in their order; ZERO_HASH for missing and UNSUPPORTED for unsupported ones.

    `workers` threads besides the calling one read large files; 0 is one per core, and with 1 there are none at all.
    Raises OSError for what the system refuses.
    """
    results = [ZERO_HASH] * len(paths)

    def hash_batch(batch: Sequence[tuple[int, os.stat_result]]) -> None:
        for position, status in batch:
            results[position] = _hash_or_say_why_not(paths[position], status)

    threads = workers or os.cpu_count() or 1
    with ThreadPoolExecutor(threads, thread_name_prefix="hash") as pool:
        tasks: list[Future[None]] = []
        batch: list[tuple[int, os.stat_result]] = []
        size = 0
        try:
            for position, path in enumerate(paths):
                status = _lstat(path)
                if status is None:
                    continue
                if threads == 1 or status.st_size < LARGE_BYTES:
                    results[position] = _hash_or_say_why_not(path, status)
                    continue
                batch.append((position, status))
                size += status.st_size
                if size >= BATCH_BYTES:
                    tasks.append(pool.submit(hash_batch, batch))
                    batch, size = [], 0
            if batch:
                tasks.append(pool.submit(hash_batch, batch))
            for task in tasks:
                task.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return results


def walk(root: str, *, one_file_system: bool = True) -> Iterator[Found]:
    """Everything below `root` (not itself) in byte order of the names, as manifests have them; links are not followed.

    With `one_file_system`, mount points are named but not entered. What vanishes during the walk is left out. Raises
    OSError for what the system refuses. Memory is that of the listings of one path from the root to a leaf.
    """
    base = root.rstrip("/")
    device = os.stat(root).st_dev
    # In byte order of whole names "/a-b" lies between "/a" and "/a/c". So a directory stands in its parent's listing
    # twice: with its own name, and as "name/" where its content belongs.
    stack = [iter(_listing(root, "", base, follow=True))]
    while stack:
        step = next(stack[-1], None)
        if step is None:
            stack.pop()
        elif not step[0].endswith(b"/"):
            yield step[1]
        elif not one_file_system or step[1].status.st_dev == device:
            stack.append(iter(_listing(step[1].path, step[1].name, base)))


def _key(mode: int, uid: int, gid: int, size: int) -> bytes:
    """The key of the data: the *text* of an inner HMAC, whose own message (extended attributes) is always empty."""
    return hexlify(hmac.digest(_STAT.pack(mode, uid, gid, 0, size), b"", "sha256"))


def _hash_object(path: str | bytes, status: os.stat_result, dir_fd: int | None = None) -> str:
    mode = status.st_mode
    if stat.S_ISREG(mode):
        return _hash_file(path, dir_fd)
    if stat.S_ISDIR(mode):
        return hash_directory(mode, status.st_uid, status.st_gid)
    if stat.S_ISLNK(mode):
        return hash_link(status.st_uid, status.st_gid, os.readlink(os.fsencode(path), dir_fd=dir_fd))
    raise _unsupported(path)


def _hash_file(path: str | bytes, dir_fd: int | None) -> str:
    try:
        descriptor = os.open(path, _OPEN_FLAGS, dir_fd=dir_fd)
    except OSError as error:
        if error.errno in _NOT_A_FILE:  # became a socket, a link or a device without driver since lstat
            raise _unsupported(path) from error
        raise
    try:
        status = os.fstat(descriptor)
        mode, uid, gid, size = status.st_mode, status.st_uid, status.st_gid, status.st_size
        if not stat.S_ISREG(mode):
            raise _unsupported(path)
        data = os.read(descriptor, size if size <= WHOLE_READ_LIMIT else PIECE_BYTES) if size else b""
        if len(data) == size:
            return hash_content(mode, uid, gid, data)
        hasher = ContentHasher(mode, uid, gid, size)
        while data:
            hasher.update(data)
            size -= len(data)
            data = os.read(descriptor, min(size, PIECE_BYTES)) if size else b""
        return hasher.hexdigest()
    finally:
        os.close(descriptor)


def _unsupported(path: str | bytes) -> UnsupportedTypeError:
    return UnsupportedTypeError(
        f"{os.fsdecode(path)} is neither a file nor a directory nor a symbolic link",
        hint="devices, fifos and sockets cannot be part of a bundle",
    )


def _lstat(path: str) -> os.stat_result | None:
    try:
        return os.lstat(path)
    except OSError as error:
        if error.errno in _GONE:
            return None
        raise


def _hash_or_say_why_not(path: str, status: os.stat_result) -> str:
    try:
        return _hash_object(path, status)
    except UnsupportedTypeError:
        return UNSUPPORTED
    except OSError as error:
        if error.errno in _GONE:
            return ZERO_HASH
        raise


def _listing(path: str, name: str, base: str, *, follow: bool = False) -> list[tuple[bytes, Found]]:
    """One directory in the order of a walk: (sort key, what), with a second key "name/" for each directory."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW)
    try:
        descriptor = os.open(path, flags)
    except OSError as error:
        if not follow and (error.errno in _GONE or error.errno == errno.ELOOP):
            return []
        raise
    steps: list[tuple[bytes, Found]] = []
    try:
        with os.scandir(descriptor) as entries:
            for entry in entries:
                try:
                    status = entry.stat(follow_symlinks=False)
                except FileNotFoundError:
                    continue
                key = os.fsencode(entry.name)
                full = f"{name}/{entry.name}"
                found = Found(full, base + full, status)
                steps.append((key, found))
                if stat.S_ISDIR(status.st_mode):
                    steps.append((key + b"/", found))
    finally:
        os.close(descriptor)
    steps.sort(key=lambda step: step[0])
    return steps
