"""The plug is pulled at random moments of an update for the next boot: 10 or 20 boots, never anything else.

The machine is saved when it is about to update itself; every round begins there, with a copy of its disk, so that a
round costs the update up to its moment and one boot. Moments are drawn from the time that a whole update takes.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system import machine
from tests.system.bootmix import BootMix
from tests.system.guest import Guest
from tests.system.machine import Disk
from tests.transaction.proof import seed

pytestmark = [
    pytest.mark.system,
    pytest.mark.timeout(1200),
    pytest.mark.skipif(os.geteuid() != 0, reason="file owners are part of an OS: needs root"),
    pytest.mark.skipif(bool(machine.missing_programs()), reason=machine.missing_programs()),
]

ROUNDS = 10
NIGHTLY_ROUNDS = 100


class Saved:
    """A machine that is about to update itself."""

    def __init__(self, disk: Disk, memory: Path, mix: BootMix, directory: Path) -> None:
        self._disk = disk
        self._memory = memory
        self._mix = mix
        self._directory = directory
        self.command = f"swupd update --next-boot --version 20 --url {mix.url} --allow-insecure-http"
        guest = self.woken()
        begun = time.monotonic()
        guest.command(self.command)
        self.seconds = time.monotonic() - begun
        """What a whole update takes here."""
        guest.close()

    def woken(self) -> Guest:
        path = self._directory / "round.img"
        guest = Guest(self._disk.copy(path), self._directory, self._mix)
        guest.boot(incoming=self._memory)
        guest.resume()
        return guest


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


def _round(saved: Saved, moment: float) -> str:
    """Cut the power so many seconds after the beginning of the update; the version that boots then."""
    guest = saved.woken()
    try:
        guest.type(saved.command)
        time.sleep(moment)
        guest.kill()
        guest.start()
        guest.blessed()
        version = guest.version()
        assert (version, guest.deployment()) in (("10", "10"), ("20", "20"))
        page = guest.command("tail -n 1 /usr/share/site/page").strip()
        assert page == {"10": "ten", "20": "twenty"}[version]
        kept = guest.command("cat /home/ann/diary /var/lib/mine; tail -n 1 /etc/hosts; cat /etc/site.conf")
        assert kept.split() == ["diary", "mine", "192.0.2.7", "printer.of.ann", "color", "=", "green"]
        if version == "10":
            # The next run cleans up and succeeds.
            guest.command(saved.command)
            assert "20" in guest.swupd("status --quiet")
            assert not [name for name in guest.command("swupd snapshots list").split() if name.endswith(".part")]
        return version
    finally:
        guest.close()


def test_the_power_is_cut_at_random_moments(saved: Saved) -> None:
    chance = random.Random(seed())
    for _ in range(ROUNDS):
        _round(saved, chance.uniform(0, saved.seconds * 1.1))


@pytest.mark.nightly
@pytest.mark.timeout(6 * 3600)
def test_the_power_is_cut_at_many_random_moments(saved: Saved) -> None:
    chance = random.Random(seed() + 1)
    for _ in range(NIGHTLY_ROUNDS):
        _round(saved, chance.uniform(0, saved.seconds * 1.1))
