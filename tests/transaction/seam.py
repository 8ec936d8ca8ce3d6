"""Stands between `swupd.fs` and the system: counts the calls that change a file system, interferes with one of them.

`install` replaces the name `os` in `swupd.fs`, and the C library there, for the rest of this process: it is meant for a
forked child. Whatever `swupd.fs` calls that can change something passes `Seam.before`, also what is written through a
file object; an audit hook of the interpreter notes what passes by (`Seam.bypassed`). Calls that only look (to open for
reading, to list, to stat) are counted by themselves: they too can fail, for want of memory or descriptors, but a
process that is killed before one of them is no case of its own.
"""

from __future__ import annotations

import ctypes
import errno
import io
import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import swupd.fs

KILL = 0
END = -signal.SIGTERM
CHANGING = re.compile(
    "[fl]?chmod|[fl]?chown|copy_file_range|f?truncate|f(data)?sync|sync|link|symlink|makedirs|mkdir|mkfifo|mknod|"
    "posix_fallocate|p?writev?|removedirs|remove|rmdir|unlink|renames?|replace|(set|remove)xattr|sendfile|splice|utime"
)
LOOKING = re.compile("[fl]?stat|f?statvfs|listdir|scandir|open|readlink|(get|list)xattr")
CHANGING_IN_C = frozenset({"fallocate", "linkat", "renameat2", "sync", "syncfs", "utimensat"})
AUDITED = re.compile(r"os\.(chmod|chown|link|mkdir|remove|rename|rmdir|setxattr|symlink|truncate|utime)")
"""The events of changing calls; "open" is one too."""
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
NAMES = {KILL: "killed", END: "asked to end"}


class Interference(NamedTuple):
    """What happens to the call number `at`, counted from 1."""

    at: int
    error: int = KILL
    """The errno that it fails with; KILL kills the process before the call, or in the middle of a write; END asks it to
    end and lets the call go on."""
    lasting: bool = False
    """All later calls of the kind fail as well: the disk stays full, or is broken."""
    looking: bool = False
    """Count the calls that look instead of those that change."""

    def __str__(self) -> str:
        what = NAMES.get(self.error) or errno.errorcode[self.error]
        return f"{'looking ' if self.looking else ''}call {self.at} {what}{' from then on' if self.lasting else ''}"


@dataclass(frozen=True)
class Call:
    """One counted call."""

    name: str
    arguments: str
    in_root: bool
    """Whether it concerns the root, and neither the state directory nor what is only a convenience in /var/tmp."""


