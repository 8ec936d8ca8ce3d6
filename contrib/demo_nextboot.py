"""The next boot, on a virtual machine: build a bootable disk of the shipped mix, boot it, let it update itself to the
next version, boot into that, give it a version that fails its health check, and watch it come back.

Usage: demo_nextboot.py DIRECTORY (root; QEMU; about 6 GB of space). Everything happens below DIRECTORY and on the
loopback address. What is typed into the machine's console is shown with what it answers. A second run keeps the cache
of the builder.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.system.bootmix import FIRST, INSTALLED, SECOND, UNHEALTHY, BootMix
from tests.system.guest import Guest
from tests.system.machine import Disk, missing_programs


class Clock:
    """Seconds of each step, for the closing table."""

    def __init__(self) -> None:
        self.rows: list[tuple[str, float, str]] = []
        self._begun = time.monotonic()

    def step(self, name: str, note: str = "") -> None:
        now = time.monotonic()
        self.rows.append((name, now - self._begun, note))
        self._begun = now
        print(f"   {name}: {self.rows[-1][1]:.1f} s {note}", flush=True)

    def table(self) -> str:
        lines = [f"{name:34}{seconds:9.1f}  {note}".rstrip() for name, seconds, note in self.rows]
        return "\n".join([f"{'step':34}{'seconds':>9}", *lines])


def say(text: str) -> None:
    print(f"\n== {text}", flush=True)


def show(guest: Guest, command: str, *, online: bool = False, expect: int | None = 0) -> None:
    """Run a command of swupd inside the machine, and show what it answers."""
    print(f"machine# swupd {command}", flush=True)
    more = f" --url {guest.mix.url} --allow-insecure-http --no-progress" if online else ""
    for line in guest.command(f"swupd {command}{more}", expect=expect).splitlines():
        print(f"  {line}", flush=True)


def size(path: Path) -> str:
    status = path.stat()
    return f"{status.st_size >> 20} MB, {status.st_blocks * 512 >> 20} MB of them written"


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit("usage: demo_nextboot.py DIRECTORY")
    if os.geteuid() != 0:
        sys.exit("demo: must be run as root (file owners are part of an OS)")
    if missing := missing_programs():
        sys.exit(f"demo: {missing}; make setup installs it")
    directory = Path(sys.argv[1]).resolve()
    started = time.monotonic()
    clock = Clock()
    mix = BootMix(directory / "mix")
    mix.clear()
    mix.prepare()

    say("building version 10 of the shipped mix, and a disk of it")
    mix.publish(FIRST)
    clock.step("build 10")
    image = directory / "disk.img"
    mix.image(image)
    clock.step("build image", size(image))
    say("building version 20, and version 30, whose health check fails")
    mix.publish(SECOND)
    clock.step("build 20", "with packs from 10 to 20")
    mix.publish(UNHEALTHY)
    clock.step("build 30")

    with mix.serving():
        guest = Guest(Disk(image), directory, mix)
        try:
            story(guest, clock)
        finally:
            guest.close()
    print(f"\n{clock.table()}\n\ndemo: ok ({time.monotonic() - started:.0f} s)")


def story(guest: Guest, clock: Clock) -> None:
    say(f"switching the machine on: bundles {INSTALLED}, empty /etc and /var")
    guest.boot()
    clock.step("boot 10", "to the login prompt")
    guest.login()
    guest.blessed()
    guest.command("echo '192.0.2.7 printer' >> /etc/hosts")
    show(guest, "status")
    say("updating it for its next boot")
    show(guest, f"update --next-boot --version {SECOND}", online=True)
    clock.step("update --next-boot", "inside the machine, without KVM")
    show(guest, "status")
    guest.reboot()
    clock.step("boot 20", "shut down, and to the login prompt")
    guest.login()
    guest.blessed()
    show(guest, "status")
    show(guest, "etc diff", expect=1)
    say("a version that fails: 30 boots, is not healthy, and the machine comes back to 20 without help")
    show(guest, f"update --next-boot --version {UNHEALTHY}", online=True)
    clock.step("update --next-boot to 30")
    guest.type("systemctl reboot")
    guest.await_end()
    guest.boot(wait=False)
    print(f"   the boot loader started {guest.booted}", flush=True)
    guest.await_end()
    clock.step("boot 30", "until it gave up")
    guest.boot()
    print(f"   the boot loader started {guest.booted}", flush=True)
    guest.login()
    guest.blessed()
    clock.step("back in 20")
    show(guest, "status")
    show(guest, "history")
    guest.off()


if __name__ == "__main__":
    main()
