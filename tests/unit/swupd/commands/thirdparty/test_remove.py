"""Removing a repository takes everything that came from it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from swupd.cli import main
from swupd.errors import ExitCode

Machine = Any
Repository = Any


def test_nothing_of_a_removed_repository_is_left(machine: Machine, mine: Repository) -> None:
    before = machine.files()
    machine.add("mine", mine, "editor")
    assert machine.wrapper("edit").exists()
    machine.run("remove", "MINE")
    assert machine.files() - before <= {"root/opt/3rd-party/repo.ini", "root/opt/3rd-party/script.template"}
    assert (machine.own / "repo.ini").read_text() == ""
    assert not machine.prefix("mine").exists()
    assert not list((machine.state / "3rd-party").iterdir())


def test_other_repositories_stay_as_they_are(machine: Machine, mine: Repository, other: Repository) -> None:
    machine.add("mine", mine, "editor")
    machine.add("other", other, "tool")
    machine.run("remove", "other")
    assert machine.installed("mine") == {"os-core", "lib", "editor"}
    assert machine.wrapper("edit").exists()
    machine.run("list")
    assert machine.out == f"mine: {mine.url}\n"


def test_a_repository_that_is_not_there_is_37(machine: Machine) -> None:
    machine.run("remove", "mine", status=ExitCode.THIRD_PARTY_REPOSITORY)
    assert machine.errors == ["Error: there is no 3rd-party repository 'mine'"]


def test_files_without_repository_are_removed_if_forced(machine: Machine, mine: Repository) -> None:
    machine.add("mine", mine, "editor")
    (machine.own / "repo.ini").write_text("")
    machine.run("remove", "mine", status=ExitCode.THIRD_PARTY_REPOSITORY)
    machine.run("remove", "mine", "--force")
    assert not machine.prefix("mine").exists()
    assert not machine.wrapper("edit").exists()


def killed_removal(machine: Machine) -> None:
    """`remove` that is killed when it is about to wipe the content."""
    program = """
import os, signal, sys
from swupd.cli import main
from swupd.thirdparty.place import Place
Place.wipe = lambda self: os.kill(os.getpid(), signal.SIGKILL)
main(sys.argv[1:])
"""
    done = subprocess.run(
        [sys.executable, "-c", program, *machine.argv("remove", "mine")],
        check=False,
        capture_output=True,
        env={**os.environ, "SWUPD_CONFIG_PATH": ""},
    )
    assert done.returncode == -9, done.stderr
    assert machine.prefix("mine").exists()


def test_a_killed_removal_is_finished_by_the_next_command(machine: Machine, mine: Repository) -> None:
    machine.add("mine", mine, "editor")
    killed_removal(machine)
    machine.run("clean")
    assert not machine.prefix("mine").exists()


def test_a_killed_removal_is_finished_by_a_command_of_the_system_as_well(machine: Machine, mine: Repository) -> None:
    machine.add("mine", mine, "editor")
    killed_removal(machine)
    group, *argv = machine.argv("clean")
    assert group == "3rd-party"
    assert main(argv) == 0
    assert not machine.prefix("mine").exists()
    assert not machine.wrapper("edit").exists()


def test_a_link_in_the_content_is_removed_and_not_followed(machine: Machine, mine: Repository, tmp_path: Path) -> None:
    (tmp_path / "away").mkdir()
    (tmp_path / "away/file").touch()
    machine.add("mine", mine)
    (machine.prefix("mine") / "link").symlink_to(tmp_path / "away")
    machine.run("remove", "mine")
    assert (tmp_path / "away/file").exists()


def test_quietly_nothing_is_printed(machine: Machine, mine: Repository) -> None:
    machine.add("mine", mine)
    machine.run("remove", "mine", "--quiet")
    assert (machine.out, machine.err) == ("", "")
