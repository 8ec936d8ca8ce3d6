from __future__ import annotations

from typing import Any

import pytest

from swupd.cli import main
from swupd.errors import ExitCode

Bundles = dict[str, Any]
Machine = Any
Publisher = Any


def test_a_sound_system_is_0(machine: Machine) -> None:
    machine.run("diagnose")
    assert machine.out.endswith("No problems were found\n")


def test_findings_are_shown_by_kind(machine: Machine, published: Publisher, ten: Bundles) -> None:
    del ten["editors"].files["/usr/bin/edit"]
    published.publish(20, ten)
    machine.run("update", "--no-scripts")
    (machine.root / "usr/bin/edit").write_text("back")
    (machine.root / "usr/bin/core").write_text("broken")
    (machine.root / "usr/lib/lib.so").unlink()
    machine.run("diagnose", status=ExitCode.NO)
    assert [line for line in machine.out.splitlines() if line.startswith(" -> ")] == [
        f" -> Missing file: {machine.root}/usr/lib/lib.so",
        f" -> Changed file: {machine.root}/usr/bin/core",
        f" -> File that should be deleted: {machine.root}/usr/bin/edit",
    ]


def test_another_version_can_be_compared_with(machine: Machine, published: Publisher, ten: Bundles) -> None:
    ten["os-core"].files["/usr/bin/core"] = "new"
    published.publish(20, ten)
    machine.run("diagnose", "--version", "20", "--quiet", status=ExitCode.NO)
    assert machine.out.splitlines() == [f"{machine.root}/usr/bin/core", f"{machine.root}/usr/lib/os-release"]


def test_a_file_that_another_installed_bundle_has_is_not_one_to_delete(
    machine: Machine, published: Publisher, ten: Bundles
) -> None:
    content = ten["libs"].files.pop("/usr/lib/lib.so.1")
    ten["editors"].files["/usr/lib/lib.so.1"] = content
    published.publish(20, ten)
    machine.run("update", "--no-scripts")
    machine.run("diagnose", "--bundles", "libs")


def test_a_version_of_another_format_wants_to_be_forced(machine: Machine, published: Publisher, ten: Bundles) -> None:
    published.publish(20, ten, number=31, says=(20, 30))
    machine.run("diagnose", "--version", "20", status=ExitCode.MANIFEST)
    assert "version 20 has the format 31, this system has 30" in machine.errors[0]
    machine.run("diagnose", "--version", "20", "--force", status=ExitCode.NO)


@pytest.mark.parametrize("command", ["diagnose", "repair"])
@pytest.mark.parametrize(
    "argv",
    [
        ["--quick", "--picky"],
        ["--quick", "--extra-files-only"],
        ["--picky", "--extra-files-only"],
        ["--bundles", "editors", "--picky"],
        ["--bundles", "editors", "--extra-files-only"],
        ["--picky", "--picky-whitelist", "("],
        ["--picky-tree", "relative"],
        ["--file", "/usr/../etc"],
        ["--bundles", ","],
        ["--version", "latest"],
    ],
)
def test_options_that_make_no_sense_are_15(command: str, argv: list[str]) -> None:
    assert main([command, *argv]) == ExitCode.INVALID_OPTION
