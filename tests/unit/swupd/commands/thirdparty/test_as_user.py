"""What needs no root is told to a real process of an ordinary user."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

# An ordinary user may not be able to read where these lie: they are imported before the process becomes his.
from swupd import server, trust
from swupd.cli import GROUP_COMMANDS, load, main
from swupd.network import fetch

NEEDED = (fetch, server, trust, *map(load, GROUP_COMMANDS))
NOBODY = 65534


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """A directory that everybody can enter, unlike those of pytest."""
    with TemporaryDirectory(dir="/var/tmp") as directory:
        path = Path(directory)
        path.chmod(0o755)
        yield path


@pytest.mark.parametrize("look", [["list"], ["info"], ["bundle-list"], ["check-update", "--nosigcheck"]], ids=" ".join)
def test_a_user_is_told_what_root_is_told_and_leaves_nothing(
    look: list[str], machine: Any, mine: Any, tmp_path: Path
) -> None:
    machine.add("mine", mine, "editor")
    mine.publish(20)
    machine.run(*look)
    before = machine.files()
    file = tmp_path / "out"
    pid = os.fork()
    if pid == 0:
        end_as_nobody(file, machine.argv(*look))
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert (file.read_text(), status) == (machine.out, 0)
    assert machine.files() == before


def test_a_user_cannot_change_anything(machine: Any, mine: Any, tmp_path: Path) -> None:
    machine.add("mine", mine)
    pid = os.fork()
    if pid == 0:
        end_as_nobody(tmp_path / "out", machine.argv("remove", "mine"))
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 1
    assert machine.installed("mine") == {"os-core"}


def end_as_nobody(file: Path, argv: list[str]) -> None:
    """Run a command without any rights, with what it prints in a file, and end the process with its status."""
    status = 99
    try:
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 1)
        sys.stdout = os.fdopen(1, "w", closefd=False)
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
        status = main(argv)
        sys.stdout.flush()
    finally:
        os._exit(status)
