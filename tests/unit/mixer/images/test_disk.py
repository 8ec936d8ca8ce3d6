from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mixer.errors import BuildError
from mixer.images import boot, disk
from swupd.formats import bootentry
from swupd.report import TextReport

Published = Any

MIB = 1 << 20
GIB = 1 << 30
ESP_OFFSET = MIB
ROOT_OFFSET = 257 * MIB
ENTRY = "loader/entries/os-10.conf"


@pytest.fixture
def build(published: Published, tmp_path: Path) -> Callable[..., Path]:
    """Make a disk of version 10; returns where it is."""

    def made(name: str = "disk.img", **options: Any) -> Path:
        target = tmp_path / name
        disk.build(published.load("kernel", "office"), target, TextReport(), **{"time": 1700000000, **options})
        return target

    return made


@pytest.fixture
def image(build: Callable[..., Path]) -> Path:
    return build()


def run(*argv: str | Path) -> bytes:
    path = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "TZ": "UTC"}
    return subprocess.run(argv, capture_output=True, check=True, env=path).stdout


def on_esp(image: Path, name: str) -> bytes:
    return run("mtype", "-i", f"{image}@@{ESP_OFFSET}", f"::/{name}")


def cut(image: Path, offset: int, size: int, target: Path) -> Path:
    """A partition as a file of its own, with its holes."""
    argv = ["dd", f"if={image}", f"of={target}", "bs=1M", f"skip={offset // MIB}", f"count={size // MIB}"]
    run(*argv, "conv=sparse", "status=none")
    os.truncate(target, size)
    return target


