from __future__ import annotations

import json
import os
import pty
import socket
import subprocess
import sys
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from mixer.errors import BuildError
from mixer.guest import run
from mixer.guest.machine import MIB, Device, Machine, Running
from mixer.guest.run import Wish, facts_of
from swupd.report import TextReport

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
    assert " root=/dev/pmem0 rootfstype=erofs rootflags=dax=always ro init=/usr/lib/guest/init" in machine.append


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
    assert f" root={root} rootfstype=erofs ro init=" in machine.append


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


class Guests:
    """Guests that only say something on their console: then they end, or, if it is nothing, stand still."""

    def __init__(self, says: bytes) -> None:
        self.says = says
        self.with_kvm: list[bool] = []

    @contextmanager
    def started(self, machine: Machine, initrd: bytes, channels: Collection[str], share: object) -> Iterator[Running]:
        self.with_kvm.append(machine.kvm)
        pairs = {name: socket.socketpair() for name in ("log", *channels)}
        complaints, writable = os.pipe()
        pairs["log"][1].sendall(self.says)
        if self.says:
            for _, theirs in pairs.values():
                theirs.close()
        yield Running({name: ours for name, (ours, _) in pairs.items()}, complaints)
        for pair in pairs.values():
            for end in pair:
                end.close()
        os.close(complaints)
        os.close(writable)


def test_what_the_initrd_tells_is_no_fault_of_kvm(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    guests = Guests(b"GUEST-FAIL: cannot mount /dev/pmem0 as erofs\n")
    monkeypatch.setattr(run, "started", guests.started)
    with pytest.raises(BuildError, match="its console: GUEST-FAIL: cannot mount"):
        run.run(place.wish(kvm=True), TextReport(quiet=True))
    assert guests.with_kvm == [True]


def test_the_time_of_a_command_is_one_time_with_and_without_kvm(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    guests = Guests(b"")
    monkeypatch.setattr(run, "started", guests.started)
    monkeypatch.setattr(run, "START_SECONDS", 0.8)
    start = time.monotonic()
    assert run.run(place.wish(kvm=True, timeout=1.0), TextReport(quiet=True)) == run.TIME_IS_OVER
    assert guests.with_kvm == [True, False]
    # Not 0.8 and then another second.
    assert time.monotonic() - start < 1.7


def test_a_person_can_interrupt_a_guest_that_does_not_come_up(place: Place) -> None:
    code = """\
import sys, termios
from contextlib import nullcontext
from pathlib import Path
from mixer.guest import run
from swupd.report import TextReport
run.started = lambda *_: nullcontext()
class Guest(run._Guest):
    def __init__(self, running):
        sys.exit(7 if termios.tcgetattr(0)[3] & termios.ISIG else 1)
run._Guest = Guest
image, kernel = map(Path, sys.argv[1:])
run.run(run.Wish(image, kernel, (), "q35", 256 << 20, 1, False, True, None, None), TextReport())
"""
    ours, theirs = pty.openpty()
    try:
        argv = [sys.executable, "-c", code, place.image, place.kernel]
        assert subprocess.run(argv, stdin=theirs, stdout=theirs, check=False).returncode == 7
    finally:
        os.close(ours)
        os.close(theirs)
