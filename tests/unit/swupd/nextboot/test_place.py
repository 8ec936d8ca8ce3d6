"""Where a machine keeps its deployments: what a mount table says, a real disk, and a FAT after a power cut."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
from pathlib import Path
from typing import Any

import pytest

from swupd.errors import NextBootError
from swupd.nextboot.place import Place, is_deployment, locate, repair
from swupd.system import Mount

ROOT = Mount("/", "/@/20", "btrfs", "/dev/vda2")
STATE = Mount("/run/state", "/@state", "btrfs", "/dev/vda2")


def test_the_mounts_say_what_runs() -> None:
    located = locate(Path("/"), [ROOT, STATE])
    assert (located.running, located.current, located.device) == ("20", "20", "/dev/vda2")


def test_after_a_live_update_another_deployment_is_in_use() -> None:
    usr = Mount("/usr", "/@/30.1/usr", "btrfs", "/dev/vda2")
    located = locate(Path("/"), [ROOT, STATE, usr])
    assert (located.running, located.current) == ("20", "30.1")


def test_all_deployments_that_live_updates_have_mounted_are_known() -> None:
    stacked = [Mount("/usr", f"/@/{name}/usr", "btrfs", "/dev/vda2") for name in ("30", "30.1")]
    modules = Mount("/usr/lib/modules", "/@/20/usr/lib/modules", "btrfs", "/dev/vda2")
    elsewhere = Mount("/run/swupd/mounts/1/top", "/", "btrfs", "/dev/vda2")
    located = locate(Path("/"), [ROOT, STATE, *stacked, modules, elsewhere])
    assert located.mounted == {"20", "30", "30.1"}


def test_a_usr_of_its_own_is_no_live_update() -> None:
    usr = Mount("/usr", "/", "ext4", "/dev/vda3")
    assert locate(Path("/"), [ROOT, STATE, usr]).current == "20"


@pytest.mark.parametrize(
    ("mounts", "message"),
    [
        ([], "is not a mount point"),
        ([ROOT, STATE, Mount("/", "/", "overlay", "overlay")], "is on overlay, not on btrfs"),
        ([Mount("/", "/", "btrfs", "/dev/vda2"), STATE], "is the subvolume /, not one of /@/<version>"),
        ([Mount("/", "/@", "btrfs", "/dev/vda2"), STATE], "is the subvolume /@, "),
        ([Mount("/", "/@/20.part", "btrfs", "/dev/vda2"), STATE], "not one of /@/<version>"),
        ([ROOT], "the shared state is not mounted at /run/state"),
    ],
)
def test_another_layout_is_told_apart(mounts: list[Mount], message: str) -> None:
    with pytest.raises(NextBootError) as caught:
        locate(Path("/"), mounts)
    assert message in str(caught.value)
    assert caught.value.hint


def test_a_place_is_open_until_it_is_closed(machine_disk: Any) -> None:
    located = locate(machine_disk.root)
    with Place.open(located) as place:
        assert place.names() == ["10"]
        assert place.uuid == machine_disk.uuid
        assert [entry.name for entry in place.entries.read()] == ["10"]
        assert place.path("10").is_dir()
        assert (machine_disk.root / "run/swupd/mounts").stat().st_mode & 0o777 == 0o700
    assert os.listdir(machine_disk.root / "run/swupd/mounts") == []


def test_a_place_of_a_process_that_died_is_unmounted(machine_disk: Any) -> None:
    child = os.fork()
    if child == 0:
        Place.open(locate(machine_disk.root))
        os._exit(0)
    os.waitpid(child, 0)
    mounts = machine_disk.root / "run/swupd/mounts"
    assert os.path.ismount(mounts / str(child) / "top")
    with Place.open(locate(machine_disk.root)):
        assert os.listdir(mounts) == [str(os.getpid())]


def test_a_disk_without_a_boot_partition_is_told_apart(machine_disk: Any) -> None:
    subprocess.run(["sfdisk", "--part-type", machine_disk.device, "1", "linux"], capture_output=True, check=False)
    with pytest.raises(NextBootError, match="no EFI system partition"):
        Place.open(locate(machine_disk.root))
    assert os.listdir(machine_disk.root / "run/swupd/mounts") == []


def test_a_root_is_a_deployment_or_not(machine_disk: Any) -> None:
    assert is_deployment(machine_disk.root)
    assert not is_deployment(machine_disk.root / "usr")


# -- repairing a FAT


@pytest.fixture
def fat(tmp_path: Path) -> Path:
    """With two files of one cluster each, OLD.CNF and NEW.CNF."""
    if not (shutil.which("mcopy") and shutil.which("mkfs.vfat") and shutil.which("fsck.vfat")):
        pytest.skip("needs mtools and dosfstools")
    image = tmp_path / "fat"
    with image.open("wb") as file:
        file.truncate(1 << 20)
    call("mkfs.vfat", "-s", "1", image)
    for name in ("OLD.CNF", "NEW.CNF"):
        (tmp_path / name).write_text(name)
        call("mcopy", "-i", image, tmp_path / name, f"::/{name}")
    return image


def call(*argv: str | Path) -> str:
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout


def content(fat: Path, name: str) -> str:
    return call("mtype", "-i", fat, f"::/{name}")


def cluster_at(fat: Path, name: str) -> int:
    """Where the image has the number of a file's first cluster."""
    return fat.read_bytes().index(name.replace(".", "     ").encode()) + 26


