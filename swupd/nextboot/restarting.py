"""What follows when the running system was switched to another deployment: accounts, temporary files, services.

A service is restarted if it runs or maps a file that the new deployment has not, or has with other content, or if its
unit file or a drop-in of it changed. That is seen at the processes themselves (/proc/PID/maps), so it does not matter
how many versions ago they began, nor whether those are still there. Of a program in a script the script counts too, if
it was named on the command line; what it has imported cannot be seen. A service that had mounts of its own over /usr,
/etc or /boot (ProtectSystem, InaccessiblePaths, BindPaths and their like) is restarted as well: the switch has covered
them, and with them its protection.

* Never restarted: what a session or the whole system hangs on (D-Bus, logind, getty, users' managers, the display
  manager), what systemd does not let one restart, and the unit that this process belongs to. Those, sessions, and
  programs of no unit go on with what they have, and are named.
* PID 1 executes itself anew if it runs old files.
* Nothing here fails: what goes wrong is a warning. Where systemd does not run, nothing happens.
"""

from __future__ import annotations

import filecmp
import hashlib
import os
import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from swupd import process
from swupd.errors import CommandError
from swupd.nextboot.place import Place
from swupd.report import Report
from swupd.system import MOUNTS, runs_systemd

SWITCHED = ("usr", "boot", "etc")
"""The directories below the root over which a switch mounts others."""
SECONDS = 300.0
"""How long each of the programs may take; services go on starting after that."""
_OUTPUT_LIMIT = 4 << 10
_SYSTEMCTL = "usr/bin/systemctl"
_SYSUSERS = "usr/bin/systemd-sysusers"
_TMPFILES = "usr/bin/systemd-tmpfiles"
_NEVER = re.compile(
    r"(dbus|dbus-broker|systemd-logind|display-manager|user@.*|user-runtime-dir@.*|(serial-|container-)?getty@.*|"
    r"console-getty|emergency|rescue|swupd-.*)\.service"
)
_PROPERTIES = ("Id", "Names", "SubState", "FragmentPath", "DropInPaths", "RefuseManualStart", "RefuseManualStop")
_UNIT_SUFFIXES = (".service", ".scope")
_SCRIPT_ARGUMENTS = 3
"""A script is one of the first arguments of its interpreter."""


@dataclass(frozen=True)
class Service:
    """A service that is running."""

    names: frozenset[str]
    """Its aliases included."""
    files: tuple[tuple[str, str], ...]
    """Its unit file and drop-ins, each with a digest of its content."""
    may_restart: bool


class Before(NamedTuple):
    """The services before a switch."""

    running: Mapping[str, Service]
    covered: frozenset[str]
    """The units with mounts of their own that the switch covers."""


class Process(NamedTuple):
    """A process that uses files of an older deployment."""

    pid: int
    program: str
    unit: str
    """The system's unit that it belongs to; empty if it is none."""

    @property
    def shown(self) -> str:
        return self.unit or f"{self.program} ({self.pid})"


class Followed(NamedTuple):
    restarted: tuple[str, ...]
    """Units, sorted."""
    outdated: tuple[str, ...]
    """Units and programs that go on with old files, sorted."""


def look(root: Path) -> Before:
    """What has to be known before the switch."""
    running = services(root)
    return Before(running, frozenset(running.keys() & _with_own_mounts(root)) if running else frozenset())


def services(root: Path) -> dict[str, Service]:
    """The running services by name; none if systemd does not run this root or does not answer."""
    if not runs_systemd(root):
        return {}
    what = f"--property={','.join(_PROPERTIES)}"
    try:
        shown = process.run([root / _SYSTEMCTL, "show", what, "*.service"]).stdout.decode(errors="replace")
    except CommandError:
        return {}
    return dict(parse_services(shown, root))


