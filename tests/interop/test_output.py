"""What scripts read: exit statuses, --quiet and the JSON stream."""

from __future__ import annotations

import resource
import subprocess
from typing import Any

import pytest

Client = Any
PublishedTree = Any


def test_check_update_tells_by_its_exit_status(client: Client) -> None:
    assert "There is a newer version: 20" in client.run("check-update").out
    assert client.run("check-update", "--quiet").out == "20\n"
    assert client.run("update", "--status", "--quiet").out == "20\n"
    client.run("update")
    assert client.run("check-update", "--quiet", status=1).out == ""
    assert client.run("update", "-s", status=1).out.endswith("There is no newer version\n")


def test_quiet_commands_print_results_only(client: Client) -> None:
    assert client.run("info", "--quiet").out == "10\n"
    for argv in (["bundle-add", "games"], ["update"], ["bundle-remove", "games"], ["clean"]):
        assert client.run(*argv, "--quiet").out == ""


@pytest.mark.parametrize(
    ("argv", "status", "first_steps"),
    [
        (["bundle-list", "--all"], 0, ["load_manifests", "list_bundles"]),
        (["bundle-add", "docs"], 0, ["load_manifests", "download_packs", "install_files"]),
        (["bundle-remove", "editors"], 0, ["load_manifests", "remove_files"]),
        (["update"], 0, ["load_manifests", "download_packs", "download_fullfiles", "update_files"]),
        (["diagnose"], 0, ["load_manifests", "add_missing_files", "fix_files", "remove_extraneous_files"]),
        (["repair"], 0, ["load_manifests", "check_files_hash"]),
        (["bundle-add", "nonsense"], 3, ["load_manifests"]),
    ],
)
def test_the_json_stream_is_valid_and_complete(
    client: Client, argv: list[str], status: int, first_steps: list[str]
) -> None:
    records = client.run(*argv, "--json-output", status=status).json
    assert records[0] == {"type": "start", "section": argv[0]}
    assert records[-1] == {"type": "end", "section": argv[0], "status": status}
    progress = [record for record in records if record["type"] == "progress"]
    assert list(dict.fromkeys(record["stepDescription"] for record in progress)) == first_steps
    numbers = [record["currentStep"] for record in progress]
    assert numbers == sorted(numbers)
    assert all(1 <= record["currentStep"] <= record["totalSteps"] for record in progress)
    assert all(-1 <= record["stepCompletion"] <= 100 for record in progress)


def test_json_keeps_warnings_and_errors_on_standard_output(client: Client) -> None:
    result = client.run("bundle-add", "nonsense", "--json-output", status=3)
    assert result.err == ""
    assert [record["type"] for record in result.json if record["type"] in ("warning", "error")] == ["warning", "error"]


def test_seconds_of_the_steps_are_printed_on_request(client: Client) -> None:
    assert client.run("diagnose", "--time").lines[-1].endswith(" s  in all")


def test_a_reader_who_goes_away_does_not_stop_an_update(client: Client) -> None:
    process = subprocess.Popen(
        client.argv("update"), env=client.environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    process.stdout.close()
    assert process.wait(timeout=30) == 0, process.stderr.read()
    process.stderr.close()
    assert client.run("info", "--quiet").out == "20\n"


def test_the_configuration_file_gives_defaults(client: Client) -> None:
    (client.config / "config").write_text("[GLOBAL]\nquiet=true\n[diagnose]\npicky=true\n")
    (client.root / "usr/share/extra").touch()
    assert client.run("diagnose", status=1).lines == [f"{client.root}/usr/share/extra"]


def test_info_answers_at_once(client: Client) -> None:
    """In processor time, because tests share the machine; the first run may have to compile."""
    seconds = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        client.run("info")
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(seconds) < 0.15
