"""Bundles come from the repository that has them, into its prefix and nowhere else."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from swupd.errors import ExitCode

Machine = Any
Repository = Any


def test_a_bundle_is_installed_below_the_prefix_of_its_repository(
    machine: Machine, mine: Repository, other: Repository
) -> None:
    machine.add("mine", mine)
    machine.add("other", other)
    machine.run("bundle-add", "editor")
    assert machine.installed("mine") == {"os-core", "lib", "editor"}
    assert machine.installed("other") == {"os-core"}
    assert (machine.prefix("mine") / "usr/share/editor").read_text() == "help"


def test_nothing_is_written_outside_of_what_is_ours(machine: Machine, mine: Repository) -> None:
    machine.add("mine", mine, "editor", "tool")
    ours = ("root/opt/3rd-party/", "state/3rd-party/mine/", "state/bundles")
    assert [path for path in machine.files() if not path.startswith(ours)] == []


def test_a_bundle_that_no_repository_has_is_3(machine: Machine, mine: Repository) -> None:
    machine.add("mine", mine)
    machine.run("bundle-add", "nonsense", status=ExitCode.INVALID_BUNDLE)
    assert machine.errors == ["Error: no 3rd-party repository has a bundle nonsense"]


def test_a_bundle_that_several_repositories_have_is_15(machine: Machine, mine: Repository, other: Repository) -> None:
    machine.add("mine", mine)
    machine.add("other", other)
    machine.run("bundle-add", "tool", status=ExitCode.INVALID_OPTION)
    assert machine.errors == ["Error: several repositories have a bundle tool: mine, other"]
    machine.run("bundle-add", "tool", "--repo", "Other")
    assert machine.installed("other") == {"os-core", "tool"}


def test_nothing_is_installed_if_one_of_the_names_is_wrong(machine: Machine, mine: Repository) -> None:
    machine.add("mine", mine)
    machine.run("bundle-add", "editor", "nonsense", status=ExitCode.INVALID_BUNDLE)
    assert machine.installed("mine") == {"os-core"}


def test_a_repository_that_is_not_there_is_37(machine: Machine) -> None:
    machine.run("bundle-add", "editor", "--repo", "mine", status=ExitCode.THIRD_PARTY_REPOSITORY)


def test_an_exported_program_runs_in_the_surroundings_of_its_repository(machine: Machine, mine: Repository) -> None:
    machine.add("mine", mine, "editor")
    prefix = machine.prefix("mine")
    done = subprocess.run(
        [machine.wrapper("edit"), "a b", "$HOME", ""],
        check=True,
        capture_output=True,
        text=True,
        env={"PATH": "/usr/bin:/bin", "LD_LIBRARY_PATH": "/lib-of-mine"},
    )
    assert done.stdout.split("\n") == [
        "editor",
        f"{prefix}/bin:{prefix}/usr/bin:{prefix}/usr/local/bin:/usr/bin:/bin",
        f"{prefix}/usr/lib64:{prefix}/usr/local/lib64:/lib-of-mine",
        f"{prefix}/usr/share:{prefix}/usr/local/share:/usr/local/share:/usr/share",
        f"{prefix}/etc:/etc/xdg",
        "a b",
        "$HOME",
        "",
        "",
    ]


def test_a_program_is_exported_only_if_marked_executable_and_among_programs(machine: Machine, mine: Repository) -> None:
    tool = mine.bundles["tool"]
    tool.files |= dict.fromkeys(("/usr/bin/unmarked", "/usr/bin/data", "/usr/libexec/far", "/bin/near"), "#!/bin/sh\n")
    tool.executable = ["/usr/bin/unmarked", "/usr/libexec/far", "/bin/near"]
    tool.exported = ["/usr/bin/data", "/usr/libexec/far", "/bin/near"]
    mine.publish(20)
    machine.add("mine", mine, "tool")
    assert [path.name for path in (machine.own / "bin").iterdir()] == ["near"]


def test_a_command_that_another_repository_has_is_7_before_the_download(
    machine: Machine, mine: Repository, other: Repository
) -> None:
    other.bundles["games"] = mine.bundles["editor"]
    other.publish(30)
    machine.add("mine", mine, "editor")
    machine.add("other", other)
    machine.run("bundle-add", "games", status=ExitCode.CANNOT_CREATE_FILE)
    assert "that is /usr/bin/edit of repository mine" in machine.err
    assert machine.installed("other") == {"os-core"}
    assert not list((machine.state / "3rd-party/other/cache").rglob("staged/*"))


def test_a_command_of_the_administrator_is_7_and_stays(machine: Machine, mine: Repository) -> None:
    machine.add("mine", mine)
    machine.wrapper("edit").parent.mkdir()
    machine.wrapper("edit").write_text("mine")
    machine.run("bundle-add", "editor", status=ExitCode.CANNOT_CREATE_FILE)
    assert machine.wrapper("edit").read_text() == "mine"


@pytest.mark.parametrize("bits", [0o4000, 0o2000, 0o1000])
def test_files_with_special_bits_are_38_unless_wanted(bits: int, machine: Machine, mine: Repository) -> None:
    mine.bundles["tool"].modes = {"/usr/lib/tool": 0o100755 | bits}
    mine.publish(20)
    machine.add("mine", mine)
    before = machine.files()
    machine.run("bundle-add", "tool", status=ExitCode.FILE_INVALID)
    assert {path for path in machine.files() - before if "/cache/" not in path} == set()
    assert "/usr/lib/tool (set" in machine.err or "/usr/lib/tool (sticky)" in machine.err
    machine.run("bundle-add", "tool", "--yes")
    assert (machine.prefix("mine") / "usr/lib/tool").stat().st_mode & 0o7000 == bits


def test_a_sticky_directory_needs_an_answer_too(machine: Machine, mine: Repository) -> None:
    mine.bundles["tool"].files["/usr/shared"] = None
    mine.bundles["tool"].modes = {"/usr/shared": 0o041777}
    mine.publish(20)
    machine.add("mine", mine)
    machine.run("bundle-add", "tool", status=ExitCode.FILE_INVALID)
    assert "/usr/shared (sticky)" in machine.err


def test_a_link_out_of_the_prefix_is_not_followed(machine: Machine, mine: Repository, tmp_path: Path) -> None:
    mine.bundles["os-core"].files["/usr/away"] = f"-> {tmp_path}/away"
    mine.publish(20)
    (tmp_path / "away").mkdir()
    machine.add("mine", mine)
    mine.bundles["tool"].files["/usr/away/file"] = "outside"
    mine.publish(30)
    machine.run("update", status=0)
    machine.run("bundle-add", "tool", status=ExitCode.INSTALL)
    assert list((tmp_path / "away").iterdir()) == []


def test_an_exported_link_out_of_the_prefix_gets_no_command(machine: Machine, mine: Repository) -> None:
    mine.bundles["tool"].files["/usr/bin/shell"] = "-> /bin/sh"
    mine.bundles["tool"].files["/usr/bin/alias"] = "-> ../bin/real"
    mine.bundles["tool"].files["/usr/bin/real"] = "#!/bin/sh\n"
    mine.bundles["tool"].executable = ["/usr/bin/real"]
    mine.bundles["tool"].exported = ["/usr/bin/shell", "/usr/bin/alias"]
    mine.publish(20)
    machine.add("mine", mine, "tool")
    assert [path.name for path in (machine.own / "bin").iterdir()] == ["alias"]


def test_a_program_with_a_wild_name_is_one_word_for_the_shell(machine: Machine, mine: Repository) -> None:
    name = '/usr/bin/it\'s $(touch x) `y` "@PROGRAM@" \\ *'
    mine.bundles["tool"].files[name] = "#!/bin/sh\necho works\n"
    mine.bundles["tool"].executable = mine.bundles["tool"].exported = [name]
    mine.publish(20)
    machine.add("mine", mine, "tool")
    done = subprocess.run([machine.wrapper(os.path.basename(name))], check=True, capture_output=True, text=True)
    assert done.stdout == "works\n"


def test_scripts_are_never_run(machine: Machine, mine: Repository, tmp_path: Path) -> None:
    script = f"#!/bin/sh\ntouch {tmp_path}/ran\n"
    for name in ("/usr/bin/ldconfig", "/usr/bin/clr-boot-manager", "/usr/bin/update-helper"):
        mine.bundles["tool"].files[name] = script
        mine.bundles["tool"].executable = [*mine.bundles["tool"].executable, name]
    mine.publish(20)
    machine.add("mine", mine, "tool")
    assert not (tmp_path / "ran").exists()


def test_quietly_nothing_is_printed(machine: Machine, mine: Repository) -> None:
    machine.add("mine", mine)
    machine.run("bundle-add", "editor", "--quiet")
    assert (machine.out, machine.err) == ("", "")
