from __future__ import annotations

from typing import Any

from swupd.errors import ExitCode

Bundles = dict[str, Any]
Machine = Any
Publisher = Any


def damage(machine: Machine) -> None:
    (machine.root / "usr/bin/edit").write_text("broken")
    (machine.root / "usr/lib/lib.so").unlink()


def test_missing_and_changed_files_are_put_right(machine: Machine) -> None:
    damage(machine)
    machine.run("repair", "--no-scripts")
    assert f" -> Missing file: {machine.root}/usr/lib/lib.so -> fixed" in machine.out
    assert f" -> Changed file: {machine.root}/usr/bin/edit -> fixed" in machine.out
    assert "2 files put right" in machine.out
    machine.run("diagnose")


def test_a_quick_repair_only_creates_what_is_missing(machine: Machine) -> None:
    damage(machine)
    machine.run("repair", "--quick", "--quiet", "--no-scripts")
    assert machine.out == f"{machine.root}/usr/lib/lib.so -> fixed\n"
    assert machine.read("/usr/bin/edit") == "broken"


def test_nothing_is_removed_if_something_could_not_be_put_right(
    machine: Machine, published: Publisher, ten: Bundles
) -> None:
    del ten["libs"].files["/usr/lib/lib.so"]
    published.publish(20, ten)
    machine.run("update", "--no-scripts")
    (machine.root / "usr/lib/lib.so").write_text("back")
    (machine.root / "usr/bin/edit").unlink()
    (machine.root / "usr/bin/edit").mkdir()
    (machine.root / "usr/bin/edit/mine").write_text("mine")
    machine.run("repair", "--quiet", "--no-scripts", status=ExitCode.INCOMPLETE)
    assert machine.out == f"{machine.root}/usr/bin/edit -> not fixed\n"
    assert machine.has("/usr/lib/lib.so")
    assert machine.read("/usr/bin/edit/mine") == "mine"


def test_a_directory_that_is_not_empty_is_not_deleted(machine: Machine, published: Publisher, ten: Bundles) -> None:
    ten["libs"].files["/usr/share/old"] = None
    published.publish(20, ten)
    machine.run("update", "--no-scripts")
    del ten["libs"].files["/usr/share/old"]
    published.publish(30, ten)
    machine.run("update", "--no-scripts")
    (machine.root / "usr/share/old").mkdir()
    (machine.root / "usr/share/old/mine").touch()
    machine.run("repair", "--quiet", "--no-scripts", status=ExitCode.INCOMPLETE)
    assert machine.out == f"{machine.root}/usr/share/old -> not deleted (not empty)\n"


def test_extra_files_are_removed_on_request(machine: Machine) -> None:
    damage(machine)
    (machine.root / "usr/share/extra").mkdir()
    machine.run("repair", "--extra-files-only", "--quiet", "--no-scripts")
    assert machine.out == f"{machine.root}/usr/share/extra/ -> deleted\n"
    assert machine.read("/usr/bin/edit") == "broken"


def test_extra_files_can_be_limited_to_a_path(machine: Machine) -> None:
    for name in ("one", "two"):
        (machine.root / "usr/share" / name).touch()
    machine.run("repair", "--picky", "--file", "/usr/share/one", "--quiet", "--no-scripts")
    assert machine.out == f"{machine.root}/usr/share/one -> deleted\n"


def test_a_repair_without_need_fetches_no_objects(machine: Machine) -> None:
    machine.run("repair", "--no-scripts")
    assert "There was nothing to repair" in machine.out


def test_another_version_wants_to_be_forced(machine: Machine, published: Publisher, ten: Bundles) -> None:
    published.publish(20, ten)
    machine.run("repair", "--version", "20", status=ExitCode.INVALID_OPTION)
    machine.run("repair", "-m", "20", "--picky", "--no-scripts")
    assert machine.read("/usr/lib/os-release") == "VERSION_ID=20\n"
