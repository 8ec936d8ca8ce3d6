from __future__ import annotations

import json
from typing import Any

import pytest

from swupd.errors import ExitCode


@pytest.mark.parametrize(
    ("bundle", "state"),
    [("editors", "Explicitly installed"), ("libs", "Installed"), ("docs", "Not installed")],
)
def test_quiet_is_the_status_alone(machine: Any, bundle: str, state: str) -> None:
    machine.run("bundle-info", "--quiet", bundle)
    assert machine.out == f"{state}\n"


def test_experimental_bundles_are_called_so(machine: Any) -> None:
    machine.run("bundle-info", "--quiet", "games")
    assert machine.out == "Not installed, experimental\n"


def test_quiet_lists_are_plain_and_separated_by_blank_lines(machine: Any) -> None:
    machine.run("bundle-info", "--quiet", "--dependencies", "--files", "libs")
    status, dependencies, files = machine.out.split("\n\n")
    assert (status, dependencies) == ("Installed", "os-core")
    assert {"/usr/bin/core", "/usr/lib/lib.so.1", "/usr/share/clear/bundles/libs"} < set(files.splitlines())


def test_files_are_those_of_the_bundle_alone_unless_dependencies_are_asked_for(machine: Any) -> None:
    machine.run("bundle-info", "--quiet", "--files", "docs")
    files = machine.out.split("\n\n")[1].splitlines()
    assert "/usr/share/doc/manual" in files
    assert "/usr/bin/core" not in files


def test_dependencies_are_direct_or_indirect_and_optional_ones_are_marked(
    machine: Any, published: Any, ten: Any
) -> None:
    ten["docs"].includes = ["os-core", "games"]
    published.publish(20, ten)
    machine.run("bundle-info", "--dependencies", "--version", "20", "editors")
    lines = machine.out.splitlines()
    first = lines.index("Direct dependencies (3):")
    assert lines[first + 1 :] == [
        " - docs (optional, not installed)",
        " - libs",
        " - os-core",
        "Indirect dependencies (1):",
        " - games (optional, not installed)",
    ]


def test_an_installed_bundle_is_up_to_date_until_it_changes(machine: Any, published: Any, ten: Any) -> None:
    machine.run("bundle-info", "editors")
    assert "Newest:       the installed one is up to date" in machine.out
    ten["editors"].files["/usr/bin/edit"] = "newer"
    published.publish(20, ten)
    machine.run("bundle-info", "editors")
    assert "there is an update, last changed in version 20 (installed: 10)" in machine.out
    machine.run("bundle-info", "libs")
    assert "the installed one is up to date" in machine.out


def test_the_newest_version_can_be_described(machine: Any, published: Any, ten: Any) -> None:
    ten["editors"].files["/usr/bin/second"] = "second"
    published.publish(20, ten)
    machine.run("bundle-info", "--quiet", "--files", "--version", "latest", "editors")
    assert "/usr/bin/second" in machine.out
    machine.run("bundle-info", "--version", "latest", "editors")
    assert "last changed in version 20 (installed: 10)" in machine.out


def test_a_bundle_that_went_is_told(machine: Any, published: Any, ten: Any) -> None:
    del ten["games"]
    published.publish(20, ten)
    machine.run("bundle-info", "games")
    assert "version 20 does not have this bundle" in machine.out


def test_sizes_count_what_would_have_to_be_installed(machine: Any) -> None:
    machine.run("bundle-info", "docs")
    assert "Size:         6 bytes" in machine.out
    assert "To install:   6 bytes at most" in machine.out


def test_sizes_of_an_installed_bundle_count_what_is_there(machine: Any) -> None:
    machine.run("bundle-info", "editors")
    libs, editors = len("lib"), len("editconfig")
    core = len("corehostsVERSION_ID=10\n30\n")
    assert f"On the disk:  {libs + editors + core} bytes" in machine.out


def test_a_server_without_version_files_does_not_keep_the_rest_back(machine: Any, published: Any) -> None:
    machine.run("bundle-info", "editors")
    (published.directory / "version/format30/latest").unlink()
    machine.run("bundle-info", "editors")
    assert "Status:       Explicitly installed" in machine.out
    assert "Newest:       not known" in machine.out


def test_an_unknown_bundle_is_refused(machine: Any) -> None:
    machine.run("bundle-info", "nonsense", status=ExitCode.INVALID_BUNDLE)
    assert machine.errors == ["Error: there is no bundle nonsense in version 10"]


def test_json_is_valid_and_has_the_section_of_the_command(machine: Any) -> None:
    machine.run("bundle-info", "--json-output", "--dependencies", "--files", "editors")
    stream = json.loads(machine.out)
    assert stream[0] == {"type": "start", "section": "bundle-info"}
    assert stream[-1] == {"type": "end", "section": "bundle-info", "status": 0}
