"""A real Dask cluster on the loopback interface: a scheduler and workers that are processes of their own, and die."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("distributed")


from mixer import cluster
from mixer.cluster import open_cluster
from mixer.engine import open_engine
from mixer.errors import BuildError, WorkspaceError
from mixer.inflight import MAX_LOSSES
from mixer.workspace import Workspace

WITHOUT_PROJECT = "import sys; sys.modules['mixer'] = sys.modules['swupd'] = None\n"

pytestmark = [pytest.mark.system, pytest.mark.timeout(180)]


Dask = Any
Running = Any


@pytest.fixture(scope="module")
def shared(running: Running, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dask]:
    """A cluster for tests that leave it as it is."""
    with running(tmp_path_factory.mktemp("dask")) as dask:
        dask.worker()
        yield dask


def slowly(batches: Sequence[bytes]) -> list[str]:
    """Expressions that compress in 0.3 seconds."""
    return [f"__import__('time').sleep(0.3) or __import__('zlib').compress({batch!r})" for batch in batches]


def test_results_are_the_local_ones_though_a_worker_is_killed_in_the_middle(
    running: Running, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    batches = [os.urandom(1000) + bytes(number) for number in range(20)]
    with running(tmp_path) as dask:
        workers = [dask.worker(), dask.worker()]
        dask.await_workers(2)
        results = []
        with open_engine(dask.address) as engine:
            for result in engine.map(eval, slowly(batches)):
                results.append(result)
                if len(results) == 6:
                    workers[0].kill()
                    assert engine.workers == 2
            assert engine.workers == 1
    assert sorted(results) == sorted(map(zlib.compress, batches))
    assert capfd.readouterr() == ("", "")


def test_a_large_batch_there_and_back(shared: Dask) -> None:
    batches = [bytes([number]) * (16 << 20) for number in range(3)]
    with open_engine(shared.address) as engine:
        assert sorted(engine.map(bytes.swapcase, batches)) == batches


def test_errors_of_the_function_arrive_as_they_are(shared: Dask, tmp_path: Path) -> None:
    with open_engine(shared.address) as engine, pytest.raises(WorkspaceError, match="not a workspace") as caught:
        list(engine.map(Workspace.require, [Workspace(tmp_path)]))
    assert "mixer init" in caught.value.hint


def test_a_worker_with_other_libraries_is_refused(shared: Dask, monkeypatch: pytest.MonkeyPatch) -> None:
    here = cluster.fingerprint()
    monkeypatch.setattr(cluster, "fingerprint", lambda: {**here, "zstd": "1.0.0", "bsdiff4": "1.0.0"})
    with open_engine(shared.address) as engine, pytest.raises(BuildError, match=r"the worker tcp://127\.") as caught:
        list(engine.map(len, [b"batch"]))
    assert f"zstd {here['zstd']} instead of 1.0.0, bsdiff4 {here['bsdiff4']} instead of 1.0.0" in str(caught.value)
    assert "same versions" in caught.value.hint


def test_a_worker_without_the_project_is_an_error_even_where_the_scheduler_has_it_not(
    running: Running, tmp_path: Path
) -> None:
    with running(tmp_path, prefix=WITHOUT_PROJECT) as dask:
        dask.worker(WITHOUT_PROJECT)
        with open_engine(dask.address) as engine, pytest.raises(BuildError, match="No module named 'mixer") as caught:
            list(engine.map(len, [b"batch"]))
    assert "swupd-mixer[mixer,cluster]" in caught.value.hint


def test_a_batch_that_kills_every_worker_ends_the_build(running: Running, tmp_path: Path) -> None:
    # Without a second chance by the scheduler itself, which would be four workers for each of ours.
    with running(tmp_path, {"DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "0"}) as dask:
        for _ in range(MAX_LOSSES):
            dask.worker()
        with open_engine(dask.address) as engine, pytest.raises(BuildError, match="keep dying while they run raise_"):
            list(engine.map(signal.raise_signal, [9]))


def test_a_cluster_that_loses_all_workers_is_waited_for_and_then_given_up(running: Running, tmp_path: Path) -> None:
    with running(tmp_path) as dask:
        worker = dask.worker()
        dask.await_workers(1)
        with open_cluster(dask.address, no_workers_seconds=5) as engine:
            results = engine.map(eval, slowly([b"one", b"two", b"three"]))
            assert zlib.decompress(next(results)) == b"one"
            worker.kill()
            start = time.monotonic()
            with pytest.raises(BuildError, match="has had no workers for 5 seconds") as caught:
                list(results)
            assert 4 < time.monotonic() - start < 60
    assert f"dask worker {dask.address}" in caught.value.hint


def test_a_scheduler_that_dies_is_an_error_and_nothing_else_is_shown(running: Running, tmp_path: Path) -> None:
    program = (
        "import sys; from mixer.engine import open_engine; from mixer.errors import BuildError\n"
        "try:\n"
        "    with open_engine(sys.argv[1]) as engine:\n"
        "        for result in engine.map(eval, ['0', *['__import__(\"time\").sleep(100)'] * 3]):\n"
        "            print(result, flush=True)\n"
        "except BuildError as error: print(error)\n"
    )
    with running(tmp_path) as dask:
        dask.worker()
        argv = [sys.executable, "-c", program, dask.address]
        with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as coordinator:
            assert coordinator.stdout is not None
            assert coordinator.stdout.readline() == "0\n"
            dask.scheduler.kill()
            shown = coordinator.communicate(timeout=60)
    assert shown == (f"the connection to the Dask scheduler at {dask.address} is lost\n", "")
