"""A published version as the tree of a root file system: what every image is made of.

No root is built, so it needs neither root nor room on disk. What a tree guarantees:

* It is what a machine with these bundles would be after `swupd os-install`: all present files of the bundles, of what
  they include, and of os-core. What they also-add is optional and not in it. A guest can do without os-core (`load`).
* All of it is verified: the MoM by its signature with the mix's certificate, manifests by the hashes in the MoM,
  objects by their swupd hashes. For a file of more than a megabyte that is done when its content is read.
* The same version and bundles give the same tree, on every machine: nothing else is looked at.
* Every directory is there before what is in it, and there is one object at each path.

Objects come from the content store; what the store has lost is taken from what was published, wherever that lies. So
the workspace's lock has to be held meanwhile. Content is read when it is asked for, quickest in the order of the nodes.
Whatever is missing or damaged is a BuildError that names path and hash. One thread at a time.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from uuid import UUID, uuid5

from mixer import packagelist
from mixer.config import Config
from mixer.content import ContentStore
from mixer.errors import BuildError
from mixer.located import did_you_mean
from mixer.manifests import manifest_hash
from mixer.packagelist import PackageList
from mixer.store import PublishedTree, PublishedVersion, open_tree
from mixer.subtraction import parents
from mixer.workspace import Workspace
from swupd.formats import layout
from swupd.formats.archive import Member, ObjectType
from swupd.formats.manifest import Entry, FileType, Manifest, parse
from swupd.report import Report

LINK_MODE = 0o777
STANDALONE = "/usr/lib/swupd/standalone"
"""A bundle with a file of its name in there needs nothing of os-core to run."""
PROGRESS_OBJECTS = 100
"""Objects between two reports of progress."""

_NAMESPACE = UUID("8c1f8a0e-3a0b-5f0e-9a53-1d3c26a4f7c1")


@dataclass(frozen=True, slots=True)
class Node:
    """A file, directory or link of the tree."""

    path: str
    """Absolute: "/usr/bin/ls"."""
    type: FileType
    mode: int
    """Permission bits, setuid, setgid and sticky among them."""
    uid: int
    gid: int
    size: int
    """Bytes of content; 0 unless a file."""
    target: str
    """Text of a link."""
    hash: str
    """The swupd hash."""
    time: int = 0
    """Of its last change, as clients set it, in seconds since 1970. No part of the hash."""


@dataclass(frozen=True, slots=True)
class Layer:
    """What one bundle adds to those before it."""

    bundle: str
    version: int
    """Of its manifest: the one in which the bundle changed last."""
    timestamp: int
    """When that was made, in seconds since 1970."""
    paths: tuple[str, ...]
    """Sorted as the nodes are. Directories that os-core has are not repeated."""


@dataclass(frozen=True)
class ImageTree:
    """What an image contains."""

    version: int
    bundles: tuple[str, ...]
    """All of them, sorted: those asked for, and what they include."""
    mom_hash: str
    """The swupd hash of the MoM."""
    timestamp: int
    """When the version was made, in seconds since 1970."""
    nodes: tuple[Node, ...]
    """Sorted by path, parents before children, without "/"."""
    layers: tuple[Layer, ...]
    """One for each bundle, what it includes before it; os-core, or what a guest has of it, is the first."""
    packages: PackageList | None
    """What the version says about its packages; None if it says nothing."""
    _objects: ContentStore = field(repr=False)
    _published: PublishedVersion = field(repr=False)

    @property
    def uuid(self) -> UUID:
        """What identifies this version with these bundles, wherever the image is made."""
        return uuid5(_NAMESPACE, " ".join((self.mom_hash, *self.bundles)))

    @property
    def content_bytes(self) -> int:
        """Bytes of all files."""
        return sum(node.size for node in self.nodes)

    def facts(self, kind: str) -> dict[str, object]:
        """What every type of image says about itself."""
        return {
            "type": kind,
            "version": self.version,
            "bundles": self.bundles,
            "mom": self.mom_hash,
            "files": len(self.nodes),
            "content_bytes": self.content_bytes,
        }

    def content(self, node: Node) -> bytes:
        """The content of a file of the tree. Raises BuildError if it is damaged."""
        with _opened(self._objects, node.path, node.hash) as (member, chunks):
            data = b"".join(chunks)
        if _node(node.path, node.hash, member) != node:
            raise BuildError(f"the object {node.hash} of {node.path} was replaced meanwhile", hint="build again")
        return data

    def find(self, path: str) -> Node | None:
        """What is at a path; links are not followed."""
        return self._by_path.get(path)

    def text(self, path: str) -> str:
        """The content of a file as text; empty if there is no such file."""
        node = self.find(path)
        return self.content(node).decode(errors="replace") if node and node.type is FileType.FILE else ""

    def bundles_with(self, beginning: str) -> list[str]:
        """The bundles of the version, in the tree or not, with a file whose path begins so. Raises BuildError."""
        names = (line.name for line in self._published.mom.entries if line.is_present)
        return [name for name in names if _has(self._published.manifest(name), beginning)]

    @cached_property
    def _by_path(self) -> Mapping[str, Node]:
        return {node.path: node for node in self.nodes}


@dataclass(frozen=True, slots=True)
class Sums:
    """Checksums of a file's content, in hex."""

    sha1: str
    sha256: str


