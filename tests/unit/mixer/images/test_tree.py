from __future__ import annotations

import hashlib
import os
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from mixer.errors import BuildError
from mixer.images import tree
from swupd.formats import filehash, signature
from swupd.formats.manifest import FileType
from swupd.report import TextReport

Published = Any


def object_of(published: Published, path: str) -> Path:
    """The object of a path in the content store."""
    found: Path = published.mix.workspace.objects
    file_hash = published.load("kernel", "office").find(path).hash
    return found / file_hash[:2] / file_hash


def test_a_tree_is_the_prepared_root_of_its_bundles(published: Published) -> None:
    found = published.load("kernel", "office", "guest")

    expected = {entry.name: entry for entry in filehash.walk(str(published.root)) if entry.name != "/"}
    assert {node.path for node in found.nodes} == expected.keys()
    for node in found.nodes:
        entry = expected[node.path]
        assert node.hash == filehash.hash_path(entry.path)
        assert (node.uid, node.gid) == (entry.status.st_uid, entry.status.st_gid)
        assert node.mode == entry.status.st_mode & 0o7777
        if node.type is FileType.FILE:
            assert found.content(node) == Path(entry.path).read_bytes()
            assert node.size == entry.status.st_size


def test_links_have_their_text(published: Published) -> None:
    node = published.load().find("/usr/bin/link")

    assert (node.type, node.target, node.mode, node.size) == (FileType.LINK, "sh", 0o777, 0)


def test_parents_come_before_what_is_in_them_in_byte_order(published: Published) -> None:
    paths = [os.fsencode(node.path) for node in published.load("kernel").nodes]

    assert paths == sorted(paths)
    assert all(path.rpartition(b"/")[0] in paths[:number] for number, path in enumerate(paths) if path.count(b"/") > 1)


def test_only_os_core_is_in_a_tree_without_bundles(published: Published) -> None:
    found = published.load()

    assert found.bundles == ("os-core",)
    assert found.find("/usr/bin/editor") is None


def test_what_a_bundle_includes_comes_along(published: Published) -> None:
    found = published.load("office")

    assert found.bundles == ("editor", "office", "os-core")
    assert found.text("/usr/bin/editor") == "editor"


def test_what_a_bundle_also_adds_stays_away(prepared: Published) -> None:
    prepared.mix.source.joinpath("10/office-info").write_text(
        prepared.mix.source.joinpath("10/office-info")
        .read_text()
        .replace('"DirectIncludes": ["editor"]', '"OptionalIncludes": ["editor"]')
    )
    prepared.build(packs=False)

    assert prepared.mix.manifest(10, "office").also_add == ("editor",)
    assert prepared.load("office").bundles == ("office", "os-core")


def test_a_tree_knows_its_version_and_mom(published: Published) -> None:
    found = published.load()

    mom = (published.mix.www / "10/Manifest.MoM").read_bytes()
    assert found.mom_hash == filehash.hash_content(0o100644, 0, 0, mom)
    assert (found.version, found.timestamp) == (10, 1700000010)


def test_an_older_version_can_be_asked_for(published: Published) -> None:
    published.mix.version(20, {"os-core": {"/usr/bin/sh": "shell 20"}})
    published.mix.build(packs=False)

    assert published.load().text("/usr/bin/sh") == "shell 20"
    assert published.load(version=10).text("/usr/bin/sh") == "shell 10"


def test_a_version_that_is_not_there_is_one_line(published: Published) -> None:
    with pytest.raises(BuildError, match="version 30 is not in"):
        published.load(version=30)


def test_a_mix_without_any_version_is_one_line(prepared: Published) -> None:
    with pytest.raises(BuildError, match="nothing is published"):
        prepared.load()


def test_an_unknown_bundle_is_named_with_what_was_meant(published: Published) -> None:
    with pytest.raises(BuildError, match="version 10 has no bundle 'ofice'") as caught:
        published.load("ofice")

    assert caught.value.hint == "did you mean office?"


def test_objects_that_the_store_has_lost_come_from_what_was_published(published: Published) -> None:
    whole = published.load("kernel").nodes
    shutil.rmtree(published.mix.workspace.cache)

    found = published.load("kernel")

    assert found.nodes == whole
    assert found.text("/usr/bin/sh") == "shell 10"


def test_fullfiles_that_are_nowhere_are_one_line(prepared: Published) -> None:
    prepared.build(fullfiles=False, packs=False)

    with pytest.raises(BuildError, match=r"cannot read .*/files/[0-9a-f]{64}\.tar: No such file") as caught:
        prepared.load()

    assert "build again without --skip-fullfiles" in caught.value.hint


def test_a_damaged_object_is_an_error_with_path_and_hash(published: Published) -> None:
    place = object_of(published, "/usr/bin/sh")
    place.write_bytes(object_of(published, "/usr/bin/editor").read_bytes())

    with pytest.raises(BuildError, match=f"cannot read /usr/bin/sh, the object {place.name}: "):
        published.load()


