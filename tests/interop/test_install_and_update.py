"""Our client installs what the original's tools published, and updates it with their packs and deltas."""

from __future__ import annotations

import os
import stat
import tarfile
from pathlib import Path
from typing import Any

import pytest

from swupd.formats.filehash import hash_path

# conftest.py gives fixtures of its own classes; annotations would need an import that importlib mode does not offer.
Client = Any
PublishedTree = Any

EDIT_20 = "09a871261b09670a9d3cc55fdbee5158ad86a03f3c15dd7840097d9f097f144a"
"""/usr/bin/edit of version 20; the pack has only a delta for it."""
RENAMED = "0a6ac6d331870f4f62115c50e9a815c8fdf70ef425150adbddfb5c845c8a493f"
"""/usr/share/editors/new-name: renamed without a change, so no pack of version 20 has it."""
CHANGED_BUNDLES = ("os-core", "libs", "editors")


def members(pack: Path) -> set[str]:
    with tarfile.open(pack) as archive:
        return set(archive.getnames())


def test_an_installed_system_is_what_was_published(empty: Client, tree: PublishedTree) -> None:
    empty.run("os-install", "--version", "10", "--bundles", "editors,games")
    empty.check(10)
    assert empty.bundles() == {"os-core", "libs", "editors", "docs", "games"}


def test_owners_modes_and_links_are_installed(client: Client) -> None:
    share = client.root / "usr/share/editors"
    assert (share / "owned-by-1000").stat().st_uid == 1000
    assert stat.S_IMODE((client.root / "usr/bin/suid-helper").stat().st_mode) & stat.S_ISUID
    assert stat.S_IMODE((share / "spool").stat().st_mode) == 0o1777
    assert os.readlink(client.root / "usr/bin/vi") == "edit"


def test_the_target_of_an_installation_may_be_an_argument(empty: Client) -> None:
    empty.run("os-install", "--version", "10", empty.root, path=False)
    assert (empty.root / "usr/lib/os-release").exists()


def test_the_newest_version_is_installed_unless_another_is_named(empty: Client) -> None:
    empty.run("os-install")
    assert empty.run("info", "--quiet").out == "20\n"


def test_requested_bundles_are_tracked_and_their_dependencies_are_not(empty: Client) -> None:
    empty.run("os-install", "--bundles", "editors", "--version", "10")
    assert empty.run("bundle-list", "--status", "--quiet").lines == [
        "docs: installed",
        "editors: explicitly installed",
        "libs: installed",
        "os-core: installed",
    ]


def test_an_installation_can_be_repeated_over_what_is_there(client: Client) -> None:
    (client.root / "usr/bin/edit").unlink()
    (client.root / "etc/hosts-example").write_text("mine\n")
    before = client.snapshot()
    client.run("os-install", "--version", "10", "--bundles", "editors", "--skip-optional")
    after = client.snapshot()
    assert after.pop("usr/bin/edit")
    assert after == before


def test_an_update_gives_what_was_published(client: Client, tree: PublishedTree) -> None:
    result = client.run("update")
    client.check(20)
    assert (client.root / "usr/lib/kernel/org.example.native.1-10").exists(), "ghosted: the boot manager removes it"
    assert (client.state / "version").read_text() == "20\n"
    assert "Updated from version 10 to 20" in result.out
    assert "3 changed, 0 added, 0 removed" in result.out
    client.run("diagnose", "--picky")


def test_an_update_asks_for_the_packs_and_deltas_and_for_nothing_twice(client: Client, tree: PublishedTree) -> None:
    client.run("diagnose")  # the manifests of version 10 are cached now, as on a system that lives
    tree.requests.clear()
    client.run("update")
    for bundle in CHANGED_BUNDLES:
        assert tree.requested(f"/20/pack-{bundle}-from-10.tar")
        assert tree.requested(f"/20/Manifest-{bundle}-delta-from-10")
        assert not tree.requested(f"/20/Manifest.{bundle}.tar")
    assert len(tree.requests) == len(set(tree.requests))
    assert tree.requested(f"/files/{RENAMED}.tar")
    assert len([path for path in tree.requests if "/files/" in path]) == 1


