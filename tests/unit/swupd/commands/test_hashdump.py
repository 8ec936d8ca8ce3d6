from __future__ import annotations

import os
from pathlib import Path

import pytest

from swupd.cli import main
from swupd.errors import ExitCode


def test_quiet_prints_the_hash_only(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    link = tmp_path / "link"
    link.symlink_to("usr/lib")
    os.chown(link, 0, 0, follow_symlinks=False) if os.geteuid() == 0 else pytest.skip("the owner of a link needs root")
    assert main(["hashdump", "--quiet", str(link)]) == 0
    assert capsys.readouterr().out == "0def1663fd06f61090c6e4f0525302231f3278ea93bc18efe773d6f955c6cffd\n"


def test_a_path_may_be_given_below_a_root(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "usr").mkdir()
    assert main(["hashdump", "--path", str(tmp_path), "/usr"]) == 0
    below = capsys.readouterr().out.splitlines()
    assert main(["hashdump", str(tmp_path / "usr")]) == 0
    assert below == capsys.readouterr().out.splitlines()


def test_what_does_not_exist_has_the_zero_hash(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["hashdump", "-n", "--quiet", str(tmp_path / "gone")]) == 0
    assert capsys.readouterr().out == "0" * 64 + "\n"


def test_a_device_has_no_hash(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["hashdump", "/dev/null"]) == ExitCode.HASH
    assert "/dev/null" in capsys.readouterr().err
