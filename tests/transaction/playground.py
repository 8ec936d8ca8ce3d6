"""A machine whose root and state directory can be put back in no time, and `swupd` run on it in forked children.

Each state that was kept is a btrfs subvolume on a small image in memory, so to go back to one takes a millisecond, and
`syncfs` is as real as it gets. Needs root and loop devices.
"""

from __future__ import annotations

import fcntl
import json
import os
import select
import signal
import stat
import struct
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import NamedTuple, NoReturn

from swupd.cli import COMMANDS, GROUP, GROUP_COMMANDS, load, main
from tests.transaction import scenario, seam
from tests.transaction.seam import Call, Interference, Seam

SECONDS = 60
"""How long one command may take on a busy machine."""
IMAGE_BYTES = 256 << 20
HEAVY = ("configfile", "network.fetch", "server", "staging", "transaction.install", "transaction.recovery", "trust")
"""Modules of swupd that commands import when they need them; here once for all children."""

_SNAP_CREATE = 0x50009401
_SUBVOLUME_CREATE = 0x5000940E
_SNAP_DESTROY = 0x5000940F
_ARGUMENTS = "q4088s"
"""struct btrfs_ioctl_vol_args."""
_BUG = 99
"""Exit status of a child that ended with an exception."""
_MAKE = {
    "btrfs": ("mkfs.btrfs", "-q", "-M", "-d", "single", "-m", "single"),
    "ext4": ("mkfs.ext4", "-q", "-m", "0"),
}

Item = tuple[str, int, int, int, bytes, tuple[tuple[str, bytes], ...]]
"""Type, mode, uid, gid, content or target, extended attributes."""
Picture = dict[str, Item]
"""Everything in a root by path. The root itself is ""."""


class State(NamedTuple):
    """All that has to fit together."""

    root: Picture
    tracked: tuple[str, ...]


class Outcome(NamedTuple):
    """What became of a command."""

    status: int
    """Exit status, negative for a signal."""
    output: str
    """Both streams, without the path of the root."""
    calls: tuple[Call, ...]
    """The changing ones. These and the following two only of a run that nobody interfered with."""
    looks: tuple[Call, ...]
    bypassed: tuple[str, ...]
    """Changing calls that did not pass the seam."""
    hit: str
    """The call that was interfered with; empty if it was never reached."""

    def __str__(self) -> str:
        return f"exit status {self.status}\n{self.output}"


class Playground:
    """The directory `run` with a machine: `root` and `state`. Beside it are the states that were kept.

    apart: the two are on file systems of their own, so that nothing can be linked or renamed from one to the other.
    """

    def __init__(self, top: Path, url: str, *, apart: bool = False) -> None:
        self._top = top
        self._subvolumes = ("run/root", "run/state") if apart else ("run",)
        self.url = url
        self.run = top / "run"
        self.root = self.run / "root"
        self.state = self.run / "state"
        _preload()
        if not self.run.exists():
            for name in self._subvolumes:
                (top / name).parent.mkdir(exist_ok=True)
                with _opened((top / name).parent) as fd:
                    _ioctl(fd, _SUBVOLUME_CREATE, 0, Path(name).name)

    def install_ten(self) -> None:
        """Version 10, and what users put there."""
        installed = self.swupd("os-install", "--version", "10", "--bundles", ",".join(scenario.INSTALLED))
        assert installed.status == 0, installed
        scenario.put(self.root, scenario.FOREIGN)

    def keep(self, name: str) -> None:
        """Remember the machine as it is now."""
        self._replace("run", name)

    def restore(self, name: str) -> None:
        """Put it back."""
        self._replace(name, "run")

    def _replace(self, source: str, target: str) -> None:
        for subvolume in self._subvolumes:
            old, new = (self._top / subvolume.replace("run", name, 1) for name in (source, target))
            new.parent.mkdir(exist_ok=True)
            with _opened(new.parent) as parent, _opened(old) as fd:
                if new.exists():
                    _ioctl(parent, _SNAP_DESTROY, 0, new.name)
                _ioctl(parent, _SNAP_CREATE, fd, new.name)

    def argv(self, *command: str) -> list[str]:
        options = ("--path", str(self.root), "--statedir", str(self.state), "--url", self.url)
        # One download at a time, so that the calls come in the same order each time.
        quiet = ("--nosigcheck", "--ignore-time", "--no-scripts", "--no-progress", "--max-parallel-downloads", "1")
        words = 2 if command[0] == GROUP else 1
        return [*command[:words], *options, *quiet, *command[words:]]

    def swupd(self, *argv: str, interference: Interference | None = None, sync_every: int = 0) -> Outcome:
        """Run a command in a forked child."""
        return in_child(self.argv(*argv), str(self.root), interference, sync_every)

    def look(self) -> State:
        """The machine as it is now."""
        tracking = self.state / "bundles"
        tracked = tuple(sorted(os.listdir(tracking))) if tracking.exists() else ()
        return State(picture(self.root), tracked)

    def is_settled(self) -> bool:
        """Whether no journal of an installation is left."""
        return not any("journal" in name for name in os.listdir(self.state))


@contextmanager
def in_memory() -> Iterator[Path]:
    """A directory in memory, or where temporary files are."""
    memory = "/dev/shm"
    with tempfile.TemporaryDirectory(prefix="swupd-", dir=memory if os.access(memory, os.W_OK) else None) as directory:
        yield Path(directory)


