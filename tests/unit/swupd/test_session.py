from __future__ import annotations

import os
import time
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest

from swupd.errors import LockedError, NotRootError, UsageError
from swupd.fs import Directory
from swupd.report import TextReport
from swupd.session import browsing, exclusive, reading
from swupd.statedir import StateDir, lock
from swupd.transaction.install import identity
from swupd.transaction.journal import Header, Journal, Purpose

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="an exclusive session needs root")


@pytest.fixture
def args(tmp_path: Path) -> Namespace:
    return Namespace(
        path=tmp_path / "root",
        statedir=tmp_path / "state",
        url="https://example.org",
        nosigcheck=True,
        ignore_time=True,
    )


def test_a_reading_session_makes_nothing(args: Namespace, tmp_path: Path) -> None:
    with reading(args, TextReport()) as session:
        assert session.system.installed_bundles() == {"os-core"}
    assert list(tmp_path.iterdir()) == []


def test_options_that_replace_urls_are_warned_of(args: Namespace, capsys: pytest.CaptureFixture[str]) -> None:
    with reading(args, TextReport()):
        pass
    assert "https://example.org is used instead" in capsys.readouterr().err


def test_a_server_without_a_url_is_a_mistake_of_the_user(args: Namespace) -> None:
    args.url = None
    with reading(args, TextReport()) as session, pytest.raises(UsageError, match="version URL is not known"):
        _ = session.server


@needs_root
def test_two_exclusive_sessions_exclude_each_other(args: Namespace) -> None:
    with exclusive(args, TextReport()):
        child = os.fork()
        if child == 0:
            try:
                with exclusive(args, TextReport()):
                    os._exit(1)
            except LockedError:
                os._exit(0)
            finally:
                os._exit(2)
        assert os.waitpid(child, 0)[1] == 0
    with exclusive(args, TextReport()):
        pass


@needs_root
def test_the_first_session_counts_all_installed_bundles_as_asked_for(args: Namespace) -> None:
    markers = args.path / "usr/share/clear/bundles"
    markers.mkdir(parents=True)
    (markers / "editors").touch()
    with exclusive(args, TextReport()) as session:
        assert session.system.tracked() == {"editors"}


@needs_root
def test_a_session_without_the_network_needs_no_certificate(args: Namespace) -> None:
    args.nosigcheck = False
    args.certpath = Path("/nonexistent")
    with exclusive(args, TextReport(), network=False) as session:
        assert session.statedir.staged.is_dir()


@pytest.mark.skipif(os.geteuid() == 0, reason="root is what is missing here")
def test_an_exclusive_session_needs_root(args: Namespace, tmp_path: Path) -> None:
    with pytest.raises(NotRootError), exclusive(args, TextReport()):
        pass
    assert list(tmp_path.iterdir()) == []


@needs_root
def test_root_has_a_cache_of_its_own_while_the_system_is_busy_and_waits_for_that(
    args: Namespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    own = StateDir(tmp_path / "swupd", tmp_path / "swupd", "")
    own.prepare()
    told, tell = os.pipe()
    child = os.fork()
    if child == 0:
        with exclusive(args, TextReport()), lock(own):
            os.write(tell, b"x")
            time.sleep(0.3)
        os._exit(0)
    os.read(told, 1)
    begun = time.monotonic()
    with browsing(args, TextReport()) as session:
        assert time.monotonic() - begun > 0.2
        assert session.statedir.cache_dir == own.cache_dir
        assert os.waitpid(child, 0)[1] == 0


# -- an installation that was interrupted ------------------------------------------------------------------------------


@pytest.fixture
def interrupted(args: Namespace, tmp_path: Path) -> Path:
    """A journal of an installation that was being prepared."""
    for name in ("root", "state", "state/bundles"):
        (tmp_path / name).mkdir()
    with Directory.open(tmp_path / "root") as root, Directory.open(tmp_path / "state") as data:
        purpose = Purpose("bundle-add editors", 10, 10, scripts=False)
        header = Header(str(args.path), identity(root), ("", ""), 1, tolerant=False, purpose=purpose)
        Journal.write(data, header, [])
    return tmp_path / "state/journal.preparing"


@needs_root
@pytest.mark.parametrize("session", [reading, exclusive])
def test_every_session_of_root_puts_an_interrupted_installation_right(
    args: Namespace, interrupted: Path, capsys: pytest.CaptureFixture[str], session: Any
) -> None:
    with session(args, TextReport()):
        assert not interrupted.exists()
    assert "an interrupted bundle-add editors was undone" in capsys.readouterr().err


@needs_root
def test_a_journal_that_somebody_else_could_have_written_is_not_followed_by_looking(
    args: Namespace, interrupted: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    os.chown(interrupted.parent, 1000, 1000)
    with reading(args, TextReport()):
        assert interrupted.exists()
    assert "belongs to another user" in capsys.readouterr().err


@needs_root
def test_a_reading_session_leaves_it_to_whoever_has_the_lock(
    args: Namespace, interrupted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told, tell = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(tell)
        with lock(StateDir(tmp_path / "state", tmp_path / "state", "")):
            (tmp_path / "locked").touch()
            os.read(told, 1)
        os._exit(0)
    os.close(told)
    while not (tmp_path / "locked").exists():
        time.sleep(0.01)
    with reading(args, TextReport()):
        assert interrupted.exists()
    os.close(tell)
    os.waitpid(child, 0)
    assert "interrupted" not in capsys.readouterr().err


def test_a_user_is_told_who_can_put_it_right(
    args: Namespace, interrupted: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with reading(args, TextReport()):
        assert interrupted.exists()
    assert "any swupd command as root finishes it" in capsys.readouterr().err
