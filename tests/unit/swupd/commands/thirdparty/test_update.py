"""The repositories are updated one by one; what they may not do without asking is declined."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from swupd.cli import load, subcommand_parser
from swupd.commands.thirdparty.update import update_all
from swupd.errors import ExitCode

Machine = Any
Repository = Any


def test_all_repositories_are_updated(machine: Machine, mine: Repository, other: Repository) -> None:
    machine.add("mine", mine, "tool")
    machine.add("other", other, "tool")
    for repository, version in ((mine, 20), (other, 30)):
        repository.bundles["tool"].files["/usr/lib/tool"] = f"of version {version}"
        repository.publish(version)
    machine.run("update")
    assert (machine.prefix("mine") / "usr/lib/tool").read_text() == "of version 20"
    assert (machine.prefix("other") / "usr/lib/tool").read_text() == "of version 30"


def test_the_ordinary_update_can_do_it_for_its_own_options(machine: Machine, mine: Repository, report: Any) -> None:
    machine.add("mine", mine)
    mine.publish(20)
    parser = subcommand_parser("update", load("update"))
    options = machine.argv("")[2:]
    args = parser.parse_args([*options, "--3rd-party", "--incremental", "--version", "10", "--status", "--yes"])
    assert update_all(args, report) == 0
    assert "VERSION_ID=20" in (machine.prefix("mine") / "usr/lib/os-release").read_text()


def test_a_dry_run_changes_nothing(machine: Machine, mine: Repository) -> None:
    machine.add("mine", mine)
    mine.publish(20)
    machine.run("update", "--dry-run", "--quiet", "--repo", "mine")
    assert machine.out == "20\n"
    assert "VERSION_ID=10" in (machine.prefix("mine") / "usr/lib/os-release").read_text()


def test_one_repository_can_be_updated_to_a_version(machine: Machine, mine: Repository, other: Repository) -> None:
    machine.add("mine", mine)
    machine.add("other", other)
    for version in (30, 40):
        mine.bundles["os-core"].files["/usr/share/core"] = f"{version}"
        mine.publish(version)
    machine.run("update", "--repo", "mine", "--version", "30")
    assert (machine.prefix("mine") / "usr/share/core").read_text() == "30"
    assert "[" not in machine.out


def test_a_version_for_all_repositories_is_15(machine: Machine, mine: Repository) -> None:
    machine.add("mine", mine)
    machine.run("update", "--version", "30", status=ExitCode.INVALID_OPTION)


def test_a_failure_does_not_keep_the_others_from_their_turn(
    machine: Machine, mine: Repository, other: Repository
) -> None:
    machine.add("mine", mine)
    machine.add("other", other)
    mine.publisher.directory.rename(mine.publisher.directory.with_name("gone"))
    other.publish(30)
    machine.run("update", status=ExitCode.SERVER)
    assert len(machine.errors) == 1
    assert "VERSION_ID=30" in (machine.prefix("other") / "usr/lib/os-release").read_text()


@pytest.mark.parametrize(("answer", "status", "content"), [("no", ExitCode.FILE_INVALID, "tool"), ("yes", 0, "new")])
def test_newly_gained_bits_are_installed_only_if_wanted(
    answer: str, status: int, content: str, machine: Machine, mine: Repository
) -> None:
    machine.add("mine", mine, "tool")
    mine.bundles["tool"].files["/usr/lib/tool"] = "new"
    mine.bundles["tool"].modes = {"/usr/lib/tool": 0o104755}
    mine.publish(20)
    machine.run("update", f"--assume={answer}", status=status)
    assert (machine.prefix("mine") / "usr/lib/tool").read_text() == content
    assert (f"VERSION_ID={20 if answer == 'yes' else 10}") in (
        machine.prefix("mine") / "usr/lib/os-release"
    ).read_text()


def test_bits_that_were_accepted_before_are_not_asked_for_again(machine: Machine, mine: Repository) -> None:
    mine.bundles["tool"].modes = {"/usr/lib/tool": 0o104755}
    mine.publish(20)
    machine.add("mine", mine, "tool")
    mine.bundles["tool"].files["/usr/lib/tool"] = "new"
    mine.publish(30)
    machine.run("update", "--assume=no")
    assert (machine.prefix("mine") / "usr/lib/tool").read_text() == "new"


def test_commands_follow_the_programs(machine: Machine, mine: Repository) -> None:
    machine.add("mine", mine, "editor")
    editor = mine.bundles["editor"]
    editor.files = {"/usr/bin/view": editor.files["/usr/bin/edit"]}
    editor.executable = editor.exported = ["/usr/bin/view"]
    mine.publish(20)
    machine.run("update")
    assert [path.name for path in (machine.own / "bin").iterdir()] == ["view"]


def test_a_program_that_is_exported_no_more_loses_its_command(machine: Machine, mine: Repository) -> None:
    machine.add("mine", mine, "editor")
    mine.bundles["editor"].exported = []
    mine.publish(20)
    machine.run("update")
    assert (machine.prefix("mine") / "usr/bin/edit").exists()
    assert not machine.wrapper("edit").exists()


def test_a_command_that_somebody_else_has_is_left_to_him(machine: Machine, mine: Repository, other: Repository) -> None:
    machine.add("mine", mine, "editor")
    machine.add("other", other, "tool")
    other.bundles["tool"].files["/usr/bin/edit"] = "#!/bin/sh\n"
    other.bundles["tool"].executable = other.bundles["tool"].exported = ["/usr/bin/edit"]
    other.publish(30)
    before = machine.wrapper("edit").read_text()
    machine.run("update")
    assert "Warning: /usr/bin/edit of repository other gets no command edit: repository mine has it" in machine.err
    assert machine.wrapper("edit").read_text() == before


def test_another_format_in_the_files_of_a_repository_changes_nothing(machine: Machine, mine: Repository) -> None:
    machine.add("mine", mine)
    mine.publisher.publish(20, mine.bundles, says=(20, 31))
    machine.run("update")
    assert "VERSION_ID=20" in (machine.prefix("mine") / "usr/lib/os-release").read_text()
    machine.run("update")
    assert "the server has nothing newer" in machine.out


def test_a_killed_update_gets_its_commands_from_the_next_run(machine: Machine, mine: Repository) -> None:
    machine.add("mine", mine, "tool")
    mine.bundles["tool"].files["/usr/bin/tool"] = "#!/bin/sh\n"
    mine.bundles["tool"].executable = mine.bundles["tool"].exported = ["/usr/bin/tool"]
    mine.publish(20)
    program = """
