"""Real clusters on the loopback interface."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

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
