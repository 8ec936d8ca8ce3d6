from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from swupd.errors import ExitCode


def test_quiet_is_the_bundle_in_brackets_and_its_paths(machine: Any) -> None:
    machine.run("search-file", "--quiet", "LIB.so")
    assert machine.out == "[libs]\n/usr/lib/lib.so\n/usr/lib/lib.so.1\n"


def test_status_and_size_of_each_bundle_are_shown(machine: Any) -> None:
    machine.run("search-file", "/usr/bin/")
    assert [line for line in machine.out.splitlines() if line.startswith("Bundle")] == [
        "Bundle editors (explicitly installed, 10 bytes)",
        "Bundle games (not installed, 4 bytes)",
        "Bundle os-core (installed, 26 bytes)",
    ]


def test_directories_are_not_found(machine: Any) -> None:
    machine.run("search-file", "--quiet", "usr/share/doc")
    assert machine.out == "[docs]\n/usr/share/doc/manual\n"


def test_what_is_gone_is_not_found(machine: Any, published: Any, ten: Any) -> None:
    del ten["docs"].files["/usr/share/doc/manual"]
    published.publish(20, ten)
    machine.run("search-file", "--version", "20", "manual", status=ExitCode.NO)


def test_nothing_found_is_no(machine: Any) -> None:
    machine.run("search-file", "nonsense", status=ExitCode.NO)
    assert "No path contains 'nonsense'" in machine.out


@pytest.mark.parametrize(
    ("options", "paths"),
    [
        (["--library"], ["/usr/lib/os-release", "/usr/lib/lib.so", "/usr/lib/lib.so.1"]),
        (["--binary"], ["/usr/bin/core", "/usr/bin/edit", "/usr/bin/game"]),
        (["--binary", "--regexp"], []),
    ],
)
def test_prefixes_restrict_the_search(machine: Any, options: list[str], paths: list[str]) -> None:
    term = "^/usr/lib" if "--regexp" in options else ""
    machine.run("search-file", "--quiet", *options, term, status=ExitCode.OK if paths else ExitCode.NO)
    assert sorted(line for line in machine.out.splitlines() if not line.startswith("[")) == sorted(paths)


def test_a_regular_expression_is_posix_and_ignores_case(machine: Any) -> None:
    machine.run("search-file", "--quiet", "--regexp", "/(ED|ga)[[:alpha:]]+t?$")
    assert (
        machine.out
        == "[editors]\n/etc/edit\n/usr/bin/edit\n/usr/share/clear/bundles/editors\n".replace(
            "/usr/share/clear/bundles/editors\n", "/usr/share/clear/bundles/editors\n"
        )
        + "[games]\n/usr/bin/game\n/usr/share/clear/bundles/games\n"
    )


def test_a_regular_expression_that_is_none_is_refused(machine: Any) -> None:
    machine.run("search-file", "--regexp", "(", status=ExitCode.INVALID_OPTION)


def test_bundles_are_in_alphabetical_order_or_small_ones_first(machine: Any) -> None:
    machine.run("search-file", "--quiet", "/usr/bin")
    assert [line for line in machine.out.splitlines() if line[0] == "["] == ["[editors]", "[games]", "[os-core]"]
    machine.run("search-file", "--quiet", "--order", "size", "/usr/bin")
    assert [line for line in machine.out.splitlines() if line[0] == "["] == ["[games]", "[editors]", "[os-core]"]


def test_only_some_paths_of_each_bundle_may_be_shown(machine: Any) -> None:
    machine.run("search-file", "--top", "1", "lib")
    assert "  /usr/lib/lib.so\n  and 2 more\n" in machine.out
    assert "lib.so.1" not in machine.out


def test_csv_has_one_line_for_each_path(machine: Any, published: Any, ten: Any) -> None:
    ten["libs"].files['/usr/lib/a,"b"'] = "x"
    published.publish(20, ten)
    machine.run("search-file", "--csv", "--quiet", "--version", "20", "--library", "/usr/lib/")
    assert machine.out.splitlines() == [
        '"/usr/lib/a,""b""",libs,4,installed',
        "/usr/lib/lib.so,libs,4,installed",
        "/usr/lib/lib.so.1,libs,4,installed",
        "/usr/lib/os-release,os-core,26,installed",
    ]


def test_with_init_everything_is_downloaded_and_nothing_is_searched(machine: Any, published: Any) -> None:
    machine.run("search-file", "--init")
    assert "5 of 5 manifests of version 10 are there" in machine.out
    for manifest in (published.directory / "10").glob("Manifest.*"):
        manifest.unlink()
    machine.run("search-file", "--quiet", "manual")
    assert machine.out == "[docs]\n/usr/share/doc/manual\n"


def test_a_manifest_that_is_missing_does_not_keep_the_others_from_being_searched(machine: Any, published: Any) -> None:
    (published.directory / "10/Manifest.games.tar").unlink()
    machine.run("search-file", "--quiet", "/usr/bin", status=ExitCode.MANIFEST_RECURSION)
    assert [line for line in machine.out.splitlines() if line[0] == "["] == ["[editors]", "[os-core]"]
    assert len(machine.errors) == 1
    assert "1 bundle could not be searched, such as games" in machine.errors[0]


def test_a_manifest_that_is_broken_does_not_keep_the_others_from_being_searched(machine: Any, published: Any) -> None:
    Path(published.directory / "10/Manifest.games.tar").write_bytes(b"nonsense")
    machine.run("search-file", "--quiet", "/usr/bin/edit", status=ExitCode.MANIFEST_RECURSION)
    assert machine.out == "[editors]\n/usr/bin/edit\n"


def test_json_is_valid_and_has_the_old_section(machine: Any) -> None:
    machine.run("search-file", "--json-output", "lib.so")
    stream = json.loads(machine.out)
    assert stream[0] == {"type": "start", "section": "search"}
    assert stream[-1] == {"type": "end", "section": "search", "status": 0}
    assert {each["stepDescription"] for each in stream if each["type"] == "progress"} == {
        "load_manifests",
        "search_term",
    }
