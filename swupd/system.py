"""An installed system: version, bundles, tracking, mounts, clock, processor (swupd client specification, 5.1-5.3).

* A bundle is installed if its marker lies in the root; there is no other database. `os-core` always is.
* A bundle is tracked if somebody asked for it by name; the rest came as dependencies.
* The system is only read here. What is written lies in the data directory (tracking files, the version file), and the
  clock is the one thing of the machine that `check_clock` may change.
* Symbolic links inside a root other than `/` are followed as the kernel does, out of that root if they are absolute:
  what is read here decides on what is offered, never on what is changed.
"""

from __future__ import annotations

import os
import re
import shlex
import stat
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from swupd.errors import ClockError, StateDirectoryError, VersionUnknownError
from swupd.formats import layout
from swupd.formats.manifest import BASE_LEVELS, VERSION_LIMIT, Level, is_bundle_name
from swupd.fs import Directory, replace_file
from swupd.settings import below, first_line
from swupd.statedir import StateDir

CLOCK_TOLERANCE_SECONDS = 86400
"""How much earlier than the build of the system the clock may be before it is wrong."""
STAMP_DIGITS = 10
OS_RELEASE_LIMIT = 1 << 16
"""Bytes."""

MOUNTS = Path("/proc/self/mountinfo")
PROCESSOR = Path("/proc/cpuinfo")
REPLACE_AVX2 = "/etc/clear/elf-replace-avx2"
REPLACE_AVX512 = "/etc/clear/elf-replace-avx512"
"""Files of the administrator: each of them switches its level off."""

_TIGER_LAKE = frozenset({0x8C, 0x8D})
"""Intel models of family 6 that gain nothing from their AVX-512 units."""
_OCTAL = re.compile(r"\\([0-7]{3})")
_TRACKING_MODE = 0o600


class System:
    """One root and what its state directory knows about it."""

    def __init__(self, root: Path, statedir: StateDir, *, machine: Path | None = None) -> None:
        """machine: the root of the machine that this one is made for, if that is another one."""
        self.root = root
        self._statedir = statedir
        self._machine = machine or root

    @property
    def is_host(self) -> bool:
        """Whether this is the running system."""
        return self.root == Path("/")

    # -- what is installed -----------------------------------------------------------------------------------------

    def installed_version(self) -> int:
        """VERSION_ID of os-release; VersionUnknownError if there is none."""
        text = self._os_release().get("VERSION_ID", "")
        if text.isascii() and text.isdigit() and 0 <= int(text[:20]) <= VERSION_LIMIT:
            return int(text)
        raise VersionUnknownError(
            f"the version of the system in {self.root} is unknown: "
            + (f"VERSION_ID '{text}' is no number" if text else f"no VERSION_ID in {layout.OS_RELEASE}"),
            hint="choose the system with --path; 'swupd os-install' makes a new one",
        )

    def pretty_name(self) -> str:
        """PRETTY_NAME of os-release; empty if unknown."""
        return self._os_release().get("PRETTY_NAME", "")

    def format(self) -> str | None:
        """The format that the system's own file says it has; None if there is no such file."""
        return first_line(below(self.root, layout.FORMAT_FILE))

    def installed_bundles(self) -> set[str]:
        """The bundles with a marker, and os-core."""
        return _marked(below(self.root, layout.TRACKING)) | {layout.OS_CORE}

    def mount_points(self) -> frozenset[str]:
        """What is mounted below the root, named as in manifests (`/home`); the root itself is not among them."""
        try:
            text = MOUNTS.read_bytes()
        except OSError:
            return frozenset()
        return parse_mounts(text, os.fspath(self.root))

    def cpu_levels(self) -> frozenset[Level]:
        """The instruction sets to choose variants for; of a machine that is not running only the base."""
        if not self.is_host and self._machine != Path("/"):
            return BASE_LEVELS
        try:
            text = PROCESSOR.read_text(errors="replace")
        except OSError:
            return BASE_LEVELS
        levels = set(parse_processor(text))
        for level, file in ((Level.AVX2, REPLACE_AVX2), (Level.AVX512, REPLACE_AVX512)):
            if below(self._machine, file).exists():
                levels.discard(level)
        return frozenset(levels)

    # -- tracking --------------------------------------------------------------------------------------------------

    def tracked(self) -> set[str]:
        """The bundles that somebody asked for."""
        return _marked(self._statedir.tracking)

    def track(self, bundles: Iterable[str]) -> None:
        """Remember that these bundles were asked for."""
        with _tracking_directory(self._statedir) as directory:
            for bundle in bundles:
                with suppress(FileExistsError):
                    directory.write_file(bundle, [], mode=_TRACKING_MODE)

    def untrack(self, bundles: Iterable[str]) -> None:
        """Forget that these bundles were asked for."""
        with _tracking_directory(self._statedir) as directory:
            for bundle in bundles:
                with suppress(FileNotFoundError):
                    directory.unlink(bundle)

    def seed_tracking(self) -> None:
        """On the first run, or after the state was lost: all installed bundles count as asked for."""
        if not self.tracked():
            self.track(sorted(_marked(below(self.root, layout.TRACKING))))

    def record_version(self, version: int) -> None:
        """Remember the version of the last finished update. Raises OSError."""
        replace_file(self._statedir.version_file, b"%d\n" % version)

    # -- the clock -------------------------------------------------------------------------------------------------

    def check_clock(self, *, ignore: bool = False) -> int | None:
        """See that the clock is not far before the build of the system: certificates would not be valid yet.

        Returns the time (seconds since 1970) that the clock was set to, None if it was right. Raises ClockError if it
        is wrong and cannot be set, and for the running system if no stamp says when it was built. A root that is not
        running need not have a stamp yet.
        """
        if ignore:
            return None
        stamp = _stamp(below(self.root, layout.VERSION_STAMP))
        if stamp is None:
            stamp = _stamp(Path(layout.VERSION_STAMP))
        if stamp is None:
            if not self.is_host:
                return None
            raise ClockError(
                f"cannot check the clock: {layout.VERSION_STAMP} is missing", hint="skip this check with --ignore-time"
            )
        if time.time() >= stamp - CLOCK_TOLERANCE_SECONDS:
            return None
        try:
            time.clock_settime(time.CLOCK_REALTIME, stamp)
        except OSError as error:
            raise ClockError(
                f"the clock says {time.strftime('%Y-%m-%d')}, but the system was built on "
                f"{time.strftime('%Y-%m-%d', time.gmtime(stamp))}",
                hint="set the clock, or skip this check with --ignore-time",
            ) from error
        return stamp

    def _os_release(self) -> dict[str, str]:
        for name in (layout.OS_RELEASE, layout.OS_RELEASE_FALLBACK):
            with suppress(OSError), below(self.root, name).open("rb") as file:
                return parse_os_release(file.read(OS_RELEASE_LIMIT).decode(errors="replace"))
        return {}


