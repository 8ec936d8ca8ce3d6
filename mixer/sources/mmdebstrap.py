"""Installing package files into an empty root with mmdebstrap, cut off from everything else.

* All package files and lists are laid into the root beforehand, and priorities leave nothing to choose: mmdebstrap
  installs exactly the packages given. It runs without a network, so that no maintainer script can fetch anything, under
  a host name of its own, so that none can write the build host's into a file, and with one constant clock value for
  what stores times (SOURCE_DATE_EPOCH).
* It runs in its own mount and process namespaces and dies with this process: whatever ends a build, even SIGKILL,
  leaves no mount and no process behind. The root is then the caller's to remove (`remove_root`).
* Services are not started (mmdebstrap puts a policy-rc.d in place), and no initrd is made (INITRD=No): that depends on
  the boot set-up, and takes a third of the time.

The whole output goes to a log file; an error repeats the lines that matter and names it.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections import deque
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

from mixer.errors import SourceError
from mixer.sources import PackageFile, licences
from swupd import process
from swupd.report import Report

SOURCE_DATE_EPOCH = 1_672_531_200
"""Seconds; the beginning of 2023. It must never change: its day stands in /etc/shadow, and an initrd has it in every
time stamp. That it is set at all makes compiled Python files independent of the time stamps of their sources."""

HOST_NAME = "localhost"
"""What maintainer scripts take for the name of the machine."""

ARCHIVES = "var/cache/apt/archives"
LISTS = "var/lib/apt"
INDEXES = ("pkgcache.bin", "srcpkgcache.bin")
MERGED = {
    "amd64": ("lib32", "lib64", "libx32"),
    "i386": ("lib64", "libx32"),
    "ppc64el": ("lib64",),
    "s390x": ("lib32",),
}
"""Links of a merged /usr by architecture, besides bin, sbin and lib."""

_TAIL_LINES = 4
"""Lines that an error repeats, each of at most _LINE_LENGTH characters."""
_LINE_LENGTH = 160
_PROGRESS = re.compile(rb"(?:Unpacking|Setting up) ")
_STEPS_PER_PACKAGE = 2
_TROUBLE = re.compile(
    r"^(?:E: |dpkg: error|dpkg-deb: error|Errors were encountered|.*: (?:error|fatal|cannot|not found))"
)
_NAMESPACES = ("unshare", "--mount", "--pid", "--uts", "--ipc", "--net", "--fork", "--kill-child", "--mount-proc", "--")


@dataclass(frozen=True, slots=True)
class Installation:
    """What is to be installed from where."""

    files: Sequence[PackageFile]
    debs: Path
    """Directory with all these package files."""
    apt_tree: Path
    """A private apt root with the lists that they were chosen from, and `sources`."""
    sources: Path
    """The .sources file of that tree."""
    architecture: str
    path_excludes: Sequence[str]
    log: Path


class NameParts:
    """Name, version and architecture in the name of a package file, as apt writes it."""

    __slots__ = ("architecture", "name", "version")

    def __init__(self, file_name: str) -> None:
        parts = file_name.removesuffix(".deb").split("_")
        if len(parts) != 3:
            raise SourceError(f"unexpected name of a package file: {file_name}")
        self.name, version, self.architecture = parts
        self.version = version.replace("%3a", ":").replace("%5f", "_")


def version() -> str:
    """What mmdebstrap says about itself. Raises SourceError if it is not installed."""
    if not shutil.which("mmdebstrap"):
        raise SourceError("the program mmdebstrap is missing", hint="apt install mmdebstrap")
    return os.fsdecode(process.run(["mmdebstrap", "--version"], env=_environment()).stdout).strip()


def install(what: Installation, root: Path, report: Report) -> None:
    """Make a complete, configured root in the new directory `root`. Raises SourceError; the root is removed then."""
    try:
        _prepare(what, root)
        _run(_arguments(what, root), what.log, _STEPS_PER_PACKAGE * len(what.files), report)
    except BaseException as error:
        with suppress(OSError):
            remove_root(root)
        if isinstance(error, OSError):
            raise SourceError(f"cannot make a root in {root}: {error.strerror}") from error
        raise
    _require_no_mounts(root)


def remove_root(root: Path) -> None:
    """Remove a root that this module began. Raises SourceError if something is mounted below it."""
    if os.path.lexists(root):
        _require_no_mounts(root)
        shutil.rmtree(root)


def _prepare(what: Installation, root: Path) -> None:
    """All that mmdebstrap would fetch, and the choices it would make, laid down beforehand."""
    root.mkdir(mode=0o755)
    root.chmod(0o755)
    for name in ("bin", "sbin", "lib", *MERGED.get(what.architecture, ())):
        (root / "usr" / name).mkdir(parents=True)
        (root / name).symlink_to(f"usr/{name}")
    shutil.copytree(what.apt_tree / LISTS, root / LISTS)
    (root / ARCHIVES).mkdir(parents=True)
    for index in INDEXES:
        shutil.copy2(what.apt_tree / "var/cache/apt" / index, root / "var/cache/apt" / index)
    for file in what.files:
        _link_or_copy(what.debs / file.name, root / ARCHIVES / file.name)
    preferences = root / "etc/apt/preferences.d"
    preferences.mkdir(parents=True)
    (preferences / "mix").write_text(_preferences(what.files))
    # mmdebstrap copies the host's files only if there are none.
    (root / "etc/hostname").write_text(f"{HOST_NAME}\n")
    (root / "etc/resolv.conf").write_text("")


def _preferences(files: Iterable[PackageFile]) -> str:
    """Exactly these versions can be installed, nothing else exists."""
    stanzas = [
        f"Package: {parts.name}\nPin: version {parts.version}\nPin-Priority: 1001\n"
        for parts in (NameParts(file.name) for file in files)
    ]
    return "\n".join([*stanzas, "Package: *\nPin: release *\nPin-Priority: -1\n"])


def _arguments(what: Installation, root: Path) -> list[str]:
    return [
        "setpriv",
        "--pdeathsig=KILL",
        *_NAMESPACES,
        "sh",
        "-c",
        f'hostname {HOST_NAME} && exec "$@"',
        "sh",
        "mmdebstrap",
        "--verbose",
        "--mode=root",
        "--variant=essential",
        "--format=directory",
        "--skip=check/empty",
        f"--architectures={what.architecture}",
        "--dpkgopt=force-unsafe-io",
        *(f"--dpkgopt=path-exclude={pattern}" for pattern in what.path_excludes),
        f"--dpkgopt=path-include={licences.INCLUDED}",  # to be read; the caller removes what shall not ship
        *(f"--include={NameParts(file.name).name}" for file in what.files),
        "",  # no suite: the lists are in place
        str(root),
        str(what.sources),
    ]


def _environment() -> dict[str, str]:
    return {
        "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
        "LC_ALL": "C.UTF-8",
        "HOME": "/root",
        "SOURCE_DATE_EPOCH": str(SOURCE_DATE_EPOCH),
        "INITRD": "No",
    }


def _run(arguments: Sequence[str], log: Path, steps: int, report: Report) -> None:
    """Run to the end with progress. All processes of the namespace are gone when this returns or raises."""
    with log.open("wb") as copy:
        try:
            child = subprocess.Popen(
                arguments,
                env=_environment(),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
            )
        except OSError as error:
            raise SourceError(f"cannot run {arguments[0]}: {error.strerror}", hint="apt install util-linux") from error
        output = cast("BinaryIO", child.stdout)
        tail: deque[str] = deque(maxlen=_TAIL_LINES)
        trouble: deque[str] = deque(maxlen=_TAIL_LINES)
        done = 0
        try:
            for line in output:
                copy.write(line)
                if _PROGRESS.match(line):
                    done += 1
                    report.progress(min(done, steps), steps)
                text = line.decode(errors="replace").strip()
                if text:
                    tail.append(text[:_LINE_LENGTH])
                    if _TROUBLE.match(text):
                        trouble.append(text[:_LINE_LENGTH])
        except BaseException:
            child.kill()
            while output.read(1 << 16):  # ends when the last process of the namespace is gone
                pass
            raise
        finally:
            output.close()
            status = child.wait()
    if status != 0:
        raise SourceError(
            f"installing the packages failed: {' | '.join(trouble or tail) or 'mmdebstrap printed nothing'}",
            hint=f"the whole output is in {log}",
        )


def _require_no_mounts(root: Path) -> None:
    """Raises SourceError if anything is mounted below the root."""
    prefix = os.fsencode(os.path.realpath(root)) + b"/"
    with open("/proc/self/mountinfo", "rb") as stream:
        for line in stream:
            place = re.sub(rb"\\([0-7]{3})", lambda match: bytes([int(match[1], 8)]), line.split()[4])
            if (place + b"/").startswith(prefix):
                where = os.fsdecode(place)
                raise SourceError(
                    f"{where} is still mounted below the root", hint=f"look who uses it, then: umount {where}"
                )


def _link_or_copy(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
