from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from mixer.errors import BuildError
from mixer.images import guest, init
from mixer.images.guest import FileSystem
from mixer.images.summary import Summary
from swupd.report import TextReport

Published = Any
TIME = 1_700_000_000
SYSTEMS = list(FileSystem)


def make(published: Published, target: Path, system: FileSystem, *bundles: str, **options: bool) -> Summary:
    found = published.load(*(bundles or ("guest",)), whole=False)
    return guest.build(found, target, TextReport(), system=system, time=TIME, **options)


def facts_of(target: Path) -> dict[str, Any]:
    facts: dict[str, Any] = json.loads(target.with_name(f"{target.name}.json").read_text())
    return facts


def check(system: FileSystem, path: Path) -> None:
    """Let the file system's own program look for faults."""
    argv = ["fsck.erofs", str(path)] if system is FileSystem.EROFS else ["e2fsck", "-fn", str(path)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def extracted(target: Path, facts: dict[str, Any], place: Path) -> Path:
    """The file system alone."""
    start = facts["filesystem_offset"]
    place.write_bytes(target.read_bytes()[start : start + facts["filesystem_bytes"]])
    return place


@pytest.mark.parametrize("system", SYSTEMS)
@pytest.mark.parametrize("with_dax", [False, True])
def test_an_image_is_a_sound_file_system_and_says_where(
    published: Published, tmp_path: Path, system: FileSystem, with_dax: bool
) -> None:
    target = tmp_path / "guest.img"
    make(published, target, system, with_dax=with_dax)

    facts = facts_of(target)
    device = "/dev/pmem0p1" if with_dax else "/dev/pmem0"
    line = f"root={device} rootfstype={system} rootflags=dax=always ro init=/usr/lib/guest/init"
    assert facts["kernel_command_line"] == line
    assert (facts["type"], facts["dax"], facts["version"]) == (f"guest-{system}", with_dax, 10)
    assert facts["bundles"] == ["guest"]
    assert facts["filesystem_offset"] == (3 << 20 if with_dax else 0)
    assert facts["bytes"] == target.stat().st_size
    assert target.stat().st_size % ((128 if with_dax else 2) << 20) == 0
    check(system, extracted(target, facts, tmp_path / "fs"))
    assert json.loads((tmp_path / "guest.img.spdx.json").read_text())["spdxVersion"] == "SPDX-2.3"


@pytest.mark.parametrize("system", SYSTEMS)
@pytest.mark.parametrize("options", [{}, {"with_dax": True}, {"with_verity": True}])
def test_the_same_version_gives_the_same_bytes(
    published: Published, tmp_path: Path, system: FileSystem, options: dict[str, bool]
) -> None:
    for place in ("one", "other"):
        (tmp_path / place).mkdir()
        make(published, tmp_path / place / "guest.img", system, "office", "guest", **options)

    for name in ("guest.img", "guest.img.json", "guest.img.spdx.json"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "other" / name).read_bytes()


@pytest.mark.parametrize("system", SYSTEMS)
@pytest.mark.parametrize("with_dax", [False, True])
def test_a_hash_tree_proves_the_file_system(
    published: Published, tmp_path: Path, system: FileSystem, with_dax: bool
) -> None:
    target = tmp_path / "guest.img"
    made = make(published, target, system, with_verity=True, with_dax=with_dax)

    facts = facts_of(target)
    proof = facts["verity"]
    data = extracted(target, facts, tmp_path / "data")
    tree = tmp_path / "hashes"
    tree.write_bytes(target.read_bytes()[proof["hash_offset"] : proof["hash_offset"] + proof["hash_bytes"]])
    argv = ["veritysetup", "verify", "--no-superblock", f"--salt={proof['salt']}", str(data), str(tree)]
    assert subprocess.run([*argv, proof["root_hash"]], check=False).returncode == 0
    assert facts["kernel_command_line"].startswith("root=/dev/dm-0 ")
    assert f"\nroot hash: {proof['root_hash']}\n" in made.table()
    if with_dax:
        assert "/dev/pmem0p1 /dev/pmem0p2 4096 4096" in made.lines["for the kernel"]
    else:
        start = proof["hash_offset"] // 4096
        assert (
            f"/dev/pmem0 /dev/pmem0 4096 4096 {proof['data_blocks']} {start} sha256" in (made.lines["for the kernel"])
        )


def test_bundles_without_an_init_are_named(published: Published, tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="the bundles editor, os-core have no init") as caught:
        make(published, tmp_path / "guest.img", FileSystem.EROFS, "editor")

    assert "guest-minimal" in caught.value.hint
    assert not (tmp_path / "guest.img").exists()


def test_the_init_of_a_guest_comes_first(prepared: Published) -> None:
    root = prepared.root
    (root / "usr/sbin").mkdir(exist_ok=True)
    (root / "usr/sbin/init").write_text("wrapper")
    prepared.list("os-core", "/usr/sbin", "/usr/sbin/init")
    prepared.build(packs=False)

    assert init.init_of(prepared.load("guest")) == "/usr/lib/guest/init"
    assert init.init_of(prepared.load("editor")) == "/usr/sbin/init"
