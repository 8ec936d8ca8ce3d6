"""Each file system is looked at once, with all that is needed of it; links need no space."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from swupd.cost import on_disk
from swupd.errors import DiskSpaceError
from swupd.formats.manifest import Entry, FileType
from swupd.fs import Directory
from swupd.plan import Plan
from swupd.space import (
    FileSystems,
    Need,
    Room,
    check,
    check_installation,
    disk_sizes,
    keeping_needs,
    rooms,
    staged_sizes,
    system_needs,
)

MB = 1 << 20


def entry(name: str, file_hash: str = "") -> Entry:
    return Entry.present(FileType.FILE, file_hash or f"hash of {name}", 20, name)


@contextmanager
def mounted(place: Path, size: int = MB) -> Iterator[Path]:
    """A small file system of its own."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount")
    place.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size},mode=755", "tmpfs", place], check=False)
    if done.returncode != 0:
        pytest.skip("file systems cannot be mounted here")
    try:
        yield place
    finally:
        subprocess.run(["umount", place], check=True)


@pytest.fixture
def staged(tmp_path: Path) -> Iterator[Directory]:
    (tmp_path / "staged").mkdir()
    with Directory.open(tmp_path / "staged") as directory:
        yield directory


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "root/usr").mkdir(parents=True)
    return tmp_path / "root"


def test_objects_that_only_get_a_second_name_need_nothing(root: Path, staged: Directory) -> None:
    assert (
        system_needs(FileSystems(root, []), staged, [entry("/usr/a"), entry("/usr/b")], {"hash of /usr/a": 5 * MB})
        == []
    )


def test_a_second_use_of_an_object_is_a_copy(root: Path, staged: Directory) -> None:
    (need,) = system_needs(FileSystems(root, []), staged, [entry("/usr/a", "x"), entry("/usr/b", "x")], {"x": 5 * MB})
    assert (need.what, need.bytes) == ("system", 5 * MB)


def test_another_file_system_needs_everything(root: Path, staged: Directory) -> None:
    with mounted(root):
        (need,) = system_needs(
            FileSystems(root, []), staged, [entry("/usr/a"), entry("/usr/b")], {"hash of /usr/a": 5 * MB}
        )
    assert (need.path, need.bytes) == (root, 5 * MB)


def test_a_file_system_below_the_root_counts_for_itself(root: Path, staged: Directory) -> None:
    with mounted(root / "usr/share"):
        needs = system_needs(
            FileSystems(root, ["/usr/share"]),
            staged,
            [entry("/usr/share/a"), entry("/usr/shared")],
            {"hash of /usr/share/a": 100},
        )
    assert needs == [Need("system", root / "usr/share", on_disk(100))]


@pytest.mark.parametrize("partition", ["boot", "efi", "boot/efi"])
def test_the_boot_partition_needs_what_the_boot_manager_will_copy(
    root: Path, staged: Directory, partition: str
) -> None:
    kernel = entry("/usr/lib/kernel/org.clearlinux.native.6.2.0-11")
    with mounted(root / partition):
        needs = system_needs(
            FileSystems(root, [f"/{partition}"]), staged, [kernel, entry("/usr/bin/a")], {kernel.hash: 9 * MB}
        )
    assert needs == [Need("boot partition", root / partition, 9 * MB)]


def test_the_innermost_mount_point_counts_and_those_of_users_and_of_the_kernel_do_not(root: Path) -> None:
    systems = FileSystems(root, ["/usr", "/usr/share", "/home", "/proc"])
    assert [systems.of(name) for name in ("/usr/share/a", "/usr/shared", "/usr/share", "/home/a", "/proc/a", "/b")] == (
        ["/usr/share", "/usr", "/usr", "", "", ""]
    )


def test_a_directory_boot_that_is_no_partition_needs_nothing(root: Path, staged: Directory) -> None:
    kernel = entry("/usr/lib/kernel/org.clearlinux.native.6.2.0-11")
    (root / "boot").mkdir()
    assert system_needs(FileSystems(root, []), staged, [kernel], {kernel.hash: 9 * MB}) == []


def test_what_is_on_one_file_system_is_added_up(tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir()
    (room,) = rooms([Need("cache", tmp_path / "cache", 1000), Need("system", tmp_path / "root/none", 500)], factor=2)
    assert (room.what, room.path, room.needed) == ("cache and system", tmp_path / "cache", 3000)
    assert 0 < room.free <= os.statvfs(tmp_path).f_blocks * os.statvfs(tmp_path).f_frsize


def test_a_file_system_that_does_not_tell_its_size_is_left_out() -> None:
    assert rooms([Need("system", Path("/proc"), 1 << 60)]) == []


def test_too_little_room_is_an_error_that_names_all_numbers() -> None:
    with pytest.raises(DiskSpaceError) as caught:
        check([Room("cache", Path("/a"), 10, 11), Room("boot partition", Path("/boot"), 2_000_000, 1_000_000)])
    for part in ("/boot", "boot partition", "2000000", "1000000", "2.0 MB", "1.0 MB", "nothing was changed"):
        assert part in str(caught.value)
    assert "--skip-diskspace-check" in caught.value.hint


def test_exactly_enough_is_enough() -> None:
    check([Room("cache", Path("/a"), 10, 10)])


def test_what_is_staged_is_measured_before_it_is_installed(root: Path, staged: Directory, tmp_path: Path) -> None:
    (tmp_path / "staged/x").write_bytes(bytes(2 * MB))
    plan = Plan(install=(entry("/usr/a", "x"),))
    check_installation(FileSystems(root, []), tmp_path, staged, plan)
    with mounted(root, MB), pytest.raises(DiskSpaceError, match="system"):
        check_installation(FileSystems(root, []), tmp_path, staged, plan)
    with mounted(root, 3 * MB):
        check_installation(FileSystems(root, []), tmp_path, staged, plan)


def test_the_file_system_of_a_snapshot_is_that_of_the_machine(root: Path, staged: Directory, tmp_path: Path) -> None:
    (tmp_path / "staged/x").write_bytes(bytes(MB))
    with mounted(tmp_path / "machine", 2 * MB) as machine, mounted(root, MB):
        systems = FileSystems(root, [], machine=machine)
        needs = system_needs(systems, staged, [entry("/usr/a", "x")], {"x": MB})
    assert needs == [Need("system", machine, on_disk(MB))]


def test_old_files_need_room_where_they_are_kept_unless_that_is_on_their_own_file_system(
    root: Path, staged: Directory, tmp_path: Path
) -> None:
    (root / "usr/old").write_bytes(bytes(2 * MB))
    plan = Plan(remove=("/usr/old",))
    with mounted(tmp_path / "data", MB) as data:
        assert keeping_needs(FileSystems(root, []), data, ["/usr/old", "/usr/new"]) == [Need("old files", data, 2 * MB)]
        with pytest.raises(DiskSpaceError, match="old files"):
            check_installation(FileSystems(root, []), data, staged, plan)
    check_installation(FileSystems(root, []), tmp_path, staged, plan)


def test_sizes_are_those_of_regular_files(root: Path, staged: Directory, tmp_path: Path) -> None:
    (root / "usr/a").write_bytes(bytes(7))
    (root / "usr/link").symlink_to("a")
    assert disk_sizes(root, ["/usr/a", "/usr/link", "/usr", "/none"]) == {"/usr/a": 7}
    (tmp_path / "staged/x").write_bytes(bytes(5))
    assert staged_sizes(staged, [entry("/usr/a", "x"), entry("/usr/b", "y")]) == {"x": 5}
