from __future__ import annotations

import hashlib
import json
import os
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixer.errors import BuildError
from mixer.images import ocilayout
from mixer.images.ocilayout import Blob
from swupd.errors import ProjectError, UnsafePathError
from swupd.fs import Directory

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"


def layer(content: bytes) -> Blob:
    return Blob(LAYER, f"sha256:{hashlib.sha256(content).hexdigest()}", len(content), content)


def image(name: str, *layers: bytes) -> tuple[dict[str, object], list[Blob]]:
    """An image with these layers, and all its blobs."""
    blobs = [layer(content) for content in layers]
    manifest = ocilayout.document(MANIFEST, {"schemaVersion": 2, "layers": [blob.descriptor() for blob in blobs]})
    return manifest.descriptor(annotations={ocilayout.NAME: name}), [*blobs, manifest]


def layout(path: Path, *images: tuple[dict[str, object], list[Blob]]) -> Path:
    path.mkdir(exist_ok=True)
    for descriptor, blobs in images:
        ocilayout.add(path, descriptor, blobs)
    return path


def index(path: Path) -> Any:
    return json.loads((path / "index.json").read_text())


def names(path: Path) -> list[str]:
    """Of the images."""
    return [image["annotations"][ocilayout.NAME] for image in index(path)["manifests"]]


def blobs(path: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in (path / "blobs/sha256").iterdir()}


def snapshot(path: Path) -> dict[str, bytes]:
    return {str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()}


def test_an_empty_directory_becomes_a_layout(tmp_path: Path) -> None:
    descriptor, needed = image("10", b"one", b"two")

    path = layout(tmp_path / "layout", (descriptor, needed))

    assert sorted(os.listdir(path)) == ["blobs", "index.json", "oci-layout"]
    assert json.loads((path / "oci-layout").read_text()) == {"imageLayoutVersion": "1.0.0"}
    assert index(path) == {"schemaVersion": 2, "mediaType": ocilayout.INDEX_TYPE, "manifests": [descriptor]}
    assert blobs(path) == {blob.hash: blob.source for blob in needed}


def test_every_blob_has_the_content_that_its_name_says(tmp_path: Path) -> None:
    path = layout(tmp_path / "layout", image("10", b"one", b"two"), image("20", b"two", b"three"))

    assert all(hashlib.sha256(content).hexdigest() == name for name, content in blobs(path).items())


def test_a_blob_can_be_a_file_and_is_linked(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"one")
    blob = Blob(LAYER, layer(b"one").digest, 3, tmp_path / "file")

    path = layout(tmp_path / "layout", (blob.descriptor(), [blob]))

    assert (path / "blobs/sha256" / blob.hash).samefile(tmp_path / "file")


def test_other_images_stay(tmp_path: Path) -> None:
    path = layout(tmp_path / "layout", image("10", b"one", b"both"))
    before = blobs(path)

    layout(path, image("20", b"two", b"both"))

    assert names(path) == ["10", "20"]
    assert before.items() < blobs(path).items()
    assert len(blobs(path)) == 5


def test_the_image_of_the_same_name_is_replaced_and_what_only_it_needed_goes(tmp_path: Path) -> None:
    old, other, new = image("edge", b"old", b"both"), image("10", b"other", b"both"), image("edge", b"new")
    path = layout(tmp_path / "layout", old, other)

    layout(path, new)

    assert names(path) == ["10", "edge"]
    assert blobs(path) == {blob.hash: blob.source for _, needed in (other, new) for blob in needed}


def test_what_others_put_into_a_layout_stays(tmp_path: Path) -> None:
    path = layout(tmp_path / "layout", image("10", b"one"))
    deep = ocilayout.document("application/vnd.x+json", {"x": [{"y": layer(b"shared").digest}]})
    foreign = ocilayout.document(ocilayout.INDEX_TYPE, {"manifests": [deep.descriptor()]})
    entry = {**foreign.descriptor(), "annotations": None, "x-unknown": [1.5]}
    (path / "index.json").write_text(
        json.dumps({**index(path), "manifests": [entry, *index(path)["manifests"]], "annotations": {"a": "b"}})
    )
    stray = layer(b"named by nobody")
    for blob in (deep, foreign, layer(b"shared"), stray):
        assert isinstance(blob.source, bytes)
        (path / "blobs/sha256" / blob.hash).write_bytes(blob.source)
    layout(path, image("20", b"shared", b"two"))

    layout(path, image("20", b"three"))

    assert index(path)["annotations"] == {"a": "b"}
    assert index(path)["manifests"][0] == entry
    assert {deep.hash, foreign.hash, stray.hash, layer(b"shared").hash} < blobs(path).keys()
    assert layer(b"two").hash not in blobs(path)