def make_file_system(image: Path, size: int, kind: str = "btrfs") -> None:
    """A small file system in a sparse file. Raises CalledProcessError and OSError."""
    with image.open("wb") as file:
        file.truncate(size)
    command(*_MAKE[kind], str(image))


@contextmanager
def mounted(image: Path, top: Path, *options: str) -> Iterator[Path]:
    """An image as a directory, for as long as the block lasts. Raises CalledProcessError where that is not possible."""
    top.mkdir(exist_ok=True)
    command("mount", "-o", ",".join(("loop", *options)), str(image), str(top))
    try:
        yield top
    finally:
        command("umount", str(top))


def command(*argv: str, seconds: float = SECONDS) -> str:
    """Run a program; CalledProcessError or TimeoutExpired if it does not do what it should."""
    return subprocess.run(argv, capture_output=True, text=True, check=True, timeout=seconds).stdout


def picture(root: Path) -> Picture:
    """Everything below a root. The copy of the MoM for users' shells in /var/tmp is nobody's part."""
    found: Picture = {}
    waiting = [("", str(root))]
    while waiting:
        name, place = waiting.pop()
        status = os.lstat(place)
        content = b""
        if stat.S_ISLNK(status.st_mode):
            content = os.readlink(os.fsencode(place))
        elif stat.S_ISREG(status.st_mode):
            with open(place, "rb") as file:
                content = file.read()
        elif stat.S_ISDIR(status.st_mode):
            waiting += [(f"{name}/{entry}", f"{place}/{entry}") for entry in os.listdir(place)]
        if name != "/var/tmp/swupd" and not name.startswith("/var/tmp/swupd/"):
            kind = stat.filemode(status.st_mode)[0]
            names = os.listxattr(place, follow_symlinks=False)
            attributes = tuple((key, os.getxattr(place, key, follow_symlinks=False)) for key in sorted(names))
            found[name] = (kind, stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid, content, attributes)
    return found


def difference(found: Picture, wanted: Picture, shown: int = 5) -> str:
    """How a root differs, in a few words."""
    paths = sorted(path for path in found.keys() | wanted.keys() if found.get(path) != wanted.get(path))
    lines = [f"{path}: {_short(found.get(path))} instead of {_short(wanted.get(path))}" for path in paths[:shown]]
    return f"{len(paths)} paths: " + "; ".join(lines)


def _short(item: Item | None) -> str:
    if item is None:
        return "nothing"
    kind, mode, uid, gid, content, attributes = item
    return f"{kind}{mode:o} {uid}:{gid} {content[:20]!r}" + "".join(f" {key}={value!r}" for key, value in attributes)


def in_child(argv: Sequence[str], root: str, interference: Interference | None = None, sync_every: int = 0) -> Outcome:
    """`swupd ARGV` in a forked child, with a seam."""
    output, report = os.memfd_create("output"), os.memfd_create("report")
    try:
        child = os.fork()
        if child == 0:

            def tell(call: Call) -> None:
                os.write(report, json.dumps({"name": call.name, "arguments": call.arguments}).encode() + b"\n")

            _be_swupd(argv, Seam(root, interference, tell, sync_every=sync_every), output, report)
        status = _wait(child)
        text = _content(output).decode(errors="replace").replace(root, "")
        lines = [json.loads(line) for line in _content(report).splitlines()]
    finally:
        os.close(output)
        os.close(report)
    hit = next((f"{line['name']}({line['arguments']})" for line in lines if "name" in line), "")
    end = next((line for line in lines if "calls" in line), {"calls": (), "looks": (), "bypassed": ()})
    calls, looks = (tuple(Call(*call) for call in end[kind]) for kind in ("calls", "looks"))
    return Outcome(status, text, calls, looks, tuple(end["bypassed"]), hit)


def _be_swupd(argv: Sequence[str], between: Seam, output: int, report: int) -> NoReturn:
    """Never returns; at the end of a run the calls go to `report`."""
    status = _BUG
    try:
        with open(os.devnull, "rb") as nothing:
            os.dup2(nothing.fileno(), 0)
        os.dup2(output, 1)
        os.dup2(output, 2)
        sys.stdin = open(0, closefd=False)  # noqa: SIM115
        sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
        sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115
        os.environ["SWUPD_CONFIG_PATH"] = ""
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
        seam.install(between)
        status = main(argv)
        if between.only_counts:
            calls, looks = ([(c.name, c.arguments, c.in_root) for c in between.calls[kind]] for kind in (False, True))
            _write(report, json.dumps({"calls": calls, "looks": looks, "bypassed": between.bypassed}).encode() + b"\n")
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _write(fd: int, data: bytes) -> None:
    while data:
        data = data[os.write(fd, data) :]


def _wait(child: int) -> int:
    """The child's exit status; a child that takes too long is killed."""
    ended = os.pidfd_open(child)
    try:
        if not select.select([ended], [], [], SECONDS)[0]:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            raise TimeoutError(f"swupd did not end within {SECONDS} s")
    finally:
        os.close(ended)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _content(fd: int) -> bytes:
    return os.pread(fd, os.fstat(fd).st_size, 0)


def _preload() -> None:
    for name in (*COMMANDS, *GROUP_COMMANDS):
        load(name)
    for name in HEAVY:
        import_module(f"swupd.{name}")


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


def _ioctl(fd: int, request: int, argument: int, name: str) -> None:
    fcntl.ioctl(fd, request, bytearray(struct.pack(_ARGUMENTS, argument, os.fsencode(name))))