class Reader:
    """Reads the content of a tree for a writer, tells how far that is, and remembers the checksums."""

    def __init__(self, tree: ImageTree, report: Report) -> None:
        self._tree = tree
        self._report = report
        self._total = tree.content_bytes
        self._done = 0
        self._sums: dict[str, Sums] = {}

    def content(self, node: Node) -> bytes:
        """The content of a file. Raises BuildError."""
        data = self._tree.content(node)
        if node.hash not in self._sums:
            sha1 = hashlib.sha1(data, usedforsecurity=False).hexdigest()
            self._sums[node.hash] = Sums(sha1, hashlib.sha256(data).hexdigest())
        self._done += node.size
        self._report.progress(min(self._done, self._total), self._total)
        return data

    def sums(self, node: Node) -> Sums:
        """Those of a file; its content is read if it was not read before. Raises BuildError."""
        if node.hash not in self._sums:
            self.content(node)
        return self._sums[node.hash]


def load(
    workspace: Workspace,
    config: Config,
    report: Report,
    *,
    version: int | None = None,
    bundles: Sequence[str] = (),
    signed: bool = True,
    whole: bool = True,
) -> ImageTree:
    """The tree of a published version (None: the newest) with these bundles; signatures are left out if not `signed`.

    Not `whole`: if all of the bundles, and what they include, are STANDALONE, of os-core only the directories and links
    in / and /usr come along, and the directories that lead to their files.

    Raises BuildError, SignatureError for a certificate that cannot be used.
    """
    published = open_tree(config.published, workspace.www, report)
    found = published.version(version or published.latest())
    mom_hash = _verified_mom(published, found, config, report, signed=signed)
    manifests = _closure(found, bundles)
    parts = {name: _present(manifest) for name, manifest in manifests.items()}
    names = sorted(parts)
    if not whole and len(parts) > 1 and all(_is_standalone(name, part) for name, part in parts.items()):
        names.remove(layout.OS_CORE)
        parts[layout.OS_CORE] = _frame(parts)
    entries = _merged(parts)
    objects = ContentStore(workspace.objects)
    _fetch(objects, published, entries)
    return ImageTree(
        version=found.mom.version,
        bundles=tuple(names),
        mom_hash=mom_hash,
        timestamp=found.mom.timestamp,
        nodes=tuple(_nodes(objects, entries, report)),
        layers=tuple(_layer(name, manifests[name], parts[name]) for name in _include_order(manifests)),
        packages=packagelist.load(published, found.mom.version, config, signed=signed),
        _objects=objects,
        _published=found,
    )


# -- manifests ---------------------------------------------------------------------------------------------------------


def _verified_mom(
    published: PublishedTree, found: PublishedVersion, config: Config, report: Report, *, signed: bool
) -> str:
    """The hash of the MoM, whose signature is good."""
    version = found.mom.version
    name = layout.manifest(version, layout.MOM)
    data = published.read(name)
    if parse(data, name=layout.MOM, is_mom=True) != found.mom:
        raise BuildError(f"version {version} was replaced in {published.shown} meanwhile", hint="do it again")
    if signed and config.certificate.exists():
        published.verify(name, data, config.certificate)
    else:
        report.warning(f"the signature of version {version} is not checked")
    return manifest_hash(data)


def _closure(found: PublishedVersion, asked: Sequence[str]) -> dict[str, Manifest]:
    """The manifests of the bundles that are asked for and of all they include."""
    known = [line.name for line in found.mom.entries if line.is_present]
    names = list(dict.fromkeys((layout.OS_CORE, *asked)))
    manifests: dict[str, Manifest] = {}
    for name in names:
        manifest = found.manifest(name) if name in known else None
        if manifest is None:
            raise BuildError(
                f"version {found.mom.version} has no bundle {name!r}",
                hint=did_you_mean(name, known) or "`mixer bundle list` shows the bundles of the mix",
            )
        manifests[name] = manifest
        names += [include for include in manifest.includes if include not in names]
    return manifests


