"""Making a deployment: a snapshot of one becomes another one that the loader may start.

The order is the promise. What has no boot entry is never booted, and the entry comes last, when all that it leads to
is on the disk:

1. `drafted` makes a writable snapshot, `@/<name>.part`, and somebody changes it.
2. `Draft.activate` looks whether it can boot, and whether the boot partition has room.
3. All of it is synced; then it gets its name and is sealed, and that is synced as well.
4. Kernel and initrd are copied to the boot partition, if they are not there.
5. The boot entry appears, with tries. From now on the deployment is the next to boot.

An interruption or error before that leaves the machine as it was: an error removes the draft at once, and what a
killed process or a power cut has left is removed by `tidy`, which every run does first. After that nothing is undone.

Whoever uses this holds the system's lock. All of it raises NextBootError, DiskSpaceError, and OSError as they come.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from swupd.errors import NextBootError
from swupd.formats.bootentry import SUBVOLUMES, BootEntry, free_name, initrd_name, is_deployment_name, kernel_name
from swupd.formats.kernels import Kernel, is_boot_file
from swupd.formats.manifest import Entry, FileType
from swupd.fs import Directory
from swupd.nextboot import accounts, assess, kernels, record, subvolumes
from swupd.nextboot.bootentries import sha256_of
from swupd.nextboot.deployments import UNFINISHED, Deployment, following, survey
from swupd.nextboot.place import GOOD, Place
from swupd.signals import undisturbed

USERS = "usr/share/factory/etc/passwd"
"""Without it our initrd does not start a deployment."""
TITLE_LIMIT = 100
"""Characters of a system's name."""


def tidy(place: Place, data_dir: Path) -> tuple[Deployment, ...]:
    """Remove what interrupted runs have left, what failed and what is superfluous; the deployments that remain.

    data_dir: where the history is.
    """
    there = {deployment.name for deployment in survey(place)}
    for entry in place.entries.read():
        if entry.name not in there:
            place.entries.remove(entry.name)
    assess.keep_house(place, data_dir)
    place.entries.collect()
    return survey(place)


def base_of(deployments: Iterable[Deployment]) -> Deployment:
    """What changes are made to: the deployment that waits for the next boot, or the one that is in use."""
    found = tuple(deployments)
    base = following(found) or next((d for d in found if d.is_current), None)
    if base is None:
        raise NextBootError("the running deployment has no subvolume any more", hint="reboot; see: swupd status")
    return base


def withheld(place: Place, version: int) -> str:
    """Why a version is not offered, as a sentence; empty if it is."""
    with place.boot_state() as boot:
        failure = record.read(boot).failed_version(version)
    return failure.sentence if failure is not None else ""


