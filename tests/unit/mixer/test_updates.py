"""Delta packs, update packs, indexes and delta manifests of a small mix that is really built."""

from __future__ import annotations

import gzip
import random
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from mixer import deltapacks, deltas
from mixer.deltamanifests import ManifestTask, build_delta_manifests, make_manifest_delta
from mixer.errors import BuildError
from mixer.updates import Span
from swupd.formats import archive, delta, gzipped, layout, signature, updateindex
from swupd.formats.filehash import hash_content
from swupd.report import TextReport

Mix = Any

NUMBERS = random.Random(5)
TEXT = " ".join(str(NUMBERS.randrange(1000)) for _ in range(3000))
EDITED = TEXT.replace(" 7", " seven ")
NOISE = NUMBERS.randbytes(4000)


@pytest.fixture
def mix(mix: Mix) -> Mix:
    """Version 10 and 20: changed, renamed, new, moved to another bundle, compressed."""
    old = {
        "os-core": {"/usr/bin/sh": TEXT, "/usr/share/doc/old.gz": gzip.compress(TEXT.encode(), 9, mtime=0)},
        "b": {"/usr/bin/b": f"b {TEXT}", "/usr/share/moved": f"moved {TEXT}", "/usr/share/same": "same"},
        "same": {"/usr/bin/same": "same"},
    }
    new = {
        "os-core": {"/usr/bin/sh": EDITED, "/usr/share/doc/old.gz": gzip.compress(EDITED.encode(), 9, mtime=0)},
        "b": {"/usr/bin/b": f"b {EDITED}", "/usr/share/moved-2": f"moved {TEXT}", "/usr/share/same": "same"},
        "same": {"/usr/bin/same": "same"},
        "new": {"/usr/bin/new": NOISE},
    }
    new["b"]["/usr/share/noise"] = NOISE + b"b"
    for version, bundles in ((10, old), (20, new)):
        mix.version(version, bundles)
        mix.build()
    return mix


def members(path: Path) -> dict[str, bytes]:
    """The members of a pack, and their content."""
    with path.open("rb") as source:
        return {
            member.name: data.read()
            for member, data in archive.read_members(source, archive.PACK_LIMITS)
            if member.type is archive.ObjectType.FILE
        }


def objects(mix: Mix, version: int, bundle: str) -> dict[str, bytes]:
    """The files of a bundle of a prepared version, by hash."""
    entries = mix.manifest(version, bundle).entries
    return {
        entry.hash: (mix.source / f"{version}/full{entry.name}").read_bytes()
        for entry in entries
        if entry.is_present and entry.type == "F"
    }


def apply_all(mix: Mix, pack: Path, bundles: list[str]) -> dict[str, bytes]:
    """What a client of version 10 with these bundles gets from a pack, by hash."""
    old = {k: v for name in bundles for k, v in objects(mix, 10, name).items()}
    got = {}
    for name, data in members(pack).items():
        directory, _, base = name.partition("/")
        if directory == "staged":
            got[base] = data
            continue
        hashes = layout.parse_delta_name(base)
        assert hashes is not None
        if directory == "delta":
            got[hashes[1]], header = delta.apply(old[hashes[0]], data)
        else:
            recipe, container = gzipped.decode(data)
            opened = gzipped.opened(old[hashes[0]])
            assert opened is not None
            content, header = delta.apply(opened[1], container)
            got[hashes[1]] = gzipped.rebuild(recipe, content, lambda argv, data: b"")
        assert hash_content(header.mode, header.uid, header.gid, got[hashes[1]]) == hashes[1]
    return got


def test_each_changed_bundle_gets_a_pack_that_brings_all_it_needs(mix: Mix) -> None:
    mix.delta_packs()

    for bundle in ("os-core", "b"):
        got = apply_all(mix, mix.www / f"20/pack-{bundle}-from-10.tar", ["os-core", "b"])
        new = objects(mix, 20, bundle)
        lacking = {entry.hash for entry in mix.manifest(20, bundle).entries if entry.is_present and entry.version == 20}
        assert {file_hash for file_hash in lacking if file_hash in new} == got.keys()
        assert all(new[file_hash] == data for file_hash, data in got.items())
    assert not (mix.www / "20/pack-same-from-10.tar").exists()
    assert not (mix.www / "20/pack-new-from-10.tar").exists()


