"""From the update pack of a signed index to staged objects: what is used of it, and what comes by the next way."""

from __future__ import annotations

import gzip
import hashlib
import random
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from swupd import process, unpack
from swupd.formats import archive, delta, gzipped, layout
from swupd.formats.archive import Member, ObjectType
from swupd.formats.filehash import hash_path
from swupd.formats.gzipped import Producer, Recipe
from swupd.formats.updateindex import PackFile
from swupd.plan import FileList, PackNeed, plan_install
from swupd.route import UpdatePack, Way
from swupd.staging import StageResult

MANUAL = "/usr/share/man/tool.1.gz"
TOOL = "/usr/bin/tool"
NEWS = "/usr/share/doc/NEWS.gz"


def run(argv: Sequence[str], stdin: bytes) -> bytes:
    return process.run(argv, env={"PATH": unpack.PROGRAM_PATH}, stdin=stdin).stdout


def text(version: int) -> bytes:
    """What gzip and zlib compress differently, with a small change in each version."""
    chance = random.Random(1)
    phrase = bytes(chance.choices(b"abcdefgh ", k=200))
    return b"%d" % version + b"".join(chance.randbytes(20) + phrase for _ in range(500))


def step(old: bytes, new: bytes, mode: int) -> bytes:
    """A delta between two contents of the same length."""
    changes = bytes((b - a) % 256 for a, b in zip(old, new, strict=True))
    return delta.encode(len(old), [(len(old), 0, 0)], changes, b"", mode=mode, uid=0, gid=0)


def member(name: str, data: bytes) -> tuple[Member, list[bytes]]:
    return Member(name, ObjectType.FILE, stat.S_IFREG | 0o644, 0, 0, len(data)), [data]


@dataclass
class Release:
    """Version 20, whose changed objects are published in an update pack and nowhere else."""

    publisher: Any
    old: FileList
    new: FileList

    @property
    def changed(self) -> frozenset[str]:
        return frozenset(entry.hash for entry in self.new.values() if entry.version == 20)

    @property
    def need(self) -> PackNeed:
        """The pack of the one bundle, which nobody has made so far."""
        return PackNeed("b", 10, 20, self.changed)

    @property
    def path(self) -> Path:
        path: Path = self.publisher.directory / layout.update_pack(20, 10)
        return path

    def source(self, files: FileList, name: str) -> tuple[bytes, int]:
        path = self.publisher.sources[files[name].hash]
        return path.read_bytes(), path.stat().st_mode

    def gzip_member(self, name: str, recipe: Recipe | None = None) -> tuple[Member, list[bytes]]:
        (before, _), (after, mode) = self.source(self.old, name), self.source(self.new, name)
        proved = gzipped.prove(after, run)
        assert proved is not None
        made = gzipped.encode(recipe or proved[0], step(gzip.decompress(before), proved[1], mode))
        return member(f"gzip/{layout.gzip_delta_name(self.old[name].hash, self.new[name].hash)}", made)

    def delta_member(self, name: str) -> tuple[Member, list[bytes]]:
        (before, _), (after, mode) = self.source(self.old, name), self.source(self.new, name)
        made = step(before, after, mode)
        return member(f"delta/{layout.delta_name(self.old[name].hash, self.new[name].hash)}", made)

    def write(self, members: Sequence[tuple[Member, list[bytes]]]) -> UpdatePack:
        with self.path.open("wb") as file:
            archive.write_pack(file, members)
        return self.announced()

    def write_all(self) -> UpdatePack:
        return self.write([self.delta_member(TOOL), self.gzip_member(MANUAL), self.gzip_member(NEWS)])

    def announced(self) -> UpdatePack:
        """The pack as it is now, as an index tells of it."""
        data = self.path.read_bytes()
        return UpdatePack(10, 20, PackFile(len(data), hashlib.sha256(data).hexdigest()), self.changed)