def test_packs_and_deltas_replace_the_single_files(client: Client, tree: PublishedTree) -> None:
    """With every fullfile but the one that no pack has gone, the update must come from deltas."""
    pack = members(tree.directory / "20/pack-editors-from-10.tar")
    assert f"staged/{EDIT_20}" not in pack
    assert any(name.endswith(f"-{EDIT_20}") and name.startswith("delta/") for name in pack)
    kept = tree.read(f"20/files/{RENAMED}.tar")
    assert tree.remove("*/files/*.tar") > 100
    tree.replace(f"20/files/{RENAMED}.tar", kept)
    client.run("update")
    client.check(20)


def test_manifest_deltas_replace_the_manifests(client: Client, tree: PublishedTree) -> None:
    client.run("diagnose")
    assert tree.remove("20/Manifest.[a-z]*.tar") == 5
    client.run("update")
    client.check(20)


def test_packs_and_deltas_are_only_a_shorter_way(client: Client, tree: PublishedTree) -> None:
    client.run("diagnose")
    assert tree.remove("20/[Mp]a*-from-*")
    client.run("update")
    client.check(20)


def test_a_delta_against_a_file_that_was_changed_here_is_not_used(client: Client, tree: PublishedTree) -> None:
    (client.root / "usr/bin/edit").write_bytes(b"mine")
    client.run("update")
    assert tree.requested(f"/20/files/{EDIT_20}.tar")
    assert hash_path(str(client.root / "usr/bin/edit")) == EDIT_20


def test_protected_files_survive_an_update(client: Client) -> None:
    (client.root / "etc/hosts-example").write_text("mine\n")
    (client.root / "etc/new").write_text("mine\n")
    client.run("update")
    assert (client.root / "etc/hosts-example").read_text() == "mine\n"
    assert (client.root / "etc/new").read_text() == "mine\n"


def test_an_update_can_be_downloaded_first(client: Client, tree: PublishedTree) -> None:
    before = client.snapshot()
    client.run("update", "--download")
    assert client.snapshot() == before
    tree.remove("*/files/*.tar")
    tree.remove("*/pack-*")
    client.run("update")
    client.check(20)


def test_an_update_to_what_is_installed_does_nothing(client: Client) -> None:
    client.run("update")
    before = client.snapshot()
    assert "nothing newer" in client.run("update").out
    assert client.snapshot() == before


@pytest.mark.parametrize(("version", "reached"), [("latest", 20), ("30", 20), ("10", 10)])
def test_an_update_goes_to_the_named_version_or_the_newest(client: Client, version: str, reached: int) -> None:
    client.run("update", "--version", version)
    client.check(reached)


def test_the_cache_is_cleaned_after_an_update_unless_it_is_to_be_kept(client: Client) -> None:
    client.run("update", "--keepcache", "--download")
    (content,) = (client.state / "cache").iterdir()
    assert list(content.glob("pack-*"))
    client.run("update")
    assert {path.name for path in (content / "manifest").iterdir()} == {"10", "20"}
    assert not list(content.glob("pack-*"))
    assert not list((content / "staged").iterdir())


def test_content_of_another_state_directory_is_used(client: Client, tree: PublishedTree, tmp_path: Path) -> None:
    client.run("os-install", "--download", "--version", "20", "--path", tmp_path / "other")
    tree.remove("*/files/*.tar")
    tree.remove("*/pack-*")
    tree.remove("*/Manifest*")
    target = tmp_path / "third"
    client.run("os-install", "--version", "20", "--path", target, "--statedir", tmp_path / "s", status=4)
    client.run(
        *("os-install", "--version", "20", "--path", target, "--statedir", tmp_path / "s"),
        *("--statedir-cache", client.state),
    )
    assert (target / "usr/bin/core").exists()
