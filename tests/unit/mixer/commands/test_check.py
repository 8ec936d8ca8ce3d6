"""`mixer check`."""

from __future__ import annotations

import json

import pytest

from mixer.cli import main
from mixer.workspace import Workspace


def check(workspace: Workspace, *arguments: str) -> int:
    return main(["--workspace", str(workspace.path), "check", "--workers", "1", *arguments])


@pytest.fixture
def published(prepared: Workspace) -> Workspace:
    assert main(["--quiet", "--workspace", str(prepared.path), "build", "update", "--no-signing"]) == 0
    return prepared


def test_the_newest_version_is_checked(published: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()

    assert check(published, "--no-signing") == 0

    told = capsys.readouterr()
    assert told.err == "Warning: signatures are not checked\n"
    assert "version 10  no problem\n" in told.out
    assert "packs       1 with " in told.out


def test_each_problem_is_a_line_also_when_quiet(published: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    (published.www / "10/format").write_text("7")
    (published.www / "10/stranger").write_text("stranger")
    capsys.readouterr()

    assert check(published, "10", "--no-signing", "--quiet") == 1

    assert capsys.readouterr().out.splitlines() == [
        "10/format: has another SHA-256 than it should have",
        "10/format: is not the format of the version, 30",
        "10/stranger: is not in the checksums",
    ]


def test_notes_and_numbers_follow_a_check(published: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    for path in published.www.glob("10/checksums"):
        path.unlink()
    (published.www / "10/stranger").write_text("stranger")
    (published.www / "10/format").unlink()
    capsys.readouterr()

    assert check(published, "--no-signing") == 1

    out = capsys.readouterr().out
    assert "Note: 10: 1 file that no client of this version asks for, such as 'stranger'\n" in out
    assert "\n10/format: is missing\n" in out
    assert "version 10  1 problem\n" in out


def test_scripts_get_json_alone(published: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    (published.www / "10/format").unlink()
    capsys.readouterr()

    assert check(published, "--no-signing", "--json") == 1

    answer = json.loads(capsys.readouterr().out)
    assert answer["version"] == 10
    assert {"file": "10/format", "problem": "is missing"} in answer["problems"]
    assert answer["notes"] == []
    assert answer["checked"]["packs"] == 1


def test_signatures_are_checked_with_the_certificate_of_the_mix(
    prepared: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--quiet", "--workspace", str(prepared.path), "build", "update"]) == 0
    assert check(prepared) == 0
    capsys.readouterr()

    (prepared.www / "10/Manifest.MoM.sig").unlink()

    assert check(prepared) == 1
    assert "\n10/Manifest.MoM.sig: is missing\n" in capsys.readouterr().out


def test_a_missing_certificate_is_said_before_anything_is_read(
    published: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()

    assert check(published) == 1

    told = capsys.readouterr()
    assert told.out == ""
    assert "cannot read the certificate" in told.err
    assert "--no-signing" in told.err


def test_a_version_that_was_not_published_is_an_error(
    published: Workspace, prepared: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    assert check(published, "20", "--no-signing") == 1
    assert "version 20 is not in" in capsys.readouterr().err
    assert check(published, "0", "--no-signing") == 1
    assert "V must be between 1 and" in capsys.readouterr().err


def test_a_mix_without_any_version_has_nothing_to_check(
    prepared: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    assert check(prepared, "--no-signing") == 1
    assert "nothing is published in" in capsys.readouterr().err
