"""`mixer report delta`: what the command itself does; what a report says is tested with mixer.deltareport."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from mixer.cli import main
from mixer.workspace import Workspace


def mixer(workspace: Workspace, *arguments: str) -> int:
    return main(["--workspace", str(workspace.path), *arguments])


def test_the_report_is_a_table_of_totals_bundles_and_files(
    changed: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    assert mixer(changed, "report", "delta") == 0
    out = capsys.readouterr().out
    assert "From version 10 to version 20\nupdate pack   about " in out
    assert "\n1 file in 20/update-from-10.tar\n" in out
    assert "/usr/bin/hello" in out


def test_json_has_standard_output_for_itself(changed: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    assert mixer(changed, "report", "delta", "--json") == 0
    captured = capsys.readouterr()
    (update,) = json.loads(captured.out)["updates"]
    assert (update["from_version"], update["to_version"]) == (10, 20)
    assert "Compared 1 pair of files" in captured.err


def test_the_page_is_written_and_an_older_one_replaced(
    changed: Workspace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "delta.html"
    path.write_text("older")
    assert mixer(changed, "report", "delta", "--html", str(path)) == 0
    assert f"The page is {path}" in capsys.readouterr().out
    assert path.read_text().startswith("<!DOCTYPE html>")
    assert [name for name in os.listdir(tmp_path) if "delta" in name] == ["delta.html"]


def test_a_page_that_cannot_be_written_is_refused_before_the_work(
    changed: Workspace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, problem in ((tmp_path, "it is a directory"), (tmp_path / "no/page.html", "there is no directory")):
        assert mixer(changed, "report", "delta", "--html", str(name)) == 1
        captured = capsys.readouterr()
        error, hint = captured.err.splitlines()
        assert error.startswith(f"Error: cannot write {name}: {problem}")
        assert hint.startswith("Hint: ")
        assert captured.out == ""
    assert not changed.deltas.exists()


def test_a_page_that_the_system_refuses_is_one_line(changed: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    # Nobody can create files there, not even root.
    assert mixer(changed, "--quiet", "report", "delta", "--html", "/proc/page.html") == 1
    error, hint = capsys.readouterr().err.splitlines()
    assert error.startswith("Error: cannot write /proc/page.html: ")
    assert hint.startswith("Hint: ")


def test_an_unknown_bundle_is_one_line_with_names_that_come_near(
    changed: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    assert mixer(changed, "report", "delta", "--bundle", "os-cor") == 1
    assert capsys.readouterr().err == "Error: version 20 has no bundle os-cor\nHint: did you mean os-core?\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--limit", "-1"], "--limit must be between 0 and"),
        (["--from", "0"], "--from must be between 1 and"),
        (["--to", "-1"], "--to must be between 1 and"),
        (["--previous-versions", "0"], "--previous-versions must be between 1 and"),
    ],
)
def test_numbers_out_of_range_are_refused(
    prepared: Workspace, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert mixer(prepared, "report", "delta", *arguments) == 1
    assert message in capsys.readouterr().err


def test_a_build_of_delta_packs_lists_their_files_if_asked(
    changed: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    build = ["build", "delta-packs", "--no-signing", "--workers", "1"]
    assert mixer(changed, *build) == 0
    assert "/usr/bin/hello" not in capsys.readouterr().out
    assert mixer(changed, *build, "--report") == 0
    out = capsys.readouterr().out
    for pack in ("20/update-from-10.tar", "20/pack-os-core-from-10.tar"):
        assert f"\n{pack}\ncost" in out
    assert out.count("/usr/bin/hello") == 2
