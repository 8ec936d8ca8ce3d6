"""A revert that is killed before each of its changing calls: the next boot is sound, and the same command finishes."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from swupd.nextboot.etcrevert import revert
from tests.transaction.seam import KILL, Interference, Seam, install
from tests.unit.swupd.nextboot.overlayroot import OverlayRoot, Silent, overlay_root, tree

pytestmark = [pytest.mark.system, pytest.mark.usefixtures("no_sync")]

ASKED = ("hosts", "networks", "d", "private", "new")
CHUNKS = 4
"""How many tests share the calls."""


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[OverlayRoot]:
    with overlay_root(tmp_path, booted=False) as root:
        yield root


def change(machine: OverlayRoot) -> None:
    """Give the user's layer one change of each sort, besides one that is not to be reverted."""
    machine.shut_down()
    for path in (machine.upper, machine.state / "etc/work"):
        shutil.rmtree(path)
        path.mkdir()
    for name in ("revert", "base.json", ".revert.new", ".base.json.new"):
        (machine.state / "etc" / name).unlink(missing_ok=True)
    machine.boot()
    etc = machine.etc
    (etc / "hosts").write_text("mine")
    (etc / "networks").unlink()
    (etc / "networks").mkdir()
    (etc / "networks/mine").write_text("mine")
    shutil.rmtree(etc / "d")
    (etc / "d").mkdir()
    (etc / "d/x").write_text("mine")
    (etc / "private").chmod(0o777)
    (etc / "new").write_text("mine")
    (etc / "kept").write_text("mine")


def run(machine: OverlayRoot, interference: Interference | None) -> int:
    """Revert in a forked child. Returns how many changing calls it made, 0 if it was killed."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            seam = Seam(str(machine.root), interference, lambda call: None)
            install(seam)
            revert(machine.layers, ASKED, Silent())
            os.write(writing, str(len(seam.calls[False])).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as answer:
        calls = answer.read()
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status == (0 if calls else -signal.SIGKILL), "it failed of its own accord"
    return int(calls or 0)


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_a_revert_may_be_killed_anywhere(machine: OverlayRoot, chunk: int) -> None:
    change(machine)
    mine = tree(machine.etc)
    calls = run(machine, None)
    factory = tree(machine.etc)
    assert factory == tree(machine.factory) | {"/kept": factory["/kept"]}
    for number in range(1 + chunk, calls + 1, CHUNKS):
        change(machine)
        assert run(machine, Interference(number, KILL)) == 0
        machine.boot()
        # What is a whole is old or new after the boot; a replaced directory is put right entry by entry.
        found = tree(machine.etc)
        for path in ("/hosts", "/networks", "/networks/mine", "/private", "/new", "/kept", "/d/x", "/d/y", "/passwd"):
            assert found.get(path) in (mine.get(path), factory.get(path)), (number, path)
        assert run(machine, None)
        assert tree(machine.etc) == factory, number
        machine.boot()
        assert tree(machine.etc) == factory, number
        assert os.listdir(machine.upper) == ["kept"], number
