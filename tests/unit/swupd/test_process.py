"""Running other programs."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from swupd import process
from swupd.errors import CommandError


def test_output_is_captured_and_input_is_given() -> None:
    assert process.run(["/bin/cat"], stdin=b"hello").stdout == b"hello"


def test_the_environment_is_only_what_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "1")
    assert process.run(["/usr/bin/env"], env={"A": "b"}).stdout == b"A=b\n"


def test_a_missing_program_is_named_with_a_hint() -> None:
    with pytest.raises(CommandError, match="cannot run /no/such/program") as caught:
        process.run(["/no/such/program"])
    assert "install" in caught.value.hint


def test_a_failure_shows_the_last_output_and_a_line_to_paste() -> None:
    with pytest.raises(CommandError, match="status 3: the reason") as caught:
        process.run(["/bin/sh", "-c", "echo the reason >&2; exit 3"])
    assert caught.value.hint == "to see it again: /bin/sh -c 'echo the reason >&2; exit 3'"


def test_a_failure_can_be_left_to_the_caller() -> None:
    assert process.run(["/bin/false"], check=False).returncode == 1


def attempt(script: str, *, seconds: float = 30, tail_bytes: int = 100) -> process.Attempt:
    argv = ["/bin/sh", "-c", script]
    return process.attempt(argv, env={"PATH": "/usr/bin:/bin"}, seconds=seconds, tail_bytes=tail_bytes)


def test_an_attempt_has_status_and_output_of_both_kinds() -> None:
    assert attempt("echo out; echo err >&2; exit 3") == process.Attempt(3, b"out\nerr\n")


def test_an_attempt_tells_the_signal_that_ended_it() -> None:
    assert attempt("kill -SEGV $$").status == -11


def test_an_attempt_that_takes_too_long_is_killed_with_its_children() -> None:
    begun = time.monotonic()
    found = attempt("sleep 1000 & echo $!; sleep 1000", seconds=0.3)
    assert time.monotonic() - begun < 20
    assert found.status is None
    wait_until(lambda: is_gone(int(found.tail)))


def test_a_child_that_stays_is_not_waited_for_and_is_killed() -> None:
    begun = time.monotonic()
    found = attempt("sleep 1000 & echo $!")
    assert found.status == 0
    assert time.monotonic() - begun < 20
    wait_until(lambda: is_gone(int(found.tail)))


def test_a_child_that_floods_the_output_is_not_waited_for() -> None:
    assert attempt("yes & exit 4").status == 4


def test_of_much_output_only_the_end_is_kept() -> None:
    found = attempt("head -c 3000000 /dev/zero; echo the end", tail_bytes=8)
    assert found == process.Attempt(0, b"the end\n")


def test_a_program_that_closes_its_output_is_waited_for() -> None:
    assert attempt("exec >&- 2>&-; sleep 0.2; exit 5").status == 5


def test_an_attempt_of_a_program_that_cannot_be_started_is_an_error_of_the_system() -> None:
    with pytest.raises(FileNotFoundError):
        process.attempt(["/no/such/program"], env={}, seconds=1, tail_bytes=1)


def is_gone(pid: int) -> bool:
    """Whether a process is no more, but for somebody to wait for it."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def wait_until(happened: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not happened():
        assert time.monotonic() < end
        time.sleep(0.01)
