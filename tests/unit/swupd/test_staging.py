from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from swupd.errors import DiskSpaceError, DownloadError, NotRootError
from swupd.formats import archive, layout
from swupd.formats.archive import Member, ObjectType
from swupd.formats.filehash import hash_path
from swupd.formats.manifest import Entry
from swupd.fs import Directory
from swupd.plan import FileList

BIG = b"0123456789abcdef" * 100_000
"""More than is read at once."""
TEXT = "".join(f"line {number} of a file that changes little\n" for number in range(400))


@pytest.fixture
def published(tmp_path: Path, publisher: Any) -> FileList:
    """Version 10: a file, a large file, a link, a directory and an empty file."""
    tree = tmp_path / "v10"
    (tree / "d").mkdir(parents=True)
    (tree / "d/small").write_text(TEXT)
    (tree / "d/small").chmod(0o4755)
    (tree / "d/big").write_bytes(BIG)
    (tree / "link").symlink_to("d/small")
    (tree / "empty").touch()
    (tree / "secret").mkdir(mode=0o700)
    return publisher.publish(tree, 10)


@pytest.fixture
def changed(tmp_path: Path, publisher: Any, published: FileList) -> FileList:
    """Version 20: the small file has another line."""
    tree = tmp_path / "v20"
    (tree / "d").mkdir(parents=True)
    (tree / "d/small").write_text(TEXT + "one more line\n")
    return publisher.publish(tree, 20, {"/d/small": published["/d/small"], "/d": published["/d"]})


def verified(machine: Any) -> bool:
    """Whether everything staged is what its name says."""
    return all(hash_path(str(machine.statedir.staged / name)) == name for name in machine.staged)


def hashes(files: FileList) -> set[str]:
    return {entry.hash for entry in files.values()}


# -- fullfiles ---------------------------------------------------------------------------------------------------------


def test_every_type_of_object_is_staged_from_fullfiles(machine: Any, published: FileList) -> None:
    result = machine.stage(published.values())
    assert machine.staged == hashes(published)
    assert verified(machine)
    assert result.fullfiles == result.objects == len(hashes(published))
    assert os.listdir(machine.statedir.download) == []


@pytest.mark.parametrize("compressed", ["zstd", "gzip", "xz"])
def test_compressed_fullfiles_are_staged(publisher: Any, machine: Any, published: FileList, compressed: str) -> None:
    import gzip
    import lzma

    entry = published["/d/big"]
    path = publisher.fullfile(entry)
    pack = {"zstd": lambda data: archive.compress(data, 3), "gzip": gzip.compress, "xz": lzma.compress}[compressed]
    path.write_bytes(pack(path.read_bytes()))
    machine.stage([entry])
    assert verified(machine)


def test_an_object_of_several_versions_comes_from_any_of_them(
    publisher: Any, machine: Any, published: FileList
) -> None:
    entry = published["/empty"]
    machine.stage([entry._replace(version=5), entry])
    assert machine.staged == {entry.hash}


def test_a_missing_fullfile_is_named_with_path_hash_and_url(publisher: Any, machine: Any, published: FileList) -> None:
    entry = published["/d/small"]
    path = publisher.directory / layout.fullfile(10, entry.hash)
    path.unlink()
    with pytest.raises(DownloadError) as caught:
        machine.stage(published.values())
    for part in ("/d/small", entry.hash, publisher.url):
        assert part in str(caught.value)
    assert machine.staged == hashes(published) - {entry.hash}


@pytest.mark.parametrize("damage", ["other object", "truncated", "noise", "empty", "two members"])
def test_a_bad_fullfile_is_fetched_once_more_and_then_named(
    publisher: Any, machine: Any, published: FileList, damage: str, monkeypatch: Any
) -> None:
    entry = published["/d/small"]
    path = publisher.fullfile(entry)
    data = path.read_bytes()
    path.write_bytes(
        {
            "other object": data.replace(b"line 1 ", b"line 2 "),
            "truncated": data[:1000],
            "noise": b"\x28\xb5\x2f\xfd" + data,
            "empty": b"",
            "two members": data[:-1024] + data,
        }[damage]
    )
    tries = []
    original = archive.read_fullfile

    def counted(*args: Any) -> Any:
        tries.append(args)
        return original(*args)

    monkeypatch.setattr("swupd.staging.read_fullfile", counted)
    with pytest.raises(DownloadError, match=f"/d/small.*{entry.hash}") as caught:
        machine.stage([entry])
    assert len(tries) == 2
    assert "publisher" in caught.value.hint
    assert machine.staged == set()


