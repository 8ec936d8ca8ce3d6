"""The state directory has the original's layout, is put right at every start, and is cleaned with care."""

from __future__ import annotations

import multiprocessing
import os
import stat
import struct
import tracemalloc
from pathlib import Path

import pytest

from swupd.errors import DiskSpaceError, LockedError, StateDirectoryError, UsageError
from swupd.statedir import StateDir, check_location, lock

URL = "https://cdn.example.org/update"
MOM = b"MANIFEST\t30\nversion:\t20\nprevious:\t10\n\nM...\t" + b"ab" * 32 + b"\t10\teditors\n"


@pytest.fixture
def state(tmp_path: Path) -> StateDir:
    state = StateDir(tmp_path / "cache", tmp_path / "data", URL)
    state.prepare()
    return state


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def fill(path: Path, text: str = "x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def files(directory: Path) -> set[str]:
    return {str(path.relative_to(directory)) for path in directory.rglob("*") if not path.is_dir()}


def test_the_layout_is_that_of_the_original(state: StateDir, tmp_path: Path) -> None:
    assert state.content == tmp_path / "cache/cache/https___cdn.example.org_update"
    assert state.manifests(20) == state.content / "manifest/20"
    assert state.staged == state.content / "staged"
    assert state.pack_marker("editors", 0, 20) == state.content / "pack-editors-from-0-to-20.tar"
    assert state.tracking == tmp_path / "data/bundles"
    assert state.lock_file == tmp_path / "data/swupd_lock"
    assert state.version_file == tmp_path / "data/version"


def test_manifests_are_readable_by_everybody_and_the_rest_is_private(state: StateDir) -> None:
    assert mode(state.content / "manifest") == 0o755
    assert [mode(path) for path in (state.staged, state.delta, state.download, state.temp)] == [0o700] * 4


def test_modes_do_not_depend_on_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        state = StateDir(tmp_path / "state", tmp_path / "state", URL)
        state.prepare()
    finally:
        os.umask(before)
    assert mode(state.content / "manifest") == mode(state.tracking) == 0o755


def test_a_second_start_keeps_what_is_right(state: StateDir) -> None:
    kept = fill(state.staged / "object")
    state.prepare()
    assert kept.exists()


def test_a_cache_directory_that_others_could_write_is_emptied(state: StateDir) -> None:
    fill(state.staged / "object")
    state.staged.chmod(0o777)
    state.prepare()
    assert (mode(state.staged), files(state.staged)) == (0o700, set())


def test_a_file_or_link_in_the_place_of_a_directory_is_replaced(state: StateDir, tmp_path: Path) -> None:
    elsewhere = fill(tmp_path / "elsewhere/precious").parent
    state.staged.rmdir()
    state.staged.symlink_to(elsewhere)
    state.delta.rmdir()
    state.delta.write_text("")
    state.prepare()
    assert state.staged.is_dir()
    assert not state.staged.is_symlink()
    assert state.delta.is_dir()
    assert files(elsewhere) == {"precious"}


def test_tracking_files_survive_a_wrong_mode(state: StateDir) -> None:
    kept = fill(state.tracking / "editors", "")
    state.tracking.chmod(0o700)
    state.prepare()
    assert kept.exists()
    assert mode(state.tracking) == 0o755


def test_a_state_directory_that_others_can_write_is_refused(tmp_path: Path) -> None:
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o1777)
    with pytest.raises(StateDirectoryError, match="can be written by others"):
        StateDir(tmp_path / "open", tmp_path / "data", URL).prepare()
    assert files(tmp_path / "open") == set()


