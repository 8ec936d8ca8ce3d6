from __future__ import annotations

import os
import threading
from datetime import UTC, datetime
from typing import Any

import pytest

from mixer import build
from mixer.build import BuildOptions
from mixer.errors import BuildError, SourceError, WorkspaceError
from mixer.workspace import State
from swupd.formats import archive, filehash, signature
from swupd.report import TextReport

Mix = Any


def test_a_version_has_every_file_that_clients_ask_for(mix: Mix) -> None:
    mix.build()

    names = {name for name in mix.snapshot() if "/files/" not in name}
    expected = {f"10/Manifest.{name}{suffix}" for name in ("MoM", "full", "os-core", "b") for suffix in ("", ".tar")}
    expected |= {"10/Manifest.MoM.sig", "10/format", "10/mixer-src-version", "10/checksums", "10/checksums.sig"}
    expected |= {"10/pack-os-core-from-0.tar", "10/pack-b-from-0.tar"}
    expected |= {"version/latest_version", "version/latest_version.sig"}
    expected |= {f"version/format30/{name}" for name in ("latest", "latest.sig", "first")}
    assert names == expected
    assert (mix.www / "10/format").read_bytes() == b"30"
    assert mix.workspace.last_version() == 10


def test_every_entry_of_every_manifest_has_its_fullfile(mix: Mix) -> None:
    mix.build()
    mix.version(
        20, {"os-core": {"/usr/bin/sh": "shell 20"}, "b": {"/usr/bin/b": "b"}, "new": {"/usr/bin/sh": "shell 20"}}
    )
    mix.build()

    for line in mix.manifest(20, "MoM").entries:
        for entry in mix.manifest(line.version, line.name).entries:
            if entry.is_present:
                with (mix.www / f"{entry.version}/files/{entry.hash}.tar").open("rb") as source:
                    member, chunks = archive.read_fullfile(source, entry.hash)
                    assert archive.object_hash(member, chunks) == entry.hash


def test_fullfiles_are_exactly_what_is_new(mix: Mix) -> None:
    mix.build()
    mix.version(20, {"os-core": {"/usr/bin/sh": "shell 20"}, "b": {"/usr/bin/b": "b"}})
    mix.build()

    new = {entry.hash for entry in mix.manifest(20, "full").entries if entry.is_present and entry.version == 20}
    assert {name.removesuffix(".tar") for name in os.listdir(mix.www / "20/files")} == new
    assert len(new) == 2


def test_the_tars_hold_the_manifests_and_the_signature(mix: Mix, certificate: tuple[bytes, bytes]) -> None:
    mix.build()

    plain = (mix.www / "10/Manifest.b").read_bytes()
    assert archive.read_manifest_tar((mix.www / "10/Manifest.b.tar").read_bytes(), "b") == {"Manifest.b": plain}
    files = archive.read_manifest_tar((mix.www / "10/Manifest.MoM.tar").read_bytes(), "MoM")
    assert files["Manifest.MoM"] == (mix.www / "10/Manifest.MoM").read_bytes()
    assert files["Manifest.MoM.sig"] == (mix.www / "10/Manifest.MoM.sig").read_bytes()
    trusted = signature.load_certificates(certificate[0])
    signature.verify(files["Manifest.MoM"], files["Manifest.MoM.sig"], trusted)


def test_the_mom_names_the_manifests_by_their_hashes(mix: Mix) -> None:
    mix.build()

    for line in mix.manifest(10, "MoM").entries:
        data = (mix.www / f"10/Manifest.{line.name}").read_bytes()
        assert filehash.hash_content(0o100644, 0, 0, data) == line.hash


def test_the_same_version_again_leaves_the_same_bytes(mix: Mix) -> None:
    mix.build()
    mix.version(20, {"os-core": {"/usr/bin/sh": "shell 20"}, "b": {"/usr/bin/b": "b"}})
    mix.build()
    before = mix.snapshot()

    summary = mix.build()

    assert mix.snapshot() == before
    assert (summary.stored.objects, summary.packed_bytes) == (0, 0)


def test_a_tree_without_version_stamp_is_built_again_with_the_same_time(
    mix: Mix, monkeypatch: pytest.MonkeyPatch
) -> None:
    (mix.source / "10/full/usr/share/clear/versionstamp").unlink()
    monkeypatch.delenv("SOURCE_DATE_EPOCH", raising=False)
    monkeypatch.setattr(build.time, "time", lambda: 1800000000.5)
    mix.build()
    monkeypatch.setattr(build.time, "time", lambda: 1900000000.5)
    before = mix.snapshot()

    mix.build()

    assert mix.manifest(10, "MoM").timestamp == 1800000000
    assert mix.snapshot() == before


