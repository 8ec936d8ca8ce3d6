from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import shutil
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from mixer.errors import BuildError
from mixer.images.ocilayers import Compression, LayerStore, StoredLayer
from mixer.images.tree import Node
from swupd.formats.manifest import FileType

TIME = 1_700_000_000
CONTENT = {"/usr/bin/sh": b"shell" * 1000, "/usr/share/empty": b"", "/usr/share/n\udcffme": b"other bytes"}
NODES = (
    Node("/usr", FileType.DIRECTORY, 0o755, 0, 0, 0, "", "1" * 64),
    Node("/usr/bin", FileType.DIRECTORY, 0o2775, 0, 50, 0, "", "2" * 64),
    Node("/usr/bin/link", FileType.LINK, 0o777, 0, 0, 0, "sh", "3" * 64),
    Node("/usr/bin/sh", FileType.FILE, 0o4755, 100, 200, 5000, "", "4" * 64),
    Node("/usr/share", FileType.DIRECTORY, 0o755, 0, 0, 0, "", "1" * 64),
    Node("/usr/share/empty", FileType.FILE, 0o644, 0, 0, 0, "", "5" * 64),
    Node("/usr/share/n\udcffme", FileType.FILE, 0o644, 0, 0, 11, "", "6" * 64),
)


def content(node: Node) -> bytes:
    return CONTENT[node.path]


def unpacked(layer: StoredLayer) -> bytes:
    data = layer.path.read_bytes()
    if layer.compression is Compression.GZIP:
        return gzip.decompress(data)
    return zstandard.ZstdDecompressor().decompressobj().decompress(data)


def digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def never(node: Node) -> bytes:
    raise AssertionError(node.path)


@pytest.fixture
def store(tmp_path: Path) -> LayerStore:
    return LayerStore(tmp_path / "layers")


@pytest.mark.parametrize("compression", Compression)
def test_a_layer_has_the_root_directory_and_all_nodes(store: LayerStore, compression: Compression) -> None:
    layer = store.layer(NODES, content, time=TIME, compression=compression)

    with tarfile.open(fileobj=io.BytesIO(unpacked(layer)), errors="surrogateescape") as archive:
        found = [(m.name, m.type, m.mode, m.uid, m.gid, m.size, m.linkname, m.mtime) for m in archive]
        shell = archive.extractfile("usr/bin/sh")
        assert shell
        assert shell.read() == CONTENT["/usr/bin/sh"]
    kinds = {FileType.FILE: tarfile.REGTYPE, FileType.DIRECTORY: tarfile.DIRTYPE, FileType.LINK: tarfile.SYMTYPE}
    assert found == [
        (".", tarfile.DIRTYPE, 0o755, 0, 0, 0, "", TIME),
        *((n.path[1:], kinds[n.type], n.mode, n.uid, n.gid, n.size, n.target, TIME) for n in NODES),
    ]


@pytest.mark.parametrize("compression", Compression)
def test_digests_and_size_are_those_of_the_layer_and_of_its_tar(store: LayerStore, compression: Compression) -> None:
    layer = store.layer(NODES, content, time=TIME, compression=compression)

    data = layer.path.read_bytes()
    assert (layer.digest, layer.size) == (digest(data), len(data))
    assert layer.diff_id == digest(unpacked(layer))


def test_the_gzip_header_says_neither_time_nor_name(store: LayerStore) -> None:
    assert store.layer(NODES, content, time=TIME).path.read_bytes()[:8] == bytes.fromhex("1f8b080000000000")


@pytest.mark.skipif(shutil.which("zstd") is None, reason="needs zstd")
def test_a_zstd_layer_carries_a_checksum(store: LayerStore) -> None:
    layer = store.layer(NODES, content, time=TIME, compression=Compression.ZSTD)

    command = ["zstd", "-lv", str(layer.path)]
    shown = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert "Check: XXH64" in shown.stdout