def test_a_pack_is_one_solid_stream_of_uncompressed_members(mix: Mix) -> None:
    mix.delta_packs()

    data = (mix.www / "20/pack-b-from-10.tar").read_bytes()
    listed = subprocess.run(["bsdtar", "-tf", "-"], input=data, capture_output=True, check=True).stdout.decode().split()
    assert listed[:2] == ["delta/", "staged/"]
    kinds = [name.split("/")[0] for name in listed[2:]]
    assert kinds == sorted(kinds)
    deltas = [content for name, content in members(mix.www / "20/pack-b-from-10.tar").items() if "delta/" in name]
    assert deltas
    for content in deltas:
        encoding = delta.read_header(content).encoding
        assert encoding & 0b0000000000000001
        assert encoding >> 5 & 0b10001
        assert encoding >> 10 & 0b10001
        assert content.startswith(b"BSDIFF4U")


def test_renames_are_packed_as_deltas(mix: Mix) -> None:
    mix.delta_packs()

    moved = next(e.hash for e in mix.manifest(20, "b").entries if e.name == "/usr/share/moved-2")
    assert f"delta/{layout.delta_name(moved, moved)}" in members(mix.www / "20/pack-b-from-10.tar")


def test_the_update_pack_has_all_bundles_and_opens_gzip_files(mix: Mix) -> None:
    mix.delta_packs()

    got = apply_all(mix, mix.www / "20/update-from-10.tar", ["os-core", "b"])
    for bundle in ("os-core", "b"):
        new = objects(mix, 20, bundle)
        for entry in mix.manifest(20, bundle).entries:
            if entry.is_present and entry.version == 20 and entry.type == "F":
                assert got[entry.hash] == new[entry.hash]
    assert sum(name.startswith("gzip/") for name in members(mix.www / "20/update-from-10.tar")) == 1
    assert not any(name.startswith("gzip/") for name in members(mix.www / "20/pack-os-core-from-10.tar"))


def test_the_index_tells_what_each_way_costs_and_is_signed(mix: Mix) -> None:
    mix.delta_packs()

    data = (mix.www / "20/update-index").read_bytes()
    trusted = signature.load_certificates(mix.config.certificate.read_bytes())
    signature.verify(data, (mix.www / "20/update-index.sig").read_bytes(), trusted)
    index = updateindex.parse(data)
    (update,) = index.updates
    pack = mix.www / "20/update-from-10.tar"
    assert (index.version, update.from_version) == (20, 10)
    assert update.pack is not None
    assert update.pack.bytes == pack.stat().st_size
    assert {name: cost.from_version for name, cost in update.bundles.items()} == {"os-core": 10, "b": 10, "new": 0}
    assert update.bundles["b"].pack == (mix.www / "20/pack-b-from-10.tar").stat().st_size
    assert update.bundles["new"].pack == (mix.www / "20/pack-new-from-0.tar").stat().st_size
    lacking = {e.hash for e in mix.manifest(20, "b").entries if e.is_present and e.version == 20}
    assert update.bundles["b"].fullfiles == sum((mix.www / f"20/files/{h}.tar").stat().st_size for h in lacking)


def test_what_is_added_is_in_the_checksums(mix: Mix) -> None:
    mix.delta_packs()

    subprocess.run(["sha256sum", "--quiet", "--strict", "-c", "checksums"], cwd=mix.www / "20", check=True)
    assert b"update-index" in (mix.www / "20/checksums").read_bytes()