def test_what_a_document_names_stays_however_it_is_written(tmp_path: Path) -> None:
    path = layout(tmp_path / "layout", image("old", b"shared"))
    shared = layer(b"shared")
    content = json.dumps({"schemaVersion": 2, "layers": [shared.descriptor()]}, indent=1).encode()
    manifest = layer(b"\n " + content)
    layout(path, (manifest.descriptor(annotations={ocilayout.NAME: "others"}), [manifest]))

    layout(path, image("old", b"other"))

    assert shared.hash in blobs(path)


def test_the_same_image_again_changes_nothing(tmp_path: Path) -> None:
    path = layout(tmp_path / "layout", image("10", b"one"))
    before = snapshot(path)

    layout(path, image("10", b"one"))

    assert snapshot(path) == before


def test_a_damaged_blob_is_replaced(tmp_path: Path) -> None:
    path = layout(tmp_path / "layout", image("10", b"one", b"two"))
    (path / "blobs/sha256" / layer(b"one").hash).write_bytes(b"eno")

    layout(path, image("20", b"one"))

    assert blobs(path)[layer(b"one").hash] == b"one"


def test_images_whose_blobs_lie_elsewhere_stay(tmp_path: Path) -> None:
    path = layout(tmp_path / "layout", image("10", b"one"))
    for file in (path / "blobs/sha256").iterdir():
        file.unlink()

    layout(path, image("20", b"two"))

    assert names(path) == ["10", "20"]


def test_half_files_of_a_killed_process_go(tmp_path: Path) -> None:
    path = layout(tmp_path / "layout", image("10", b"one"))
    (path / f"blobs/sha256/.{layer(b'two').hash}.new").write_bytes(b"tw")

    layout(path, image("20", b"two"))

    assert all(not name.startswith(".") for name in blobs(path))


# -- failures ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["rename", "replace_file", "sync", "write_file"])
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_after_a_failure_the_layout_is_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, error: BaseException
) -> None:
    path = layout(tmp_path / "layout", image("10", b"one"))
    before = snapshot(path)
    descriptor, needed = image("10", b"two", b"three")

    def fail(*_: object, **__: object) -> None:
        raise error

    with monkeypatch.context() as patched:
        patched.setattr(Directory, name, fail)
        with pytest.raises(type(error)):
            ocilayout.add(path, descriptor, needed)

    assert snapshot(path) == before


def test_after_a_failure_an_empty_directory_is_empty(tmp_path: Path) -> None:
    descriptor, needed = image("new", b"layer")
    lost = Blob(LAYER, needed[0].digest, needed[0].size, tmp_path / "lost")

    with pytest.raises(FileNotFoundError):
        layout(tmp_path / "layout", (descriptor, [needed[1], lost]))

    assert not list((tmp_path / "layout").iterdir())


def test_who_is_interrupted_after_the_index_changed_has_the_new_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = layout(tmp_path / "layout", image("10", b"one"))
    descriptor, needed = image("10", b"two")

    def interrupt(_: Directory) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Directory, "sync_names", interrupt)
        with pytest.raises(KeyboardInterrupt):
            ocilayout.add(path, descriptor, needed)

    assert index(path)["manifests"] == [descriptor]
    assert {blob.hash for blob in needed} <= blobs(path).keys()


def _refused(path: Path, match: str) -> None:
    before = snapshot(path)
    descriptor, needed = image("20", b"two")
    with pytest.raises(BuildError, match=match):
        ocilayout.check(path)
    with pytest.raises(BuildError, match=match):
        ocilayout.add(path, descriptor, needed)
    assert snapshot(path) == before


def test_a_directory_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "letter").write_text("precious")

    _refused(tmp_path, "is not empty, and not an OCI image layout: it has no file oci-layout")


@pytest.mark.parametrize("marker", ["", "[]", "{}", "[" * 4000, '{"imageLayoutVersion":', "\udcff"])
def test_a_layout_that_says_no_version_is_refused(tmp_path: Path, marker: str) -> None:
    path = layout(tmp_path / "layout", image("10", b"one"))
    (path / "oci-layout").write_bytes(os.fsencode(marker))

    _refused(path, "oci-layout in it says no version")


@pytest.mark.parametrize("version", ['"2.0.0"', "1", "null", '"1"'])
def test_a_layout_of_another_version_is_refused(tmp_path: Path, version: str) -> None:
    path = layout(tmp_path / "layout", image("10", b"one"))
    (path / "oci-layout").write_text(f'{{"imageLayoutVersion": {version}}}')

    _refused(path, "is an OCI image layout of version .*, not 1.0.0")