@pytest.fixture
def release(tmp_path: Path, publisher: Any, machine: Any) -> Release:
    """The machine has version 10; version 20 changes a program, a manual compressed by gzip, and news by zlib."""
    versions: list[FileList] = []
    for version in (10, 20):
        tree = tmp_path / f"v{version}"
        for name in (MANUAL, TOOL, NEWS):
            (tree / name[1:]).parent.mkdir(parents=True, exist_ok=True)
        (tree / MANUAL[1:]).write_bytes(run(["gzip", "-9", "-n", "-c"], text(version)))
        (tree / TOOL[1:]).write_bytes(text(version))
        (tree / TOOL[1:]).chmod(0o755)
        (tree / NEWS[1:]).write_bytes(gzip.compress(text(version)[:2000], 9, mtime=version))
        versions.append(publisher.publish(tree, version, versions[0] if versions else None))
        if version == 10:
            machine.bring(plan_install(versions[0]), versions[0])
    return Release(publisher, *versions)


def stage(machine: Any, release: Release, *ways: Way) -> StageResult:
    with machine.stager() as (stager, _):
        result: StageResult = stager.stage(
            release.new.values(), packs=[release.need], current=release.old, choose=lambda *_: ways
        )
    assert release.changed <= machine.staged
    assert all(hash_path(str(machine.statedir.staged / name)) == name for name in machine.staged)
    return result


def from_deltas(machine: Any, release: Release, *members: tuple[Member, list[bytes]]) -> int:
    """How many objects come from an update pack of these members; others come as single files."""
    result = stage(machine, release, Way(update_pack=release.write(members)))
    assert machine.report.warnings == []
    return result.from_deltas


# -- what the pack brings ----------------------------------------------------------------------------------------------


def test_an_update_pack_brings_ordinary_deltas_and_those_of_gzip_files(machine: Any, release: Release) -> None:
    pack = release.write_all()
    release.publisher.drop_fullfiles(20)
    result = stage(machine, release, Way(update_pack=pack))
    assert (result.packs, result.from_deltas) == (1, 3)
    assert (machine.statedir.content / "pack--update-from-10-to-20.tar").stat().st_size == 0
    assert list(machine.statedir.download.iterdir()) == []


def test_the_manual_needs_the_program_and_the_news_do_not(release: Release) -> None:
    """What the other tests rely on."""
    for name, program in ((MANUAL, True), (NEWS, False)):
        (_, (data,)) = release.gzip_member(name)
        assert (gzipped.decode(data)[0].producer is Producer.GZIP) == program


def test_little_memory_is_enough(machine: Any, release: Release, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unpack, "WAITING_BYTES_LIMIT", 1)
    assert stage(machine, release, Way(update_pack=release.write_all())).from_deltas == 3


def test_packs_of_bundles_come_beside_the_update_pack(machine: Any, release: Release) -> None:
    pack = release.write([release.gzip_member(MANUAL)])
    other = release.publisher.pack("b", 10, 20, release.changed)
    release.publisher.drop_fullfiles(20)
    result = stage(machine, release, Way((other,), pack))
    assert result.packs == 2


def test_markers_go_when_objects_are_released(machine: Any, release: Release) -> None:
    stage(machine, release, Way(update_pack=release.write_all()))
    with machine.stager() as (stager, _):
        stager.release(release.new.values())
    assert not (machine.statedir.content / "pack--update-from-10-to-20.tar").exists()


def test_an_update_pack_that_was_unpacked_is_not_fetched_again(machine: Any, release: Release) -> None:
    pack = release.write_all()
    stage(machine, release, Way(update_pack=pack))
    (machine.statedir.staged / release.new[TOOL].hash).unlink()
    result = stage(machine, release, Way(update_pack=pack), Way((release.need,)))
    assert (result.packs, result.reused, result.fullfiles) == (0, len(machine.staged) - 1, 1)


@pytest.mark.parametrize("state", ["everything is staged", "no pack is needed"])
def test_nobody_is_asked_for_the_way_without_need(machine: Any, release: Release, state: str) -> None:
    release.publisher.pack("b", 10, 20, release.changed)
    if state == "everything is staged":
        stage(machine, release, Way((release.need,)))
    with machine.stager() as (stager, _):
        packs = [release.need] if state == "everything is staged" else []
        stager.stage(release.new.values(), packs=packs, choose=lambda *_: pytest.fail("asked"))