def put(fat: Path, offset: int, data: bytes) -> None:
    with fat.open("r+b") as file:
        file.seek(offset)
        file.write(data)


def test_of_two_names_of_the_same_clusters_one_is_empty_after_a_repair(fat: Path) -> None:
    at = cluster_at(fat, "OLD.CNF")
    put(fat, cluster_at(fat, "NEW.CNF"), fat.read_bytes()[at : at + 2])
    assert content(fat, "NEW.CNF") == "OLD.CNF"
    repair(str(fat))
    assert (content(fat, "OLD.CNF"), content(fat, "NEW.CNF")) == ("OLD.CNF", "")
    call("mdel", "-i", fat, "::/NEW.CNF")
    assert content(fat, "OLD.CNF") == "OLD.CNF"
    call("fsck.vfat", "-n", fat)


def test_a_file_of_free_clusters_is_empty_after_a_repair(fat: Path) -> None:
    # The entry of NEW.CNF in both tables of 12 bits an entry, behind one reserved sector.
    (cluster,) = struct.unpack_from("<H", fat.read_bytes(), cluster_at(fat, "NEW.CNF"))
    (sectors,) = struct.unpack_from("<H", fat.read_bytes(), 22)
    assert cluster == 3
    for table in (512, 512 + 512 * sectors):
        put(fat, table + 4, bytes([fat.read_bytes()[table + 4] & 0x0F, 0]))
    repair(str(fat))
    assert (content(fat, "OLD.CNF"), content(fat, "NEW.CNF")) == ("OLD.CNF", "")
    call("fsck.vfat", "-n", fat)


def test_what_is_mounted_is_not_repaired(machine_disk: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / f"fsck.{machine_disk.kind}"
    program.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/repaired\n')
    program.chmod(0o755)
    monkeypatch.setattr("swupd.process.ENVIRONMENT", {"PATH": f"{tmp_path}:{os.environ['PATH']}"})
    with Place.open(locate(machine_disk.root)):
        repair(f"{machine_disk.device}p1")
    assert (tmp_path / "repaired").read_text() == f"-a {machine_disk.device}p1\n"


def test_a_partition_that_nobody_can_repair_is_used(
    machine_disk: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("mount", "umount", "blkid"):
        (tmp_path / name).symlink_to(str(shutil.which(name)))
    monkeypatch.setattr("swupd.process.ENVIRONMENT", {"PATH": str(tmp_path)})
    with Place.open(locate(machine_disk.root)) as place:
        assert [entry.name for entry in place.entries.read()] == ["10"]
