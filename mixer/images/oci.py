"""Container images as the Open Container Initiative specifies them: a layer for each bundle, in include order.

    oci            an image layout, a directory, to which images of other bundles and versions can be added
    oci-archive    a layout with this one image, as a tar

* The same tree, settings and time give the same image, and a bundle that did not change gives the same layer in every
  image and version (mixer.images.ocilayers): layouts store it once, registries take it once, clients pull it once. So
  that this holds for os-core, the files that name the version have a layer of their own.
* An archive appears whole, and so does a layout that was not there (mixer.images.output). One that is there changes in
  one step (mixer.images.ocilayout); what lies beside it is about the image that was added last.
* No layer hides what another one has: all bundles of a version have the same object at a path.

The image runs nothing unless its settings say what.
"""

from __future__ import annotations

import re
import time as clock
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from mixer.errors import BuildError
from mixer.images import ocilayout, output, spdx
from mixer.images.ocilayers import Compression, LayerStore, StoredLayer
from mixer.images.ocilayout import Blob
from mixer.images.output import Unfinished
from mixer.images.tree import ImageTree, Layer, Reader
from mixer.table import table
from swupd.formats import layout
from swupd.report import Report, counted, human_size

LAYOUT, ARCHIVE = "oci", "oci-archive"
"""The types."""

VERSION_FILES = frozenset({layout.OS_RELEASE, layout.VERSION_FILE, layout.VERSION_STAMP})
"""What no two versions have in common."""

PLATFORM = {"architecture": "amd64", "os": "linux"}
MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
CONFIG_TYPE = "application/vnd.oci.image.config.v1+json"
DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

OURS = "org.swupd."
"""What the names of our labels begin with."""

_NAME = re.compile(r"[A-Za-z0-9]+(?:(?:[-._:@+/]|--)[A-Za-z0-9]+)*")
"""Names of images in a layout (OCI image specification, annotations)."""
_MAX_NAME_CHARACTERS = 255
_USER = re.compile(r"[^\s:]+(:[^\s:]+)?")


@dataclass(frozen=True)
class Settings:
    """What runs in a container of the image, and what is said about it. Raises BuildError for what cannot be."""

    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    """Arguments of the entry point; the command itself if there is none."""
    env: Mapping[str, str] = field(default_factory=dict)
    """Besides PATH, which it can replace."""
    workdir: str = ""
    user: str = ""
    """Name or id, with ":" and that of a group perhaps; empty: root."""
    labels: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for text in _texts(self):
            if not _is_text(text):
                raise BuildError(f"{text!r} cannot be in the configuration of a container: it is not text")
        for command in (self.entrypoint, self.cmd):
            if command and not command[0]:
                raise BuildError("an empty name cannot be the command of a container")
        for name in self.env:
            if not name or "=" in name:
                raise BuildError(f"{name!r} cannot be the name of an environment variable")
        if self.workdir and not self.workdir.startswith("/"):
            raise BuildError(f"the working directory {self.workdir!r} does not begin with a slash")
        if self.user and not _USER.fullmatch(self.user):
            raise BuildError(
                f"{self.user!r} is not a user", hint="name a user or an id, such as daemon, 1000 or 1000:100"
            )
        for name in self.labels:
            if not name or name.startswith(OURS):
                raise BuildError(
                    f"{name!r} cannot be a label", hint=f"the labels {OURS}… say what the image consists of"
                )


@dataclass(frozen=True, slots=True)
class PackedLayer:
    """What a bundle adds to the image."""

    name: str
    """Of the bundle, and what of it if that is not all."""
    version: int
    """In which the bundle changed last."""
    time: int
    """Of its files, in seconds since 1970."""
    stored: StoredLayer


@dataclass(frozen=True)
class Image:
    """What was made."""

    path: Path
    name: str
    digest: str
    """Of the manifest."""
    version: int
    layers: tuple[PackedLayer, ...]
    size: int
    """Bytes of all blobs that the image needs."""
    seconds: float

    def table(self) -> str:
        """The summary for people."""
        reused = sum(layer.stored.reused for layer in self.layers)
        return table(
            [
                ("image", f"{self.path}:{self.name}", human_size(self.size)),
                ("manifest", "", self.digest),
                ("version", f"{self.version}", ""),
                ("layers", f"{len(self.layers)}", f"{reused} of them as they were"),
                *((f"  {layer.name}", f"{layer.version}", human_size(layer.stored.size)) for layer in self.layers),
                ("seconds", f"{self.seconds:.1f}", ""),
            ]
        )


