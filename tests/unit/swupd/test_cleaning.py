"""The cache is cleaned with care, and trimmed so that what is hardest to get stays longest."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from swupd.cleaning import clean, trim
from swupd.statedir import StateDir

URL = "https://cdn.example.org/update"
MOM = b"MANIFEST\t30\nversion:\t20\nprevious:\t10\n\nM...\t" + b"ab" * 32 + b"\t10\teditors\n"


@pytest.fixture
def state(tmp_path: Path) -> StateDir:
    state = StateDir(tmp_path / "cache", tmp_path / "data", URL)
    state.prepare()
    return state


def fill(path: Path, text: str = "x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def files(directory: Path) -> set[str]:
    return {str(path.relative_to(directory)) for path in directory.rglob("*") if not path.is_dir()}


def clutter(state: StateDir) -> None:
    """One of everything that can lie in a state directory."""
    for version, name in ((10, "editors"), (20, "MoM"), (5, "editors")):
        fill(state.manifests(version) / f"Manifest.{name}")
    fill(state.manifests(10) / ("Manifest.editors." + "ab" * 32))
    fill(state.manifests(10) / ".Manifest.editors.new")
    fill(state.content / "manifest/Manifest-editors-delta-from-5-to-10")
    fill(state.pack_marker("editors", 0, 10), "")
    fill(state.staged / "directory object/inner")
    fill(state.staged / "object", "12345")
    fill(state.download / ".part")
    fill(state.delta / "delta")
    fill(state.temp / "temp")
    fill(state.cache_dir / "cache/https___other.example.org/staged/object")
    fill(state.cache_dir / "staged/old")
    fill(state.cache_dir / "10/Manifest.os-core")
    fill(state.cache_dir / "11/not ours")
    fill(state.cache_dir / "pack-editors-from-0-to-10.tar")
    fill(state.cache_dir / "Manifest-editors-delta-from-5")
    fill(state.tracking / "editors", "")
    fill(state.lock_file, "")
    fill(state.version_file, "10\n")


KEPT_IN_CACHE = {"manifest/10/Manifest.editors", "manifest/20/Manifest.MoM"}


def test_cleaning_keeps_the_manifests_of_the_current_version(state: StateDir) -> None:
    clutter(state)
    clean(state, MOM)
    assert files(state.content) == KEPT_IN_CACHE


def test_cleaning_removes_other_caches_and_the_old_layout_but_nothing_else(state: StateDir) -> None:
    clutter(state)
    clean(state, MOM)
    assert {path.name for path in (state.cache_dir / "cache").iterdir()} == {state.content.name}
    assert {path.name for path in state.cache_dir.iterdir()} == {"cache", "11"}
    assert files(state.data_dir) == {"bundles/editors", "swupd_lock", "version"}


def test_cleaning_without_a_current_version_keeps_no_manifests(state: StateDir) -> None:
    clutter(state)
    clean(state, None)
    assert files(state.content) == set()


def test_cleaning_everything_removes_the_whole_cache_and_only_that(state: StateDir) -> None:
    clutter(state)
    clean(state, MOM, everything=True)
    assert not (state.cache_dir / "cache").exists()
    assert files(state.data_dir) == {"bundles/editors", "swupd_lock", "version"}


def test_cleaning_everything_drops_what_a_rollback_would_need_and_only_that_does(state: StateDir) -> None:
    old = fill(state.data_dir / "kept/7/1", "12345")
    clean(state, MOM)
    assert old.exists()
    assert clean(state, MOM, everything=True, dry_run=True).paths == [str(old)]
    assert old.exists()
    assert clean(state, MOM, everything=True).bytes == 5
    assert not old.exists()


def test_a_dry_run_names_what_cleaning_removes_and_removes_nothing(state: StateDir) -> None:
    clutter(state)
    before = files(state.cache_dir)
    promised = clean(state, MOM, dry_run=True)
    assert files(state.cache_dir) == before
    done = clean(state, MOM)
    assert (promised.files, promised.bytes, promised.paths) == (done.files, done.bytes, done.paths)
    assert set(promised.paths) == {f"{state.cache_dir}/{name}" for name in before - files(state.cache_dir)}


def test_files_with_another_name_free_no_bytes(state: StateDir, tmp_path: Path) -> None:
    fill(state.staged / "alone", "12345")
    os.link(fill(state.staged / "shared", "1234567"), tmp_path / "installed")
    report = clean(state, MOM)
    assert (report.files, report.bytes) == (2, 5)


def test_cleaning_removes_links_but_not_what_they_point_to(state: StateDir, tmp_path: Path) -> None:
    fill(tmp_path / "elsewhere/precious")
    (state.staged / "link").symlink_to(tmp_path / "elsewhere")
    (state.cache_dir / "cache/other").symlink_to(tmp_path / "elsewhere")
    assert clean(state, MOM).files == 2
    assert files(tmp_path / "elsewhere") == {"precious"}


def test_a_part_of_the_cache_that_is_a_link_is_not_entered(state: StateDir, tmp_path: Path) -> None:
    fill(tmp_path / "elsewhere/precious")
    state.staged.rmdir()
    state.staged.symlink_to(tmp_path / "elsewhere")
    clean(state, MOM)
    assert files(tmp_path / "elsewhere") == {"precious"}


def test_caches_of_other_urls_stay_while_the_own_one_is_unknown(tmp_path: Path) -> None:
    other = fill(tmp_path / "state/cache/https___other.example.org/staged/object")
    clean(StateDir(tmp_path / "state", tmp_path / "state", ""), None)
    assert other.exists()


def test_cleaning_a_state_directory_that_does_not_exist_is_fine(tmp_path: Path) -> None:
    assert clean(StateDir(tmp_path / "none", tmp_path / "none", URL), None).files == 0


# -- by policy -------------------------------------------------------------------------------------------------------


def put(state: StateDir, name: str, size: int) -> None:
    """A file of the cache that is younger than all others."""
    fill(state.content / name, "x" * size)
    time.sleep(0.012)  # the clock of file systems goes in steps


def test_a_cache_within_its_limit_is_left_alone(state: StateDir) -> None:
    put(state, "staged/a", 500)
    put(state, "pack-editors-from-0-to-20.tar", 0)
    put(state, "manifest/10/Manifest.editors", 500)
    assert trim(state, MOM, limit=1000).files == 0


def test_the_oldest_objects_go_until_the_limit_holds_and_the_marks_of_their_packs_with_them(state: StateDir) -> None:
    for name in ("c", "a", "b"):
        put(state, f"staged/{name}", 100)
    put(state, "pack-editors-from-0-to-20.tar", 0)
    done = trim(state, MOM, limit=250)
    assert files(state.content) == {"staged/a", "staged/b"}
    assert done.bytes == 100


def test_old_manifests_and_leftovers_go_before_objects(state: StateDir) -> None:
    put(state, "staged/object", 100)
    put(state, "manifest/5/Manifest.editors", 100)
    put(state, "temp/x", 100)
    put(state, "pack-editors-from-0-to-20.tar", 0)
    trim(state, MOM, limit=100)
    assert files(state.content) == {"staged/object", "pack-editors-from-0-to-20.tar"}


def test_manifests_of_the_current_version_stay_whatever_the_limit(state: StateDir) -> None:
    put(state, "manifest/10/Manifest.editors", 100)
    put(state, "manifest/20/Manifest.MoM", 100)
    put(state, "staged/object", 100)
    trim(state, MOM, limit=0, days=0)
    assert files(state.content) == {"manifest/10/Manifest.editors", "manifest/20/Manifest.MoM"}


def test_objects_that_are_too_old_go_within_the_limit(state: StateDir, monkeypatch: pytest.MonkeyPatch) -> None:
    put(state, "staged/object", 100)
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 2 * 86400 - 60)
    assert trim(state, MOM, days=2).files == 0
    monkeypatch.setattr(time, "time", lambda: now + 2 * 86400 + 60)
    assert trim(state, MOM, days=2).files == 1


def test_the_time_of_an_object_s_content_is_not_its_age(state: StateDir) -> None:
    put(state, "staged/object", 100)
    os.utime(state.staged / "object", (0, 0))
    assert trim(state, MOM).files == 0


def test_installed_files_count_nothing(state: StateDir, tmp_path: Path) -> None:
    put(state, "staged/object", 100)
    os.link(state.staged / "object", tmp_path / "installed")
    assert trim(state, MOM, limit=0).files == 0


def test_the_caches_of_other_urls_are_not_looked_at(state: StateDir) -> None:
    other = fill(state.cache_dir / "cache/https___other.example.org/staged/object")
    trim(state, MOM, limit=0, days=0)
    assert other.exists()


def test_trimming_a_state_directory_that_does_not_exist_is_fine(tmp_path: Path) -> None:
    assert trim(StateDir(tmp_path / "none", tmp_path / "none", URL), None).files == 0
