"""What is in an image, as an SPDX 2.3 document (JSON): the software bill of materials that lies beside it.

    image CONTAINS bundle CONTAINS package of the distribution CONTAINS file
                   bundle CONTAINS file, one that is no package's

* A file is named with SHA-1, SHA-256 and, as its comment, size, mode and owner. Links and directories, which have no
  content, are not in it.
* A package is in an image if a file or link of it is. It has its version, source, supplier, package URL and, where it
  is known, its licence. A licence that SPDX has no identifier for is a LicenseRef, whose text is with the package.
* A bundle has the version in which it changed last, and what its manifest lists: what it includes is elsewhere.
* A version that says nothing about its packages has bundles and files only.
* The same tree, name and time give the same bytes, and another document has another namespace.

`mixer.images.compare` reads what `document` writes. One line for each package, file and relationship.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote
from uuid import uuid5

from mixer.images.tree import ImageTree, Layer, Node, Reader
from mixer.packagelist import Package
from swupd import __version__
from swupd.formats.manifest import FileType

VERSION = "SPDX-2.3"
DOCUMENT = "SPDXRef-DOCUMENT"
IMAGE = "SPDXRef-Image"
CONTAINS = "CONTAINS"
DESCRIBES = "DESCRIBES"
COMMENT = "{size} bytes, mode {mode:04o}, owner {uid}:{gid}"
"""Of a file."""

_UNKNOWN = "NOASSERTION"
_NAMESPACE = "https://spdx.org/spdxdocs"
_PLAIN = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-")
_MAINTAINER = re.compile(r"([^<>]*?)\s*<([^<>\s]+)>")
_WEB = re.compile(r"https?://[^\s<>\"]+")
_PURL = re.compile(r"pkg:[^\s<>\"]+")
_REFERENCE = re.compile(r"LicenseRef-[A-Za-z0-9.-]+")


def document(tree: ImageTree, reader: Reader, *, name: str, time: int) -> bytes:
    """The document of an image called `name`; `time`, when it is said to be made, in seconds since 1970.

    Reads the content of files that the reader has not read yet. Raises BuildError.
    """
    return _Document(tree, reader).text(name, time)


class _Document:
    """Collects what the document has; ids of files are their numbers in the order of their paths."""

    def __init__(self, tree: ImageTree, reader: Reader) -> None:
        self._tree = tree
        self._reader = reader
        self._files = [node for node in tree.nodes if node.type is FileType.FILE]
        self._ids = {node.path: f"SPDXRef-File-{number}" for number, node in enumerate(self._files)}
        self._sha1 = {node.path: reader.sums(node).sha1 for node in self._files}
        self._licences: set[str] = set()
        self._relationships = [_relationship(DOCUMENT, DESCRIBES, IMAGE)]

    def text(self, name: str, time: int) -> bytes:
        name = _readable(name)
        packages = [self._image(name)]
        found: dict[str, Package] = {}
        for layer in self._tree.layers:
            if layer.bundle in self._tree.bundles:
                packages.append(self._bundle(layer, found))
        packages += [self._package(found[name]) for name in sorted(found)]
        number = uuid5(self._tree.uuid, f"{VERSION} {name} {time}")
        head = {
            "spdxVersion": VERSION,
            "dataLicense": "CC0-1.0",
            "SPDXID": DOCUMENT,
            "name": name,
            "documentNamespace": f"{_NAMESPACE}/{quote(name, safe='')}-{number}",
            "creationInfo": {
                "created": datetime.fromtimestamp(time, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
                "creators": [f"Tool: mixer-{__version__}"],
            },
        }
        lists: dict[str, Iterable[Mapping[str, Any]]] = {
            "packages": packages,
            "files": map(self._file, self._files),
            "hasExtractedLicensingInfos": map(_licence, sorted(self._licences)),
            "relationships": self._relationships,
        }
        parts = [f"{_json(key)}: {_json(value)}" for key, value in head.items()]
        parts += [f"{_json(key)}: [\n{_lines(values)}\n]" for key, values in lists.items()]
        body = ",\n".join(parts)
        return f"{{{body}}}\n".encode()

    # -- packages ------------------------------------------------------------------------------------------------------

    def _image(self, name: str) -> dict[str, Any]:
        tree = self._tree
        return {
            "SPDXID": IMAGE,
            "name": name,
            "versionInfo": f"{tree.version}",
            "primaryPackagePurpose": "OPERATING-SYSTEM",
            "comment": f"Version {tree.version}, Manifest.MoM {tree.mom_hash}",
            **self._contents(IMAGE, ()),
        }

    def _bundle(self, layer: Layer, found: dict[str, Package]) -> dict[str, Any]:
        """A bundle, and relationships to what it contains; adds the packages to those that were found."""
        bundle = f"SPDXRef-Bundle-{_id(layer.bundle)}"
        self._relationships.append(_relationship(IMAGE, CONTAINS, bundle))
        packages: dict[str, Package] = {}
        own = []
        for path in layer.paths:
            package = self._tree.packages.owner(path) if self._tree.packages else None
            if package is not None:
                packages[package.name] = package
            elif path in self._ids:
                own.append(path)
        self._relationships += [_relationship(bundle, CONTAINS, _package_id(name)) for name in sorted(packages)]
        found |= packages
        return {
            "SPDXID": bundle,
            "name": layer.bundle,
            "versionInfo": f"{layer.version}",
            **self._contents(bundle, own),
        }

    def _package(self, package: Package) -> dict[str, Any]:
        spdx_id = _package_id(package.name)
        self._licences.update(_REFERENCE.findall(package.licence))
        maintainer = _MAINTAINER.fullmatch(package.supplier)
        result: dict[str, Any] = {
            "SPDXID": spdx_id,
            "name": package.name,
            "versionInfo": package.version,
            "supplier": f"Organization: {_plain(maintainer[1])} ({maintainer[2]})" if maintainer else _UNKNOWN,
            "licenseConcluded": _UNKNOWN,
            "licenseDeclared": package.licence or _UNKNOWN,
            "copyrightText": _UNKNOWN,
        }
        if package.source:
            result["sourceInfo"] = f"built from the source package {package.source}"
        if _WEB.fullmatch(package.homepage):
            result["homepage"] = package.homepage
        if _PURL.fullmatch(package.purl):
            result["externalRefs"] = [
                {
                    "referenceCategory": "PACKAGE-MANAGER",
                    "referenceType": "purl",
                    "referenceLocator": package.purl,
                }
            ]
        return result | self._contents(spdx_id, [path for path in package.files if path in self._ids])

    def _contents(self, owner: str, paths: Iterable[str]) -> dict[str, Any]:
        """What a package says about the files that it contains; with relationships to them."""
        listed = sorted(paths, key=os.fsencode)
        self._relationships += [_relationship(owner, CONTAINS, self._ids[path]) for path in listed]
        result: dict[str, Any] = {"downloadLocation": _UNKNOWN, "filesAnalyzed": bool(listed)}
        if listed:
            sums = "".join(sorted(self._sha1[path] for path in listed))
            code = hashlib.sha1(sums.encode(), usedforsecurity=False).hexdigest()
            result["packageVerificationCode"] = {"packageVerificationCodeValue": code}
        return result

    # -- files ---------------------------------------------------------------------------------------------------------

    def _file(self, node: Node) -> dict[str, Any]:
        sums = self._reader.sums(node)
        return {
            "SPDXID": self._ids[node.path],
            "fileName": f".{_readable(node.path)}",
            "checksums": [
                {"algorithm": "SHA1", "checksumValue": sums.sha1},
                {"algorithm": "SHA256", "checksumValue": sums.sha256},
            ],
            "comment": COMMENT.format(size=node.size, mode=node.mode, uid=node.uid, gid=node.gid),
        }


def _licence(reference: str) -> dict[str, str]:
    return {
        "licenseId": reference,
        "name": reference.removeprefix("LicenseRef-"),
        "extractedText": "The text is in the copyright file of each package that is under this licence.",
    }


def _relationship(element: str, kind: str, related: str) -> dict[str, str]:
    return {"spdxElementId": element, "relationshipType": kind, "relatedSpdxElement": related}


def _package_id(name: str) -> str:
    return f"SPDXRef-Package-{_id(name)}"


def _id(name: str) -> str:
    """A name in the characters of an SPDX id; different names stay different."""
    return "".join(chr(byte) if byte in _PLAIN else f".{byte:02x}" for byte in os.fsencode(name))


def _readable(name: str) -> str:
    """A name of a file, of which each byte that is no text is shown as such."""
    return os.fsencode(name).decode(errors="backslashreplace")


def _plain(name: str) -> str:
    """A name without what ends it in SPDX."""
    return name.replace("(", "[").replace(")", "]").strip('" ') or "unnamed"


def _lines(values: Iterable[Mapping[str, Any]]) -> str:
    return ",\n".join(map(_json, values))


def _json(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))
