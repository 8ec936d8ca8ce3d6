from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from swupd import history
from swupd.nextboot import place

Bundle = Any
Machine = Any
Publisher = Any
Bundles = dict[str, Any]


def tree(machine: Machine) -> dict[str, str]:
    """The OS: every path with its type and content."""
    found = {}
    for path in sorted(machine.root.rglob("*")):
        name = str(path.relative_to(machine.root))
        found[name] = f"-> {os.readlink(path)}" if path.is_symlink() else path.read_text() if path.is_file() else "/"
    return {name: content for name, content in found.items() if not name.startswith("var/tmp")}


@pytest.fixture
def updated(machine: Machine, published: Publisher, ten: Bundles, bundle: Bundle) -> dict[str, str]:
    """The machine is updated to version 20; the tree that it had before."""
    before = tree(machine)
    ten["editors"].files |= {"/usr/bin/edit": "new", "/usr/share/added/deep": "added", "/usr/lib/lib.so.1": None}
    ten["libs"].files = {"/usr/lib/lib.so": "a file now"}
    published.publish(20, ten)
    machine.run("update", "--no-scripts")
    assert tree(machine) != before
    return before


def test_the_last_update_is_undone_without_a_server(
    machine: Machine, published: Publisher, updated: dict[str, str]
) -> None:
    shutil.rmtree(published.directory)
    machine.run("rollback", "--no-scripts")
    assert tree(machine) == updated
    assert "Rolled back from version 20 to 10" in machine.out
    assert (machine.state / "version").read_text() == "10\n"
    assert history.read(machine.state)[-1].outcome == "rolled back"


def test_what_came_after_the_update_is_undone_before_it(machine: Machine, updated: dict[str, str]) -> None:
    machine.run("bundle-add", "games", "--no-scripts")
    machine.run("bundle-remove", "editors")
    (machine.root / "usr/bin/core").write_text("damaged")
    machine.run("repair", "--no-scripts")
    machine.run("rollback", "--no-scripts")
    assert tree(machine) == updated
    assert os.listdir(machine.state / "bundles") == ["editors"]
    assert "(3 changes)" in machine.out


def test_an_update_can_be_done_again_after_its_rollback(machine: Machine, updated: dict[str, str]) -> None:
    after = tree(machine)
    machine.run("rollback", "--no-scripts")
    machine.run("update", "--no-scripts")
    assert tree(machine) == after
    machine.run("diagnose")


def test_a_dry_run_only_tells(machine: Machine, updated: dict[str, str]) -> None:
    machine.run("bundle-add", "games", "--no-scripts")
    before = tree(machine)
    machine.run("rollback", "--dry-run")
    assert tree(machine) == before
    assert machine.out.splitlines()[:2] == ["Would undo: bundle-add games", "Would undo: update from 10 to 20"]


def test_it_goes_back_by_one_update_only(machine: Machine, updated: dict[str, str]) -> None:
    machine.run("rollback", "--no-scripts")
    machine.run("rollback", status=15)
    assert "there is no update that could be rolled back" in machine.errors[0]
    assert "swupd repair --version N --picky --force" in machine.err


def test_a_new_system_has_nothing_to_go_back_to(machine: Machine) -> None:
    assert os.listdir(machine.state / "kept") == []
    machine.run("rollback", status=15)


def test_a_changed_file_is_replaced_and_an_added_one_stays(machine: Machine, updated: dict[str, str]) -> None:
    (machine.root / "usr/bin/edit").write_text("by hand")
    (machine.root / "usr/share/added/mine").write_text("precious")
    machine.run("rollback", "--no-scripts")
    assert machine.read("/usr/bin/edit") == "edit"
    assert machine.read("/usr/share/added/mine") == "precious"
    assert not machine.has("/usr/share/added/deep")
    assert "/usr/share/added is left as it is" in machine.err