def parse_services(text: str, root: Path) -> Iterator[tuple[str, Service]]:
    """The running services in what `systemctl show` prints: a block of assignments for each."""
    for block in text.split("\n\n"):
        values = dict(line.partition("=")[::2] for line in block.splitlines())
        name = values.get("Id", "")
        if not name or values.get("SubState") != "running":
            continue
        fragment = values.get("FragmentPath", "")
        names = frozenset({name, *values.get("Names", "").split()})
        refused = "yes" in (values.get("RefuseManualStart"), values.get("RefuseManualStop"))
        files = tuple(
            (file, _digest(root, file)) for file in (fragment, *values.get("DropInPaths", "").split()) if file
        )
        yield name, Service(names, files, bool(fragment) and not refused and not any(map(_NEVER.fullmatch, names)))


def follow(place: Place, name: str, before: Before, report: Report) -> Followed:
    """Bring the running system up to date with the deployment `name`, which it was just switched to.

    before: what `look` said before the switch.
    """
    root = place.located.root
    if not runs_systemd(root):
        return Followed((), ())
    for program, *arguments in ((_SYSUSERS,), (_TMPFILES, "--create")):
        if (root / program).exists():
            _run(report, root / program, *arguments)
    systemctl = root / _SYSTEMCTL
    outdated = list(outdated_processes(place, name))
    _run(report, systemctl, "daemon-reexec" if any(p.pid == 1 for p in outdated) else "daemon-reload")
    affected = before.covered | {p.unit for p in outdated}
    wanted = to_restart(before.running, services(root), affected, own=unit_of(_read("/proc/self/cgroup")))
    if wanted:
        _run(report, systemctl, "try-restart", *wanted)
    remaining = {p.shown for p in outdated_processes(place, name)} | (before.covered - {*wanted})
    return Followed(wanted, tuple(sorted(remaining)))


def to_restart(
    before: Mapping[str, Service], after: Mapping[str, Service], affected: Collection[str], *, own: str
) -> tuple[str, ...]:
    """The services to restart, sorted. affected: units whose processes need it; own: the unit of this process."""
    return tuple(
        name
        for name, service in sorted(after.items())
        if service.may_restart
        and name != own
        and (not service.names.isdisjoint(affected) or (name in before and before[name].files != service.files))
    )


def outdated_processes(place: Place, name: str) -> Iterator[Process]:
    """The processes that use files of other deployments which `name` has not, or has otherwise; not this one."""
    comparison = _Comparison(place, name)
    for pid in _pids():
        if pid != os.getpid() and comparison.is_outdated(pid):
            # One that has ended by now has no name.
            with suppress(OSError):
                yield Process(pid, _read(f"/proc/{pid}/comm").strip(), unit_of(_read(f"/proc/{pid}/cgroup")))


def unit_of(cgroups: str) -> str:
    """The system's unit that a process belongs to, by its cgroups (/proc/PID/cgroup); empty if it is none."""
    for line in cgroups.splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers in ("", "name=systemd"):
            for part in path.split("/"):
                if part.endswith(_UNIT_SUFFIXES):
                    return part.removeprefix("_")
    return ""


def _with_own_mounts(root: Path) -> set[str]:
    """The units whose processes have, where a switch mounts something, other mounts than this process."""
    found = set()
    usual = _mounts_below(os.getpid(), root)
    known: dict[str, bool] = {}
    for pid in _pids():
        with suppress(OSError):
            namespace = os.readlink(f"/proc/{pid}/ns/mnt")
            if namespace not in known:
                known[namespace] = _mounts_below(pid, root) != usual
            if known[namespace]:
                found.add(unit_of(_read(f"/proc/{pid}/cgroup")))
    return found


def _mounts_below(pid: int, root: Path) -> dict[str, tuple[str, bool]]:
    """What a process sees mounted there, by mount point: its source, and if it can be written. Raises OSError."""
    found = {}
    for line in _read(f"/proc/{pid}/mountinfo").splitlines():
        source, point, options = line.split(" ")[3:6]
        if any(Path(point).is_relative_to(root / directory) for directory in SWITCHED):
            found[point] = source, "rw" in options.split(",")
    return found


