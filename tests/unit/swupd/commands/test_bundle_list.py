from __future__ import annotations

import json
from pathlib import Path
from typing import Any

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


def listed(machine: Any, *options: str) -> list[str]:
    machine.run("bundle-list", *options)
    return [line for line in machine.out.splitlines() if line.lstrip().startswith("- ")]


def test_all_bundles_of_the_version_are_listed_with_their_labels(machine: Any) -> None:
    assert listed(machine, "--all", "--status") == [
        " - docs",
        " - editors (explicitly installed)",
        " - games (experimental)",
        " - libs (installed)",
        " - os-core (installed)",
    ]
    machine.run("bundle-add", "games", "--no-scripts")
    machine.run("bundle-list", "--all", "--status", "--quiet")
    assert "games: explicitly installed, experimental\n" in machine.out


def test_dependencies_of_a_bundle_are_listed(machine: Any) -> None:
    assert listed(machine, "--deps", "editors") == [" - docs (as optional)", " - libs", " - os-core"]


def test_verbose_shows_dependencies_as_a_tree(machine: Any) -> None:
    assert listed(machine, "--deps", "editors", "--verbose") == [
        " - docs (as optional)",
        "    - os-core",
        " - libs",
        "    - os-core",
        " - os-core",
    ]
    assert "Total: 3" in machine.out


def test_quiet_wins_over_the_tree(machine: Any) -> None:
    machine.run("bundle-list", "--deps", "libs", "--verbose", "--quiet")
    assert machine.out == "os-core\n"


def test_installed_users_of_a_bundle_are_listed_or_all_of_them(machine: Any) -> None:
    assert listed(machine, "--has-dep", "os-core") == [" - editors", " - libs"]
    assert listed(machine, "--has-dep", "docs") == [" - editors (as optional)"]
    assert listed(machine, "--has-dep", "os-core", "--all") == [" - docs", " - editors", " - games", " - libs"]
    assert listed(machine, "--has-dep", "os-core", "--verbose") == [" - editors", " - libs", "    - editors"]


def test_orphans_are_what_nobody_asked_for_and_nothing_needs(machine: Any) -> None:
    assert listed(machine, "--orphans") == []
    (machine.state / "bundles/editors").rename(machine.state / "bundles/os-core")
    assert listed(machine, "--orphans") == [" - editors", " - libs"]


@pytest.mark.parametrize("option", ["--deps", "--has-dep"])
def test_an_unknown_bundle_has_no_dependencies(machine: Any, option: str) -> None:
    machine.run("bundle-list", option, "nonsense", status=ExitCode.INVALID_BUNDLE)
    assert machine.errors == ["Error: there is no bundle nonsense in version 10"]


@pytest.mark.parametrize("arguments", [[], ["--all", "--status"], ["--deps", "editors", "--verbose"], ["--orphans"]])
def test_json_is_valid(machine: Any, arguments: list[str]) -> None:
    machine.run("bundle-list", "--json-output", *arguments)
    stream = json.loads(machine.out)
    assert stream[0] == {"type": "start", "section": "bundle-list"}
    assert stream[-1] == {"type": "end", "section": "bundle-list", "status": 0}
    steps = {each["stepDescription"] for each in stream if each["type"] == "progress"}
    assert steps <= {"load_manifests", "list_bundles"}