def test_what_a_killed_process_added_gets_its_checksum_from_the_next_one(mix: Mix) -> None:
    former = {name: (mix.www / "20" / name).read_bytes() for name in ("checksums", "checksums.sig")}
    mix.delta_packs()
    whole = mix.snapshot()
    for name, data in former.items():
        (mix.www / "20" / name).unlink()
        (mix.www / "20" / name).write_bytes(data)

    mix.delta_packs()

    after = mix.snapshot()
    assert after.keys() == whole.keys()
    # A signature has the time in which it was made.
    assert [name for name in after if after[name] != whole[name] and name != "20/checksums.sig"] == []


def test_the_same_again_makes_nothing_and_leaves_the_same_bytes(mix: Mix) -> None:
    first = mix.delta_packs()
    before = mix.snapshot()

    second = mix.delta_packs()

    assert first.pairs > 0
    assert all(pack.is_new for pack in first.packs)
    assert second.pairs == 0
    assert not any(pack.is_new for pack in second.packs)
    assert mix.snapshot() == before


def test_a_version_that_is_built_again_keeps_its_packs(mix: Mix) -> None:
    mix.delta_packs()
    before = mix.snapshot()

    mix.build()

    assert mix.snapshot() == before


def test_lost_caches_are_made_up_for_from_what_was_published(mix: Mix, tmp_path: Path) -> None:
    mix.delta_packs()
    before = mix.snapshot()
    shutil.rmtree(mix.workspace.cache)
    shutil.rmtree(mix.source)
    for path in (mix.www / "20").glob("pack-*-from-10.tar"):
        path.unlink()

    mix.delta_packs()

    assert mix.snapshot() == before


def test_large_packs_are_compressed_in_this_process(mix: Mix, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deltapacks, "LARGE_BYTES", 100)
    mix.delta_packs()

    got = apply_all(mix, mix.www / "20/update-from-10.tar", ["os-core", "b"])
    assert all(file_hash in got for file_hash in apply_all(mix, mix.www / "20/pack-b-from-10.tar", ["os-core", "b"]))