class _Comparison:
    """Compares what processes have with a deployment; every file once."""

    def __init__(self, place: Place, name: str) -> None:
        self._root = os.fspath(place.located.root).rstrip("/")
        self._new = place.path(name)
        self._new_device = os.stat(self._new).st_dev
        self._file_system = _number_of(place.top)
        self._trees: dict[int, Path] = {}
        """Deployments by the device number of their files."""
        self._known: dict[tuple[int, int], bool] = {}
        for other in place.names():
            with suppress(OSError):
                self._trees[os.stat(place.path(other)).st_dev] = place.path(other)

    def is_outdated(self, pid: int) -> bool:
        """Whether a process that is still there uses a file that changed."""
        with suppress(OSError):
            devices = set()
            for mapping in _code(pid, self._file_system):
                status = os.stat(mapping)
                if status.st_dev == self._new_device:
                    continue
                devices.add(status.st_dev)
                key = status.st_dev, status.st_ino
                if key not in self._known:
                    self._known[key] = self._differs(mapping, self._inside(os.readlink(mapping)))
                if self._known[key]:
                    return True
            trees = [self._trees[device] for device in devices if device in self._trees]
            return any(self._differs(tree / name, name) for tree in trees for name in self._scripts(pid))
        return False

    def _scripts(self, pid: int) -> list[str]:
        arguments = _read(f"/proc/{pid}/cmdline").split("\0")[1 : 1 + _SCRIPT_ARGUMENTS]
        return [self._inside(argument) for argument in arguments]

    def _inside(self, path: str) -> str:
        """A path relative to the root."""
        return path.removeprefix(self._root).lstrip("/")

    def _differs(self, old: str | Path, name: str) -> bool:
        """Whether the new deployment lacks this file of /usr, or has another one; a file that is not there is none."""
        try:
            was = os.stat(old)
        except OSError:
            return False
        if not name.startswith("usr/"):
            return False
        try:
            now = os.stat(self._new / name)
            # A snapshot has the inode numbers and times of change of what it was made from.
            if (was.st_ino, was.st_size, was.st_ctime_ns) == (now.st_ino, now.st_size, now.st_ctime_ns):
                return False
            return not filecmp.cmp(old, self._new / name, shallow=False)
        except OSError:
            return True


def _code(pid: int, file_system: str) -> Iterator[str]:
    """Paths that lead to the very files of a file system whose code a process has mapped. Raises OSError."""
    for line in _read(f"/proc/{pid}/maps").splitlines():
        addresses, permissions, _, device, _ = line.split(maxsplit=5)[:5]
        if "x" in permissions and device == file_system:
            start, _, end = addresses.partition("-")
            yield f"/proc/{pid}/map_files/{int(start, 16):x}-{int(end, 16):x}"


def _number_of(point: Path) -> str:
    """The number of the file system at a mount point, as /proc/PID/maps has it: the same for all its subvolumes."""
    for line in reversed(_read(os.fspath(MOUNTS)).splitlines()):
        fields = line.split(" ")
        if fields[4] == os.fspath(point):
            major, _, minor = fields[2].partition(":")
            return f"{int(major):02x}:{int(minor):02x}"
    return ""


def _pids() -> list[int]:
    return sorted(int(number) for number in os.listdir("/proc") if number.isdigit())


def _digest(root: Path, file: str) -> str:
    """Of a unit file; empty if it cannot be read."""
    try:
        return hashlib.sha256((root / file.lstrip("/")).read_bytes()).hexdigest()
    except OSError:
        return ""


def _read(path: str) -> str:
    with open(path, errors="replace") as file:
        return file.read()


def _run(report: Report, program: Path, *arguments: str) -> None:
    """Run a program of the new version; a failure is a warning."""
    shown = " ".join((program.name, *arguments))
    try:
        done = process.attempt([program, *arguments], env={}, seconds=SECONDS, tail_bytes=_OUTPUT_LIMIT)
    except OSError as error:
        report.warning(f"{shown} could not be run: {error.strerror}")
        return
    for line in done.tail.decode(errors="replace").splitlines():
        report.verbose(f"{program.name}: {line.rstrip()}")
    if done.status is None:
        report.warning(f"{shown} was not done after {SECONDS:.0f} s; it was not waited for any longer")
    elif done.status != 0:
        last = (done.tail.decode(errors="replace").strip().splitlines() or ["it printed nothing"])[-1]
        report.warning(f"{shown} failed with status {done.status}: {last}")
