"""Entries and kernels on a boot partition: a real FAT file system, or a directory where the kernel knows no FAT.

An interruption at any call leaves a partition on which the loader finds a complete entry.
"""

from __future__ import annotations

import errno
import hashlib
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import pytest

from swupd.errors import DiskSpaceError, NextBootError
from swupd.formats.bootentry import ENTRIES, KERNELS, BootEntry, initrd_name, kernel_name, kernel_names
from swupd.fs import Directory
from swupd.nextboot.bootentries import BootEntries, sha256_of
from tests.transaction import seam
from tests.transaction.seam import Interference, Seam
from tests.unit.swupd.nextboot.disk import HAS_FAT


@pytest.fixture
def partition(tmp_path: Path) -> Iterator[Path]:
    """With one good entry, "10"."""
    path = tmp_path / "esp"
    path.mkdir()
    with mounted_fat(path) if HAS_FAT and os.geteuid() == 0 else nullcontext():
        (path / ENTRIES).mkdir(parents=True)
        (path / KERNELS).mkdir()
        with Directory.open(path) as directory:
            bring(BootEntries(directory), tmp_path, "10", 1, tries=None)
        yield path


@contextmanager
def mounted_fat(path: Path) -> Iterator[None]:
    with TemporaryDirectory() as directory:
        image = Path(directory, "image")
        with image.open("wb") as file:
            file.truncate(40 << 20)
        subprocess.run(["mkfs.vfat", "-F", "32", image], check=True, capture_output=True)
        subprocess.run(["mount", "-t", "vfat", "-o", "loop,umask=0077", image, path], check=True)
        try:
            yield
        finally:
            subprocess.run(["umount", path], check=True)


def sources(directory: Path, name: str) -> tuple[Path, Path]:
    """The kernel and the initrd of a deployment; the kernels of 20 and 10 are the same."""
    found = []
    for kind in ("kernel", "initrd"):
        path = directory / f"{kind}-{name}"
        path.write_bytes(f"{kind} {name if kind == 'initrd' else '10'}".encode() * 1000)
        found.append(path)
    return found[0], found[1]


def bring(entries: BootEntries, directory: Path, name: str, sequence: int, *, tries: int | None = 3) -> BootEntry:
    kernel, initrd = sources(directory, name)
    names = kernel_name(sha256_of(kernel)), initrd_name(sha256_of(initrd))
    entries.add_kernel(kernel, names[0])
    entries.add_kernel(initrd, names[1])
    entry = BootEntry(name, f"OS {name}", sequence, *names, f"rootflags=subvol=@/{name}", tries)
    entries.add(entry)
    return entry


def complete(partition: Path) -> list[str]:
    """The deployments of all entries, in the loader's order; each has its kernels, whole."""
    with Directory.open(partition) as directory:
        found = BootEntries(directory).read()
    for entry in found:
        for name in (entry.kernel, entry.initrd):
            digest = hashlib.sha256((partition / KERNELS / name).read_bytes()).hexdigest()
            assert name in kernel_names(digest)
    return [entry.name for entry in found]


def test_a_new_entry_comes_first(partition: Path, tmp_path: Path) -> None:
    with Directory.open(partition) as directory:
        entries = BootEntries(directory)
        bring(entries, tmp_path, "20", entries.next_sequence())
    assert complete(partition) == ["20", "10"]
    assert sorted(os.listdir(partition / ENTRIES)) == ["os-10.conf", "os-20+3.conf"]
    assert len(os.listdir(partition / KERNELS)) == 3


def test_its_state_is_in_its_name(partition: Path, tmp_path: Path) -> None:
    with Directory.open(partition) as directory:
        entries = BootEntries(directory)
        entry = bring(entries, tmp_path, "20", 2)
        entries.change(entry, entry.good())
        assert entries.read()[0] == entry.good()
        entries.change(entry.good(), entry.set_aside())
        assert [found.name for found in entries.read()] == ["10", "20"]
    assert sorted(os.listdir(partition / ENTRIES)) == ["os-10.conf", "os-20+0.conf"]


def test_what_another_process_has_changed_in_the_same_way_stays(partition: Path, tmp_path: Path) -> None:
    with Directory.open(partition) as directory:
        entries = BootEntries(directory)
        entry = bring(entries, tmp_path, "20", 2)
        entries.change(entry, entry.good())
        entries.change(entry, entry.good())
        assert sorted(os.listdir(partition / ENTRIES)) == ["os-10.conf", "os-20.conf"]
        with pytest.raises(NextBootError, match="boot entry of 20 was changed by somebody else"):
            entries.change(entry, entry.set_aside())


def test_removing_takes_all_states_and_the_kernels_that_nobody_needs(partition: Path, tmp_path: Path) -> None:
    with Directory.open(partition) as directory:
        entries = BootEntries(directory)
        entry = bring(entries, tmp_path, "20", 2)
        (partition / ENTRIES / "os-20.conf").write_text(entry.text())
        entries.remove("20")
        entries.collect()
    assert os.listdir(partition / ENTRIES) == ["os-10.conf"]
    assert len(os.listdir(partition / KERNELS)) == 2


def test_what_is_others_stays(partition: Path) -> None:
    others = [f"{ENTRIES}/debian.conf", f"{KERNELS}/vmlinuz-6.1", f"{KERNELS}/vmlinuz-{'0' * 16}"]
    for name in others:
        (partition / name).write_text("linux /os/vmlinuz-" + "0" * 16)
    with Directory.open(partition) as directory:
        BootEntries(directory).collect()
    assert all((partition / name).exists() for name in others)


