from __future__ import annotations

import hashlib
import json
import os
import resource
import shutil
import signal
import stat
import subprocess
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from mixer.errors import BuildError
from mixer.images import oci
from mixer.images.oci import Image, Settings
from mixer.images.ocilayers import Compression
from mixer.images.tree import ImageTree
from mixer.workspace import State
from swupd.formats.manifest import FileType
from swupd.report import TextReport

NAMES = ("os-core", "editor", "office", "os-core: version")
"""Of the layers of an image with the bundle office."""
"""Of version 10."""
needs_skopeo = pytest.mark.skipif(shutil.which("skopeo") is None, reason="needs skopeo")
needs_umoci = pytest.mark.skipif(shutil.which("umoci") is None, reason="needs umoci")


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "layers"


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "layout"


def build(tree: ImageTree, target: Path, cache: Path, *, time: int | None = None, **options: Any) -> Image:
    return oci.build(tree, target, TextReport(), time=time, cache=cache, **options)


def next_version(published: Any, changed: Mapping[str, str]) -> None:
    """Version 20, in which these files are others."""
    source = published.mix.source
    shutil.copytree(source / "10", source / "20", symlinks=True)
    for path, text in changed.items():
        (source / "20/full" / path[1:]).write_text(text)
    (source / "20/full/usr/share/clear/versionstamp").write_text("1700000020")
    published.mix.workspace.set_mix_version(20)
    published.mix.workspace.set_state(State(30, 10))
    published.build(packs=False)


def snapshot(path: Path) -> dict[str, bytes]:
    return {str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()}


def blob(layout: Path, descriptor: Mapping[str, Any]) -> bytes:
    """The content of a blob, whose size and hash are what its descriptor says."""
    algorithm, _, name = descriptor["digest"].partition(":")
    data: bytes = (layout / "blobs" / algorithm / name).read_bytes()
    assert (len(data), hashlib.new(algorithm, data).hexdigest()) == (descriptor["size"], name)
    return data


def read(layout: Path, name: str) -> tuple[Any, Any]:
    """Manifest and configuration of an image."""
    images = json.loads((layout / "index.json").read_text())["manifests"]
    (descriptor,) = [image for image in images if image["annotations"]["org.opencontainers.image.ref.name"] == name]
    manifest = json.loads(blob(layout, descriptor))
    return manifest, json.loads(blob(layout, manifest["config"]))


# -- what an image consists of -----------------------------------------------------------------------------------------


def test_an_image_has_a_layer_for_each_bundle_after_what_it_includes(published: Any, target: Path, cache: Path) -> None:
    image = build(published.load("office"), target, cache)

    manifest, config = read(target, "10")
    assert tuple(layer.name for layer in image.layers) == NAMES
    assert [line["created_by"] for line in config["history"]] == [
        f"mixer build image: bundle {bundle} of version 10" for bundle in NAMES
    ]
    assert len(manifest["layers"]) == len(config["rootfs"]["diff_ids"]) == 4
    assert all(blob(target, layer) for layer in manifest["layers"])


@pytest.mark.parametrize("compression", Compression)
def test_the_documents_are_what_the_specification_says(
    published: Any, target: Path, cache: Path, compression: Compression
) -> None:
    build(published.load(), target, cache, compression=compression)

    (image,) = json.loads((target / "index.json").read_text())["manifests"]
    manifest, config = read(target, "10")
    assert image == {
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "digest": image["digest"],
        "size": image["size"],
        "platform": {"architecture": "amd64", "os": "linux"},
        "annotations": {"org.opencontainers.image.ref.name": "10"},
    }
    assert manifest.keys() == {"schemaVersion", "mediaType", "config", "layers"}
    assert (manifest["schemaVersion"], manifest["mediaType"]) == (2, image["mediaType"])
    assert manifest["config"]["mediaType"] == "application/vnd.oci.image.config.v1+json"
    media_types = {layer["mediaType"] for layer in manifest["layers"]}
    assert media_types == {f"application/vnd.oci.image.layer.v1.tar+{compression.value}"}
    assert config.keys() == {"created", "architecture", "os", "config", "rootfs", "history"}
    assert (config["architecture"], config["os"], config["created"]) == ("amd64", "linux", "2023-11-14T22:13:30Z")
    assert config["rootfs"]["type"] == "layers"
    assert config["history"][0]["created"] == "2023-11-14T22:13:30Z"