# -- an update pack that is of no use ----------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["other bytes", "shorter", "longer", "missing"])
def test_of_a_pack_that_is_not_the_announced_one_nothing_is_used(machine: Any, release: Release, how: str) -> None:
    pack = release.write_all()
    data = release.path.read_bytes()
    if how == "missing":
        release.path.unlink()
    else:
        wrong = {"other bytes": data[:-1] + b"\1", "shorter": data[:-512], "longer": data + bytes(512)}
        release.path.write_bytes(wrong[how])
    need = release.publisher.pack("b", 10, 20, release.changed)
    result = stage(machine, release, Way(update_pack=pack), Way((need,)))
    assert (result.packs, result.from_packs, result.from_deltas) == (1, len(release.changed), 0)
    assert not (machine.statedir.content / "pack--update-from-10-to-20.tar").exists()
    told = {"missing": [], "longer": ["the update pack could not be downloaded"]}
    expected = told.get(how, ["the update pack is not the one that the publisher has signed for"])
    assert [warning.partition(":")[0].partition(";")[0] for warning in machine.report.warnings] == expected


def test_a_pack_that_is_damaged_as_it_was_announced_is_used_up_to_the_damage(machine: Any, release: Release) -> None:
    release.write_all()
    release.path.write_bytes(release.path.read_bytes()[:-2500])
    need = release.publisher.pack("b", 10, 20, release.changed)
    result = stage(machine, release, Way(update_pack=release.announced()), Way((need,)))
    assert result.from_deltas > 0
    assert result.from_packs > 0
    assert "the update pack is damaged" in machine.report.warnings[0]


def test_without_another_way_single_files_come(machine: Any, release: Release) -> None:
    pack = release.write_all()
    release.path.unlink()
    assert stage(machine, release, Way(update_pack=pack)).fullfiles >= len(release.changed)


# -- gzip deltas that are of no use ------------------------------------------------------------------------------------


def test_without_the_program_what_needs_it_comes_as_single_file(
    machine: Any, release: Release, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    members = (release.gzip_member(MANUAL), release.gzip_member(NEWS))
    monkeypatch.setattr(unpack, "PROGRAM_PATH", str(tmp_path))
    assert from_deltas(machine, release, *members) == 1


def test_the_environment_of_the_user_does_not_reach_the_program(
    machine: Any, release: Release, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/gzip").symlink_to("/usr/bin/false")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("GZIP", "-1")
    assert from_deltas(machine, release, release.gzip_member(MANUAL)) == 1


@pytest.mark.parametrize("producer", Producer)
def test_a_recipe_that_gives_other_bytes_is_found_out(machine: Any, release: Release, producer: Producer) -> None:
    header = release.source(release.new, MANUAL)[0][:10]
    assert from_deltas(machine, release, release.gzip_member(MANUAL, Recipe(producer, 1, header))) == 0


@pytest.mark.parametrize("damage", ["magic", "sizes", "cut"])
def test_a_gzip_delta_that_is_damaged_is_no_problem(machine: Any, release: Release, damage: str) -> None:
    described, (data,) = release.gzip_member(MANUAL)
    container = len(data) - len(gzipped.decode(data)[1])
    data = {
        "magic": b"GZDELTA9" + data[8:],
        "sizes": data[: container + 33] + (1 << 40).to_bytes(8, "little") * 2 + data[container + 49 :],
        "cut": data[:-1],
    }[damage]
    assert from_deltas(machine, release, member(described.name, data)) == 0


def test_a_gzip_delta_is_not_applied_to_a_file_that_was_edited(machine: Any, release: Release) -> None:
    (machine.root / MANUAL[1:]).write_bytes(gzip.compress(text(10)))
    assert from_deltas(machine, release, release.gzip_member(MANUAL), release.gzip_member(NEWS)) == 1


def test_a_gzip_delta_from_a_file_that_is_not_gzip_is_no_problem(machine: Any, release: Release) -> None:
    _, data = release.gzip_member(MANUAL)
    name = f"gzip/{layout.gzip_delta_name(release.old[TOOL].hash, release.new[MANUAL].hash)}"
    assert from_deltas(machine, release, member(name, data[0])) == 0