def test_what_interruptions_left_goes(partition: Path) -> None:
    for name in (f"{ENTRIES}/os-20+3.conf", f"{KERNELS}/initrd-{'0' * 16}", "FSCK0000.REC"):
        (partition / name).write_text("")
    with Directory.open(partition) as directory:
        BootEntries(directory).collect()
    assert complete(partition) == ["10"]
    assert "FSCK0000.REC" not in os.listdir(partition)
    assert (len(os.listdir(partition / ENTRIES)), len(os.listdir(partition / KERNELS))) == (1, 2)


def test_a_kernel_that_is_damaged_is_copied_again(partition: Path, tmp_path: Path) -> None:
    kernel, _ = sources(tmp_path, "10")
    name = kernel_name(sha256_of(kernel))
    (partition / KERNELS / name).write_text("damaged")
    with Directory.open(partition) as directory:
        entries = BootEntries(directory)
        assert entries.missing_bytes([(kernel, name)]) == kernel.stat().st_size
        entries.add_kernel(kernel, name)
        assert entries.missing_bytes([(kernel, name)]) == 0
    assert complete(partition) == ["10"]


def test_a_name_that_is_not_the_contents_is_refused(partition: Path, tmp_path: Path) -> None:
    kernel, _ = sources(tmp_path, "10")
    with Directory.open(partition) as directory, pytest.raises(NextBootError, match="not the same"):
        BootEntries(directory).add_kernel(kernel, f"vmlinuz-{'0' * 16}")


def test_room_is_checked(partition: Path) -> None:
    with Directory.open(partition) as directory:
        entries = BootEntries(directory)
        entries.check_room(1000)
        with pytest.raises(DiskSpaceError, match="the boot partition has") as caught:
            entries.check_room(1 << 60)
        assert "snapshots" in caught.value.hint


def test_another_partition_is_told_apart(tmp_path: Path) -> None:
    with Directory.open(tmp_path) as directory, pytest.raises(NextBootError, match="no directory /loader/entries"):
        BootEntries(directory).read()


def test_an_entry_that_is_renamed_meanwhile_is_not_missed(
    partition: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Directory.open(partition) as directory:
        entries = BootEntries(directory)
        bring(entries, tmp_path, "20", 2)
        renamed = iter([True])
        open_file = Directory.open_file

        def rename_first(self: Directory, name: str) -> object:
            if name == "os-20+3.conf" and next(renamed, False):
                (partition / ENTRIES / name).rename(partition / ENTRIES / "os-20.conf")
            return open_file(self, name)

        monkeypatch.setattr(Directory, "open_file", rename_first)
        entries.collect()
        monkeypatch.undo()
    assert complete(partition) == ["20", "10"]


# -- interruptions

Work = Callable[[BootEntries, Path], object]


def add_twenty(entries: BootEntries, directory: Path) -> object:
    return bring(entries, directory, "20", 2)


def bless_twenty(entries: BootEntries, directory: Path) -> None:
    entry = next(entry for entry in entries.read() if entry.name == "20")
    entries.change(entry, entry.good())


def replace_twenty(entries: BootEntries, directory: Path) -> None:
    bring(entries, directory, "30", 3)
    entries.remove("20")
    entries.collect()


class Case(NamedTuple):
    before: Work | None
    work: Work
    allowed: tuple[list[str], ...]
    after: list[str]


CASES = [
    Case(None, add_twenty, (["10"], ["20", "10"]), ["20", "10"]),
    Case(add_twenty, bless_twenty, (["20", "10"],), ["20", "10"]),
    Case(add_twenty, replace_twenty, (["20", "10"], ["30", "20", "10"], ["30", "10"]), ["30", "10"]),
]


@pytest.mark.parametrize("case", CASES, ids=["add", "change", "replace"])
def test_an_interruption_at_any_call_leaves_whole_entries(partition: Path, tmp_path: Path, case: Case) -> None:
    points = 0
    while True:
        with Directory.open(partition) as directory:
            entries = BootEntries(directory)
            for name in ("20", "30"):
                entries.remove(name)
            entries.collect()
            if case.before is not None:
                case.before(entries, tmp_path)
        points += 1
        killed = kill_at(points, partition, tmp_path, case.work)
        assert complete(partition) in case.allowed
        if not killed:
            break
        with Directory.open(partition) as directory:
            entries = BootEntries(directory)
            entries.collect()
            case.work(entries, tmp_path)
        assert complete(partition) == case.after
    assert points > 3


def kill_at(call: int, partition: Path, sources_: Path, work: Work) -> bool:
    """Do the work in a process that is killed before this call that changes something; whether it was."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            seam.install(Seam(str(partition), Interference(call), lambda call: None))
            with Directory.open(partition) as directory:
                work(BootEntries(directory), sources_)
            status = 0
        finally:
            os._exit(status)
    status = os.waitpid(child, 0)[1]
    assert os.WIFSIGNALED(status) or status == 0
    return os.WIFSIGNALED(status)


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO])
def test_an_error_while_a_kernel_is_copied_leaves_nothing(
    partition: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: int
) -> None:
    source = tmp_path / "new"
    source.write_bytes(b"new" * 1000)
    before = os.listdir(partition / KERNELS)

    def fail(fd: int) -> None:
        raise OSError(error, os.strerror(error))

    with Directory.open(partition) as directory:
        monkeypatch.setattr("swupd.fs.os.fsync", fail)
        with pytest.raises(DiskSpaceError if error == errno.ENOSPC else NextBootError):
            BootEntries(directory).add_kernel(source, kernel_name(sha256_of(source)))
        entry = replace(BootEntries(directory).read()[0], name="20", sequence=2)
        with pytest.raises(DiskSpaceError if error == errno.ENOSPC else NextBootError):
            BootEntries(directory).add(entry)
    assert os.listdir(partition / KERNELS) == before
    assert os.listdir(partition / ENTRIES) == ["os-10.conf"]