def test_an_image_runs_nothing_unless_told(published: Any, target: Path, cache: Path) -> None:
    tree = published.load("office")

    build(tree, target, cache)

    assert read(target, "10")[1]["config"] == {
        "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
        "Labels": {
            "org.opencontainers.image.created": "2023-11-14T22:13:30Z",
            "org.opencontainers.image.version": "10",
            "org.swupd.bundles": "editor,office,os-core",
            "org.swupd.mom": tree.mom_hash,
        },
    }


def test_settings_are_in_the_configuration(published: Any, target: Path, cache: Path) -> None:
    settings = Settings(
        entrypoint=("/usr/bin/sh", "-c"),
        cmd=("écho $A",),
        env={"PATH": "/usr/bin", "A": "x=y"},
        workdir="/srv",
        user="1000:100",
        labels={"org.example.who": "we", "org.opencontainers.image.version": "ten"},
    )

    build(published.load(), target, cache, settings=settings)

    found = read(target, "10")[1]["config"]
    labels = found.pop("Labels")
    assert found == {
        "User": "1000:100",
        "Env": ["PATH=/usr/bin", "A=x=y"],
        "Entrypoint": ["/usr/bin/sh", "-c"],
        "Cmd": ["écho $A"],
        "WorkingDir": "/srv",
    }
    assert (labels["org.example.who"], labels["org.opencontainers.image.version"]) == ("we", "ten")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"entrypoint": ("",)}, "an empty name cannot be the command"),
        ({"cmd": ("a\0b",)}, "is not text"),
        ({"cmd": ("a", "\udcff")}, "is not text"),
        ({"env": {"": "x"}}, "cannot be the name of an environment variable"),
        ({"env": {"A=B": "x"}}, "cannot be the name of an environment variable"),
        ({"workdir": "srv"}, "does not begin with a slash"),
        ({"user": "a b"}, "is not a user"),
        ({"user": "a:b:c"}, "is not a user"),
        ({"labels": {"": "x"}}, "cannot be a label"),
        ({"labels": {"org.swupd.mom": "x"}}, "cannot be a label"),
    ],
)
def test_settings_that_cannot_be_are_one_line(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(BuildError, match=message):
        Settings(**settings)


# -- what stays the same -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("archive", [False, True])
def test_an_image_is_the_same_from_another_cache(published: Any, tmp_path: Path, *, archive: bool) -> None:
    made = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        build(published.load("office"), tmp_path / name / "image", tmp_path / name / "cache", archive=archive)
        shutil.rmtree(tmp_path / name / "cache")
        made.append(snapshot(tmp_path / name))

    assert made[0] == made[1]


def test_a_second_build_packs_nothing_and_says_the_same(published: Any, target: Path, cache: Path) -> None:
    tree = published.load("office")
    build(tree, target, cache)
    before = snapshot(target.parent)

    image = build(tree, target, cache)

    assert all(layer.stored.reused for layer in image.layers)
    assert snapshot(target.parent) == before


def test_images_share_the_layers_of_their_bundles(published: Any, target: Path, cache: Path) -> None:
    build(published.load("office"), target, cache, name="office")
    before = snapshot(target)

    build(published.load("editor", "kernel"), target, cache, name="desk")

    office, desk = read(target, "office")[0], read(target, "desk")[0]
    assert [layer in office["layers"] for layer in desk["layers"]] == [True, True, False, True]
    assert len(snapshot(target)) == len(before) + 3


def test_bundles_that_did_not_change_have_the_same_layer_in_the_next_version(
    published: Any, target: Path, cache: Path
) -> None:
    build(published.load("office"), target, cache)
    next_version(published, {"/usr/bin/office": "office 20"})

    image = build(published.load("office"), target, cache)

    assert [layer.stored.reused for layer in image.layers] == [True, True, False, False]
    assert [layer.version for layer in image.layers] == [20, 10, 20, 20]
    old, new = read(target, "10")[0]["layers"], read(target, "20")[0]["layers"]
    assert [a == b for a, b in zip(old, new, strict=True)] == [True, True, False, False]


def test_a_time_that_was_given_is_that_of_everything(published: Any, target: Path, cache: Path) -> None:
    image = build(published.load("office"), target, cache, time=1)

    config = read(target, "10")[1]
    assert {config["created"], *(line["created"] for line in config["history"])} == {"1970-01-01T00:00:01Z"}
    for layer in image.layers:
        with tarfile.open(layer.stored.path) as archive:
            assert {member.mtime for member in archive} == {1}


def test_a_damaged_layer_of_the_cache_does_not_get_into_an_image(published: Any, target: Path, cache: Path) -> None:
    first = build(published.load("office"), target, cache)
    shutil.rmtree(target)
    path = first.layers[1].stored.path
    path.write_bytes(path.read_bytes()[:-1] + b"x")

    second = build(published.load("office"), target, cache)

    assert [layer.stored.reused for layer in second.layers] == [True, False, True, True]
    assert second.digest == first.digest
    assert all(blob(target, layer) for layer in read(target, "10")[0]["layers"])


# -- where it goes -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("archive", [False, True])
def test_the_facts_are_beside_it(published: Any, target: Path, cache: Path, *, archive: bool) -> None:
    tree = published.load("editor")

    image = build(tree, target, cache, archive=archive, name="edge")

    facts = json.loads(target.with_name("layout.json").read_text())
    assert facts == {
        **json.loads(json.dumps(tree.facts("oci-archive" if archive else "oci"))),
        "name": "edge",
        "manifest": image.digest,
        "layers": [
            {"bundle": bundle, "version": 10, "digest": layer.stored.digest, "bytes": layer.stored.path.stat().st_size}
            for bundle, layer in zip(("os-core", "editor", "os-core: version"), image.layers, strict=True)
        ],
        "bytes": image.size,
    }
    if not archive:
        assert image.size == sum(file.stat().st_size for file in (target / "blobs/sha256").iterdir())
    assert json.loads(target.with_name("layout.spdx.json").read_text())["spdxVersion"] == "SPDX-2.3"


def test_the_image_of_the_same_name_is_replaced(published: Any, target: Path, cache: Path) -> None:
    build(published.load("office"), target, cache, name="edge")

    image = build(published.load("editor"), target, cache, name="edge")

    (entry,) = json.loads((target / "index.json").read_text())["manifests"]
    assert entry["digest"] == image.digest
    assert len(list((target / "blobs/sha256").iterdir())) == 5


def test_the_table_says_what_was_made(published: Any, target: Path, cache: Path) -> None:
    table = build(published.load("editor"), target, cache, name="edge").table()

    assert f"{target}:edge" in table
    assert "editor" in table


def test_a_name_that_no_layout_can_have_is_one_line(published: Any, target: Path, cache: Path) -> None:
    tree = published.load()

    for name in ("a b", "/a", "a//b", "é", "-a", "a" * 256, "a\n"):
        with pytest.raises(BuildError, match="cannot be the name of an image"):
            build(tree, target, cache, name=name)


def test_something_else_is_not_written_to(published: Any, target: Path, cache: Path) -> None:
    target.mkdir()
    (target / "letter").write_text("precious")

    with pytest.raises(BuildError, match="is not empty, and not an OCI image layout"):
        build(published.load(), target, cache)

    assert snapshot(target.parent / "layout") == {"letter": b"precious"}
    assert not cache.exists()


def test_a_file_is_not_a_layout(published: Any, target: Path, cache: Path) -> None:
    target.write_text("precious")

    with pytest.raises(BuildError, match=r"cannot write .*/layout: Not a directory"):
        build(published.load(), target, cache)


@contextmanager
def file_limit(size: int) -> Iterator[None]:
    """No file gets larger: for a writer that is what a full disk is."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    former = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, former)


def test_without_room_for_an_archive_there_is_one_line_and_no_archive(
    published: Any, target: Path, cache: Path
) -> None:
    tree = published.load("kernel")
    build(tree, target, cache)
    shutil.rmtree(target)

    with file_limit(10_000), pytest.raises(BuildError, match=r"cannot write .*/image\.tar: "):
        build(tree, target.with_name("image.tar"), cache, archive=True)

    assert not list(target.parent.glob("image.tar*"))


def test_without_room_for_a_layer_there_is_one_line_and_no_layout(published: Any, target: Path, cache: Path) -> None:
    tree = published.load("kernel")

    with file_limit(2000), pytest.raises(BuildError, match="cannot keep a layer in "):
        build(tree, target, cache)

    assert not target.exists()


# -- what others read --------------------------------------------------------------------------------------------------


def run(*command: str | Path) -> str:
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@needs_skopeo
@pytest.mark.parametrize("compression", Compression)
@pytest.mark.parametrize("archive", [False, True])
def test_skopeo_reads_it(published: Any, target: Path, cache: Path, compression: Compression, *, archive: bool) -> None:
    image = build(published.load("office"), target, cache, archive=archive, compression=compression)
    source = f"oci-archive:{target}" if archive else f"oci:{target}:10"

    found = json.loads(run("skopeo", "inspect", source))

    assert (found["Digest"], found["Architecture"], found["Os"]) == (image.digest, "amd64", "linux")
    assert found["Layers"] == [layer.stored.digest for layer in image.layers]
    assert found["Labels"]["org.swupd.bundles"] == "editor,office,os-core"


@needs_skopeo
@pytest.mark.parametrize("compression", Compression)
def test_skopeo_copies_it_as_it_is(
    published: Any, target: Path, cache: Path, tmp_path: Path, compression: Compression
) -> None:
    image = build(published.load("office"), target, cache, compression=compression)

    run("skopeo", "copy", f"oci:{target}:10", f"dir:{tmp_path / 'copy'}")

    assert f"sha256:{hashlib.sha256((tmp_path / 'copy/manifest.json').read_bytes()).hexdigest()}" == image.digest
    for layer in image.layers:
        assert (tmp_path / "copy" / layer.stored.digest.partition(":")[2]).stat().st_size == layer.stored.size


@needs_umoci
def test_umoci_unpacks_what_the_manifests_say(published: Any, target: Path, cache: Path, tmp_path: Path) -> None:
    tree = published.load("office", "kernel")
    build(tree, target, cache)

    run("umoci", "unpack", "--rootless", "--image", f"{target}:10", tmp_path / "bundle")

    root = tmp_path / "bundle/rootfs"
    assert stat.S_IMODE(root.stat().st_mode) == 0o755
    found = {f"/{path.relative_to(root)}" for path in root.rglob("*")}
    assert found == {node.path for node in tree.nodes}
    for node in tree.nodes:
        path = root / node.path[1:]
        if node.type is FileType.LINK:
            assert os.readlink(path) == node.target
        else:
            assert stat.S_IMODE(path.lstat().st_mode) == node.mode, node.path
        if node.type is FileType.FILE:
            assert path.read_bytes() == tree.content(node)
            assert int(path.lstat().st_mtime) == node.time


@needs_skopeo
def test_skopeo_and_we_change_the_same_layout(published: Any, target: Path, cache: Path) -> None:
    build(published.load("office"), target, cache)
    run("skopeo", "copy", f"oci:{target}:10", f"oci:{target}:copied")

    build(published.load("editor"), target, cache)

    assert json.loads(run("skopeo", "inspect", f"oci:{target}:10"))["Labels"]["org.swupd.bundles"] == "editor,os-core"
    run("skopeo", "copy", f"oci:{target}:copied", f"dir:{target}.copy")


@needs_umoci
def test_umoci_finds_nothing_in_a_layout_that_no_image_needs(published: Any, target: Path, cache: Path) -> None:
    build(published.load("office"), target, cache, name="edge")
    build(published.load("editor", "kernel"), target, cache, name="edge")
    before = snapshot(target)

    run("umoci", "gc", "--layout", target)

    assert snapshot(target) == before
