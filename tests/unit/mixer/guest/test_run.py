from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mixer.errors import BuildError
from mixer.guest import run
from mixer.guest.machine import MIB, Device
from mixer.guest.run import Wish, facts_of

FACTS = {"type": "guest-erofs", "bundles": ["guest-minimal"], "init": "/usr/lib/guest/init", "dax": False}


class Place:
    """An image and a kernel, as far as anything looks at them."""

    def __init__(self, path: Path) -> None:
        self.image = path / "guest.img"
        self.image.write_bytes(bytes(2 * MIB))
        self.kernel = path / "kernel"
        self.kernel.mkdir()
        (self.kernel / "vmlinuz").write_bytes(b"kernel")
        (self.kernel / "initrd").write_bytes(b"initrd")
        (path / "kernel.json").write_text('{"type": "kernel"}')
        self.say()

    def say(self, **facts: object) -> None:
        Path(f"{self.image}.json").write_text(json.dumps(FACTS | facts))

    def wish(self, **wanted: Any) -> Wish:
        usual = {"model": "q35", "memory": 256 * MIB, "cpus": 1, "kvm": False, "dax": True, "timeout": None}
        return Wish(image=self.image, kernel=self.kernel, **{**usual, "command": ("true",), "share": None, **wanted})

    def machine(self, **wanted: Any) -> tuple[Any, bytes]:
        return run._machine(self.wish(**wanted), facts_of(self.image))


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_a_plain_image_is_the_whole_device(place: Place) -> None:
    machine, _ = place.machine()
    assert machine.image.device is Device.PMEM
    assert " root=/dev/pmem0 rootfstype=erofs rootflags=dax=always init=/usr/lib/guest/init" in machine.append


def test_an_image_with_a_header_is_a_partition(place: Place) -> None:
    place.say(type="guest-ext4", dax=True)
    machine, _ = place.machine()
    assert machine.image.device is Device.NVDIMM
    assert " root=/dev/pmem0p1 rootfstype=ext4 rootflags=dax=always " in machine.append


@pytest.mark.parametrize("wanted", [{"dax": False}, {"model": "microvm"}])
@pytest.mark.parametrize(("header", "root"), [(False, "/dev/vda"), (True, "/dev/vda1")])
def test_an_image_can_be_a_disk(place: Place, wanted: dict[str, object], header: bool, root: str) -> None:
    place.say(dax=header)
    machine, _ = place.machine(**wanted)
    assert machine.image.device is Device.BLOCK
    assert f" root={root} rootfstype=erofs init=" in machine.append


def test_an_initrd_comes_before_ours_which_is_started(place: Place) -> None:
    place.say(type="initrd")
    place.image.write_bytes(b"image")
    machine, initrd = place.machine()
    assert machine.image is None
    assert initrd == b"image\0\0\0initrd\0\0"
    assert "rdinit=/guest/init init=/usr/lib/guest/init" in machine.append


def test_systemd_is_told_what_to_bring_up(place: Place) -> None:
    place.say(bundles=["guest-systemd", "os-core"], init="/usr/sbin/init")
    words = place.machine()[0].append.split()
    assert {"init=/usr/sbin/init", "systemd.unit=guest.target"} <= set(words)
    assert "systemd.mask=systemd-udev-trigger.service" in words


def test_the_clock_is_told_only_without_kvm(place: Place) -> None:
    assert "tsc_early_khz" in place.machine()[0].append
    assert "tsc_early_khz" not in place.machine(kvm=True)[0].append


def test_a_share_is_named(place: Place, tmp_path: Path) -> None:
    assert place.machine(share=tmp_path)[0].append.endswith(" guest.share=share")


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"type": "disk"}, "does not say that this is an image of the type"),
        ({"type": 7}, "does not say that this is an image of the type"),
        ({"bundles": ["os-core"]}, "does not know how to run a command"),
        ({"bundles": "guest-minimal"}, "does not know how to run a command"),
        ({"init": "/init quiet"}, "does not name the init"),
        ({"init": None}, "does not name the init"),
    ],
)
def test_an_image_that_cannot_be_run_is_one_line(place: Place, facts: dict[str, object], message: str) -> None:
    place.say(**facts)
    with pytest.raises(BuildError, match=message):
        place.machine()


def test_an_image_without_facts_or_that_is_none_is_one_line(place: Place) -> None:
    Path(f"{place.image}.json").unlink()
    with pytest.raises(BuildError, match="does not say"):
        facts_of(place.image)
    with pytest.raises(BuildError, match="is not a file"):
        facts_of(place.kernel)


def test_a_kernel_is_what_the_type_kernel_made(place: Place, tmp_path: Path) -> None:
    (tmp_path / "kernel.json").unlink()
    with pytest.raises(BuildError, match="is not a kernel with its initrd") as caught:
        place.machine()
    assert "--type kernel" in caught.value.hint