def test_a_system_that_something_else_has_changed_is_left_alone(machine: Machine, updated: dict[str, str]) -> None:
    (machine.root / "usr/lib/os-release").write_text("VERSION_ID=30\n")
    before = tree(machine)
    machine.run("rollback", status=10)
    assert "changed by something else" in machine.errors[0]
    assert tree(machine) == before


def test_nothing_is_begun_if_something_is_not_kept_any_more(machine: Machine, updated: dict[str, str]) -> None:
    before = tree(machine)
    kept: list[Path] = sorted((machine.state / "kept").glob("*/[0-9]*"))
    kept[0].unlink()
    machine.run("rollback", status=10)
    assert "is not kept any more; nothing was changed" in machine.errors[0]
    assert tree(machine) == before


def test_nothing_is_begun_if_a_name_that_is_needed_is_taken(machine: Machine, updated: dict[str, str]) -> None:
    (machine.root / "usr/bin/.update.edit").write_text("a user's")
    machine.run("rollback", status=10)
    assert "/usr/bin/.update.edit is in the way" in machine.errors[0]


def test_nothing_of_it_is_there_after_all_was_cleaned(machine: Machine, updated: dict[str, str]) -> None:
    machine.run("clean", "--all")
    machine.run("rollback", status=15)


def test_its_output_is_valid_json(machine: Machine, updated: dict[str, str]) -> None:
    machine.run("rollback", "--no-scripts", "--json-output")
    assert json.loads(machine.out)[-1]["status"] == 0


# -- where deployments boot


def test_there_and_back_again(blessed: Any) -> None:
    disk = blessed
    disk.run("rollback")
    assert disk.out == "Setting aside 20\nVersion 10 boots next: reboot to get it\n"
    disk.run("rollback")
    assert disk.out == "Version 10 boots next: reboot to get it\n"
    assert disk.boot() == "10"
    disk.run("boot", "complete")
    assert disk.entries() == ["os-10.conf", "os-20+0.conf"]
    disk.run("check-update", status=1)
    assert "set aside by 'swupd rollback'" in disk.out
    disk.run("rollback", "20")
    assert disk.out == "Version 20 boots next: reboot to get it\n"
    disk.run("check-update")
    assert disk.boot() == "20"
    assert [event.command for event in history.read(disk.state)][-2:] == ["rollback to 10", "rollback to 20"]


def test_a_dry_run_leaves_the_boot_entries(blessed: Any) -> None:
    blessed.run("rollback", "--dry-run")
    assert blessed.out == "Would set aside 20\nVersion 10 would boot next: reboot to get it\n"
    assert blessed.entries() == ["os-10.conf", "os-20.conf"]


def test_an_update_that_waits_is_set_aside(machine_disk: Any) -> None:
    machine_disk.publish(20)
    machine_disk.run("update", "--next-boot")
    machine_disk.run("rollback")
    assert machine_disk.out == "Setting aside 20\nVersion 10 stays: it is running, and boots next\n"
    assert machine_disk.boot() == "10"


def test_without_an_earlier_version_nothing_is_chosen(machine_disk: Any) -> None:
    machine_disk.run("rollback", status=39)
    assert "there is no earlier version that has booted well" in machine_disk.err


def test_elsewhere_a_deployment_cannot_be_named(machine: Machine) -> None:
    machine.run("rollback", "10", status=39)
    assert "is not a mount point" in machine.errors[0]


def test_of_a_deployment_no_file_is_put_back_whatever_else_is_missing(blessed: Any) -> None:
    subprocess.run(["umount", "--lazy", blessed.root / "run/state"], check=True)
    blessed.run("rollback", status=39)
    assert "the shared state is not mounted" in blessed.err
    blessed.run("status")
    assert "Next boot: not known; the shared state is not mounted" in blessed.out


def test_where_mounts_cannot_be_looked_at_files_are_put_back(
    machine: Machine, updated: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(place, "MOUNTS", Path("/proc/none"))
    machine.run("check-update", status=1)
    machine.run("status")
    assert "what is mounted at " in machine.out
    machine.run("rollback", "--no-scripts")
    assert tree(machine) == updated
    machine.run("update", "--no-scripts")
