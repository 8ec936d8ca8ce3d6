"""Where a machine keeps its deployments: what a mount table says, and a real disk."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from swupd.errors import NextBootError
from swupd.nextboot.place import Place, is_deployment, locate
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
