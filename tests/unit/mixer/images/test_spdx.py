"""The SPDX document of an image: what is in it, and that a validator of others accepts it."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from spdx_tools.spdx.model import Document
from spdx_tools.spdx.parser.parse_anything import parse_file
from spdx_tools.spdx.validation.document_validator import validate_full_spdx_document

from mixer import packagelist
from mixer.errors import BuildError
from mixer.images import spdx
from mixer.images.tree import ImageTree, Reader
from mixer.packagelist import Package, PackageList
from swupd.formats.manifest import FileType
from swupd.report import TextReport

TIME = 1_700_000_000
SHELL = Package(
    name="shell++",
    version="1:2-3",
    architecture="amd64",
    source="shell-src 2-3",
    licence="(MIT OR LicenseRef-odd) AND GPL-2.0-only WITH Linux-syscall-note",
    homepage="https://shell.example.org/",
    supplier="Shell (and more) Team <shell@lists.example.org>",
    purl="pkg:deb/debian/shell%2B%2B@1%3A2-3?arch=amd64",
    bundles=("os-core",),
    files=("/usr/bin/link", "/usr/bin/sh"),
)
EDITOR = Package("editor", "5", supplier="no address", homepage="none", bundles=("editor",), files=("/usr/bin/editor",))
OFFICE = Package("office", "6", bundles=("office",), files=("/usr/bin/office",))
LINKS = Package("only-links", "7", bundles=("os-core",), files=("/usr/share/alias",))


@pytest.fixture
def load(prepared: Any) -> Callable[..., ImageTree]:
    """Publishes a version with packages; then the tree with some bundles."""
    (prepared.root / "usr/share/alias").symlink_to("empty")
    prepared.list("os-core", "/usr/share/alias")
    packages = PackageList((EDITOR, OFFICE, LINKS, SHELL))
    (prepared.mix.source / "10/packages.json").write_bytes(packagelist.serialise(packages))
    prepared.build(packs=False)
    loaded: Callable[..., ImageTree] = prepared.load
    return loaded


def document(tree: ImageTree, name: str = "guest.img", time: int = TIME) -> bytes:
    return spdx.document(tree, Reader(tree, TextReport(quiet=True)), name=name, time=time)


def parsed(data: bytes, tmp_path: Path) -> Document:
    """As the library of the SPDX project reads it; it has nothing to complain about."""
    path = tmp_path / "x.spdx.json"
    path.write_bytes(data)
    result = parse_file(str(path))
    assert [message.validation_message for message in validate_full_spdx_document(result)] == []
    return result


def contained(top: dict[str, Any], element: str) -> list[str]:
    """Names of what an element contains."""
    names = {package["SPDXID"]: package["name"] for package in top["packages"]}
    names |= {file["SPDXID"]: file["fileName"] for file in top["files"]}
    return [
        names[relationship["relatedSpdxElement"]]
        for relationship in top["relationships"]
        if (relationship["spdxElementId"], relationship["relationshipType"]) == (element, "CONTAINS")
    ]


def test_a_validator_accepts_it(load: Callable[..., ImageTree], tmp_path: Path) -> None:
    found = parsed(document(load("kernel", "office")), tmp_path)
    assert [package.name for package in found.packages] == [
        "guest.img",
        "os-core",
        "editor",
        "kernel",
        "office",
        "editor",
        "office",
        "only-links",
        "shell++",
    ]


def test_a_version_that_says_nothing_about_packages_has_bundles_and_files(published: Any, tmp_path: Path) -> None:
    data = document(published.load("editor"))
    found = parsed(data, tmp_path)
    assert [package.name for package in found.packages] == ["guest.img", "os-core", "editor"]
    assert "./usr/bin/editor" in contained(json.loads(data), "SPDXRef-Bundle-editor")


def test_the_image_contains_bundles_these_packages_and_these_files(load: Callable[..., ImageTree]) -> None:
    top = json.loads(document(load("office")))
    assert contained(top, "SPDXRef-Image") == ["os-core", "editor", "office"]
    assert contained(top, "SPDXRef-Bundle-office") == ["office", "./usr/share/clear/bundles/office"]
    assert contained(top, "SPDXRef-Package-shell.2b.2b") == ["./usr/bin/sh"]
    assert "shell++" in contained(top, "SPDXRef-Bundle-os-core")
    assert "./usr/bin/sh" not in contained(top, "SPDXRef-Bundle-os-core")


def test_packages_that_are_not_in_the_image_are_not_in_its_document(load: Callable[..., ImageTree]) -> None:
    names = [package["name"] for package in json.loads(document(load("editor")))["packages"]]
    assert names == ["guest.img", "os-core", "editor", "editor", "only-links", "shell++"]


def test_a_guest_without_os_core_has_nothing_of_its_packages(load: Callable[..., ImageTree], tmp_path: Path) -> None:
    data = document(load("guest", whole=False))
    assert [package.name for package in parsed(data, tmp_path).packages] == ["guest.img", "guest"]


def test_every_file_has_its_checksums_size_mode_and_owner(load: Callable[..., ImageTree]) -> None:
    tree = load("office")
    files = {file["fileName"]: file for file in json.loads(document(tree))["files"]}
    node = tree.find("/usr/bin/sh")
    assert node is not None
    assert {"./usr/bin/link", "./usr/share"}.isdisjoint(files)
    assert files["./usr/bin/sh"]["comment"] == f"8 bytes, mode 4755, owner {node.uid}:{node.gid}"
    assert {sum_["algorithm"]: sum_["checksumValue"] for sum_ in files["./usr/bin/sh"]["checksums"]} == {
        "SHA1": hashlib.sha1(b"shell 10").hexdigest(),
        "SHA256": hashlib.sha256(b"shell 10").hexdigest(),
    }


def test_a_package_is_told_with_all_that_is_known(load: Callable[..., ImageTree]) -> None:
    packages = {package["SPDXID"]: package for package in json.loads(document(load("office")))["packages"]}
    shell = packages["SPDXRef-Package-shell.2b.2b"]
    assert shell["versionInfo"] == "1:2-3"
    assert shell["licenseDeclared"] == SHELL.licence
    assert shell["supplier"] == "Organization: Shell [and more] Team (shell@lists.example.org)"
    assert shell["homepage"] == SHELL.homepage
    assert shell["sourceInfo"] == "built from the source package shell-src 2-3"
    assert [reference["referenceLocator"] for reference in shell["externalRefs"]] == [SHELL.purl]
    editor = packages["SPDXRef-Package-editor"]
    assert (editor["licenseDeclared"], editor["supplier"]) == ("NOASSERTION", "NOASSERTION")
    assert {"homepage", "externalRefs", "sourceInfo"}.isdisjoint(editor)


def test_licences_that_spdx_does_not_know_are_declared(load: Callable[..., ImageTree]) -> None:
    top = json.loads(document(load("office")))
    assert [licence["licenseId"] for licence in top["hasExtractedLicensingInfos"]] == ["LicenseRef-odd"]


def test_the_same_image_has_the_same_document_and_another_has_another_namespace(
    load: Callable[..., ImageTree],
) -> None:
    first = document(load("office"))
    assert document(load("office")) == first
    others = [document(load("office"), name="other"), document(load("office"), time=TIME + 1), document(load("editor"))]
    assert len({json.loads(data)["documentNamespace"] for data in (first, *others)}) == 4


def test_content_that_was_read_for_the_image_is_not_read_again(prepared: Any, load: Callable[..., ImageTree]) -> None:
    tree = load("office")
    reader = Reader(tree, TextReport(quiet=True))
    for node in tree.nodes:
        if node.type is FileType.FILE:
            reader.content(node)
    shutil.rmtree(prepared.mix.workspace.objects)
    assert spdx.document(tree, reader, name="guest.img", time=TIME)
    with pytest.raises(BuildError):
        document(tree)


def test_names_that_are_no_text_are_shown(prepared: Any, tmp_path: Path) -> None:
    (prepared.root / "usr/share/odd\udcff").write_text("odd")
    prepared.list("os-core", "/usr/share/odd\udcff")
    prepared.build(packs=False)
    found = parsed(document(prepared.load(), name="image\udcff"), tmp_path)
    assert "./usr/share/odd\\xff" in [file.name for file in found.files]
    assert found.creation_info.name == "image\\xff"
