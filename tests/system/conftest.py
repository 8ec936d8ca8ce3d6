"""Real clusters on the loopback interface, and real versions and disks for virtual machines."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.system.bootmix import BootMix
from tests.system.guest import Guest
from tests.system.machine import Disk

START_SECONDS = 60
"""How long a scheduler or worker may take to start on a busy machine."""


class Dask:
    """A scheduler, and the workers that a test starts."""

    def __init__(self, directory: Path, environ: Mapping[str, str], prefix: str) -> None:
        self._directory = directory
        self._environ = {**os.environ, "DASK_TEMPORARY_DIRECTORY": str(directory), **environ}
        self._processes: list[subprocess.Popen[bytes]] = []
        file = directory / "scheduler.json"
        self.scheduler = self._start("scheduler", prefix, "--port", "0", "--scheduler-file", str(file))
        ready_by = time.monotonic() + START_SECONDS
        while not (file.exists() and file.read_text().endswith("}")):
            assert time.monotonic() < ready_by, (directory / "log").read_text()
            time.sleep(0.05)
        self.address: str = json.loads(file.read_text())["address"]

    def worker(self, prefix: str = "") -> subprocess.Popen[bytes]:
        """Start a worker with one thread, which nobody starts again when it dies."""
        options = ("--nthreads", "1", "--no-nanny", "--local-directory", str(self._directory))
        return self._start("worker", prefix, self.address, *options)

    def await_workers(self, count: int) -> None:
        from distributed import Client

        with Client(self.address, set_as_default=False) as client:
            client.wait_for_workers(count, START_SECONDS)

    def stop(self) -> None:
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.wait()

    def _start(self, part: str, prefix: str, *options: str) -> subprocess.Popen[bytes]:
        program = f"{prefix}from distributed.cli.dask_{part} import main; main()"
        argv = [sys.executable, "-c", program, *options, "--host", "127.0.0.1", "--no-dashboard"]
        with (self._directory / "log").open("ab") as log:
            process = subprocess.Popen(argv, cwd=self._directory, env=self._environ, stdout=log, stderr=log)
        self._processes.append(process)
        return process


@contextmanager
def _running(directory: Path, environ: Mapping[str, str] | None = None, prefix: str = "") -> Iterator[Dask]:
    dask = Dask(directory, environ or {}, prefix)
    try:
        yield dask
    finally:
        dask.stop()


@pytest.fixture(scope="session")
def running() -> Callable[..., AbstractContextManager[Dask]]:
    """Starts a cluster: (directory, environment, beginning of its program) -> a context with a Dask."""
    return _running


@pytest.fixture(scope="session")
def boot_mix(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The shipped mix with four versions; building it takes some minutes."""
    mix = BootMix(tmp_path_factory.mktemp("boot-mix"))
    mix.prepare()
    mix.build()
    return mix


@pytest.fixture(scope="session")
def served_mix(boot_mix: BootMix) -> Iterator[BootMix]:
    with boot_mix.serving():
        yield boot_mix


@pytest.fixture(scope="session")
def machines(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("machines")


@pytest.fixture
def started(served_mix: BootMix, tmp_path: Path) -> Iterator[Callable[..., Guest]]:
    """Starts a machine with a copy of a disk, and logs in."""
    guests = []

    def start(disk: Disk, **how: object) -> Guest:
        guest = Guest(disk.copy(tmp_path / f"{len(guests)}.img"), tmp_path, served_mix)
        guests.append(guest)
        guest.start(**how)
        return guest

    yield start
    for guest in guests:
        guest.close()
        guest.disk.path.unlink()


@pytest.fixture(scope="session")
def fresh(served_mix: BootMix, machines: Path) -> Disk:
    """A disk that was never booted."""
    served_mix.image(machines / "fresh.img")
    return Disk(machines / "fresh.img")


@pytest.fixture(scope="session")
def ten(served_mix: BootMix, machines: Path, fresh: Disk) -> Iterator[Disk]:
    """Version 10, booted once with an empty /etc and /var, with things of its user."""
    guest = Guest(fresh.copy(machines / "ten.img"), machines, served_mix)
    try:
        guest.start()
        guest.blessed()
        guest.command("useradd --create-home ann; echo diary > /home/ann/diary; echo mine > /var/lib/mine")
        guest.command("echo '192.0.2.7 printer.of.ann' >> /etc/hosts; echo 'color = green' > /etc/site.conf")
        guest.off()
        yield guest.disk
    finally:
        guest.close()


@pytest.fixture(scope="session")
def twenty(served_mix: BootMix, machines: Path, ten: Disk) -> Iterator[Disk]:
    """The same after it has updated itself to version 20, booted it, and added a bundle for the boot after that."""
    guest = Guest(ten.copy(machines / "twenty.img"), machines, served_mix)
    try:
        guest.start()
        told = guest.online("update --next-boot --version 20")
        assert "becomes active on the next boot" in told
        assert guest.version() == "10"
        guest.restart()
        guest.blessed()
        assert (guest.version(), guest.deployment()) == ("20", "20")
        assert not guest.exists("/usr/bin/vim.tiny")
        guest.online("bundle-add --next-boot editors")
        guest.restart()
        guest.blessed()
        guest.off()
        yield guest.disk
    finally:
        guest.close()
