from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from mixer.errors import BuildError
from mixer.images import kernel
from swupd.report import TextReport
from tests.unit.mixer.images.bzimage import ELF, bzimage

TIME = 1_700_000_000
BUSYBOX = shutil.which("busybox")
pytestmark = pytest.mark.skipif(BUSYBOX is None, reason="needs busybox-static")


@pytest.fixture
def mix(prepared: Any) -> Any:
    """With a kernel that is one."""
    root = prepared.root
    (root / "boot/vmlinuz-6.10.0").write_bytes(bzimage(ELF))
    (root / "boot/vmlinuz-6.9.0").write_bytes(bzimage(ELF + b"older"))
    for name in ("modules.dep", "modules.builtin"):
        (root / "usr/lib/modules/6.10.0" / name).write_text("")
    shutil.copy(str(BUSYBOX), root / "usr/bin/busybox")
    (root / "bin").symlink_to("usr/bin")
    prepared.list("kernel", "/usr/bin/busybox", "/bin", "/usr/lib/modules/6.10.0/modules.builtin")
    return prepared


@pytest.fixture
def built(mix: Any) -> Any:
    mix.build(packs=False)
    return mix


def make(published: Any, target: Path, *bundles: str) -> kernel.Made:
    return kernel.build(published.load(*bundles), target, TextReport(quiet=True), time=TIME)


def test_a_directory_has_the_newest_kernel_in_both_forms_and_an_initrd(built: Any, tmp_path: Path) -> None:
    made = make(built, tmp_path / "kernel", "kernel")
    assert made.release == "6.10.0"
    assert {path.name for path in made.path.iterdir()} == {"vmlinuz", "vmlinux", "initrd"}
    assert (made.path / "vmlinuz").read_bytes() == bzimage(ELF)
    assert (made.path / "vmlinux").read_bytes() == ELF
    assert (made.path / "initrd").read_bytes().startswith(b"070701")
    assert "6.10.0" in made.table()


def test_beside_it_stands_what_it_was_made_of_and_how_to_start_it(built: Any, tmp_path: Path) -> None:
    make(built, tmp_path / "kernel", "kernel")
    facts = json.loads((tmp_path / "kernel.json").read_text())
    assert facts["type"] == "kernel"
    assert facts["kernel_command_line"] == kernel.OPTIONS
    assert facts["bytes"]["vmlinux"] == len(ELF)
    sbom = json.loads((tmp_path / "kernel.spdx.json").read_text())
    names = {file["fileName"].lstrip("./") for file in sbom["files"]}
    assert {"boot/vmlinuz-6.10.0", "usr/bin/busybox"} <= names
    assert "boot/vmlinuz-6.9.0" not in names


def test_the_same_tree_gives_the_same_bytes(built: Any, tmp_path: Path) -> None:
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        make(built, tmp_path / name / "kernel", "kernel")
    for path in sorted((tmp_path / "one").rglob("*")):
        if path.is_file():
            assert path.read_bytes() == (tmp_path / "other" / path.relative_to(tmp_path / "one")).read_bytes()


def test_without_a_kernel_the_error_names_the_bundle_that_has_one(built: Any, tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="have no kernel") as caught:
        make(built, tmp_path / "kernel")
    assert "bundle kernel has it" in caught.value.hint
    assert list(tmp_path.glob("kernel*")) == []


def test_a_file_that_is_no_kernel_leaves_nothing(mix: Any, tmp_path: Path) -> None:
    (mix.root / "boot/vmlinuz-6.10.0").write_bytes(b"no kernel")
    mix.build(packs=False)
    with pytest.raises(BuildError, match="not a bzImage"):
        make(mix, tmp_path / "kernel", "kernel")
    assert list(tmp_path.glob("kernel*")) == []


def test_a_kernel_without_modules_is_passed_over(mix: Any, tmp_path: Path) -> None:
    mix.remove("kernel", *(f"/usr/lib/modules/6.10.0/{name}" for name in ("modules.dep", "modules.builtin")))
    mix.remove("kernel", "/usr/lib/modules/6.10.0")
    mix.build(packs=False)
    with pytest.raises(BuildError, match=r"cannot read .*6\.9\.0/modules\.builtin"):
        make(mix, tmp_path / "kernel", "kernel")