@pytest.mark.skipif(os.geteuid() != 0, reason="giving files away needs root")
def test_a_state_directory_of_another_user_is_refused(tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir()
    os.chown(tmp_path / "theirs", 1000, 1000)
    with pytest.raises(StateDirectoryError, match="belongs to another user"):
        StateDir(tmp_path / "theirs", tmp_path / "theirs", URL).prepare()


@pytest.mark.skipif(os.geteuid() != 0, reason="giving files away needs root")
def test_a_cache_directory_of_another_user_is_emptied(state: StateDir) -> None:
    fill(state.staged / "object")
    os.chown(state.staged, 1000, 1000)
    state.prepare()
    assert (state.staged.stat().st_uid, files(state.staged)) == (0, set())


def test_a_file_in_the_place_of_the_state_directory_is_an_error(tmp_path: Path) -> None:
    path = fill(tmp_path / "file")
    with pytest.raises(StateDirectoryError):
        StateDir(path, path, URL).prepare()


@pytest.mark.parametrize("path", ["/", "/var", "/usr"])
def test_top_directories_are_never_prepared(path: str) -> None:
    with pytest.raises(UsageError):
        StateDir(Path(path), Path(path), URL).prepare()


def test_directories_below_the_top_ones_are_allowed() -> None:
    check_location(Path("/var/lib/swupd"), Path("/"))
    check_location(Path("/srv/root/var/lib/swupd"), Path("/srv/root"))


def test_an_unknown_content_url_has_a_place_of_its_own(tmp_path: Path) -> None:
    state = StateDir(tmp_path / "state", tmp_path / "state", "")
    state.prepare()
    assert state.content.parent == tmp_path / "state/cache"


# -- manifests -------------------------------------------------------------------------------------------------------


def test_a_cached_manifest_is_readable_by_everybody(state: StateDir) -> None:
    state.write_manifest(20, "Manifest.MoM", MOM)
    assert state.read_manifest(20, "Manifest.MoM") == MOM
    assert mode(state.manifests(20)) == 0o755
    assert mode(state.manifests(20) / "Manifest.MoM") == 0o644


def test_a_cached_manifest_is_replaced_and_nothing_else_remains(state: StateDir) -> None:
    state.write_manifest(20, "Manifest.MoM", b"old")
    state.write_manifest(20, "Manifest.MoM", b"new")
    assert state.read_manifest(20, "Manifest.MoM") == b"new"
    assert files(state.manifests(20)) == {"Manifest.MoM"}


def test_reading_a_small_manifest_takes_little_memory(state: StateDir) -> None:
    state.write_manifest(20, "Manifest.MoM", MOM)
    tracemalloc.start()
    try:
        state.read_manifest(20, "Manifest.MoM")
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_a_link_in_the_place_of_a_cached_manifest_is_not_read(state: StateDir, tmp_path: Path) -> None:
    state.manifests(20).mkdir()
    (state.manifests(20) / "Manifest.MoM").symlink_to(fill(tmp_path / "secret"))
    assert state.read_manifest(20, "Manifest.MoM") is None


def test_what_is_in_the_way_of_a_cached_manifest_is_removed(state: StateDir) -> None:
    fill(state.manifests(20) / "Manifest.MoM/file")
    fill(state.manifests(20) / ".Manifest.MoM.new/file")
    state.write_manifest(20, "Manifest.MoM", MOM)
    assert state.read_manifest(20, "Manifest.MoM") == MOM


def test_a_missing_manifest_is_none(state: StateDir) -> None:
    assert state.read_manifest(20, "Manifest.MoM") is None
    state.drop_manifest(20, "Manifest.MoM")


def test_dropped_manifests_are_gone(state: StateDir) -> None:
    state.write_manifest(20, "Manifest.MoM", MOM)
    state.drop_manifest(20, "Manifest.MoM", "Manifest.MoM.sig")
    assert state.read_manifest(20, "Manifest.MoM") is None


def test_a_full_disk_while_caching_is_a_disk_space_error(state: StateDir, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(fd: int, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(DiskSpaceError, match="is full"):
        state.write_manifest(20, "Manifest.MoM", MOM)
    assert files(state.manifests(20)) == set()


# -- the lock --------------------------------------------------------------------------------------------------------


def test_the_lock_file_is_private_and_tells_who_holds_it(state: StateDir) -> None:
    with lock(state):
        assert mode(state.lock_file) == 0o600
        assert struct.unpack("@i", state.lock_file.read_bytes()) == (os.getpid(),)
    assert state.lock_file.exists()


def _hold(path: Path, ready: multiprocessing.synchronize.Event, done: multiprocessing.synchronize.Event) -> None:
    with lock(StateDir(path / "cache", path / "data", URL)):
        ready.set()
        done.wait(20)


def test_a_lock_that_another_process_holds_is_an_error_with_its_pid(state: StateDir, tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    ready, done = context.Event(), context.Event()
    holder = context.Process(target=_hold, args=(tmp_path, ready, done))
    holder.start()
    try:
        assert ready.wait(20)
        with pytest.raises(LockedError, match=f"process {holder.pid}"), lock(state):
            pass
    finally:
        done.set()
        holder.join()
    with lock(state):
        pass


def test_a_lock_file_that_is_a_link_is_refused(state: StateDir, tmp_path: Path) -> None:
    state.lock_file.symlink_to(tmp_path / "victim")
    with pytest.raises(StateDirectoryError), lock(state):
        pass
    assert not (tmp_path / "victim").exists()


def test_manifests_of_a_shared_cache_are_read_where_there_is_no_own_one(state: StateDir, tmp_path: Path) -> None:
    own = StateDir(tmp_path / "own", tmp_path / "own", URL, shared_cache=tmp_path / "cache")
    own.prepare()
    state.write_manifest(20, "Manifest.MoM", MOM)
    assert own.read_manifest(20, "Manifest.MoM") == MOM
    own.write_manifest(20, "Manifest.MoM", b"own")
    assert own.read_manifest(20, "Manifest.MoM") == b"own"
    own.drop_manifest(20, "Manifest.MoM")
    assert own.read_manifest(20, "Manifest.MoM") == state.read_manifest(20, "Manifest.MoM") == MOM


def test_the_versions_of_both_caches_are_known_the_newest_first(state: StateDir, tmp_path: Path) -> None:
    assert state.cached_versions() == []
    own = StateDir(tmp_path / "own", tmp_path / "own", URL, shared_cache=tmp_path / "cache")
    own.prepare()
    for version in (9, 20):
        state.write_manifest(version, "Manifest.MoM", MOM)
    own.write_manifest(10, "Manifest.MoM", MOM)
    fill(state.content / "manifest/nonsense")
    assert own.cached_versions() == [20, 10, 9]
    assert state.cached_versions() == [20, 9]


def test_a_link_in_a_shared_cache_is_not_followed(state: StateDir, tmp_path: Path) -> None:
    own = StateDir(tmp_path / "own", tmp_path / "own", URL, shared_cache=tmp_path / "cache")
    own.prepare()
    fill(tmp_path / "elsewhere/Manifest.MoM")
    (state.content / "manifest/20").symlink_to(tmp_path / "elsewhere")
    assert own.read_manifest(20, "Manifest.MoM") is None
