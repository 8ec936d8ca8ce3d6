from __future__ import annotations

from pathlib import Path

import pytest

from swupd.cli import main
from swupd.errors import ExitCode


@pytest.fixture
def options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A root with three bundles, one of which was asked for."""
    monkeypatch.setenv("SWUPD_CONFIG_PATH", "")
    for directory, names in (
        ("usr/share/clear/bundles", ("os-core", "libs", "editors")),
        ("state/bundles", ("editors",)),
    ):
        (tmp_path / directory).mkdir(parents=True)
        for name in names:
            (tmp_path / directory / name).touch()
    return ["--path", str(tmp_path), "--statedir", str(tmp_path / "state")]


def test_installed_bundles_are_listed_in_order(options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bundle-list", *options]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "Installed bundles:",
        " - editors",
        " - libs",
        " - os-core",
        "Total: 3",
    ]


def test_quiet_is_one_name_per_line(options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bundle-list", "--quiet", *options]) == 0
    assert capsys.readouterr().out == "editors\nlibs\nos-core\n"


def test_status_tells_what_was_asked_for(options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bundle-list", "--status", "--quiet", *options]) == 0
    assert capsys.readouterr().out == "editors: explicitly installed\nlibs: installed\nos-core: installed\n"


def test_experimental_bundles_are_marked_as_far_as_the_cache_knows(
    options: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "usr/lib").mkdir()
    (tmp_path / "usr/lib/os-release").write_text("VERSION_ID=20\n")
    cached = tmp_path / "state/cache/https___example.org/manifest/20"
    cached.mkdir(parents=True)
    lines = "".join(f"{flags}\t{'1' * 64}\t10\t{name}\n" for flags, name in (("Me..", "libs"), ("M...", "editors")))
    (cached / "Manifest.MoM").write_text(
        f"MANIFEST\t30\nversion:\t20\nprevious:\t10\nfilecount:\t2\ntimestamp:\t1\ncontentsize:\t0\n\n{lines}"
    )
    assert main(["bundle-list", "--quiet", "--contenturl", "https://example.org", *options]) == 0
    assert "libs: experimental\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    "argv",
    [
        ["--status", "--deps", "libs"],
        ["--status", "--has-dep", "libs"],
        ["--orphans", "--all"],
        ["--orphans", "--deps", "libs"],
        ["--deps", "libs", "--has-dep", "libs"],
    ],
)
def test_lists_that_exclude_each_other_are_refused(argv: list[str], options: list[str]) -> None:
    assert main(["bundle-list", *argv, *options]) == ExitCode.INVALID_OPTION