def test_without_version_stamp_the_time_is_that_of_the_environment(mix: Mix, monkeypatch: pytest.MonkeyPatch) -> None:
    (mix.source / "10/full/usr/share/clear/versionstamp").unlink()
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1600000000")

    mix.build()

    assert {mix.manifest(10, name).timestamp for name in ("MoM", "full", "b", "os-core")} == {1600000000}


def test_a_time_of_the_environment_that_is_none_is_refused_before_anything_is_made(
    mix: Mix, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = mix.snapshot()
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "yesterday")

    with pytest.raises(BuildError, match="SOURCE_DATE_EPOCH is 'yesterday', not a time"):
        mix.build()

    assert mix.snapshot() == before


def test_the_time_of_all_manifests_is_the_version_stamp(mix: Mix) -> None:
    mix.build()

    assert {mix.manifest(10, name).timestamp for name in ("MoM", "full", "b", "os-core")} == {1700000010}


def test_a_second_version_compresses_only_what_is_new(mix: Mix) -> None:
    first = mix.build()
    mix.version(20, {"os-core": {"/usr/bin/sh": "shell 20"}, "b": {"/usr/bin/b": "b"}})

    second = mix.build()

    assert first.stored.objects == 5
    assert second.stored.objects == 2
    assert second.packs == 1
    assert 0 < second.packed_bytes <= first.packed_bytes