def test_a_fullfile_that_is_good_the_second_time_is_taken(
    publisher: Any, machine: Any, published: FileList, monkeypatch: Any
) -> None:
    entry = published["/d/big"]
    path = publisher.fullfile(entry)
    good = path.read_bytes()
    path.write_bytes(good[:-5000])
    original = archive.read_fullfile

    def repaired(*args: Any) -> Any:
        path.write_bytes(good)
        return original(*args)

    monkeypatch.setattr("swupd.staging.read_fullfile", repaired)
    machine.stage([entry])
    assert machine.staged == {entry.hash}
    assert verified(machine)


# -- earlier runs ------------------------------------------------------------------------------------------------------


def test_what_is_staged_already_is_not_downloaded(publisher: Any, machine: Any, published: FileList) -> None:
    machine.stage(published.values())
    publisher.drop_fullfiles(10)
    result = machine.stage(published.values())
    assert result.reused == result.objects == len(hashes(published))


def test_a_staged_object_that_was_changed_is_fetched_again(machine: Any, published: FileList) -> None:
    machine.stage(published.values())
    (machine.statedir.staged / published["/d/small"].hash).write_text("edited in place")
    (machine.statedir.staged / published["/secret"].hash).chmod(0o755)
    assert machine.stage(published.values()).fullfiles == 2
    assert verified(machine)


def test_unfinished_objects_of_a_killed_run_are_cleared_away(machine: Any, published: FileList) -> None:
    (machine.statedir.staged / f".{'0' * 64}.new").write_text("half")
    machine.stage([published["/empty"]])
    assert machine.staged == {published["/empty"].hash}


def test_released_objects_go_and_so_do_the_markers_of_packs(publisher: Any, machine: Any, published: FileList) -> None:
    need = publisher.pack("b", 0, 10, hashes(published))
    machine.stage(published.values(), [need])
    with machine.stager() as (stager, _):
        stager.release([published["/empty"], published["/d"]])
    assert machine.staged == hashes(published) - {published["/empty"].hash, published["/d"].hash}
    assert not machine.statedir.pack_marker("b", 0, 10).exists()


# -- packs -------------------------------------------------------------------------------------------------------------


def test_a_pack_brings_all_objects(publisher: Any, machine: Any, published: FileList) -> None:
    need = publisher.pack("b", 0, 10, hashes(published))
    publisher.drop_fullfiles(10)
    result = machine.stage(published.values(), [need])
    assert result.from_packs == result.objects == len(hashes(published))
    assert result.packs == 1
    assert verified(machine)
    assert machine.statedir.pack_marker("b", 0, 10).stat().st_size == 0
    assert os.listdir(machine.statedir.download) == []


def test_a_compressed_pack_is_unpacked(publisher: Any, machine: Any, published: FileList) -> None:
    need = publisher.pack("b", 0, 10, hashes(published))
    path = publisher.directory / layout.pack(10, "b", 0)
    path.write_bytes(archive.compress(path.read_bytes(), 3))
    assert machine.stage(published.values(), [need]).from_packs == len(hashes(published))


def test_only_what_is_needed_is_taken_from_a_pack(publisher: Any, machine: Any, published: FileList) -> None:
    need = publisher.pack("b", 0, 10, hashes(published))
    machine.stage([published["/d/small"]], [need])
    assert machine.staged == {published["/d/small"].hash}


def test_a_pack_that_the_server_does_not_have_is_no_problem(machine: Any, published: FileList, publisher: Any) -> None:
    need = publisher.pack("b", 0, 10, hashes(published))
    (publisher.directory / layout.pack(10, "b", 0)).unlink()
    result = machine.stage(published.values(), [need])
    assert result.fullfiles == len(hashes(published))
    assert machine.report.warnings == []
    assert not machine.statedir.pack_marker("b", 0, 10).exists()


def test_a_pack_is_not_fetched_when_it_was_unpacked_or_has_nothing_that_is_missing(
    publisher: Any, machine: Any, published: FileList
) -> None:
    need = publisher.pack("b", 0, 10, hashes(published))
    machine.statedir.pack_marker("b", 0, 10).touch()
    other = publisher.pack("c", 0, 10, [published["/d"].hash])
    result = machine.stage([published["/empty"]], [need, other])
    assert (result.packs, result.fullfiles) == (0, 1)


def test_a_wrong_object_in_a_pack_is_dropped_with_a_warning_and_comes_alone(
    publisher: Any, machine: Any, published: FileList
) -> None:
    need = publisher.pack("b", 0, 10, hashes(published))
    path = publisher.directory / layout.pack(10, "b", 0)
    data = path.read_bytes()
    path.write_bytes(data.replace(b"line 7 ", b"line 8 ").replace(b"abcdef0123", b"abcdef0124", 1))
    result = machine.stage(published.values(), [need])
    assert (result.from_packs, result.fullfiles) == (len(hashes(published)) - 2, 2)
    assert len(machine.report.warnings) == 1
    assert "wrong objects" in machine.report.warnings[0]
    assert "and 1 more" in machine.report.warnings[0]
    assert verified(machine)


