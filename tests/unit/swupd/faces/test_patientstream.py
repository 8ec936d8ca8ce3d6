from __future__ import annotations

import io
import os

import pytest

from swupd.errors import ExitCode
from swupd.faces.patientstream import PatientStream


def test_a_reader_who_goes_away_does_not_stop_the_command() -> None:
    stream = PatientStream(io.TextIOWrapper(io.FileIO(os.pipe()[1], "w"), write_through=True))
    assert stream.write("x") == 1
    assert stream.close(0) == 0


def test_lost_output_is_a_failure(capfd: pytest.CaptureFixture[str]) -> None:
    with open("/dev/full", "w") as full:
        stream = PatientStream(full)
        stream.write("x" * 100_000)
        assert stream.close(0) == ExitCode.CANNOT_WRITE_FILE
        assert stream.close(5) == 5
    assert "No space left on device" in capfd.readouterr().err


def test_a_closed_pipe_is_no_failure() -> None:
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as pipe:
        stream = PatientStream(pipe)
        stream.write("x" * 100_000)
        assert stream.close(0) == 0


def test_a_sign_that_the_encoding_lacks_is_replaced() -> None:
    behind = io.BytesIO()
    stream = PatientStream(io.TextIOWrapper(behind, encoding="ascii"))
    stream.write("/usr/share/\u00e9t\u00e9")
    stream.flush()
    assert behind.getvalue() == b"/usr/share/?t?"
