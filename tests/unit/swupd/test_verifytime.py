from __future__ import annotations

import time
from pathlib import Path

import pytest

from swupd import verifytime
from swupd.formats import layout

FUTURE = 4_000_000_000


@pytest.fixture
def stamp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The place of the running system's stamp."""
    path = tmp_path / "versionstamp"
    monkeypatch.setattr(layout, "VERSION_STAMP", str(path))
    return path


def test_a_right_clock_is_left_alone(stamp: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stamp.write_text("1000000000\n")
    assert verifytime.main() == 0
    assert capsys.readouterr() == ("", "")


def test_a_clock_that_is_behind_is_set(
    stamp: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stamp.write_text(f"{FUTURE}\n")
    times: list[float] = []
    monkeypatch.setattr("swupd.system.time.clock_settime", lambda clock, seconds: times.append(seconds))
    assert verifytime.main() == 0
    assert times == [FUTURE]
    assert f"set to {time.ctime(FUTURE)}" in capsys.readouterr().out


def test_a_clock_that_cannot_be_set_is_a_failure(
    stamp: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(clock: int, seconds: float) -> None:
        raise PermissionError(1, "Operation not permitted")

    stamp.write_text(f"{FUTURE}\n")
    monkeypatch.setattr("swupd.system.time.clock_settime", refuse)
    assert verifytime.main() == 1
    assert capsys.readouterr().err.startswith("Error: the clock says ")


def test_a_system_that_does_not_say_when_it_was_built_is_a_failure(
    stamp: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert verifytime.main() == 1
    assert "versionstamp is missing" in capsys.readouterr().err