def test_a_damaged_large_object_is_found_when_it_is_read(published: Published) -> None:
    place = object_of(published, "/usr/share/large")
    found = published.load()
    data = place.read_bytes()
    place.write_bytes(data[: len(data) // 2])

    with pytest.raises(BuildError, match=f"cannot read /usr/share/large, the object {place.name}: "):
        found.content(found.find("/usr/share/large"))


def test_attributes_of_a_large_object_are_believed_only_with_its_content(published: Published) -> None:
    from swupd.formats import archive

    place = object_of(published, "/usr/share/large")
    right = place.read_bytes()
    member = archive.Member(place.name, archive.ObjectType.FILE, 0o104777, 0, 0, 3 << 20)
    place.write_bytes(archive.fullfile(member, bytes(3 << 20)))
    found = published.load()
    place.write_bytes(right)

    with pytest.raises(BuildError, match="was replaced meanwhile"):
        found.content(found.find("/usr/share/large"))


def test_a_damaged_manifest_is_an_error(published: Published) -> None:
    (published.mix.www / "10/Manifest.os-core").write_bytes(b"damaged")

    with pytest.raises(BuildError, match=r"10/Manifest\.os-core is damaged"):
        published.load()


def test_a_mom_with_another_signature_is_refused(published: Published) -> None:
    certificate, key = signature.make_certificate("Other", 10, datetime.now(UTC))
    mom = (published.mix.www / "10/Manifest.MoM").read_bytes()
    (published.mix.www / "10/Manifest.MoM.sig").write_bytes(signature.SigningKey(certificate, key).sign(mom))

    with pytest.raises(BuildError, match=r"the signature of .*/10/Manifest.MoM is not good"):
        published.load()


def test_a_version_without_signature_is_refused_unless_that_is_wanted(
    prepared: Published, capsys: pytest.CaptureFixture[str]
) -> None:
    prepared.build(packs=False, sign=False)

    with pytest.raises(BuildError, match=r"/10/Manifest.MoM is not signed") as caught:
        prepared.load()

    assert "--no-signing" in caught.value.hint
    assert prepared.load(signed=False).version == 10
    assert "the signature of version 10 is not checked" in capsys.readouterr().err


def test_a_mix_without_certificate_has_no_signature_to_check(
    prepared: Published, capsys: pytest.CaptureFixture[str]
) -> None:
    prepared.build(packs=False, sign=False)
    prepared.mix.config.certificate.unlink()

    assert prepared.load().version == 10
    assert "the signature of version 10 is not checked" in capsys.readouterr().err


def test_a_file_whose_directory_no_bundle_has_is_named(prepared: Published) -> None:
    prepared.remove("kernel", "/boot")
    prepared.build(packs=False)

    with pytest.raises(BuildError, match=r"/boot/initrd-6.10.0 has no directory to be in: .* has /boot"):
        prepared.load("kernel")


def test_bundles_that_have_a_file_are_found_wherever_they_are(published: Published) -> None:
    assert published.load().bundles_with("/boot/vmlinuz-") == ["kernel"]
    assert published.load().bundles_with("/nowhere") == []


# -- guests and layers -------------------------------------------------------------------------------------------------


def test_a_standalone_bundle_comes_with_the_directories_and_links_of_os_core_only(published: Published) -> None:
    found = published.load("guest", whole=False)

    assert found.bundles == ("guest",)
    assert found.text("/usr/lib/guest/init") == "init"
    assert [node.path for node in found.nodes if node.path.count("/") > 2] == [
        "/usr/lib/guest",
        "/usr/lib/guest/init",
        "/usr/lib/swupd",
        "/usr/lib/swupd/standalone",
        "/usr/lib/swupd/standalone/guest",
        "/usr/share/clear",
        "/usr/share/clear/bundles",
        "/usr/share/clear/bundles/guest",
    ]
    whole = {node.path: node for node in published.load().nodes}
    frame = [node for node in found.nodes if node.path in whole]
    assert all(node == whole[node.path] and node.type is not FileType.FILE for node in frame)
    assert {path for path, node in whole.items() if path.count("/") == 1 and node.type is not FileType.FILE} <= {
        node.path for node in frame
    }


@pytest.mark.parametrize(("bundles", "whole"), [(("guest",), True), (("guest", "editor"), False), ((), False)])
def test_everything_else_comes_with_all_of_os_core(published: Published, bundles: tuple[str, ...], whole: bool) -> None:
    found = published.load(*bundles, whole=whole)

    assert "os-core" in found.bundles
    assert found.find("/usr/bin/sh") is not None


def test_a_layer_has_what_its_bundle_adds_and_includes_come_first(published: Published) -> None:
    found = published.load("office", "kernel")

    assert [layer.bundle for layer in found.layers] == ["os-core", "editor", "kernel", "office"]
    office = found.layers[-1]
    assert [path for path in office.paths if found.find(path).type is FileType.FILE] == [
        "/usr/bin/office",
        "/usr/share/clear/bundles/office",
    ]
    assert (office.version, office.timestamp) == (10, published.mix.manifest(10, "office").timestamp)
    assert {path for layer in found.layers for path in layer.paths} == {node.path for node in found.nodes}


def test_a_layer_is_the_same_in_other_company(published: Published) -> None:
    alone, together = published.load("editor"), published.load("office", "kernel")
    assert alone.layers == together.layers[:2]


# -- reading -----------------------------------------------------------------------------------------------------------


def test_a_reader_tells_how_far_it_is_and_knows_checksums(published: Published) -> None:
    found = published.load("editor")
    reader = tree.Reader(found, TextReport())
    editor, shell = found.find("/usr/bin/editor"), found.find("/usr/bin/sh")

    assert reader.content(editor) == b"editor"
    for node, content in ((editor, b"editor"), (shell, b"shell 10")):
        assert reader.sums(node).sha1 == hashlib.sha1(content).hexdigest()
        assert reader.sums(node).sha256 == hashlib.sha256(content).hexdigest()