@pytest.mark.parametrize("compression", Compression)
def test_a_layer_is_the_same_in_another_cache(tmp_path: Path, compression: Compression) -> None:
    layers = [
        LayerStore(tmp_path / name).layer(NODES, content, time=TIME, compression=compression) for name in ("a", "b")
    ]

    assert [layer.reused for layer in layers] == [False, False]
    assert layers[0].path.read_bytes() == layers[1].path.read_bytes()


def test_a_layer_is_made_once(store: LayerStore) -> None:
    first = store.layer(NODES, content, time=TIME)

    second = store.layer(NODES, never, time=TIME)

    assert (first.reused, second.reused) == (False, True)
    assert (second.path, second.digest, second.diff_id, second.size) == (
        first.path,
        first.digest,
        first.diff_id,
        first.size,
    )


def test_time_compression_and_nodes_decide_which_layer_it_is(store: LayerStore) -> None:
    layers = [
        store.layer(NODES, content, time=TIME),
        store.layer(NODES, content, time=TIME + 1),
        store.layer(NODES, content, time=TIME, compression=Compression.ZSTD),
        store.layer(NODES[:-1], content, time=TIME),
        store.layer((), content, time=TIME),
    ]

    assert not any(layer.reused for layer in layers)
    assert len({layer.digest for layer in layers}) == len(layers)


def _damage(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def _shorten(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def _nest(path: Path) -> None:
    path.write_bytes(b"[" * 4096)


@pytest.mark.parametrize("suffix", ["", ".json"])
@pytest.mark.parametrize("spoil", [_damage, _shorten, _nest, Path.unlink])
def test_a_damaged_layer_is_made_again(store: LayerStore, spoil: Callable[[Path], None], suffix: str) -> None:
    first = store.layer(NODES, content, time=TIME)
    spoil(first.path.with_name(first.path.name + suffix))

    second = store.layer(NODES, content, time=TIME)

    assert not second.reused
    assert digest(second.path.read_bytes()) == second.digest == first.digest
    assert store.layer(NODES, never, time=TIME).diff_id == first.diff_id


@settings(max_examples=20)
@given(
    st.binary() | st.recursive(st.none() | st.text() | st.integers(), st.lists).map(lambda v: json.dumps(v).encode())
)
def test_any_record_of_a_layer_is_read(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    store = LayerStore(tmp_path_factory.getbasetemp() / "any")
    first = store.layer(NODES, content, time=TIME)
    first.path.with_name(first.path.name + ".json").write_bytes(data)

    assert not store.layer(NODES, content, time=TIME).reused


def test_a_record_is_of_no_use_for_another_layer(store: LayerStore) -> None:
    one, other = store.layer(NODES, content, time=TIME), store.layer(NODES, content, time=TIME + 1)
    for suffix in ("", ".json"):
        shutil.copyfile(f"{one.path}{suffix}", f"{other.path}{suffix}")

    assert store.layer(NODES, content, time=TIME + 1).digest == other.digest


def test_a_layer_can_be_published(store: LayerStore) -> None:
    umask = os.umask(0o077)
    try:
        layer = store.layer(NODES, content, time=TIME)
    finally:
        os.umask(umask)

    assert layer.path.stat().st_mode & 0o777 == 0o644


def test_a_name_that_would_remove_another_file_is_refused(store: LayerStore) -> None:
    nodes = (*NODES, Node("/usr/share/x/.wh.sh", FileType.FILE, 0o644, 0, 0, 0, "", "7" * 64))

    with pytest.raises(BuildError, match=r"/usr/share/x/\.wh\.sh cannot be in a container image"):
        store.layer(nodes, content, time=TIME)


def test_after_a_failure_there_is_no_layer(store: LayerStore, tmp_path: Path) -> None:
    def damaged(node: Node) -> bytes:
        raise BuildError(f"{node.path} is damaged")

    with pytest.raises(BuildError, match="is damaged"):
        store.layer(NODES, damaged, time=TIME)

    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    assert not store.layer(NODES, content, time=TIME).reused


def test_a_cache_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "layers").write_text("not a directory")

    with pytest.raises(BuildError, match=r"cannot keep a layer in .*/layers: "):
        LayerStore(tmp_path / "layers").layer(NODES, content, time=TIME)
