from __future__ import annotations

from pathlib import Path

import pytest

from swupd.cli import main
from swupd.errors import ExitCode

URL = "https://example.org/update"


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SWUPD_CONFIG_PATH", "")
    release = tmp_path / "usr/lib/os-release"
    release.parent.mkdir(parents=True)
    release.write_text('VERSION_ID=20\nPRETTY_NAME="Example OS"\n')
    defaults = tmp_path / "usr/share/defaults/swupd"
    defaults.mkdir(parents=True)
    (defaults / "versionurl").write_text(f"{URL}\n")
    (defaults / "contenturl").write_text(f"{URL}/\n")
    (defaults / "format").write_text("30\n")
    return tmp_path


def test_info_shows_distribution_version_and_urls(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", "--path", str(root)]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "Distribution:      Example OS",
        "Installed version: 20",
        f"Version URL:       {URL}",
        f"Content URL:       {URL}",
    ]


def test_verbose_info_shows_the_format(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", "--path", str(root), "--verbose"]) == 0
    assert "Installed version: 20 (format 30)" in capsys.readouterr().out


def test_quiet_info_is_the_version(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", "--path", str(root), "--quiet"]) == 0
    assert capsys.readouterr().out == "20\n"


def test_an_unknown_version_has_its_own_exit_status(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (root / "usr/lib/os-release").unlink()
    assert main(["info", "--path", str(root)]) == ExitCode.VERSION_UNKNOWN
    assert "Error: the version of the system" in capsys.readouterr().err


def test_info_makes_nothing(root: Path) -> None:
    before = sorted(root.rglob("*"))
    main(["info", "--path", str(root)])
    assert sorted(root.rglob("*")) == before