def facts(image: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(Path(f"{image}.json").read_text())
    return found


def test_a_disk_has_a_boot_partition_and_a_root(image: Path) -> None:
    found = re.findall(
        r"start= *(\d+), size= *(\d+), type=([0-9A-F-]+), .*name=\"(.*)\"", run("sfdisk", "-d", image).decode()
    )

    assert image.stat().st_size == 4 * GIB
    assert found == [
        ("2048", str(256 * MIB // 512), "C12A7328-F81F-11D2-BA4B-00A0C93EC93B", "ESP"),
        (str(ROOT_OFFSET // 512), str((4 * GIB - 258 * MIB) // 512), "4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709", "os"),
    ]


def test_the_image_is_sparse(image: Path) -> None:
    assert image.stat().st_blocks * 512 < 40 * MIB


def test_the_boot_partition_has_loader_kernel_and_initrd(image: Path, published: Published) -> None:
    root = published.root
    kernel, initrd = ((root / "boot" / name).read_bytes() for name in ("vmlinuz-6.10.0", "initrd-6.10.0"))

    listed = run("mdir", "-i", f"{image}@@{ESP_OFFSET}", "-b", "-/", "::/").decode().split()

    names = {name.removeprefix("::/") for name in listed if not name.endswith("/")}
    kernel_name = f"os/vmlinuz-{hashlib.sha256(kernel).hexdigest()[:16]}"
    initrd_name = f"os/initrd-{hashlib.sha256(initrd).hexdigest()[:16]}"
    assert names == {"EFI/BOOT/BOOTX64.EFI", "loader/loader.conf", ENTRY, kernel_name, initrd_name}
    assert on_esp(image, "EFI/BOOT/BOOTX64.EFI") == (root / boot.LOADER[1:]).read_bytes()
    assert on_esp(image, "loader/loader.conf") == b"timeout 0\neditor no\n"
    assert (on_esp(image, kernel_name), on_esp(image, initrd_name)) == (kernel, initrd)


def test_the_entry_is_one_that_the_client_reads(image: Path) -> None:
    entry = bootentry.parse(Path(ENTRY).name, on_esp(image, ENTRY).decode())

    assert entry is not None
    assert (entry.name, entry.title, entry.sequence, entry.is_good) == ("10", "Test OS 10", 1, True)
    uuid = facts(image)["uuid"]
    assert entry.options == f"root=UUID={uuid} rootflags=subvol=@/10 quiet console=ttyS0"


def test_both_file_systems_have_no_mistakes(build: Callable[..., Path], tmp_path: Path) -> None:
    image = build(size=520 * MIB)
    boot = cut(image, ESP_OFFSET, 256 * MIB, tmp_path / "esp")
    root = cut(image, ROOT_OFFSET, (520 - 258) * MIB, tmp_path / "root")

    run("fsck.vfat", "-n", boot)
    run("btrfs", "check", "--check-data-csum", root)

    told = run("blkid", "-p", "-o", "export", root).decode().split("\n")
    assert f"UUID={facts(image)['uuid']}" in told
    assert "LABEL=os" in told


def test_the_facts_say_what_is_in_the_image(image: Path, published: Published) -> None:
    found = facts(image)

    assert found["type"] == "disk"
    assert (found["version"], found["bundles"]) == (10, ["editor", "kernel", "office", "os-core"])
    assert found["mom"] == published.load().mom_hash
    assert found["bytes"] == image.stat().st_size
    assert found["kernel_command_line"].endswith("rootflags=subvol=@/10 quiet console=ttyS0")
    assert found["files"] == len(published.load("kernel", "office").nodes)


def test_the_same_version_gives_the_same_bytes_anywhere_at_any_time(
    build: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = build("first", size=520 * MIB)
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    for name, value in (("TZ", "Asia/Tokyo"), ("LC_ALL", "de_DE.UTF-8"), ("SOURCE_DATE_EPOCH", "7")):
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(disk.clock, "monotonic", lambda: 123.0)

    second = build("other/second", size=520 * MIB)

    run("cmp", first, second)
    assert Path(f"{first}.json").read_bytes() == Path(f"{second}.json").read_bytes()


def test_the_identity_follows_from_the_bundles(published: Published, tmp_path: Path) -> None:
    for name, bundles in (("one", ("kernel",)), ("other", ("kernel", "editor"))):
        disk.build(published.load(*bundles), tmp_path / name, TextReport(), time=0)

    assert facts(tmp_path / "one")["uuid"] != facts(tmp_path / "other")["uuid"]


def test_a_size_is_as_asked(build: Callable[..., Path]) -> None:
    assert build(size=700 * MIB).stat().st_size == 700 * MIB


def test_a_size_too_small_is_one_line(build: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(BuildError, match=r"a disk of 280 MiB is too small: the version alone needs \d+ MiB") as caught:
        build(size=280 * MIB)

    assert caught.value.hint.startswith("4096 MiB have room for updates")
    assert not list(tmp_path.glob("disk.img*"))


def test_the_usual_size_has_room_for_three_versions() -> None:
    assert disk._disk_size(0, 256 * MIB, 100 * MIB) == 4 * GIB
    assert disk._disk_size(0, 256 * MIB, 2 * GIB) == 7 * GIB + 512 * MIB


def test_large_kernels_get_a_larger_boot_partition(prepared: Published, tmp_path: Path) -> None:
    with (prepared.root / "boot/initrd-6.10.0").open("r+b") as file:
        file.truncate(70 * MIB)
    prepared.build(packs=False)

    disk.build(prepared.load("kernel"), tmp_path / "disk.img", TextReport(), time=0)

    assert facts(tmp_path / "disk.img")["esp_bytes"] == 512 * MIB


def test_a_damaged_object_leaves_nothing_behind(published: Published, tmp_path: Path) -> None:
    found = published.load("kernel")
    node = found.find("/usr/share/large")
    place = published.mix.workspace.objects / node.hash[:2] / node.hash
    place.write_bytes(place.read_bytes()[:-30])

    with pytest.raises(BuildError, match="cannot read /usr/share/large"):
        disk.build(found, tmp_path / "disk.img", TextReport(), time=0)

    assert not list(tmp_path.glob("disk.img*"))