def _include_order(manifests: Mapping[str, Manifest]) -> list[str]:
    """The bundles, each after those that it includes, as far as they do not include each other; os-core first."""
    order: dict[str, None] = {}
    waiting = [(name, False) for name in sorted(manifests, key=lambda name: (name == layout.OS_CORE, name))][::-1]
    waiting.append((layout.OS_CORE, True))
    opened: set[str] = set()
    while waiting:
        name, is_ready = waiting.pop()
        if is_ready:
            order[name] = None
        elif name not in opened:
            opened.add(name)
            waiting.append((name, True))
            waiting += [(include, False) for include in reversed(manifests[name].includes)]
    return list(order)


def _present(manifest: Manifest) -> dict[str, Entry]:
    return {entry.name: entry for entry in manifest.entries if entry.is_present}


def _is_standalone(name: str, part: Mapping[str, Entry]) -> bool:
    return name == layout.OS_CORE or f"{STANDALONE}/{name}" in part


def _frame(parts: Mapping[str, Mapping[str, Entry]]) -> dict[str, Entry]:
    """What guests without os-core have of it: places to mount something, and the way to what is theirs."""
    paths = (path for name, part in parts.items() if name != layout.OS_CORE for path in part)
    leading = parents(paths)
    return {
        path: entry
        for path, entry in parts[layout.OS_CORE].items()
        if entry.type is not FileType.FILE and (path in leading or path.rpartition("/")[0] in ("", "/usr"))
    }


def _layer(name: str, manifest: Manifest, part: Mapping[str, Entry]) -> Layer:
    return Layer(name, manifest.version, manifest.timestamp, tuple(sorted(part, key=os.fsencode)))


def _merged(parts: Mapping[str, Mapping[str, Entry]]) -> dict[str, Entry]:
    """Path -> entry, sorted as the nodes are."""
    merged: dict[str, Entry] = {}
    for name, part in parts.items():
        for path, entry in part.items():
            if merged.setdefault(path, entry).hash != entry.hash:
                raise BuildError(f"bundle {name} has another object at {path} than the bundles that it goes with")
    for path in merged:
        parent = path.rpartition("/")[0]
        if parent and (parent not in merged or merged[parent].type is not FileType.DIRECTORY):
            raise BuildError(
                f"{path} has no directory to be in: no bundle of the image has {parent} as a directory",
                hint=f"let a bundle of the image have {parent}, and build a version",
            )
    return dict(sorted(merged.items(), key=lambda item: os.fsencode(item[0])))


def _has(manifest: Manifest | None, beginning: str) -> bool:
    return manifest is not None and any(e.is_present and e.name.startswith(beginning) for e in manifest.entries)


# -- objects -----------------------------------------------------------------------------------------------------------


def _fetch(objects: ContentStore, published: PublishedTree, entries: Mapping[str, Entry]) -> None:
    try:
        objects.fetch(
            {entry.hash: layout.fullfile(entry.version, entry.hash) for entry in entries.values()}, published.open
        )
    except BuildError as error:
        hint = error.hint or "an image needs the fullfiles of its version: build again without --skip-fullfiles"
        raise BuildError(str(error), hint=hint) from error


def _nodes(objects: ContentStore, entries: Mapping[str, Entry], report: Report) -> Iterator[Node]:
    known: dict[str, Member] = {}
    for number, (path, entry) in enumerate(entries.items()):
        if entry.hash not in known:
            with _opened(objects, path, entry.hash) as (member, _):
                known[entry.hash] = member
        node = _node(path, entry.hash, known[entry.hash])
        if node.type is not entry.type:
            raise BuildError(f"the object {entry.hash} of {path} is not of the type that its manifest says")
        if number % PROGRESS_OBJECTS == 0:
            report.progress(number, len(entries))
        yield node
    report.progress(len(entries), len(entries))


@contextmanager
def _opened(objects: ContentStore, path: str, file_hash: str) -> Iterator[tuple[Member, Iterator[bytes]]]:
    try:
        with objects.open(file_hash) as opened:
            yield opened
    except BuildError as error:
        raise BuildError(f"cannot read {path}, the object {file_hash}: {error}", hint=error.hint) from error


def _node(path: str, file_hash: str, member: Member) -> Node:
    # The mode of a link means nothing, is not in its hash, and is this in every file system.
    mode = LINK_MODE if member.type is ObjectType.LINK else stat.S_IMODE(member.mode)
    return Node(
        path=path,
        type=FileType(member.type),
        mode=mode,
        uid=member.uid,
        gid=member.gid,
        size=member.size,
        target=member.target,
        hash=file_hash,
        time=int(member.mtime),
    )
