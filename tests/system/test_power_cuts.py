"""The plug is pulled at random moments of an update for the next boot: 10 or 20 boots, never anything else.

The machine is saved when it is about to update itself; every round begins there, with a copy of its disk, so that a
round costs the update up to its moment and one boot. Moments are drawn from the time that a whole update takes, and
for every second round from that of its end alone.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from tests.system import machine
from tests.system.bootmix import BootMix
from tests.system.guest import Guest
from tests.system.machine import COMMAND_SECONDS, Disk
from tests.transaction.proof import seed

pytestmark = [
    pytest.mark.system,
    pytest.mark.machine,
    pytest.mark.timeout(1200),
    pytest.mark.skipif(os.geteuid() != 0, reason="file owners are part of an OS: needs root"),
    pytest.mark.skipif(bool(machine.missing_programs()), reason=machine.missing_programs()),
]

ROUNDS = 10
NIGHTLY_ROUNDS = 100
ABREAST = 2
"""How many machines run at the same time."""
ENDING = "Making the snapshot ready to boot"
"""What is said before the steps whose order matters; every second cut comes after it."""
ENDING_SECONDS = 6
"""How long they may take."""
QUICK = " ".join(f"systemd.mask=systemd-{name}.service" for name in ("networkd", "resolved", "timesyncd"))
"""For the kernel: a boot that is only looked at needs no network."""


class Saved:
    """A machine that is about to update itself."""

    def __init__(self, disk: Disk, memory: Path, mix: BootMix, directory: Path) -> None:
        self._disk = disk
        self._memory = memory
        self._mix = mix
        self._directory = directory
        url = f"--url {mix.url} --allow-insecure-http --no-progress"
        # Without a terminal on its input it does not ask.
        self.command = f"swupd update --next-boot --version 20 {url} </dev/null"
        with self.woken("whole") as guest:
            begun = time.monotonic()
            guest.command(self.command)
            self.seconds = time.monotonic() - begun
            """What a whole update takes here."""

    @contextmanager
    def woken(self, name: str) -> Iterator[Guest]:
        """The machine as it was saved, with a disk of its own."""
        path = self._directory / f"{name}.img"
        guest = Guest(self._disk.copy(path), self._directory, self._mix)
        try:
            guest.boot(incoming=self._memory)
            guest.resume()
            yield guest
        finally:
            guest.close()
            path.unlink()


@pytest.fixture(scope="module")
def saved(ten: Disk, served_mix: BootMix, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Saved]:
    directory = tmp_path_factory.mktemp("power-cuts")
    guest = Guest(ten.copy(directory / "saved.img"), directory, served_mix)
    try:
        guest.start()
        guest.blessed()
        guest.command("sync")
        guest.save(directory / "memory")
        yield Saved(guest.disk, directory / "memory", served_mix, directory)
    finally:
        guest.close()


def _cut(saved: Saved, number: int, moment: float) -> str:
    """Cut the power at a moment (0 to 1) of an update, or of its end; the version that boots then."""
    with saved.woken(str(number)) as guest:
        guest.type(saved.command)
        if number % 2:
            guest.expect(ENDING, COMMAND_SECONDS)
            time.sleep(moment * ENDING_SECONDS)
        else:
            time.sleep(moment * saved.seconds)
        guest.kill()
        guest.start(options=QUICK)
        version = guest.version()
        assert (version, guest.deployment()) in (("10", "10"), ("20", "20"))
        page = guest.command("tail -n 1 /usr/share/site/page").strip()
        assert page == {"10": "ten", "20": "twenty"}[version]
        kept = guest.command("cat /home/ann/diary /var/lib/mine; tail -n 1 /etc/hosts; cat /etc/site.conf")
        assert kept.split() == ["diary", "mine", "192.0.2.7", "printer.of.ann", "color", "=", "green"]
        return version


def _cuts(saved: Saved, count: int, chance: random.Random) -> None:
    moments = [chance.random() for _ in range(count)]
    with ThreadPoolExecutor(ABREAST) as threads:
        versions = list(threads.map(partial(_cut, saved), range(count), moments))
    print(sorted(zip(moments, versions, strict=True)))


def test_the_power_is_cut_at_random_moments(saved: Saved) -> None:
    _cuts(saved, ROUNDS, random.Random(seed()))


def test_the_run_after_a_power_cut_cleans_up_and_succeeds(saved: Saved) -> None:
    with saved.woken("next") as guest:
        guest.command(f"({saved.command} > /run/outcome 2>&1) & true")
        guest.command("until grep -q Verifying /run/outcome; do sleep 0.2; done; sync")
        guest.kill()
        # A good boot would clean up as well.
        guest.start(options="systemd.mask=swupd-boot-complete.service")
        assert "10.1.part" in guest.swupd("snapshots list")
        guest.command(saved.command)
        assert guest.swupd("status --quiet").split() == ["10", "20"]
        assert guest.command("ls -A /var/lib/swupd").split().count("nextboot") == 0
        assert ".part" not in guest.swupd("snapshots list")


@pytest.mark.nightly
@pytest.mark.timeout(6 * 3600)
def test_the_power_is_cut_at_many_random_moments(saved: Saved) -> None:
    _cuts(saved, NIGHTLY_ROUNDS, random.Random(seed() + 1))