class Draft:
    """A snapshot that is being changed. Made by `drafted`."""

    def __init__(self, place: Place, base: Deployment, name: str) -> None:
        self.base = base
        self.name = name
        """Of its subvolume."""
        self.is_active = False
        """Whether it has become a deployment that boots next."""
        self._place = place

    @property
    def root(self) -> Path:
        return self._place.path(self.name)

    def activate(self, version: int, system_name: str, *, forgive: bool = False) -> None:
        """Make it what boots next.

        version: what it is. system_name: for the loader's menu. forgive: forget earlier failures of this version.
        """
        place, machine, base_root = self._place, self._place.located.root, self._place.path(self.base.name)
        kernel = kernels.find(self.root)
        if (base_root / USERS).exists() and not (self.root / USERS).exists():
            raise NextBootError(f"version {version} has no /{USERS}, so it could not boot", hint="tell its publisher")
        accounts.check(machine, base_root, self.root)
        files = _files_of(kernel, self.root)
        place.entries.check_room(place.entries.missing_bytes((self.root / file.path, file.name) for file in files))
        name = self._free_name(version, forgive=forgive)
        entry = BootEntry(
            name=name,
            title=f"{_printable(system_name)} {name}".lstrip(),
            sequence=place.entries.next_sequence(),
            kernel=files[0].name,
            initrd=files[1].name,
            options=kernels.options(place.uuid, name, machine=machine, root=self.root),
            tries_left=kernels.tries(machine=machine, root=self.root),
        )
        self._settle(name)
        for file in files:
            place.entries.add_kernel(self.root / file.path, file.name)
        with undisturbed():
            self._clean_slate(name, version if forgive else None)
            place.entries.add(entry)
            self.is_active = True

    def _free_name(self, version: int, *, forgive: bool) -> str:
        """A failure that is on record belongs to one deployment: its name is not given again."""
        with self._place.boot_state() as boot:
            failures = record.read(boot).failures
        taken = {name for name in self._place.names() if is_deployment_name(name)}
        taken |= {failure.name for failure in failures if not (forgive and failure.version == version)}
        return free_name(version, taken)

    def _settle(self, name: str) -> None:
        """On the disk, under its name, and never changed again."""
        with Directory.open(self._place.top) as top:
            top.sync()
            with top.descend(SUBVOLUMES) as directory:
                directory.rename(self.name, name)
            self.name = name
            subvolumes.seal(self.root)
            top.sync()

    def _clean_slate(self, name: str, forgiven: int | None) -> None:
        """Nothing is known of a boot of this deployment."""
        with self._place.boot_state() as boot:
            with boot.descend(GOOD) as good, suppress(FileNotFoundError):
                good.unlink(name)
                good.sync_names()
            known = record.read(boot)
            if forgiven is not None and known.failed_version(forgiven) is not None:
                record.write(boot, known.without_failures(forgiven))

    def discard(self) -> None:
        """Remove it, with the kernels that were copied for it; its entry first, if the last call was what failed."""
        self._place.entries.remove(self.name)
        subvolumes.delete(self.root)
        self._place.entries.collect()


@contextmanager
def drafted(place: Place, base: Deployment) -> Iterator[Draft]:
    """A writable snapshot of a deployment; discarded in the end if it has not been activated."""
    taken = (name.removesuffix(UNFINISHED) for name in place.names())
    name = free_name(base.version, filter(is_deployment_name, taken)) + UNFINISHED
    subvolumes.snapshot(place.path(base.name), place.path(name))
    draft = Draft(place, base, name)
    try:
        yield draft
    finally:
        if not draft.is_active:
            with undisturbed():
                draft.discard()


class RoomForKernels:
    """A guard (`swupd.session.Guard`): the boot partition must have room before anything is downloaded or changed."""

    def __init__(self, place: Place, base: Path) -> None:
        self._entries = place.entries
        self._base = base

    def before_staging(self, entries: Iterable[Entry]) -> None:
        """The sizes are not known yet: those of the kernel that is there will do."""
        if any(map(_goes_along, entries)):
            with suppress(NextBootError):
                kernel = kernels.find(self._base)
                self._entries.check_room(sum((self._base / name).stat().st_size for name in kernel.files))

    def before_install(self, entries: Iterable[Entry], staged: Directory) -> None:
        files = [Path(staged.path, entry.hash) for entry in entries if _goes_along(entry)]
        self._entries.check_room(self._entries.missing_bytes((path, kernel_name(sha256_of(path))) for path in files))


def _goes_along(entry: Entry) -> bool:
    """Whether it may be copied to the boot partition; links are not followed to kernels."""
    return entry.type is FileType.FILE and is_boot_file(entry.name)


class _File(NamedTuple):
    path: str
    """Below the root."""
    name: str
    """On the boot partition."""


def _files_of(kernel: Kernel, root: Path) -> tuple[_File, _File]:
    return (
        _File(kernel.kernel, kernel_name(sha256_of(root / kernel.kernel))),
        _File(kernel.initrd, initrd_name(sha256_of(root / kernel.initrd))),
    )


def _printable(text: str) -> str:
    return "".join(sign for sign in text if sign.isprintable())[:TITLE_LIMIT]