def test_objects_are_made_again_if_the_cache_is_gone(mix: Mix) -> None:
    mix.build()
    before = mix.snapshot()
    for path in sorted(mix.workspace.cache.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()

    mix.build()

    assert mix.snapshot() == before


def test_a_summary_has_what_was_published(mix: Mix) -> None:
    text = mix.build().table()

    assert "the first one" in text
    assert "2 with a new manifest" in text
    assert "new objects" in text


def test_incrementing_goes_on_to_the_next_version(mix: Mix) -> None:
    mix.build(increment=10)

    assert mix.workspace.mix_version() == 20
    assert mix.workspace.state() == State(30, 10)


def test_a_build_without_signatures_has_none(mix: Mix) -> None:
    mix.config.certificate.unlink()
    mix.config.key.unlink()

    mix.build(sign=False)

    assert [name for name in mix.snapshot() if name.endswith(".sig")] == []
    files = archive.read_manifest_tar((mix.www / "10/Manifest.MoM.tar").read_bytes(), "MoM")
    assert list(files) == ["Manifest.MoM"]
    assert not mix.config.certificate.exists()


def test_packs_and_fullfiles_can_be_left_out(mix: Mix) -> None:
    mix.build(packs=False, fullfiles=False)

    assert os.listdir(mix.www / "10/files") == []
    assert [name for name in os.listdir(mix.www / "10") if name.startswith("pack")] == []


def test_another_format_and_minimum_version_reach_the_manifests(mix: Mix) -> None:
    mix.build(format=31, min_version=10)

    assert mix.manifest(10, "MoM").format == 31
    assert mix.manifest(10, "MoM").minversion == 10
    assert (mix.www / "version/format31/latest").read_text() == "10"


def test_a_previous_version_that_is_gone_is_an_error(mix: Mix) -> None:
    mix.build()
    mix.version(20, {"os-core": {"/usr/bin/sh": "shell 20"}})
    (mix.www / "10/Manifest.MoM").unlink()

    with pytest.raises(BuildError, match="version 10, which version 20 is compared with, is not in") as caught:
        mix.build()

    assert "PREVIOUS_MIX_VERSION" in caught.value.hint


def test_another_format_gives_everything_a_new_number(mix: Mix) -> None:
    mix.build()
    mix.version(20, {"os-core": {"/usr/bin/sh": "shell 10"}, "b": {"/usr/bin/b": "b"}})

    mix.build(format=31)

    assert {line.version for line in mix.manifest(20, "MoM").entries} == {20}
    assert {entry.version for entry in mix.manifest(20, "b").entries} == {20}
    assert mix.manifest(20, "MoM").minversion == 20
    assert (mix.www / "version/format30/latest").read_text() == "10"
    assert (mix.www / "version/format31/first").read_text() == "20"


def test_a_full_disk_is_one_line_and_changes_nothing(mix: Mix, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device", "/mix/file")

    monkeypatch.setattr("mixer.packs.FrameStore.make", full)

    with pytest.raises(BuildError, match=r"No space left on device \(/mix/file\)") as caught:
        mix.build()

    assert "free some space" in caught.value.hint
    assert not mix.www.exists()


def test_a_previous_version_without_full_manifest_is_announced(mix: Mix, capsys: pytest.CaptureFixture[str]) -> None:
    mix.build()
    (mix.www / "10/Manifest.full").unlink()
    mix.version(20, {"os-core": {}, "b": {"/usr/bin/b": "b"}})

    mix.build()

    assert "has no Manifest.full" in capsys.readouterr().err
    assert len(os.listdir(mix.www / "20/files")) > 2


def test_a_published_version_that_changes_is_announced(mix: Mix, capsys: pytest.CaptureFixture[str]) -> None:
    mix.build()
    mix.version(10, {"os-core": {"/usr/bin/sh": "other"}, "b": {"/usr/bin/b": "b"}})
    mix.workspace.set_state(State(30, 0))

    mix.build()

    assert "published before with other content" in capsys.readouterr().err


def test_a_previous_version_that_is_not_the_newest_is_announced(mix: Mix, capsys: pytest.CaptureFixture[str]) -> None:
    mix.build()
    mix.version(20, {"os-core": {}})
    mix.workspace.set_state(State(30, 0))

    mix.build()

    assert "compared with version 0, although 10" in capsys.readouterr().err


def test_unusual_content_is_announced(mix: Mix, capsys: pytest.CaptureFixture[str]) -> None:
    mix.build()
    mix.version(20, {"os-core": {"/usr/bin": ""}, "b": {}})
    (mix.source / "20/full/lib").symlink_to("usr")
    (mix.source / "20/b-info").write_text('{"Files": {"/usr/bin": false, "/lib/x": false}}')

    mix.build()

    errors = capsys.readouterr().err
    assert "became something else; the original's client may need help there: /usr/bin" in errors
    assert "lead through a symbolic link, so no bundle has them: /lib/x" in errors
    assert "bundle b does not have the file /usr/share/clear/bundles/b" in errors


def test_a_failed_build_leaves_the_published_tree_as_it_was(mix: Mix) -> None:
    mix.build()
    before = mix.snapshot()
    mix.version(20, {"os-core": {"/usr/bin/sh": "shell 20"}, "b": {"/usr/bin/b": "b"}})
    (mix.www / "10/Manifest.b").write_bytes(b"damaged")

    with pytest.raises(BuildError, match=r"Manifest\.b is damaged"):
        mix.build()

    assert {name: data for name, data in mix.snapshot().items() if name != "10/Manifest.b"} == {
        name: data for name, data in before.items() if name != "10/Manifest.b"
    }
    assert mix.workspace.last_version() == 10


def test_an_older_version_is_refused_before_any_work(mix: Mix) -> None:
    mix.build()
    mix.workspace.set_mix_version(5)

    with pytest.raises(BuildError, match="version 5 cannot be published after version 10"):
        mix.build()


def test_a_key_that_does_not_fit_is_found_before_the_work(mix: Mix) -> None:
    mix.config.key.write_bytes(signature.make_certificate("Other", 10, datetime.now(UTC))[1])

    with pytest.raises(BuildError, match="does not belong"):
        mix.build()

    assert not mix.workspace.cache.exists()


def test_a_version_that_is_not_prepared_is_an_error(mix: Mix) -> None:
    mix.workspace.set_mix_version(30)

    with pytest.raises(SourceError, match="no version 30"):
        mix.build()


def test_two_builds_at_once_are_refused(mix: Mix) -> None:
    errors: list[Exception] = []

    def second() -> None:
        try:
            mix.build()
        except WorkspaceError as error:
            errors.append(error)

    with mix.workspace.lock():
        thread = threading.Thread(target=second)
        thread.start()
        thread.join()

    assert "another mixer" in str(errors[0])


def test_the_steps_can_be_called_one_by_one(mix: Mix) -> None:
    options = BuildOptions()

    composed = build.build_bundles(mix.workspace, mix.config, TextReport(), options)
    summary = build.build_update(mix.workspace, mix.config, TextReport(), options)

    assert list(composed.bundles) == ["os-core", "b"]
    assert summary.version == 10
