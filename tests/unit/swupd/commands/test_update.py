from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

Bundle = Any
Machine = Any
Publisher = Any
Bundles = dict[str, Any]


def test_files_change_come_and_go(machine: Machine, published: Publisher, ten: Bundles) -> None:
    ten["editors"].files |= {"/usr/bin/edit": "new", "/usr/share/added": "added"}
    del ten["libs"].files["/usr/lib/lib.so"]
    published.publish(20, ten)
    machine.run("update", "--no-scripts")
    assert machine.read("/usr/bin/edit") == "new"
    assert machine.read("/usr/share/added") == "added"
    assert not machine.has("/usr/lib/lib.so")
    assert "bundles:    3 changed, 0 added, 0 removed" in machine.out
    # os-release counts as changed too; the directory /usr/share was there already.
    assert "files:      2 changed, 1 added, 1 removed" in machine.out


def test_a_new_dependency_is_installed_but_not_tracked(
    machine: Machine, published: Publisher, ten: Bundles, bundle: Bundle
) -> None:
    ten["editors"].includes = ["os-core", "libs", "spelling"]
    ten["spelling"] = bundle({"/usr/bin/spell": "spell"}, ["os-core"])
    published.publish(20, ten)
    machine.run("update", "--no-scripts")
    assert machine.read("/usr/bin/spell") == "spell"
    machine.run("bundle-list", "--status", "--quiet")
    assert "spelling: installed\n" in machine.out


def test_optional_dependencies_are_not_added_by_an_update(machine: Machine, published: Publisher, ten: Bundles) -> None:
    ten["os-core"].files["/usr/bin/core"] = "new"
    published.publish(20, ten)
    machine.run("update", "--no-scripts")
    assert "docs" not in machine.bundles()


def test_a_bundle_that_was_given_up_is_removed(machine: Machine, published: Publisher, ten: Bundles) -> None:
    del ten["editors"]
    published.publish(20, ten)
    machine.run("update", "--no-scripts")
    assert machine.bundles() == {"os-core", "libs"}
    assert "no bundle editors any more" in machine.out
    assert machine.read("/etc/edit") == "config"


def test_a_path_that_bundles_disagree_about_is_left_alone(machine: Machine, published: Publisher, ten: Bundles) -> None:
    ten["libs"].files["/usr/bin/edit"] = "another"
    published.publish(20, ten)
    machine.run("update", "--no-scripts")
    assert "bundles disagree about /usr/bin/edit" in machine.err
    assert machine.read("/usr/bin/edit") == "edit"


def test_an_installed_bundle_that_nobody_knows_is_a_warning(
    machine: Machine, published: Publisher, ten: Bundles
) -> None:
    (machine.root / "usr/share/clear/bundles/mine").touch()
    published.publish(20, ten)
    machine.run("update", "--no-scripts")
    assert "Warning: bundle mine is installed, but version 10 does not have it" in machine.err
    assert "mine" in machine.bundles()


def test_a_system_of_version_0_is_not_updated(machine: Machine) -> None:
    (machine.root / "usr/lib/os-release").write_text("VERSION_ID=0\n")
    machine.run("update", status=15)
    assert machine.errors == ["Error: the system has version 0, which cannot be updated"]


SCRIPT = '#!/bin/sh\necho told "$1"\ntouch "$1/var/ran"\n'


def test_the_pre_update_script_runs_if_it_is_the_one_of_the_new_version(
    machine: Machine, published: Publisher, ten: Bundles
) -> None:
    ten["os-core"].files["/usr/bin/clr_pre_update.sh"] = SCRIPT
    ten["os-core"].executable = ["/usr/bin/clr_pre_update.sh"]
    published.publish(20, ten)
    machine.run("update", "--no-boot-update")
    assert not machine.has("/var/ran"), "it was not installed before"
    published.publish(30, ten)
    machine.run("update", "--no-boot-update")
    assert f"External command: told {machine.root}\n" in machine.out
    assert machine.has("/var/ran")


def test_the_pre_update_script_does_not_run_if_it_was_changed_or_is_not_wanted(
    machine: Machine, published: Publisher, ten: Bundles
) -> None:
    path = machine.root / "usr/bin/clr_pre_update.sh"
    ten["os-core"].files["/usr/bin/clr_pre_update.sh"] = SCRIPT
    ten["os-core"].executable = ["/usr/bin/clr_pre_update.sh"]
    published.publish(20, ten)
    machine.run("update", "--no-scripts")
    published.publish(30, ten)
    machine.run("update", "--no-scripts")
    path.write_text(f"{SCRIPT}# mine\n")
    published.publish(40, ten)
    machine.run("update", "--no-boot-update")
    assert not machine.has("/var/ran")


def test_the_copy_of_the_bundle_list_for_shell_completion_is_renewed(
    machine: Machine, published: Publisher, ten: Bundles
) -> None:
    (machine.root / "var/tmp").mkdir(mode=0o1777)
    published.publish(20, ten)
    machine.run("update", "--no-scripts")
    assert "version:\t20\n" in machine.read("/var/tmp/swupd/Manifest.MoM")


