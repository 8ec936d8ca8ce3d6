"""Metadata without root: a real process of an ordinary user asks about a system that belongs to root."""

from __future__ import annotations

import csv
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

# An ordinary user may not be able to read where these lie: they are imported before the process becomes his.
from swupd import metadata, server, statedir, trust
from swupd.cli import main
from swupd.commands import bundle_info, bundle_list, search_file
from swupd.errors import ExitCode
from swupd.network import fetch

NEEDED = (bundle_info, bundle_list, csv, fetch, metadata, search_file, server, trust)
NOBODY = 65534
LOOKS = [
    ["bundle-list", "--all", "--status"],
    ["bundle-list", "--deps", "editors", "--verbose"],
    ["bundle-list", "--has-dep", "os-core", "--all"],
    ["bundle-list", "--orphans"],
    ["bundle-list", "--status"],
    ["bundle-info", "editors", "--dependencies", "--files"],
    ["search-file", "lib"],
]


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """A directory that everybody can enter, unlike those of pytest."""
    with TemporaryDirectory(dir="/var/tmp") as directory:
        path = Path(directory)
        path.chmod(0o755)
        yield path


class User:
    """Runs commands as somebody without any rights."""

    def __init__(self, machine: Any, home: Path) -> None:
        self.home = home
        self.cache = home / ".cache/swupd"
        self.out = ""
        self.err = ""
        self._machine = machine

    def run(self, command: str, *arguments: str, status: int = 0, home: str | None = None) -> None:
        """Run a command; what it prints is in `out` and `err`. `home` is what HOME says, empty for nothing."""
        files = [self.home / name for name in ("out", "err")]
        pid = os.fork()
        if pid == 0:
            _become_nobody(files, str(self.home) if home is None else home)
            _end(lambda: main(self._machine.argv(command, *arguments)))
        found = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        self.out, self.err = (file.read_text() for file in files)
        assert found == status, self.out + self.err


def _become_nobody(files: list[Path], home: str) -> None:
    for number, file in enumerate(files, start=1):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)
    os.setgroups([])
    os.setgid(NOBODY)
    os.setuid(NOBODY)
    os.environ.pop("XDG_CACHE_HOME", None)
    os.environ["HOME"] = home


def _end(run: Callable[[], int]) -> None:
    status = 99
    try:
        status = run()
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(status)


@pytest.fixture
def user(machine: Any, tmp_path: Path) -> User:
    home = tmp_path / "home"
    home.mkdir()
    os.chown(home, NOBODY, NOBODY)
    return User(machine, home)


def contents(directory: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


@pytest.mark.parametrize("look", LOOKS, ids=" ".join)
def test_a_user_is_told_what_root_is_told_and_changes_nothing_of_the_system(
    machine: Any, user: User, look: list[str]
) -> None:
    before = contents(machine.state)
    user.run(*look)
    assert contents(machine.state) == before
    machine.run(*look)
    assert user.out == machine.out


def test_the_cache_of_a_user_is_private(user: User) -> None:
    user.run("search-file", "--init")
    assert [path.stat().st_mode & 0o777 for path in (user.cache.parent, user.cache)] == [0o700, 0o700]
    assert sorted(path.name for path in user.cache.glob("cache/*/manifest/10/*")) == ["Manifest.docs", "Manifest.games"]


def test_what_the_system_has_in_its_cache_is_not_downloaded(machine: Any, user: User, published: Any) -> None:
    machine.run("search-file", "--init")
    for manifest in (published.directory / "10").glob("Manifest.*"):
        manifest.unlink()
    user.run("search-file", "--quiet", "manual")
    assert user.out == "[docs]\n/usr/share/doc/manual\n"


def test_a_user_can_look_offline_at_what_the_system_has(machine: Any, user: User) -> None:
    user.run("bundle-info", "--quiet", "--offline", "--version", "latest", "libs")
    assert user.out == "Installed\n"


def test_the_cache_of_the_system_is_not_believed(machine: Any, user: User, published: Any) -> None:
    (cached,) = machine.state.glob("cache/*/manifest/10/Manifest.libs")
    cached.write_bytes(cached.read_bytes().replace(b"lib.so.1", b"lib.so.2"))
    user.run("search-file", "--quiet", "lib.so.")
    assert user.out == "[libs]\n/usr/lib/lib.so.1\n"
    (published.directory / "10/Manifest.libs.tar").unlink()
    user.run("search-file", "--quiet", "lib.so.")
    assert user.out == "[libs]\n/usr/lib/lib.so.1\n"


def test_a_state_directory_that_is_closed_only_hides_what_was_asked_for(machine: Any, user: User) -> None:
    machine.state.chmod(0o700)
    user.run("bundle-list", "--all", "--status", "--quiet")
    assert user.out == "docs\neditors: installed\ngames: experimental\nlibs: installed\nos-core: installed\n"
    user.run("bundle-list", "--all", "--status")
    assert f"Warning: cannot read {machine.state}/bundles: Permission denied" in user.err
    user.run("bundle-list", "--orphans", status=ExitCode.CANNOT_CREATE_DIRECTORY)
    assert "Hint: run this as root" in user.err


def test_a_busy_system_does_not_matter(machine: Any, user: User) -> None:
    with statedir.lock(statedir.StateDir(machine.state, machine.state, "")):
        user.run("bundle-info", "--quiet", "editors")
    assert user.out == "Explicitly installed\n"


@pytest.mark.parametrize("home", ["", "/nonexistent", "/proc/1"])
def test_without_a_home_one_line_says_what_to_do(user: User, home: str) -> None:
    user.run("bundle-info", "--quiet", "editors", status=ExitCode.CANNOT_CREATE_DIRECTORY, home=home)
    error, hint = user.err.splitlines()
    assert error.startswith(("Error: there is no place for your own cache", "Error: cannot make your own cache"))
    assert hint == "Hint: give a directory of your own with --statedir"


def test_a_user_may_give_a_directory_of_his_own(user: User) -> None:
    user.run("bundle-info", "--quiet", "docs", "--statedir", f"{user.home}/mine", home="")
    assert user.out == "Not installed\n"
    assert list((user.home / "mine/cache").glob("*/manifest/10/Manifest.docs"))


def test_a_user_cannot_change_anything(user: User) -> None:
    user.run("bundle-add", "docs", status=ExitCode.NO)
    assert "must be run as root" in user.err


def test_root_is_told_while_another_swupd_runs(machine: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "root-home"))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    (tmp_path / "root-home").mkdir()
    with _locked_by_another(machine.state):
        machine.run("search-file", "--quiet", "manual")
        machine.run("bundle-add", "docs", status=ExitCode.LOCKED)
    assert list((tmp_path / "root-home/.cache/swupd/cache").glob("*/manifest/10/Manifest.docs"))


class _locked_by_another:  # noqa: N801 (a context manager)
    """Another process holds the lock of a state directory."""

    def __init__(self, directory: Path) -> None:
        self._state = statedir.StateDir(directory, directory, "")

    def __enter__(self) -> None:
        told, tell = os.pipe()
        self._wait, self._go = os.pipe()
        self._pid = os.fork()
        if self._pid == 0:
            os.close(self._go)
            with statedir.lock(self._state):
                os.write(tell, b"x")
                os.read(self._wait, 1)
            os._exit(0)
        os.read(told, 1)
        for number in (told, tell, self._wait):
            os.close(number)

    def __exit__(self, *_error: object) -> None:
        os.close(self._go)
        os.waitpid(self._pid, 0)