def test_files_that_are_too_much_work_are_packed_whole_and_named(
    mix: Mix, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(deltas, "NEW_LIMIT", 1000)
    mix.delta_packs()

    told = capsys.readouterr().err
    assert "/usr/bin/b is packed whole (and 3 more files): larger than 0 MiB" in told
    changed = next(e.hash for e in mix.manifest(20, "b").entries if e.name == "/usr/bin/b")
    assert f"staged/{changed}" in members(mix.www / "20/pack-b-from-10.tar")


def test_a_pack_lies_with_the_version_of_its_bundle(mix: Mix) -> None:
    mix.version(30, {"os-core": {"/usr/bin/sh": "30"}, "b": {}, "same": {"/usr/bin/same": "same"}})
    mix.build()
    mix.version(40, {"os-core": {"/usr/bin/sh": "40"}, "b": {}, "same": {"/usr/bin/same": "same"}})
    mix.build()

    summary = mix.delta_packs(from_version=20, to_version=40)

    assert {pack.plan.file for pack in summary.packs} == {"40/update-from-20.tar", "40/pack-os-core-from-20.tar"}
    assert not (mix.www / "40/pack-b-from-20.tar").exists()
    subprocess.run(["sha256sum", "--quiet", "-c", "checksums"], cwd=mix.www / "30", check=True)


def test_several_older_versions_share_one_index(mix: Mix) -> None:
    mix.version(30, {"os-core": {"/usr/bin/sh": f"30 {TEXT}"}, "b": {"/usr/bin/b": f"b {TEXT}"}})
    mix.build()

    summary = mix.delta_packs(previous_versions=5)
    mix.delta_packs(from_version=20)

    assert {"30/update-from-10.tar", "30/update-from-20.tar"} <= {pack.plan.file for pack in summary.packs}
    index = updateindex.parse((mix.www / "30/update-index").read_bytes())
    assert sorted(update.from_version for update in index.updates) == [10, 20]
    assert "30/update-from-10.tar" in summary.table()


def test_another_format_ends_the_row_and_cannot_be_chosen(mix: Mix) -> None:
    mix.version(30, {"os-core": {"/usr/bin/sh": "30"}})
    mix.build(format=31)

    with pytest.raises(BuildError, match="no version before 30"):
        mix.delta_packs()
    with pytest.raises(BuildError, match="version 20 has the format 30, version 30 has 31"):
        mix.delta_packs(from_version=20)


@pytest.mark.parametrize(
    ("span", "message"),
    [
        ({"from_version": 20}, "version 20 is not older than version 20"),
        ({"from_version": 30, "to_version": 10}, "version 30 is not older than version 10"),
        ({"from_version": 15}, "version 15 is not in"),
        ({"to_version": 70}, "version 70 is not in"),
        ({"to_version": 10}, "no version before 10"),
    ],
)
def test_a_wrong_span_is_one_line(mix: Mix, span: dict[str, int], message: str) -> None:
    with pytest.raises(BuildError, match=message):
        mix.delta_packs(**span)


def test_nothing_unsigned_joins_a_signed_version(mix: Mix) -> None:
    before = mix.snapshot()
    mix.config.key.unlink()

    with pytest.raises(BuildError, match="version 20 is signed"):
        mix.delta_packs()

    assert mix.snapshot() == before


def test_versions_without_fullfiles_say_what_is_missing(mix: Mix) -> None:
    shutil.rmtree(mix.workspace.objects)
    shutil.rmtree(mix.www / "20/files")

    with pytest.raises(BuildError, match=r"cannot read .*20/files/[0-9a-f]{64}\.tar") as caught:
        mix.delta_packs()

    assert "--skip-fullfiles" in caught.value.hint


def test_an_index_that_cannot_be_read_is_written_anew(mix: Mix, capsys: pytest.CaptureFixture[str]) -> None:
    (mix.www / "20/update-index").write_bytes(b"nonsense")

    mix.delta_packs()

    assert "is written anew" in capsys.readouterr().err
    assert updateindex.parse((mix.www / "20/update-index").read_bytes()).updates


def test_an_update_pack_that_the_index_does_not_know_is_made_again(mix: Mix) -> None:
    mix.delta_packs()
    before = mix.snapshot()
    (mix.www / "20/update-index").unlink()
    (mix.www / "20/update-from-10.tar").write_bytes(b"something else")

    mix.delta_packs()

    assert mix.snapshot() == before


def delta_manifests(mix: Mix, **span: int) -> int:
    made = build_delta_manifests(mix.workspace, mix.config, TextReport(), Span(**span), workers=1, sign=True)
    assert str(made.deltas) in made.line()
    return made.deltas


def test_a_delta_manifest_makes_the_newer_one_from_the_older(mix: Mix) -> None:
    files = {f"/usr/share/{i:04}": str(i) for i in range(300)}
    for version in (30, 40):
        mix.version(version, {"os-core": files | {"/usr/bin/sh": str(version)}, "b": {}})
        mix.build()

    assert delta_manifests(mix) == 1

    data = (mix.www / "40/Manifest-os-core-delta-from-30").read_bytes()
    old = (mix.www / "30/Manifest.os-core").read_bytes()
    new, header = delta.apply(old, data)
    assert new == (mix.www / "40/Manifest.os-core").read_bytes()
    assert (header.mode, header.uid, header.gid) == (0o100644, 0, 0)
    assert len(data) < (mix.www / "40/Manifest.os-core.tar").stat().st_size / 3
    subprocess.run(["sha256sum", "--quiet", "-c", "checksums"], cwd=mix.www / "40", check=True)
    assert delta_manifests(mix) == 0


def test_a_delta_that_is_not_smaller_than_the_manifest_is_not_published() -> None:
    old, new = TEXT.encode(), EDITED.encode()

    (_, _, useful), (_, _, useless) = (make_manifest_delta(ManifestTask("x", old, new, limit)) for limit in (5000, 50))

    assert delta.apply(old, useful)[0] == new
    assert useless == b""
