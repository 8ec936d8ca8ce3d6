"""`swupd reset` on a real overlay, whose initrd script carries it out, and on a root that is not running."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.unit.swupd.nextboot.overlayroot import OverlayRoot, overlay_root

pytestmark = [pytest.mark.system, pytest.mark.usefixtures("no_sync")]


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[OverlayRoot]:
    """With changes in /etc."""
    with overlay_root(tmp_path) as root:
        (root.etc / "hosts").write_text("mine")
        (root.etc / "mine").write_text("mine")
        (root.root / "home/me").write_text("precious")
        yield root


@pytest.fixture
def asleep(tmp_path: Path) -> Iterator[OverlayRoot]:
    """A root that is not running, filled by an earlier start."""
    with overlay_root(tmp_path, booted=False) as root:
        subprocess.run(["cp", "-a", f"{root.factory}/.", root.etc], check=True)
        (root.etc / "mine").write_text("mine")
        (root.root / "var/lib/app").mkdir(parents=True)
        (root.root / "var/lib/app/data").write_text("data")
        (root.root / "home/me").write_text("precious")
        yield root


def test_the_next_boot_of_a_running_system_resets_it(machine: OverlayRoot, capsys: Any) -> None:
    machine.run(capsys, "reset", "--etc", "--yes")
    assert machine.out.splitlines()[-1] == "The next boot resets /etc; until then: swupd reset --cancel"
    assert (machine.etc / "mine").exists()
    machine.boot()
    assert machine.is_factory()
    assert (machine.root / "home/me").read_text() == "precious"


def test_etc_and_var_add_up(machine: OverlayRoot, capsys: Any) -> None:
    machine.run(capsys, "reset", "--var", "--yes")
    machine.run(capsys, "reset", "--etc", "--yes")
    assert "The next boot resets /etc and /var" in machine.out
    assert (machine.state / "boot/reset").read_text() == "etc\nvar\n"


def test_a_reset_can_be_withdrawn(machine: OverlayRoot, capsys: Any) -> None:
    machine.run(capsys, "reset", "--etc", "--yes")
    machine.run(capsys, "reset", "--cancel")
    assert machine.out == "Withdrawn: /etc\n"
    machine.boot()
    assert (machine.etc / "mine").exists()
    machine.run(capsys, "reset", "--cancel")
    assert machine.out == "The next boot would reset nothing\n"


def test_without_an_answer_nothing_is_reset(machine: OverlayRoot, capsys: Any) -> None:
    machine.run(capsys, "reset", "--etc", "--var", status=1)
    assert "Nothing was changed; --yes goes on without asking" in machine.out
    assert not (machine.state / "boot/reset").exists()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "nothing was chosen"),
        (["--cancel", "--etc"], "--cancel stands alone"),
        (["/usr/bin"], "neither in /etc nor below /var"),
        (["/var"], "neither in /etc nor below /var"),
        (["/var/../usr"], "contains '..'"),
        (["lib"], "neither in /etc nor below /var"),
        (["/etc/../usr"], "contains '..'"),
    ],
)
def test_only_etc_and_var_can_be_reset(machine: OverlayRoot, capsys: Any, arguments: list[str], told: str) -> None:
    machine.run(capsys, "reset", "--yes", *arguments, status=15)
    assert told in machine.err


def test_a_path_in_etc_is_reverted(machine: OverlayRoot, capsys: Any) -> None:
    machine.run(capsys, "reset", "/etc/hosts")
    assert machine.changes() == {"hosts": "same+", "mine": "added"}


def test_a_path_of_var_goes_at_once(asleep: OverlayRoot, capsys: Any) -> None:
    asleep.run(capsys, "reset", "--yes", "/var/lib/app")
    assert "comes back with the next start" in asleep.out
    assert os.listdir(asleep.root / "var/lib") == []
    asleep.run(capsys, "reset", "--yes", "/var/lib/app", "/var/no/such/path")


def test_the_state_of_swupd_itself_is_no_such_path(asleep: OverlayRoot, capsys: Any) -> None:
    asleep.statedir = asleep.root / "var/lib/swupd"
    for path in ("/var/lib", "/var/lib/swupd", "/var/lib/swupd/bundles"):
        asleep.run(capsys, "reset", "--yes", path, status=15)
        assert f"{path} holds the state of swupd itself (/var/lib/swupd)" in asleep.err


def test_a_root_that_is_not_running_is_emptied(asleep: OverlayRoot, capsys: Any) -> None:
    asleep.run(capsys, "reset", "--etc", "--var", "--yes")
    assert os.listdir(asleep.etc) == []
    assert os.listdir(asleep.root / "var") == []
    assert (asleep.root / "home/me").read_text() == "precious"
    assert "its next start fills it" in asleep.out


def test_a_system_that_does_not_fill_itself_is_left_alone(asleep: OverlayRoot, capsys: Any) -> None:
    (asleep.factory / "passwd").unlink()
    asleep.run(capsys, "reset", "--etc", "--yes", status=15)
    assert (asleep.etc / "mine").exists()


@pytest.mark.parametrize("arguments", [["--etc", "--var"], ["/var/lib/app"]])
def test_what_is_mounted_is_never_emptied(asleep: OverlayRoot, capsys: Any, tmp_path: Path, arguments: Any) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").touch()
    (asleep.root / "var/lib/app/disk").mkdir()
    subprocess.run(["mount", "--bind", outside, asleep.root / "var/lib/app/disk"], check=True)
    try:
        asleep.run(capsys, "reset", "--yes", *arguments, status=15)
    finally:
        subprocess.run(["umount", asleep.root / "var/lib/app/disk"], check=True)
    assert "is mounted" in asleep.err
    assert (outside / "precious").exists()
    assert (asleep.root / "var/lib/app/data").exists()
    assert (asleep.etc / "mine").exists()


def test_a_link_in_the_place_of_a_directory_is_not_followed(asleep: OverlayRoot, capsys: Any, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    (outside / "app").mkdir(parents=True)
    (asleep.root / "var/lib").rename(asleep.root / "var/old")
    (asleep.root / "var/lib").symlink_to(outside)
    asleep.run(capsys, "reset", "--yes", "/var/lib/app", status=10)
    assert "var/lib is a symbolic link" in asleep.err
    asleep.run(capsys, "reset", "--yes", "--var")
    assert (outside / "app").exists()
