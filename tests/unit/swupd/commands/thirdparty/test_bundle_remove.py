"""Bundles are removed from the repository that they were installed from, and their commands with them."""

from __future__ import annotations

from typing import Any

from swupd.errors import ExitCode

Machine = Any
Repository = Any


def test_a_removed_bundle_takes_its_commands_with_it(machine: Machine, mine: Repository) -> None:
    machine.add("mine", mine, "editor")
    machine.run("bundle-remove", "editor")
    assert machine.installed("mine") == {"os-core", "lib"}
    assert not machine.wrapper("edit").exists()


def test_what_nothing_needs_any_more_goes_with_it_if_asked(machine: Machine, mine: Repository) -> None:
    machine.add("mine", mine, "editor")
    machine.run("bundle-remove", "-R", "editor")
    assert machine.installed("mine") == {"os-core"}


def test_the_repository_is_chosen_with_e(machine: Machine, mine: Repository, other: Repository) -> None:
    machine.add("mine", mine, "tool")
    machine.add("other", other, "tool")
    machine.run("bundle-remove", "tool", status=ExitCode.INVALID_OPTION)
    machine.run("bundle-remove", "tool", "-e", "other")
    assert machine.installed("mine") == {"os-core", "tool"}
    assert machine.installed("other") == {"os-core"}


def test_a_bundle_that_no_repository_has_installed_is_3(machine: Machine, mine: Repository) -> None:
    machine.add("mine", mine)
    machine.run("bundle-remove", "editor", status=ExitCode.INVALID_BUNDLE)


def test_os_core_stays(machine: Machine, mine: Repository) -> None:
    machine.add("mine", mine)
    machine.run("bundle-remove", "os-core", status=ExitCode.REQUIRED_BUNDLE)


def test_orphans_of_all_repositories_are_removed(machine: Machine, mine: Repository, other: Repository) -> None:
    machine.add("mine", mine, "editor")
    machine.add("other", other)
    machine.run("bundle-remove", "editor")
    machine.run("bundle-remove", "--orphans")
    assert machine.installed("mine") == {"os-core"}
    assert [line for line in machine.out.splitlines() if line.startswith("[")] == ["[mine]", "[other]"]