def parse_os_release(text: str) -> dict[str, str]:
    """The assignments of an os-release file, quotes and escapes removed; lines that are none are left out."""
    values = {}
    for line in text.splitlines():
        key, equals, value = line.strip().partition("=")
        if not equals or key.startswith("#"):
            continue
        try:
            words = shlex.split(value)
        except ValueError:
            words = [value]
        values[key] = words[0] if words else ""
    return values


def runs_systemd(root: Path) -> bool:
    """Whether this root is a system that systemd runs (sd_booted(3))."""
    return below(root, "run/systemd/system").is_dir()


class Mount(NamedTuple):
    """A line of a mount table."""

    point: str
    source: str
    """What of its file system is mounted: a path within it; on btrfs that of the subvolume."""
    type: str
    device: str


def read_mounts(path: Path = MOUNTS) -> list[Mount]:
    """The mount table of this process, in the order of mounting. Raises OSError."""
    return parse_mount_table(path.read_bytes())


def parse_mount_table(text: bytes) -> list[Mount]:
    """The lines of a mountinfo file (proc(5)); what is none is left out."""
    found = []
    for line in os.fsdecode(text).split("\n"):
        before, separator, after = line.partition(" - ")
        fields, more = before.split(" "), after.split(" ")
        if separator and len(fields) > 5 and len(more) > 1:
            found.append(Mount(_unescaped(fields[4]), _unescaped(fields[3]), more[0], _unescaped(more[1])))
    return found


def parse_mounts(text: bytes, root: str) -> frozenset[str]:
    """The mount points of a mountinfo file that lie below `root`, with `root` removed."""
    prefix = root.rstrip("/") + "/"
    points = (mount.point for mount in parse_mount_table(text))
    return frozenset(
        "/" + point.removeprefix(prefix) for point in points if point.startswith(prefix) and point != prefix
    )


def _unescaped(text: str) -> str:
    return _OCTAL.sub(lambda match: chr(int(match[1], 8)), text)


def parse_processor(text: str) -> frozenset[Level]:
    """The levels of the first processor of a cpuinfo file (section 2.4)."""
    fields: dict[str, str] = {}
    for line in text.splitlines():
        key, colon, value = line.partition(":")
        if not colon:
            break
        fields[key.strip()] = value.strip()
    flags = set(fields.get("flags", "").split())
    avx2 = {"avx2", "fma"} <= flags
    avx512 = "avx512vl" in flags and not _is_tiger_lake(fields)
    levels = {Level.SSE}
    if avx2 or "avx512vl" in flags:
        levels.add(Level.AVX2)
    if avx512:
        levels.add(Level.AVX512)
    return frozenset(levels)


def _is_tiger_lake(fields: dict[str, str]) -> bool:
    return (
        fields.get("vendor_id") == "GenuineIntel"
        and fields.get("cpu family") == "6"
        and fields.get("model") in {str(model) for model in _TIGER_LAKE}
    )


def _marked(directory: Path) -> set[str]:
    """The bundles with a regular file of their name in a directory; none if there is no such directory."""
    try:
        with os.scandir(directory) as entries:
            return {
                entry.name for entry in entries if entry.is_file(follow_symlinks=False) and is_bundle_name(entry.name)
            }
    except (FileNotFoundError, NotADirectoryError):
        return set()


def _tracking_directory(statedir: StateDir) -> Directory:
    try:
        return Directory.open(statedir.tracking)
    except OSError as error:
        raise StateDirectoryError(
            f"cannot open {statedir.tracking}: {error.strerror}", hint="run as root; the directory is made at start-up"
        ) from error


def _stamp(path: Path) -> int | None:
    """The time in a version stamp; None if there is no readable one."""
    try:
        with path.open("rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                return None
            match = re.match(rb"\s*([0-9]+)", file.read(STAMP_DIGITS))
    except OSError:
        return None
    return int(match[1]) if match else None
