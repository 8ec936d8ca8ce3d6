"""diagnose, repair and clean work below the prefixes; repair puts commands right as well."""

from __future__ import annotations

from typing import Any

import pytest

from swupd.errors import ExitCode

Machine = Any
Repository = Any


@pytest.fixture
def editing(machine: Machine, mine: Repository) -> Machine:
    machine.add("mine", mine, "editor")
    return machine


def test_diagnose_finds_what_is_wrong_in_a_repository(editing: Machine, other: Repository) -> None:
    editing.add("other", other, "tool")
    broken = editing.prefix("other") / "usr/lib/tool"
    broken.write_text("broken")
    editing.run("diagnose", "--quiet", status=ExitCode.NO)
    assert editing.out == f"[mine]\n[other]\n{broken}\n"
    editing.run("diagnose", "--repo", "mine")


def test_repair_puts_files_right(editing: Machine) -> None:
    broken = editing.prefix("mine") / "usr/share/editor"
    broken.write_text("broken")
    editing.run("repair", "--quiet", "--repo", "mine")
    assert editing.out == f"{broken} -> fixed\n"
    assert broken.read_text() == "help"


def test_repair_puts_commands_right(editing: Machine) -> None:
    right = editing.wrapper("edit").read_text()
    editing.wrapper("edit").unlink()
    editing.run("repair")
    assert editing.wrapper("edit").read_text() == right


def test_repair_removes_extra_files_of_the_prefix_only(editing: Machine) -> None:
    (editing.prefix("mine") / "usr/extra").touch()
    (editing.root / "usr/extra").touch()
    editing.run("repair", "--picky")
    assert not (editing.prefix("mine") / "usr/extra").exists()
    assert (editing.root / "usr/extra").exists()


def test_repair_asks_before_it_installs_files_with_special_bits(machine: Machine, mine: Repository) -> None:
    mine.bundles["tool"].modes = {"/usr/lib/tool": 0o104755}
    mine.publish(20)
    machine.add("mine", mine, "tool")
    (machine.prefix("mine") / "usr/lib/tool").unlink()
    machine.run("repair", status=ExitCode.FILE_INVALID)
    machine.run("repair", "--yes")
    assert (machine.prefix("mine") / "usr/lib/tool").stat().st_mode == 0o104755


def test_wrappers_of_another_template_are_written_anew(editing: Machine) -> None:
    right = editing.wrapper("edit").read_text()
    editing.wrapper("edit").write_text(right.replace("exec", "nice exec"))
    (editing.own / "script.template").write_text("of another version")
    editing.run("clean")
    assert editing.wrapper("edit").read_text() == right
    assert editing.wrapper("edit").stat().st_mode & 0o7777 == 0o755


def test_wrappers_of_the_original_are_replaced(editing: Machine) -> None:
    right = editing.wrapper("edit").read_text()
    program = editing.prefix("mine") / "usr/bin/edit"
    editing.wrapper("edit").write_text(f'#!/bin/bash\n\nexport PATH={program.parent}:$PATH\n\n{program} "$@"\n')
    (editing.own / "script.template").write_text("of the original")
    editing.run("clean")
    assert editing.wrapper("edit").read_text() == right


def test_clean_empties_the_cache_of_the_repository(editing: Machine, other: Repository) -> None:
    editing.add("other", other)
    editing.run("clean", "--all", "--repo", "mine")
    assert not (editing.state / "3rd-party/mine/cache").exists()
    assert (editing.state / "3rd-party/other/cache").exists()


def test_a_change_that_cannot_be_settled_is_a_warning_and_stays_noted(editing: Machine, mine: Repository) -> None:
    note = editing.state / "3rd-party/.unfinished-mine"
    note.touch()
    editing.run("clean", "--all")
    assert not note.exists()
    note.touch()
    mine.publisher.directory.rename(mine.publisher.directory.with_name("gone"))
    editing.run("clean")
    assert "Warning: a change of repository mine that was begun cannot be finished yet" in editing.err
    assert note.exists()


def test_a_note_with_a_wild_name_does_nothing(editing: Machine) -> None:
    (editing.state / "3rd-party/.unfinished-..").touch()
    editing.run("clean")
    assert editing.installed("mine") == {"os-core", "lib", "editor"}
