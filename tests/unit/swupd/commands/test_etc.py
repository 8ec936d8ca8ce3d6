"""`swupd etc` on a real overlay, and on a root that has none."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from swupd.cli import main
from tests.unit.swupd.nextboot.overlayroot import OverlayRoot, overlay_root

pytestmark = [pytest.mark.system, pytest.mark.usefixtures("no_sync")]


class Typed:
    """Commands typed on a machine."""

    def __init__(self, machine: OverlayRoot, capsys: pytest.CaptureFixture[str]) -> None:
        self.machine = machine
        self._capsys = capsys

    def __call__(self, *words: str, status: int = 0) -> list[str]:
        """The lines that a command prints."""
        self.machine.run(self._capsys, *words, status=status)
        return self.machine.out.splitlines()


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[OverlayRoot]:
    with overlay_root(tmp_path) as root:
        yield root


@pytest.fixture
def typed(machine: OverlayRoot, capsys: pytest.CaptureFixture[str]) -> Typed:
    return Typed(machine, capsys)


def test_nothing_differs_on_a_fresh_system(typed: Typed) -> None:
    assert typed("etc", "diff") == ["Nothing differs from the factory"]


def test_differences_are_a_table(machine: OverlayRoot, typed: Typed) -> None:
    (machine.etc / "mine").mkdir()
    (machine.etc / "hosts").write_text("mine")
    (machine.etc / "private").chmod(0o700)
    (machine.etc / "networks").unlink()
    shutil.rmtree(machine.etc / "d")
    (machine.etc / "d").mkdir()
    os.utime(machine.etc / "passwd")
    assert typed("etc", "diff", status=1) == [
        "O  /etc/d/        replaces the directory of the factory",
        "M  /etc/hosts     changed",
        "A  /etc/mine/     added",
        "D  /etc/networks  deleted",
        "=  /etc/passwd    a copy that hides newer ones of the factory",
        "m  /etc/private/  mode, owner or attributes changed",
    ]


def test_only_the_paths_that_were_asked_for_are_compared(machine: OverlayRoot, typed: Typed) -> None:
    (machine.etc / "hosts").write_text("mine")
    (machine.etc / "d/x").write_text("mine")
    assert typed("etc", "diff", "/etc/d", "--quiet", status=1) == ["/etc/d/x"]
    assert typed("etc", "diff", "/etc/private") == ["Nothing differs from the factory"]


def test_a_directory_that_differs_as_a_whole_is_shown_for_what_is_in_it(machine: OverlayRoot, typed: Typed) -> None:
    shutil.rmtree(machine.etc / "d")
    assert typed("etc", "diff", "/etc/d/x", "--quiet", status=1) == ["/etc/d"]


def test_what_the_machine_makes_is_shown_on_demand(machine: OverlayRoot, typed: Typed) -> None:
    (machine.etc / "machine-id").write_text("0123")
    (machine.etc / "passwd-").write_text("backup")
    (machine.etc / "resolv.conf").symlink_to("/run/resolv.conf")
    assert typed("etc", "diff") == ["Nothing differs from the factory"]
    assert typed("etc", "diff", "--all", "--quiet", status=1) == ["/etc/machine-id", "/etc/passwd-", "/etc/resolv.conf"]


def test_a_program_reads_json(machine: OverlayRoot, typed: Typed) -> None:
    (machine.etc / "hosts").write_text("mine")
    typed("etc", "diff", "--json-output", status=1)
    messages = [json.loads(r["msg"]) for r in json.loads(machine.out) if r["type"] == "info"]
    assert messages == [
        {"path": "/etc/hosts", "kind": "changed", "directory": False, "conflict": False, "reverted": False}
    ]


def test_a_change_whose_factory_file_changed_later_is_a_conflict(machine: OverlayRoot, typed: Typed) -> None:
    (machine.etc / "hosts").write_text("mine")
    (machine.etc / "networks").write_text("mine")
    typed("etc", "diff", status=1)
    machine.shut_down()
    (machine.factory / "hosts").write_text("new")
    machine.boot()
    assert typed("etc", "diff", status=1) == [
        "M! /etc/hosts     changed; the factory's is another one since then",
        "M  /etc/networks  changed",
    ]


def test_a_revert_is_shown_until_the_next_boot(machine: OverlayRoot, typed: Typed) -> None:
    (machine.etc / "hosts").write_text("mine")
    (machine.etc / "d/new").write_text("mine")
    assert typed("etc", "revert", "/etc/hosts", "/etc/d", "/etc/passwd") == [
        "/etc/passwd does not differ from the factory",
        "1 path restored, 1 removed",
        "Reverted paths follow the factory again from the next boot on",
    ]
    assert typed("etc", "diff") == ["=  /etc/hosts  reverted: follows the factory from the next boot on"]
    machine.boot()
    assert typed("etc", "diff") == ["Nothing differs from the factory"]


def test_a_reverted_file_that_is_changed_again_is_taken_out_of_the_queue(machine: OverlayRoot, typed: Typed) -> None:
    (machine.etc / "hosts").write_text("mine")
    typed("etc", "revert", "/etc/hosts")
    (machine.etc / "hosts").write_text("again")
    assert typed("etc", "diff", status=1) == ["M  /etc/hosts  changed"]
    assert "/etc/hosts was changed after its revert: it stays as it is" in machine.err
    machine.boot()
    assert (machine.etc / "hosts").read_text() == "again"


def test_reverting_needs_a_path(typed: Typed) -> None:
    typed("etc", "revert", status=15)
    assert "the paths to put back are missing" in typed.machine.err


@pytest.mark.parametrize("words", [["etc"], ["etc", "undo"], ["etc", "diff", "/var"], ["etc", "revert", "none"]])
def test_a_mistake_is_told(typed: Typed, words: list[str]) -> None:
    typed(*words, status=15)
    assert "Error: " in typed.machine.err


def test_a_difference_can_be_looked_at_while_another_swupd_is_at_work(machine: OverlayRoot, typed: Typed) -> None:
    typed("etc", "diff")
    (machine.etc / "hosts").write_text("mine")
    hold = "import fcntl,sys; f=open(sys.argv[1],'r+'); fcntl.lockf(f,fcntl.LOCK_EX); print(flush=True); input()"
    argv = [sys.executable, "-c", hold, str(machine.statedir / "swupd_lock")]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        assert typed("etc", "diff", "--quiet", status=1) == ["/etc/hosts"]
        typed("etc", "revert", "/etc/hosts", status=9)
        other.kill()


def test_a_root_without_an_overlay_is_compared_as_it_is(tmp_path: Path, capsys: Any) -> None:
    with overlay_root(tmp_path, booted=False) as root:
        typed = Typed(root, capsys)
        subprocess.run(["cp", "-a", f"{root.factory}/.", root.etc], check=True)
        (root.etc / "hosts").write_text("mine")
        (root.etc / "d/x").unlink()
        assert typed("etc", "diff", "--quiet", status=1) == ["/etc/d/x", "/etc/hosts"]
        assert typed("etc", "revert", "/etc") == ["2 paths restored, 0 removed"]
        assert root.is_factory()


def test_an_ordinary_system_has_no_factory_state(tmp_path: Path, capsys: Any) -> None:
    with overlay_root(tmp_path, booted=False) as root:
        (root.factory / "passwd").unlink()
        Typed(root, capsys)("etc", "diff", status=15)
        assert "is not a stateless system" in root.err
        assert len(root.err.strip().splitlines()) <= 2


def test_an_ordinary_user_cannot_look_at_private_changes(machine: OverlayRoot, capsys: Any, tmp_path: Path) -> None:
    (machine.state / "etc").chmod(0o700)
    for directory in [tmp_path, *tmp_path.parents]:
        if directory.stat().st_uid == 0 and not directory.stat().st_mode & 0o001:
            directory.chmod(0o711)
        if directory.name.startswith("pytest-of-"):
            break
    os.seteuid(65534)
    try:
        status = main(["etc", "diff", "--path", str(machine.root)])
    finally:
        os.seteuid(0)
    assert status == 1
    assert "run this as root" in capsys.readouterr().err
