"""list, info, check-update, bundle-list and bundle-info: what can be seen of the repositories."""

from __future__ import annotations

import json
from typing import Any

import pytest

from swupd.errors import ExitCode

Machine = Any
Repository = Any

TWO = ["[mine]", "[other]"]


@pytest.fixture
def both(machine: Machine, mine: Repository, other: Repository) -> Machine:
    machine.add("mine", mine, "editor")
    machine.add("other", other, "tool")
    return machine


def headers(machine: Machine) -> list[str]:
    return [line for line in machine.out.splitlines() if line.startswith("[")]


@pytest.mark.parametrize("subcommand", ["info", "check-update", "bundle-list", "diagnose", "update", "repair", "clean"])
def test_without_repositories_there_is_nothing_to_do(subcommand: str, machine: Machine) -> None:
    machine.run(subcommand, status=ExitCode.NO if subcommand == "check-update" else 0)
    assert "There are no 3rd-party repositories" in machine.out


@pytest.mark.parametrize("subcommand", ["info", "check-update", "bundle-list", "diagnose", "update", "repair", "clean"])
def test_a_repository_that_is_not_there_is_37(subcommand: str, both: Machine) -> None:
    both.run(subcommand, "--repo", "nonsense", status=ExitCode.THIRD_PARTY_REPOSITORY)


@pytest.mark.parametrize("subcommand", ["info", "bundle-list", "diagnose", "update", "repair", "clean"])
def test_each_repository_has_a_header_even_quietly(subcommand: str, both: Machine) -> None:
    both.run(subcommand, "--quiet")
    assert headers(both) == TWO
    both.run(subcommand, "--quiet", "--repo", "mine")
    assert headers(both) == []


@pytest.mark.parametrize("subcommand", ["list", "info", "check-update", "bundle-list"])
def test_the_json_stream_has_the_name_of_the_subcommand(subcommand: str, both: Machine) -> None:
    both.run(subcommand, "--json-output", status=ExitCode.NO if subcommand == "check-update" else 0)
    section = f"third-party-{subcommand}" if subcommand in ("list", "info") else f"3rd-party-{subcommand}"
    assert json.loads(both.out)[0] == {"type": "start", "section": section}


def test_info_quietly_is_the_version_of_each(both: Machine) -> None:
    both.run("info", "--quiet")
    assert both.out == "[mine]\n10\n[other]\n20\n"


def test_info_names_the_url(both: Machine, mine: Repository) -> None:
    both.run("info", "--repo", "mine")
    assert f"Content URL:       {mine.url}" in both.out


def test_check_update_is_1_if_no_repository_has_a_newer_version(both: Machine) -> None:
    both.run("check-update", status=ExitCode.NO)


def test_check_update_is_0_if_any_repository_has_one(both: Machine, other: Repository) -> None:
    other.publish(30)
    both.run("check-update", "--quiet")
    assert both.out == "[mine]\n[other]\n30\n"
    both.run("check-update", "--repo", "mine", status=ExitCode.NO)


def test_check_update_tells_of_a_server_that_is_away_even_if_another_has_something(
    both: Machine, mine: Repository, other: Repository
) -> None:
    mine.publisher.directory.rename(mine.publisher.directory.with_name("gone"))
    other.publish(30)
    both.run("check-update", status=ExitCode.SERVER)
    assert "There is a newer version: 30" in both.out


def test_bundle_list_is_made_for_each_repository(both: Machine) -> None:
    both.run("bundle-list", "--quiet")
    assert both.out == "[mine]\neditor\nlib\nos-core\n[other]\nos-core\ntool\n"


def test_all_bundles_can_be_listed(both: Machine) -> None:
    both.run("bundle-list", "--all", "--quiet", "--repo", "mine")
    assert both.out == "editor\nlib\nos-core\ntool\n"


def test_the_dependencies_of_a_bundle_are_those_of_the_repository_that_has_it(both: Machine) -> None:
    both.run("bundle-list", "--deps", "editor", "--quiet")
    assert both.out == "lib\nos-core\n"
    both.run("bundle-list", "--deps", "tool", status=ExitCode.INVALID_OPTION)


def test_bundle_info_finds_the_repository(both: Machine) -> None:
    both.run("bundle-info", "editor", "--quiet")
    assert both.out.startswith("Explicitly installed")


def test_bundle_info_of_what_nobody_has_is_3(both: Machine) -> None:
    both.run("bundle-info", "nonsense", status=ExitCode.INVALID_BUNDLE)


def test_bundle_info_of_what_several_have_is_15(both: Machine) -> None:
    both.run("bundle-info", "tool", status=ExitCode.INVALID_OPTION)
    both.run("bundle-info", "tool", "--repo", "other", "--quiet")
    assert both.out.startswith("Explicitly installed")
