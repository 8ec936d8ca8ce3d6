"""A disk that remembers every write, and what would be on it if the power had failed at any moment.

`Recorder` puts an image behind `qemu-storage-daemon`, which logs each write and flush and exports the disk as a file
through FUSE; a loop device makes it mountable. `replay` brings a copy of the first state of the image forward, one
prefix of the log after the other. The log has the format of dm-log-writes: a superblock in the first sector, then for
each write one sector of header and its data. Everything that is started is ended when the block is left.
"""

from __future__ import annotations

import os
import struct
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from tests.transaction.playground import command, mounted

PROGRAM = "qemu-storage-daemon"
IMAGE_BYTES = 128 << 20
"""Hardly more than the smallest btrfs."""
START_SECONDS = 20
STOP_SECONDS = 60
_POLL_SECONDS = 0.02

_SECTOR_BYTES = 512
_BLOCK_BYTES = 4096
_SUPERBLOCK = struct.Struct("<QQQI")
_ENTRY = struct.Struct("<QQQQ")
_MAGIC = 0x6A736677736872
_FLUSH, _FUA, _DISCARD = 1, 2, 4


class Write(NamedTuple):
    """What the log says of one write."""

    offset: int
    size: int
    """Bytes on the disk."""
    data: int
    """Where its bytes begin in the log."""
    flags: int
    end: int
    """Where it ends in the log."""

    @property
    def is_barrier(self) -> bool:
        return bool(self.flags & (_FLUSH | _FUA))

    def pieces(self) -> Iterator[Write]:
        """The same in blocks, between any two of which the power may fail."""
        if self.flags & _DISCARD or self.size <= _BLOCK_BYTES:
            yield self
            return
        for start in range(0, self.size, _BLOCK_BYTES):
            size = min(_BLOCK_BYTES, self.size - start)
            last = start + size == self.size
            yield Write(
                self.offset + start, size, self.data + start, self.flags if last else 0, self.data + start + size
            )


class Recorder:
    """The log of a disk that is being written to."""

    def __init__(self, log: Path, top: Path) -> None:
        self._log = log
        self.top = top
        """Where the disk is mounted."""

    def position(self) -> int:
        """How much has been logged: what is on the disk if the power fails now."""
        return self._log.stat().st_size


@contextmanager
def recorded(image: Path, log: Path, top: Path) -> Iterator[Recorder]:
    """Mount an image and log all that is written to it. Raises OSError, CalledProcessError, TimeoutError."""
    disk, pid_file = log.with_suffix(".disk"), log.with_suffix(".pid")
    disk.touch()
    log.touch()
    argv = [
        *(PROGRAM, "--pidfile", str(pid_file)),
        *("--blockdev", f"driver=file,node-name=image,filename={image}"),
        *("--blockdev", f"driver=file,node-name=log,filename={log}"),
        *("--blockdev", f"driver=blklogwrites,node-name=disk,file=image,log=log,log-sector-size={_SECTOR_BYTES}"),
        *("--export", f"type=fuse,id=export,node-name=disk,mountpoint={disk},writable=on"),
    ]
    daemon = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        _await(daemon, pid_file)
        with mounted(disk, top):
            yield Recorder(log, top)
    finally:
        daemon.terminate()
        try:
            daemon.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            daemon.kill()
            daemon.wait()
        assert daemon.stderr is not None
        daemon.stderr.close()


def _await(daemon: subprocess.Popen[str], pid_file: Path) -> None:
    """The daemon writes its pid file when its exports are there."""
    ready_by = time.monotonic() + START_SECONDS
    while not (pid_file.exists() and pid_file.read_text().strip()):
        if daemon.poll() is not None:
            assert daemon.stderr is not None
            raise OSError(f"{PROGRAM} ended: {daemon.stderr.read().strip()}")
        if time.monotonic() > ready_by:
            raise TimeoutError(f"{PROGRAM} was not ready within {START_SECONDS} s")
        time.sleep(_POLL_SECONDS)


def read_log(log: Path) -> list[Write]:
    """All writes of a finished log, in blocks."""
    writes = []
    with log.open("rb") as file:
        magic, _version, count, sector = _SUPERBLOCK.unpack(file.read(_SUPERBLOCK.size))
        assert magic == _MAGIC
        place = sector
        for _ in range(count):
            file.seek(place)
            start, sectors, flags, _ = _ENTRY.unpack(file.read(_ENTRY.size))
            size = sectors * sector
            data = place + sector
            place = data + (0 if flags & _DISCARD else size)
            writes += Write(start * sector, size, data, flags, place).pieces()
    return writes


def replay(image: Path, log: Path, writes: Sequence[Write], prefixes: Sequence[int], target: Path) -> Iterator[int]:
    """For each of the growing numbers in `prefixes`: `target` is the disk after so many writes. `image` is changed."""
    done = 0
    with log.open("rb") as source, image.open("r+b") as disk:
        for prefix in prefixes:
            for write in writes[done:prefix]:
                _apply(write, source.fileno(), disk.fileno())
            done = prefix
            target.unlink(missing_ok=True)
            command("cp", "--sparse=always", "--reflink=auto", str(image), str(target))
            yield prefix


def _apply(write: Write, source: int, disk: int) -> None:
    if write.flags & _DISCARD:
        # What was given back may hold anything: zeros are the least helpful.
        os.pwrite(disk, bytes(write.size), write.offset)
        return
    data = os.pread(source, write.size, write.data)
    assert len(data) == write.size, "the log is cut off"
    os.pwrite(disk, data, write.offset)