import os, signal, sys
from swupd.cli import main
from swupd.thirdparty import host
host.synchronise = lambda *args: os.kill(os.getpid(), signal.SIGKILL)
main(sys.argv[1:])
"""
    done = subprocess.run(
        [sys.executable, "-c", program, *machine.argv("update")],
        check=False,
        capture_output=True,
        env={**os.environ, "SWUPD_CONFIG_PATH": ""},
    )
    assert done.returncode == -9, done.stderr
    assert not machine.wrapper("tool").exists()
    machine.run("clean")
    assert machine.wrapper("tool").exists()


def test_the_status_is_0_if_any_repository_has_a_newer_version(
    machine: Machine, mine: Repository, other: Repository
) -> None:
    machine.add("mine", mine)
    machine.add("other", other)
    machine.run("update", "--status", status=ExitCode.NO)
    mine.publish(20)
    machine.run("update", "--status")


def test_quietly_only_the_names_are_printed(machine: Machine, mine: Repository, other: Repository) -> None:
    machine.add("mine", mine)
    machine.add("other", other)
    mine.publish(20)
    machine.run("update", "--quiet")
    assert (machine.out, machine.err) == ("[mine]\n[other]\n", "")


def test_the_json_stream_is_one_array(machine: Machine, mine: Repository, other: Repository) -> None:
    machine.add("mine", mine)
    machine.add("other", other)
    mine.publish(20)
    machine.run("update", "--json-output")
    records = json.loads(machine.out)
    assert records[0] == {"type": "start", "section": "3rd-party-update"}
    assert [record["msg"] for record in records if record.get("msg", "").startswith("[")] == ["[mine]", "[other]"]
    assert records[-1] == {"type": "end", "section": "3rd-party-update", "status": 0}
