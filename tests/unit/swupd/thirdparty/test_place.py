"""A repository's files: settings of its own, notes of what was begun, and nothing beyond them."""

from __future__ import annotations

from pathlib import Path

import pytest

from swupd import system
from swupd.errors import RepositoryError, StateDirectoryError, UnsafePathError
from swupd.settings import Settings
from swupd.thirdparty.place import Place, noted, open_below


@pytest.fixture
def host(tmp_path: Path) -> Settings:
    for name in ("root", "cache", "data"):
        (tmp_path / name).mkdir()
    return Settings(
        root=tmp_path / "root",
        cache_dir=tmp_path / "cache",
        data_dir=tmp_path / "data",
        content_url="https://example.org/update",
        version_url="https://example.org/update",
        format="30",
        certificate=Path("/usr/share/clear/update-ca/Swupd_Root.pem"),
        content_mirrors=("https://mirror.example.org",),
        assume=False,
    )


def test_a_repository_is_a_system_of_its_own(host: Settings) -> None:
    settings = Place(host, "mine").settings("https://mine.example")
    prefix = host.root / "opt/3rd-party/bundles/mine"
    assert settings.root == prefix
    assert settings.certificate == prefix / "usr/share/clear/update-ca/Swupd_Root.pem"
    assert (settings.cache_dir, settings.data_dir) == (
        host.cache_dir / "3rd-party/mine",
        host.data_dir / "3rd-party/mine",
    )
    assert settings.content_url == settings.version_url == "https://mine.example"
    assert settings.content_mirrors == settings.version_mirrors == ()
    assert settings.format == "30"
    assert not settings.run_scripts


def test_what_was_begun_is_noted_until_it_is_finished(host: Settings) -> None:
    assert noted(host) == []
    Place(host, "mine").note()
    Place(host, "other").note()
    assert noted(host) == ["mine", "other"]
    Place(host, "mine").forget_note()
    assert not Place(host, "mine").is_noted()
    assert Place(host, "other").is_noted()


def test_wiping_takes_content_cache_and_data(host: Settings) -> None:
    place, other = Place(host, "mine"), Place(host, "other")
    for each in (place, other):
        for directory in (each.prefix, each.cache, each.data):
            directory.mkdir(parents=True)
            (directory / "file").touch()
    assert not place.is_empty()
    place.wipe()
    assert place.is_empty()
    assert not any(path.exists() for path in (place.prefix, place.cache, place.data))
    assert not other.is_empty()


def test_nothing_is_wiped_while_something_is_mounted_there(
    host: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = Place(host, "mine")
    (place.prefix / "mnt").mkdir(parents=True)
    (tmp_path / "mounts").write_text(f"1 2 3:4 / {place.prefix}/mnt rw - ext4 /dev/sda1 rw\n")
    monkeypatch.setattr(system, "MOUNTS", tmp_path / "mounts")
    with pytest.raises(RepositoryError, match=f"mounted on {place.prefix}/mnt"):
        place.wipe()
    assert place.prefix.exists()


def test_a_link_on_the_way_is_refused(host: Settings, tmp_path: Path) -> None:
    (tmp_path / "away").mkdir()
    (host.root / "opt").symlink_to(tmp_path / "away")
    with pytest.raises(UnsafePathError):
        Place(host, "mine").make()
    assert list((tmp_path / "away").iterdir()) == []


def test_a_directory_that_cannot_be_made_is_an_error_with_its_path(tmp_path: Path) -> None:
    name = "x" * 300
    with pytest.raises((StateDirectoryError, OSError), match="x"):
        open_below(tmp_path, name, make=True)