@pytest.mark.parametrize("keep", [0, 600, 5_000, 1_000_000])
def test_a_truncated_pack_is_used_up_to_its_end(publisher: Any, machine: Any, published: FileList, keep: int) -> None:
    ordered = [published[name].hash for name in ("/empty", "/link", "/secret", "/d/big", "/d/small", "/d")]
    need = publisher.pack("b", 0, 10, ordered)
    path = publisher.directory / layout.pack(10, "b", 0)
    path.write_bytes(path.read_bytes()[:keep])
    result = machine.stage(published.values(), [need])
    assert result.objects == len(hashes(published))
    assert verified(machine)
    assert "damaged" in machine.report.warnings[0]
    assert not machine.statedir.pack_marker("b", 0, 10).exists()


def test_members_that_no_pack_may_have_end_the_pack(publisher: Any, machine: Any, published: FileList) -> None:
    import tarfile

    need = publisher.pack("b", 0, 10, hashes(published))
    with tarfile.open(publisher.directory / layout.pack(10, "b", 0), "w") as tar:
        device = tarfile.TarInfo(layout.staged_name(published["/empty"].hash))
        device.type = tarfile.CHRTYPE
        tar.addfile(device)
    assert machine.stage(published.values(), [need]).fullfiles == len(hashes(published))
    assert "damaged" in machine.report.warnings[0]
    assert verified(machine)


# -- deltas ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def installed(machine: Any, published: FileList) -> None:
    """The machine has version 10."""
    from swupd.plan import plan_install

    machine.bring(plan_install(published), published)


@pytest.fixture
def delta_pack(publisher: Any, published: FileList, changed: FileList) -> Any:
    """A pack from 10 to 20 with one delta, while the server has no fullfile."""
    need = publisher.pack("b", 10, 20, [], [(published["/d/small"].hash, changed["/d/small"].hash)])
    publisher.drop_fullfiles(20)
    return need


def test_a_delta_makes_the_new_file(
    machine: Any, published: FileList, changed: FileList, installed: None, delta_pack: Any
) -> None:
    result = machine.stage([changed["/d/small"]], [delta_pack], published)
    assert (result.from_deltas, result.objects) == (1, 1)
    assert machine.staged == {changed["/d/small"].hash}
    assert verified(machine)


@pytest.mark.parametrize("spoil", ["edited", "mode", "gone", "link", "link in parent", "directory"])
def test_a_delta_is_not_applied_to_a_file_that_is_not_the_old_one(
    *,
    tmp_path: Path,
    publisher: Any,
    machine: Any,
    published: FileList,
    changed: FileList,
    installed: None,
    delta_pack: Any,
    spoil: str,
) -> None:
    file = machine.root / "d/small"
    if spoil == "mode":
        file.chmod(0o600)
    elif spoil == "link in parent":
        (machine.root / "d").rename(tmp_path / "elsewhere")
        (machine.root / "d").symlink_to(tmp_path / "elsewhere")
    else:
        file.rename(tmp_path / "elsewhere")
    if spoil == "link":
        file.symlink_to(tmp_path / "elsewhere")
    elif spoil == "directory":
        file.mkdir()
    elif spoil == "edited":
        file.write_text(TEXT.replace("line 3 ", "line 4 "))
        file.chmod(0o4755)
    publisher.fullfile(changed["/d/small"])
    result = machine.stage([changed["/d/small"]], [delta_pack], published)
    assert (result.from_deltas, result.fullfiles) == (0, 1)
    assert verified(machine)


def test_a_delta_is_applied_to_another_file_with_the_same_content(
    machine: Any, published: FileList, changed: FileList, installed: None, delta_pack: Any
) -> None:
    (machine.root / "d/small").rename(machine.root / "copy")
    current = {**published, "/copy": published["/d/small"]._replace(name="/copy")}
    assert machine.stage([changed["/d/small"]], [delta_pack], current).from_deltas == 1
    current = dict(reversed(current.items()))
    (machine.statedir.staged / changed["/d/small"].hash).unlink()
    machine.statedir.pack_marker("b", 10, 20).unlink()
    assert machine.stage([changed["/d/small"]], [delta_pack], current).from_deltas == 1


def test_a_delta_that_is_damaged_is_no_problem(
    *, publisher: Any, machine: Any, published: FileList, changed: FileList, installed: None, delta_pack: Any
) -> None:
    path = publisher.directory / layout.pack(20, "b", 10)
    path.write_bytes(path.read_bytes().replace(b"BSDIFF4U", b"BSDIFF5U").replace(b"one more line", b"one lesz line"))
    publisher.fullfile(changed["/d/small"])
    result = machine.stage([changed["/d/small"]], [delta_pack], published)
    assert (result.from_deltas, result.fullfiles) == (0, 1)