@pytest.fixture
def new_format(published: Publisher, ten: Bundles) -> None:
    """Version 20 is the last of format 30 and calls itself 30; 30 has the same content in format 31, 40 is newer."""
    ten["os-core"].files["/usr/bin/core"] = "new"
    published.publish(20, ten, says=(30, 31))
    published.publish(30, ten, number=31)
    ten["os-core"].files["/usr/bin/core"] = "newest"
    published.publish(40, ten, number=31)


def process(machine: Machine, *argv: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "swupd.cli", *machine.argv("update", "--no-scripts", *argv)],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"SWUPD_CONFIG_PATH": ""},
    )


@pytest.mark.usefixtures("new_format")
def test_an_update_goes_on_in_a_new_format_by_itself(machine: Machine) -> None:
    done = process(machine, "--json-output")
    assert done.returncode == 0, done.stderr
    stream = json.loads(done.stdout)
    assert [record for record in stream if record["type"] == "end"] == [stream[-1]]
    assert stream[-1] == {"type": "end", "section": "update", "status": 0}
    assert machine.read("/usr/bin/core") == "newest"
    machine.run("info", "--quiet")
    assert machine.out == "40\n"


@pytest.mark.usefixtures("new_format")
def test_an_update_to_a_version_before_the_new_format_ends_there(machine: Machine) -> None:
    assert process(machine, "--version", "20").returncode == 0
    assert machine.read("/usr/bin/core") == "new"


@pytest.mark.usefixtures("new_format")
def test_a_format_on_the_command_line_is_not_replaced_but_told(machine: Machine) -> None:
    done = process(machine, "--format", "30")
    assert done.returncode == 0, done.stderr
    assert "run 'swupd update' again without --format 30" in done.stderr
    assert machine.read("/usr/bin/core") == "new"


def test_nothing_is_fetched_for_files_that_only_have_a_new_version(
    machine: Machine, published: Publisher, ten: Bundles, tmp_path: Path
) -> None:
    """A minversion release: same content, all versions raised."""
    ten["os-core"].files["/usr/bin/core"] = "new"
    published.publish(20, ten, minversion=20)
    for path in (tmp_path / "www/20/files").iterdir():
        if b"new" not in path.read_bytes() and b"VERSION_ID" not in path.read_bytes():
            path.unlink()
    machine.run("update", "--no-scripts")
    assert machine.read("/usr/bin/core") == "new"


def test_the_manifests_of_all_bundles_come_along_on_request(
    machine: Machine, published: Publisher, ten: Bundles
) -> None:
    ten["editors"].files["/usr/bin/edit"] = "new"
    published.publish(20, ten)
    machine.run("update", "--no-scripts", "--update-search-file-index", "--json-output")
    steps = [record for record in json.loads(machine.out) if record["type"] == "progress"]
    assert (steps[-1]["stepDescription"], steps[-1]["currentStep"]) == ("update_search_index", 11)
    assert {step["totalSteps"] for step in steps} == {11}
    found = {path.name for path in machine.state.glob("cache/*/manifest/*/Manifest.*")}
    assert found >= {f"Manifest.{name}" for name in ten}


def test_a_manifest_that_is_missing_does_not_fail_the_update(
    machine: Machine, published: Publisher, ten: Bundles
) -> None:
    ten["games"].files["/usr/bin/game"] = "new"
    published.publish(20, ten)
    (published.directory / "20/Manifest.games.tar").unlink()
    machine.run("update", "--no-scripts", "--update-search-file-index")
    assert "Warning: bundle games cannot be searched" in machine.err


def test_a_system_newer_than_its_format_is_told_so(machine: Machine) -> None:
    (machine.root / "usr/lib/os-release").write_text("VERSION_ID=15\n")
    machine.run("update")
    assert "Version 15 is installed, which is newer than the newest one of format 30 on the server (10)" in machine.out


def test_the_newest_version_can_be_asked_for_by_name(machine: Machine, published: Publisher, ten: Bundles) -> None:
    ten["os-core"].files["/usr/bin/core"] = "new"
    published.publish(20, ten)
    machine.run("update", "--no-scripts", "--version", "latest")
    assert machine.read("/usr/bin/core") == "new"


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (("--reboot-at", "03:30"), "add --next-boot"),
        (("--next-boot", "--reboot-at", "03:30"), "leave out --reboot-at or --path"),
        (("--next-boot", "--reboot-at", "25:00"), "'25:00' is not now, HH:MM, or +MINUTES"),
    ],
)
def test_a_reboot_that_cannot_be_is_told_before_anything_is_done(
    machine: Machine, arguments: tuple[str, ...], hint: str
) -> None:
    machine.run("update", *arguments, status=15)
    assert hint in machine.err
    assert machine.out == ""
