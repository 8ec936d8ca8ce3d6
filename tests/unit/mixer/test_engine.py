"""Engines of this machine: results, laziness, errors, and processes that die or have to.

The functions are those of Python's own library, which other processes find by name; what only a test wants to run is
an expression for `eval`.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from mixer.engine import InProcess, Processes, open_engine
from mixer.errors import BuildError, WorkspaceError
from mixer.inflight import IN_FLIGHT, MAX_LOSSES
from mixer.workspace import Workspace

PROCESS = "/proc/self"
"""os.readlink of it tells a process its number."""


@pytest.fixture
def processes() -> Iterator[Processes]:
    with open_engine("", workers=2) as engine:
        assert isinstance(engine, Processes)
        yield engine


def numbers() -> set[int]:
    """The worker processes that live."""
    return {process.pid for process in multiprocessing.active_children() if process.pid is not None}


def lives(number: int) -> bool:
    try:
        return ") Z " not in Path(f"/proc/{number}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


def dies_once(marker: Path, result: int) -> str:
    """An expression that kills its process the first time."""
    return (
        f"{result} if __import__('os').path.exists({str(marker)!r})"
        f" else __import__('os').mkdir({str(marker)!r}) or __import__('signal').raise_signal(9)"
    )


def test_one_worker_is_this_process_and_works_when_it_is_asked() -> None:
    done: list[int] = []
    with open_engine("", workers=1) as engine:
        results = engine.map(done.append, [1, 2, 3])
        assert done == []
        next(results)
        assert done == [1]
    assert numbers() == set()


def test_there_is_a_worker_for_each_core_that_may_be_used() -> None:
    allowed = os.sched_getaffinity(0)
    with open_engine("") as engine:
        assert engine.workers == len(allowed)
    os.sched_setaffinity(0, {min(allowed)})
    try:
        with open_engine("") as engine:
            assert isinstance(engine, InProcess)
    finally:
        os.sched_setaffinity(0, allowed)


def test_nothing_is_started_without_a_batch_and_one_process_for_one(processes: Processes) -> None:
    nothing: list[bytes] = []
    assert list(processes.map(len, nothing)) == []
    assert numbers() == set()
    assert list(processes.map(len, [b"one"])) == [3]
    assert len(numbers()) == 1


def test_processes_give_the_results_of_this_process(processes: Processes) -> None:
    batches = [os.urandom(number * 1000) for number in range(30)]
    assert sorted(processes.map(zlib.compress, batches)) == sorted(map(zlib.compress, batches))


def test_every_process_works_and_none_is_started_twice(processes: Processes) -> None:
    task = f"__import__('time').sleep(0.01) or __import__('os').readlink({PROCESS!r})"
    shares = Counter(int(number) for _ in range(2) for number in processes.map(eval, [task] * 30))
    assert set(shares) == numbers()
    assert len(shares) == 2
    assert os.getpid() not in shares


def test_batches_are_taken_only_as_workers_need_them(processes: Processes) -> None:
    taken: list[int] = []

    def batches() -> Iterator[bytes]:
        for number in range(1000):
            taken.append(number)
            yield bytes(number)

    results = processes.map(len, batches())
    assert taken == []
    for given in range(1, 10):
        next(results)
        assert len(taken) <= given + IN_FLIGHT * processes.workers
    results.close()  # type: ignore[attr-defined]


def test_an_error_of_the_function_arrives_as_it_is(processes: Processes, tmp_path: Path) -> None:
    with pytest.raises(WorkspaceError, match="is not a workspace") as caught:
        list(processes.map(Workspace.require, [Workspace(tmp_path)]))
    assert "mixer init" in caught.value.hint
    with pytest.raises(ValueError, match="not a number") as mistake:
        list(processes.map(int, ["not a number"]))
    assert "In a worker process:\nTraceback" in mistake.value.__notes__[0]


def test_an_error_leaves_the_workers_usable(processes: Processes) -> None:
    with pytest.raises(ValueError, match="no"):
        list(processes.map(int, ["1", "no", "2"]))
    assert sorted(processes.map(int, ["1", "2"])) == [1, 2]


def test_an_error_of_the_batches_arrives_as_it_is(processes: Processes) -> None:
    def batches() -> Iterator[bytes]:
        yield b"one"
        raise BuildError("the file changed while it was read")

    with pytest.raises(BuildError, match="the file changed"):
        list(processes.map(len, batches()))


def test_what_has_not_begun_is_cancelled_when_the_results_are_not_wanted(processes: Processes, tmp_path: Path) -> None:
    def batches() -> Iterator[str]:
        yield "None"
        for number in range(100):
            yield f"__import__('time').sleep(0.5) or open({str(tmp_path / str(number))!r}, 'x').close()"

    results = processes.map(eval, batches())
    next(results)
    results.close()  # type: ignore[attr-defined]
    # Both processes have worked on what they had when each of these is done, for one does not get a second that soon.
    list(processes.map(time.sleep, [0.5, 0.5]))
    assert len(list(tmp_path.iterdir())) <= processes.workers


def test_a_worker_that_dies_costs_only_its_batch(processes: Processes, tmp_path: Path) -> None:
    batches = [dies_once(tmp_path / str(number), number) if number % 5 == 0 else str(number) for number in range(20)]
    assert sorted(processes.map(eval, batches)) == list(range(20))


def test_no_result_is_lost_when_workers_are_killed_while_large_batches_travel(processes: Processes) -> None:
    batches = [bytes([number]) * (4 << 20) for number in range(12)]
    results = []
    for result in processes.map(bytes.swapcase, batches):
        results.append(result)
        if len(results) in (3, 6):
            os.kill(min(numbers()), signal.SIGKILL)
    assert sorted(results) == sorted(map(bytes.swapcase, batches))


def test_a_batch_that_kills_every_worker_ends_the_build(processes: Processes) -> None:
    with pytest.raises(BuildError, match=f"dying while they run raise_signal: {MAX_LOSSES} of them") as caught:
        list(processes.map(signal.raise_signal, [9]))
    assert "memory" in caught.value.hint
    assert "--workers" in caught.value.hint


def test_workers_do_not_see_ctrl_c() -> None:
    # In a process of its own, where nothing of multiprocessing was started before.
    program = (
        "import multiprocessing, os, signal, time; from mixer.engine import Processes\n"
        "engine = Processes(2)\n"
        "results = engine.map(time.sleep, [0, 0.5, 0.5, 0.5])\n"
        "next(results)\n"
        "while len(multiprocessing.active_children()) < 2: time.sleep(0.01)\n"
        "workers = {process.pid for process in multiprocessing.active_children()}\n"
        "for number in workers: os.kill(number, signal.SIGINT)\n"
        "list(results)\n"
        "print(len(workers), workers == {process.pid for process in multiprocessing.active_children()})\n"
        "engine.close()\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert (done.stdout, done.stderr) == ("2 True\n", "")


def test_closing_does_not_wait_for_what_runs() -> None:
    def interrupted() -> None:
        with open_engine("", workers=2) as engine:
            results = engine.map(time.sleep, [0, 100, 100])
            next(results)
            raise KeyboardInterrupt

    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert time.monotonic() - start < 50
    assert numbers() == set()


def test_workers_end_with_a_coordinator_that_is_killed() -> None:
    program = (
        "import os, time; from mixer.engine import Processes\n"
        "engine = Processes(2)\n"
        f"print(*engine.map(os.readlink, [{PROCESS!r}] * 50), flush=True)\n"
        "list(engine.map(time.sleep, [100, 100]))\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as coordinator:
        assert coordinator.stdout is not None
        workers = {int(number) for number in coordinator.stdout.readline().split()}
        assert workers
        assert all(map(lives, workers))
        coordinator.kill()
    ended_by = time.monotonic() + 30
    while any(map(lives, workers)) and time.monotonic() < ended_by:
        time.sleep(0.02)
    assert not any(map(lives, workers))


def test_two_maps_share_the_workers(processes: Processes) -> None:
    def inner(lengths: Iterable[int]) -> Iterator[bytes]:
        for length in lengths:
            yield bytes(length)

    nested = processes.map(len, inner(processes.map(len, [b"a", b"bb", b"ccc"])))
    assert sorted(nested) == [1, 2, 3]
    assert len(numbers()) <= processes.workers
