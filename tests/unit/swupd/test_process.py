"""Running other programs."""

from __future__ import annotations

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