def test_a_delta_that_gives_something_else_is_no_problem(
    *, publisher: Any, machine: Any, published: FileList, changed: FileList, installed: None, delta_pack: Any
) -> None:
    path = publisher.directory / layout.pack(20, "b", 10)
    data = path.read_bytes()
    assert b"one more line" in data
    path.write_bytes(data.replace(b"one more line", b"one lesz line"))
    publisher.fullfile(changed["/d/small"])
    result = machine.stage([changed["/d/small"]], [delta_pack], published)
    assert (result.from_deltas, result.fullfiles) == (0, 1)
    assert verified(machine)


def test_names_of_deltas_with_and_without_versions_are_understood(
    *, publisher: Any, machine: Any, published: FileList, changed: FileList, installed: None, delta_pack: Any
) -> None:
    path = publisher.directory / layout.pack(20, "b", 10)
    with path.open("rb") as source:
        members = [(member, data.read()) for member, data in archive.read_members(source, archive.PACK_LIMITS)]
    target = BytesIO()
    archive.write_pack(
        target,
        [
            (Member(m.name.replace("10-20-", ""), ObjectType.FILE, m.mode, 0, 0, m.size), [data])
            for m, data in members
            if m.type is ObjectType.FILE
        ],
    )
    path.write_bytes(target.getvalue())
    assert machine.stage([changed["/d/small"]], [delta_pack], published).from_deltas == 1


# -- trouble on this side ----------------------------------------------------------------------------------------------


def test_a_full_disk_is_told_as_such_and_leaves_nothing_half_done(
    machine: Any, published: FileList, monkeypatch: Any, snapshot: Callable[[Path], dict[str, str]]
) -> None:
    original = Directory.write_file

    def full(self: Directory, name: str, chunks: Any, **options: Any) -> None:
        if self.path == str(machine.statedir.staged):

            def some() -> Any:
                yield b"x"
                raise OSError(errno.ENOSPC, "No space left on device")

            chunks = some()
        original(self, name, chunks, **options)

    monkeypatch.setattr(Directory, "write_file", full)
    with pytest.raises(DiskSpaceError, match="nothing on the system was changed") as caught:
        machine.stage([published["/d/small"], published["/d/big"]])
    assert "make room" in caught.value.hint
    assert machine.staged == set()
    assert snapshot(machine.root) == {}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make such content")
def test_content_of_others_needs_root(
    tmp_path: Path, publisher: Any, machine: Any, published: FileList, monkeypatch: Any
) -> None:
    def refuse(*args: Any, **options: Any) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "fchown", refuse)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(NotRootError):
        machine.stage([published["/d/small"]])


def test_the_steps_are_told_by_their_names_in_the_json_stream(
    publisher: Any, machine: Any, published: FileList
) -> None:
    need = publisher.pack("b", 0, 10, [published["/empty"].hash])
    machine.stage(published.values(), [need])
    assert machine.report.steps == ["validate_fullfiles", "download_packs", "download_fullfiles"]


def test_setuid_and_owner_are_in_the_staged_object(machine: Any, published: FileList) -> None:
    entry: Entry = published["/d/small"]
    machine.stage([entry])
    status = (machine.statedir.staged / entry.hash).stat()
    assert stat.S_IMODE(status.st_mode) == 0o4755
    assert status.st_uid == os.getuid()


# -- forecasts ---------------------------------------------------------------------------------------------------------


def test_a_forecast_names_what_is_not_staged_yet_and_fetches_nothing(
    publisher: Any, machine: Any, published: FileList
) -> None:
    machine.stage([published["/empty"]])
    pack = publisher.pack("editors", 0, 10, [published["/d/small"].hash])
    with machine.stager() as (stager, _):
        forecast = stager.forecast(published.values(), packs=[pack])
    assert forecast.missing == hashes(published) - {published["/empty"].hash}
    assert forecast.way.packs == (pack,)
    assert machine.staged == {published["/empty"].hash}


def test_a_forecast_leaves_out_packs_that_have_nothing_to_give(
    publisher: Any, machine: Any, published: FileList
) -> None:
    entry = published["/d/small"]
    pack = publisher.pack("editors", 0, 10, [entry.hash])
    machine.stage([entry])
    with machine.stager() as (stager, _):
        forecast = stager.forecast(published.values(), packs=[pack])
    assert (forecast.way.packs, forecast.way.single_files) == ((), len(forecast.missing))
    assert forecast.way.unpriced == forecast.missing