def build(
    tree: ImageTree,
    target: Path,
    report: Report,
    *,
    time: int | None,
    cache: Path,
    archive: bool = False,
    name: str = "",
    settings: Settings | None = None,
    compression: Compression = Compression.GZIP,
) -> Image:
    """Write the image to a layout, or as an archive, under a name (default: its version).

    `time`, of all files, in seconds since 1970; with None, or the time of the version, each has its own. `cache`, where
    layers are kept. Raises BuildError for a name or place that does not do, and for content that cannot be in an image.
    """
    start = clock.monotonic()
    name = name or str(tree.version)
    if len(name) > _MAX_NAME_CHARACTERS or not _NAME.fullmatch(name):
        raise BuildError(
            f"{name!r} cannot be the name of an image", hint="names are such as 10, edge or tools/editor:10"
        )
    is_there = not archive and target.exists()
    if is_there:
        with output.explained(target):
            ocilayout.check(target)
    created = tree.timestamp if time is None else time
    reader = Reader(tree, report)
    report.step("layers", f"Packing {counted(len(tree.layers), 'layer')}")
    layers = tuple(_layers(tree, reader, LayerStore(cache), created, compression))
    config = ocilayout.document(CONFIG_TYPE, _config(tree, layers, settings or Settings(), created))
    manifest = ocilayout.document(MANIFEST_TYPE, _manifest(config, layers))
    blobs = {blob.digest: blob for blob in (*map(_blob, layers), config, manifest)}.values()
    image = manifest.descriptor(platform=PLATFORM, annotations={ocilayout.NAME: name})
    size = sum(blob.size for blob in blobs)
    kind = ARCHIVE if archive else LAYOUT
    report.step("image", f"Writing version {tree.version} to {target}")
    with _writing(target, archive=archive, is_there=is_there) as unfinished:
        unfinished.facts = {
            **tree.facts(kind),
            "name": name,
            "manifest": manifest.digest,
            "layers": [_layer_facts(layer) for layer in layers],
            "bytes": size,
        }
        unfinished.sbom = spdx.document(tree, reader, name=target.name, time=created)
        if archive:
            with unfinished.path.open("r+b") as file:
                ocilayout.write_archive(file, image, list(blobs), time=created)
        else:
            ocilayout.add(unfinished.path, image, list(blobs))
    return Image(
        path=target,
        name=name,
        digest=manifest.digest,
        version=tree.version,
        layers=layers,
        size=size,
        seconds=clock.monotonic() - start,
    )


def _writing(target: Path, *, archive: bool, is_there: bool) -> AbstractContextManager[Unfinished]:
    if archive:
        return output.writing(target)
    return output.describing(target) if is_there else output.filling(target, LAYOUT)


# -- layers ------------------------------------------------------------------------------------------------------------


def _layers(
    tree: ImageTree, reader: Reader, store: LayerStore, created: int, compression: Compression
) -> Iterator[PackedLayer]:
    """What is different in every version comes last, so that the rest of its bundle need not change with it."""
    nodes = {node.path: node for node in tree.nodes}
    time = None if created == tree.timestamp else created

    def packed(layer: Layer, name: str, paths: Iterable[str]) -> PackedLayer:
        stored = store.layer([nodes[path] for path in paths], reader.content, time=time, compression=compression)
        return PackedLayer(name, layer.version, layer.timestamp if time is None else time, stored)

    for layer in tree.layers:
        yield packed(layer, layer.bundle, (path for path in layer.paths if path not in VERSION_FILES))
    for layer in tree.layers:
        if paths := [path for path in layer.paths if path in VERSION_FILES]:
            yield packed(layer, f"{layer.bundle}: version", paths)


def _blob(layer: PackedLayer) -> Blob:
    stored = layer.stored
    return Blob(stored.compression.media_type, stored.digest, stored.size, stored.path)


def _layer_facts(layer: PackedLayer) -> Mapping[str, object]:
    stored = layer.stored
    return {"bundle": layer.name, "version": layer.version, "digest": stored.digest, "bytes": stored.size}


# -- documents (OCI image specification, "image manifest" and "image configuration") -----------------------------------


def _manifest(config: Blob, layers: Iterable[PackedLayer]) -> Mapping[str, object]:
    return {
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "config": config.descriptor(),
        "layers": [_blob(layer).descriptor() for layer in layers],
    }


def _config(tree: ImageTree, layers: Sequence[PackedLayer], settings: Settings, created: int) -> Mapping[str, object]:
    return {
        "created": _rfc3339(created),
        **PLATFORM,
        "config": _execution(tree, settings, created),
        "rootfs": {"type": "layers", "diff_ids": [layer.stored.diff_id for layer in layers]},
        "history": [
            {
                "created": _rfc3339(layer.time),
                "created_by": f"mixer build image: bundle {layer.name} of version {layer.version}",
            }
            for layer in layers
        ],
    }


def _execution(tree: ImageTree, settings: Settings, created: int) -> Mapping[str, object]:
    labels = {
        "org.opencontainers.image.created": _rfc3339(created),
        "org.opencontainers.image.version": f"{tree.version}",
        f"{OURS}bundles": ",".join(tree.bundles),
        f"{OURS}mom": tree.mom_hash,
    }
    execution: dict[str, object] = {
        "User": settings.user,
        "Env": [f"{name}={value}" for name, value in {"PATH": DEFAULT_PATH, **settings.env}.items()],
        "Entrypoint": list(settings.entrypoint),
        "Cmd": list(settings.cmd),
        "WorkingDir": settings.workdir,
        "Labels": {**labels, **settings.labels},
    }
    return {name: value for name, value in execution.items() if value}


def _rfc3339(time: int) -> str:
    return datetime.fromtimestamp(time, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


# -- settings ----------------------------------------------------------------------------------------------------------


def _texts(settings: Settings) -> Iterator[str]:
    yield from (*settings.entrypoint, *settings.cmd, settings.workdir, settings.user)
    for pairs in (settings.env, settings.labels):
        yield from (*pairs, *pairs.values())


def _is_text(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return "\0" not in text
