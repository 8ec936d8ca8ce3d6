"""Our client uses what the original never asks for: the update index and the update pack of a version.

The original's published tree is extended by both. The index is signed with a key of the test, whose certificate stands
beside the original's as the alternative one.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from swupd.formats import archive, layout, signature, updateindex
from swupd.formats.archive import Member
from swupd.formats.certificate import make_certificate
from swupd.formats.manifest import parse
from swupd.formats.updateindex import BundleCost, PackFile, Update, UpdateIndex

# conftest.py gives fixtures of its own classes; annotations would need an import that importlib mode does not offer.
Client = Any
PublishedTree = Any

BUNDLES = ("os-core", "libs", "editors")
"""Installed, and changed in version 20."""
PACK = "/20/update-from-10.tar"


def members(source: BytesIO) -> Iterator[tuple[Member, list[bytes]]]:
    """Objects and deltas of an archive, to be written into another one."""
    for member, data in archive.read_members(source, archive.PACK_LIMITS):
        content = data.read()
        if member.name not in (layout.DELTA_DIRECTORY, layout.STAGED_DIRECTORY):
            yield member, [content] if content else []


@pytest.fixture(scope="module")
def identity() -> tuple[bytes, bytes]:
    """A certificate and its key."""
    return make_certificate("a test", 1, datetime.now(UTC))


@pytest.fixture
def extended(tree: PublishedTree, client: Client, tmp_path: Path, identity: tuple[bytes, bytes]) -> PublishedTree:
    """The tree with an update pack: what the packs of the installed bundles have, and what none of them has."""
    objects: dict[str, tuple[Member, list[bytes]]] = {}
    costs = {}
    for bundle in BUNDLES:
        pack = tree.read(layout.pack(20, bundle, 10))
        objects |= {member.name[-64:]: (member, content) for member, content in members(BytesIO(pack))}
        fullfiles = 0
        for entry in parse(tree.read(layout.manifest(20, bundle)), name=bundle).entries:
            if entry.is_present and entry.version == 20:
                fullfile = tree.read(layout.fullfile(20, entry.hash))
                fullfiles += len(fullfile)
                if entry.hash not in objects:
                    ((member, content),) = members(BytesIO(fullfile))
                    objects[entry.hash] = (replace(member, name=layout.staged_name(entry.hash)), content)
        costs[bundle] = BundleCost(10, len(pack), fullfiles)
    target = BytesIO()
    archive.write_pack(target, objects.values())
    pack = archive.compress(target.getvalue(), 19)
    tree.replace(PACK[1:], pack)
    client.certificate = Path(shutil.copy(client.certificate, tmp_path))
    client.certificate.with_name(f"{client.certificate.name}.alt").write_bytes(identity[0])
    publish_index(
        tree, UpdateIndex(20, (Update(10, PackFile(len(pack), hashlib.sha256(pack).hexdigest()), costs),)), identity
    )
    return tree


def publish_index(tree: PublishedTree, index: UpdateIndex, identity: tuple[bytes, bytes]) -> None:
    data = updateindex.serialise(index)
    tree.replace("20/update-index", data)
    tree.replace("20/update-index.sig", signature.SigningKey(*identity).sign(data))


def packs(tree: PublishedTree) -> list[str]:
    return [path for path in tree.requests if "pack-" in path or "update-from" in path]


def test_an_update_asks_for_the_update_pack_and_for_nothing_else(client: Client, extended: PublishedTree) -> None:
    extended.remove("20/files/*.tar")
    result = client.run("update", "--verbose")
    client.check(20)
    assert packs(extended) == [PACK]
    assert [path for path in extended.requests if "update-index" in path] == [
        "/20/update-index",
        "/20/update-index.sig",
    ]
    assert not [path for path in extended.requests if "/files/" in path]
    assert "The cheapest way: the update pack of" in result.out
    client.run("diagnose", "--picky")


def test_what_was_downloaded_with_the_update_pack_is_installed_later(client: Client, extended: PublishedTree) -> None:
    client.run("update", "--download")
    assert packs(extended) == [PACK]
    extended.requests.clear()
    client.run("update")
    client.check(20)
    assert packs(extended) == []
    assert not extended.requested("update-index")
    assert not list((client.state / "cache").rglob("pack-*"))


def test_an_update_pack_that_was_changed_is_replaced_by_the_packs(client: Client, extended: PublishedTree) -> None:
    extended.flip(PACK[1:], 200)
    result = client.run("update")
    client.check(20)
    assert "Warning: the update pack is not the one that the publisher has signed for" in result.err
    assert set(packs(extended)) == {PACK, *(f"/20/pack-{bundle}-from-10.tar" for bundle in BUNDLES)}


@pytest.mark.parametrize("trouble", ["another key", "no signature", "no update from here", "an error"])
def test_without_an_index_to_believe_the_packs_are_fetched(
    client: Client, extended: PublishedTree, fault: Any, trouble: str, identity: tuple[bytes, bytes]
) -> None:
    if trouble == "another key":
        client.certificate.with_name(f"{client.certificate.name}.alt").unlink()
    elif trouble == "no signature":
        extended.faults["/20/update-index.sig"] = fault(404)
    elif trouble == "no update from here":
        publish_index(extended, UpdateIndex(20, (Update(5, None, {}),)), identity)
    else:
        extended.faults["/20/update-index"] = fault(500)
    result = client.run("update", "--verbose")
    client.check(20)
    assert set(packs(extended)) == {f"/20/pack-{bundle}-from-10.tar" for bundle in BUNDLES}
    assert [line for line in result.err.splitlines() if "the URL" not in line] == []


def test_other_commands_do_not_ask_for_the_index(client: Client, extended: PublishedTree) -> None:
    client.run("bundle-add", "games")
    client.run("repair", "--version", "20", "--force")
    assert not [path for path in extended.requests if "update-" in path]