class Seam:
    """Counts, and interferes. `told` is given each call with which it interferes, before it does.

    sync_every: write the file system to its disk after each such number of changing calls, as the kernel may anyway.
    """

    def __init__(
        self, root: str, interference: Interference | None, told: Callable[[Call], None], *, sync_every: int = 0
    ) -> None:
        self.calls: dict[bool, list[Call]] = {False: [], True: []}
        """Those that change and (True) those that look."""
        self.bypassed: list[str] = []
        """Changing calls of somebody else."""
        self._inside = threading.local()
        self._root = root
        self._interference = interference
        self._told = told
        self._sync_every = sync_every
        self._lock = threading.Lock()

    @property
    def only_counts(self) -> bool:
        return self._interference is None

    def before(self, name: str, arguments: tuple[Any, ...], options: dict[str, Any], *, looking: bool) -> int:
        """Count a call; the errno that it has to fail with, or 0."""
        wish = self._interference
        with self._lock:
            calls = self.calls[looking]
            number = len(calls) + 1
            if self._sync_every and not looking and number % self._sync_every == 0:
                self._sync()
            hit = wish is not None and wish.looking == looking and wish.at == number
            calls.append(self._describe(name, arguments, options) if wish is None or hit else _UNNAMED)
            if wish is None or wish.looking != looking:
                return 0
            if hit:
                self._told(calls[-1])
                if wish.error == KILL:
                    if name == "write":
                        os.write(arguments[0], bytes(arguments[1])[: len(arguments[1]) // 2])
                    os.kill(os.getpid(), signal.SIGKILL)
                    signal.pause()
                if wish.error == END:
                    os.kill(os.getpid(), signal.SIGTERM)
                return max(0, wish.error)
            return wish.error if wish.lasting and number > wish.at else 0

    @contextmanager
    def passing(self) -> Iterator[None]:
        """What this thread does now has been counted."""
        self._inside.now = True
        try:
            yield
        finally:
            self._inside.now = False

    def audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        """An audit hook."""
        opens = event == "open" and type(arguments[0]) is not int and arguments[2] & _WRITING
        if (opens or AUDITED.fullmatch(event)) and not getattr(self._inside, "now", False):
            self.bypassed.append(f"{event} {arguments[0]}")

    def _sync(self) -> None:
        fd = os.open(self._root, os.O_RDONLY)
        ctypes.CDLL(None).syncfs(fd)
        os.close(fd)

    def _describe(self, name: str, arguments: tuple[Any, ...], options: dict[str, Any]) -> Call:
        shown = [*map(_shown, arguments), *(f"{key}={_shown(value)}" for key, value in options.items())]
        descriptors = [options.get(key) for key in ("dir_fd", "src_dir_fd", "dst_dir_fd")]
        places = [_path_of(fd) for fd in (*descriptors, *arguments[:1]) if type(fd) is int]
        return Call(name, ", ".join(shown), any(self._is_in_root(place) for place in places))

    def _is_in_root(self, place: str) -> bool:
        place += "/"
        return place.startswith(f"{self._root}/") and not place.startswith(f"{self._root}/var/tmp/")


_UNNAMED = Call("", "", in_root=False)


def install(seam: Seam) -> None:
    """Put the seam below `swupd.fs` in this process."""
    swupd.fs.os = _Os(seam)  # type: ignore[assignment]
    library = _Library(ctypes.CDLL(None, use_errno=True), seam)
    swupd.fs._libc = lambda: library  # type: ignore[assignment,return-value]
    sys.addaudithook(seam.audit)


class _Os:
    """The module `os` with the seam in it."""

    def __init__(self, seam: Seam) -> None:
        self._seam = seam

    def __getattr__(self, name: str) -> Any:
        real = getattr(os, name)
        if name == "fdopen":
            return self._fdopen
        if not CHANGING.fullmatch(name) and not LOOKING.fullmatch(name):
            return real

        def call(*arguments: Any, **options: Any) -> Any:
            looking = bool(LOOKING.fullmatch(name)) and not (name == "open" and arguments[1] & _WRITING)
            error = self._seam.before(name, arguments, options, looking=looking)
            if error:
                raise OSError(error, os.strerror(error))
            with self._seam.passing():
                return real(*arguments, **options)

        setattr(self, name, call)
        return call

    def _fdopen(self, fd: int, mode: str = "r", *options: Any, **more: Any) -> Any:
        if mode == "rb":
            return os.fdopen(fd, mode, *options, **more)
        assert (mode, options, more) == ("wb", (), {}), "teach this seam to count the writes of such a file"
        return io.BufferedWriter(_Raw(fd, self))


class _Raw(io.FileIO):
    """A file whose writes are counted."""

    def __init__(self, fd: int, system: _Os) -> None:
        super().__init__(fd, "wb")
        self._system = system

    def write(self, data: Any) -> int:
        written: int = self._system.write(self.fileno(), data)
        return written


class _Library:
    """The C library with the seam in it."""

    def __init__(self, library: ctypes.CDLL, seam: Seam) -> None:
        self._library = library
        self._seam = seam

    def __getattr__(self, name: str) -> Any:
        real = getattr(self._library, name)
        assert name in CHANGING_IN_C, f"does {name} change a file system?"

        def call(*arguments: Any) -> int:
            error = self._seam.before(name, arguments, {}, looking=False)
            if error:
                ctypes.set_errno(error)
                return -1
            result: int = real(*arguments)
            return result

        return call


def _path_of(fd: int) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{fd}")
    except OSError:
        return ""


def _shown(value: Any) -> str:
    if isinstance(value, bytes | bytearray | memoryview):
        return f"<{len(value)} bytes>"
    return repr(value)