BAD = {
    "not json": (b"{", "is not JSON"),
    "deep": (b"[" * 100_000, "is not JSON"),
    "no number": (b'{"schemaVersion":2,"manifests":[],"x":NaN}', "is not JSON"),
    "infinite": (b'{"schemaVersion":2,"manifests":[],"x":1e999}', "is not JSON"),
    "a list": (b"[]", "schemaVersion 2"),
    "other schema": (b'{"schemaVersion":1,"manifests":[]}', "schemaVersion 2"),
    "no manifests": (b'{"schemaVersion":2}', "no list of manifests"),
    "manifests of texts": (b'{"schemaVersion":2,"manifests":["x"]}', "no list of manifests"),
    "no digest": (b'{"schemaVersion":2,"manifests":[{}]}', "'None' in it is not a digest"),
    "a path": (b'{"schemaVersion":2,"manifests":[{"digest":"sha256:../../x"}]}', "is not a digest"),
    "annotations": (
        b'{"schemaVersion":2,"manifests":[{"digest":"sha256:0","annotations":{"org.opencontainers.image.ref.name":1}}]}',
        "are not texts by name",
    ),
    "large": (b'{"schemaVersion":2,"manifests":[]' + b" " * (4 << 20) + b"}", "larger than 4 MiB"),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_index_is_refused(tmp_path: Path, kind: str) -> None:
    data, match = BAD[kind]
    path = layout(tmp_path / "layout", image("10", b"one"))
    (path / "index.json").write_bytes(data)

    _refused(path, f"index.json is damaged: .*{match}")


def test_a_layout_without_index_is_refused(tmp_path: Path) -> None:
    path = layout(tmp_path / "layout", image("10", b"one"))
    (path / "index.json").unlink()

    _refused(path, "it has no index.json")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
ENTRY = st.fixed_dictionaries({}, optional={"digest": st.just("sha256:00") | JSON, "annotations": JSON})


@given(
    st.binary()
    | JSON.map(lambda value: json.dumps(value).encode())
    | st.fixed_dictionaries({"schemaVersion": st.just(2), "manifests": st.lists(ENTRY | JSON)}).map(
        lambda value: json.dumps(value).encode()
    )
)
def test_any_bytes_are_an_index_to_which_an_image_is_added_or_a_value_error(data: bytes) -> None:
    try:
        found = ocilayout.parse_index(data)
    except ValueError:
        return
    descriptor, _ = image("10", b"one")

    added = ocilayout.parse_index(ocilayout.with_image(found, descriptor))

    assert added["manifests"][-1] == descriptor
    assert len(added["manifests"]) <= len(found["manifests"]) + 1


def _link_blobs(path: Path, away: Path) -> None:
    os.rename(path / "blobs", away)
    (path / "blobs").symlink_to(away)


def _link_index(path: Path, away: Path) -> None:
    os.rename(path / "index.json", away)
    (path / "index.json").symlink_to(away)


def _link_manifest(path: Path, away: Path) -> None:
    manifest = path / "blobs/sha256" / index(path)["manifests"][0]["digest"].partition(":")[2]
    os.rename(manifest, away)
    manifest.symlink_to(away)


@pytest.mark.parametrize("spoil", [_link_blobs, _link_index, _link_manifest])
def test_links_in_a_layout_are_not_followed(tmp_path: Path, spoil: Callable[[Path, Path], None]) -> None:
    path = layout(tmp_path / "layout", image("10", b"one"))
    spoil(path, tmp_path / "away")
    before = snapshot(tmp_path)

    with pytest.raises(UnsafePathError, match="symbolic link"):
        layout(path, image("20", b"two"))

    assert snapshot(tmp_path) == before


def test_a_pipe_in_the_place_of_the_index_does_not_hang(tmp_path: Path) -> None:
    path = layout(tmp_path / "layout", image("10", b"one"))
    (path / "index.json").unlink()
    os.mkfifo(path / "index.json")

    with pytest.raises(ProjectError, match="not a regular file"):
        ocilayout.check(path)


# -- as a file ---------------------------------------------------------------------------------------------------------


def test_an_archive_has_the_files_of_a_layout(tmp_path: Path) -> None:
    descriptor, needed = image("10", b"one", b"two")
    with (tmp_path / "archive").open("wb") as file:
        ocilayout.write_archive(file, descriptor, needed, time=1_700_000_000)

    with tarfile.open(tmp_path / "archive") as archive:
        found = [(m.name, m.type, m.mode, m.uid, m.gid, m.mtime) for m in archive]
        archive.extractall(tmp_path / "unpacked")

    assert {entry[3:] for entry in found} == {(0, 0, 1_700_000_000)}
    assert snapshot(tmp_path / "unpacked") == snapshot(layout(tmp_path / "layout", (descriptor, needed)))
