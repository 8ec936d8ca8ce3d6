"""Bundles come, go and are listed."""

from __future__ import annotations

import shutil
from typing import Any

Client = Any
PublishedTree = Any
SmallDisk = Any


def test_a_bundle_is_added_and_counts_as_asked_for(client: Client, tree: PublishedTree) -> None:
    result = client.run("bundle-add", "games")
    assert (client.root / "usr/bin/game").exists()
    assert "games: explicitly installed" in client.run("bundle-list", "--status", "--quiet").out
    assert "Installed games" in result.out
    client.check(10)


def test_a_large_bundle_comes_as_a_pack_and_a_small_one_file_by_file(client: Client, tree: PublishedTree) -> None:
    client.run("bundle-add", "games", "--no-progress")
    assert not tree.requested("/10/pack-games-from-0.tar")
    client.run("bundle-add", "docs")
    assert tree.requested("/10/pack-docs-from-0.tar")


def test_an_unknown_bundle_is_3_and_changes_nothing(client: Client) -> None:
    before = client.snapshot()
    result = client.run("bundle-add", "nonsense", status=3)
    assert result.err.splitlines()[-2:] == [
        "Error: there is no bundle nonsense in version 10",
        "Hint: list them with: swupd bundle-list --all",
    ]
    assert client.snapshot() == before


def test_the_other_bundles_are_added_if_one_is_unknown(client: Client) -> None:
    result = client.run("bundle-add", "nonsense", "MoM", "games", status=3)
    assert "Warning: there is no bundle nonsense" in result.err
    assert "games" in client.bundles()


def test_a_bundle_that_does_not_fit_is_25_before_anything_is_downloaded(
    client: Client, tree: PublishedTree, small_disk: SmallDisk
) -> None:
    disk = small_disk(700_000)
    client.run("os-install", "--version", "10", "--path", disk)
    tree.requests.clear()
    result = client.run("bundle-add", "editors", "--path", disk, status=25)
    assert "has too little room" in result.err
    assert not [path for path in tree.requests if "/files/" in path or "/pack-" in path]


def test_a_removed_bundle_leaves_what_others_need(client: Client) -> None:
    before = client.snapshot()
    client.run("bundle-add", "games")
    assert "files: 2 removed" in client.run("bundle-remove", "games").out
    assert client.snapshot() == before
    client.check(10)


def test_a_needed_bundle_is_only_removed_by_force_and_then_with_its_users(client: Client) -> None:
    before = client.snapshot()
    assert "needed by editors" in client.run("bundle-remove", "libs", status=2).err
    assert client.snapshot() == before
    client.run("bundle-remove", "libs", "--force")
    assert client.bundles() == {"os-core"}


def test_dependencies_are_removed_on_request(client: Client) -> None:
    client.run("bundle-remove", "editors", "--recursive")
    assert client.bundles() == {"os-core"}


def test_orphans_are_listed_and_removed(client: Client) -> None:
    client.run("bundle-add", "games")
    client.run("bundle-remove", "editors")
    assert client.run("bundle-list", "--orphans", "--quiet").lines == ["libs"]
    client.run("bundle-remove", "--orphans")
    assert client.bundles() == {"os-core", "games"}
    assert "nothing to remove" in client.run("bundle-remove", "--orphans").out


def test_unmanaged_files_in_a_directory_survive_its_bundle(client: Client) -> None:
    mine = client.root / "usr/share/editors/mine"
    mine.write_text("mine\n")
    client.run("bundle-remove", "editors")
    assert mine.read_text() == "mine\n"
    assert not (client.root / "usr/share/editors/same").exists()


def test_all_bundles_of_the_version_are_listed(client: Client) -> None:
    assert client.run("bundle-list", "--all", "--quiet").lines == [
        "docs",
        "editors",
        "games: experimental",
        "libs",
        "os-core",
    ]
    assert client.run("bundle-list", "--all", "--status").lines[2:7] == [
        " - docs",
        " - editors (explicitly installed)",
        " - games (experimental)",
        " - libs (installed)",
        " - os-core (installed)",
    ]


def test_dependencies_are_listed_both_ways(client: Client) -> None:
    assert client.run("bundle-list", "--deps", "editors", "--quiet").lines == ["docs: as optional", "libs", "os-core"]
    assert client.run("bundle-list", "--has-dep", "libs", "--quiet").lines == ["editors"]
    assert client.run("bundle-list", "--has-dep", "docs", "--all").lines[2] == " - editors (as optional)"
    assert client.run("bundle-list", "--has-dep", "nonsense", status=3).err
    assert client.run("bundle-list", "--deps", "nonsense", status=3).err


def test_installed_bundles_are_listed_without_the_server(client: Client, tree: PublishedTree) -> None:
    shutil.rmtree(client.state / "bundles")
    assert client.run("bundle-list", "--quiet").lines == ["editors", "libs", "os-core"]
    assert tree.requests == []
