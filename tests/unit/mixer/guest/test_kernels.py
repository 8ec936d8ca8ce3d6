from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from mixer.errors import BuildError
from mixer.guest import kernels
from mixer.images import tree
from swupd.report import TextReport
from tests.unit.mixer.images.bzimage import bzimage

BUSYBOX = shutil.which("busybox")
REPORT = TextReport(quiet=True)
pytestmark = pytest.mark.skipif(BUSYBOX is None, reason="needs busybox-static")


@pytest.fixture
def published(mix: Any) -> Any:
    """Version 10 with a kernel in the bundle metal."""
    shutil.rmtree(mix.source / "10")
    modules = {f"/usr/lib/modules/6.1/{name}": "" for name in ("modules.dep", "modules.builtin")}
    busybox = {"/bin/busybox": Path(str(BUSYBOX)).read_bytes()}
    mix.version(10, {"os-core": {"/usr/bin/sh": "sh"}, "metal": {"/boot/vmlinuz-6.1": bzimage(), **modules, **busybox}})
    mix.build(packs=False)
    return mix


def facts(mix: Any, **other: object) -> dict[str, object]:
    return {"version": 10, "mom": tree.load(mix.workspace, mix.config, REPORT).mom_hash, **other}


def test_the_kernel_of_the_images_version_is_made_once(published: Any) -> None:
    told = facts(published)
    directory = kernels.kept(published.workspace, published.config, told, REPORT)
    assert directory.parent == published.workspace.kernels
    assert directory.name.startswith(f"{told['mom']}-")
    assert (directory / "vmlinuz").read_bytes() == bzimage()
    shutil.rmtree(published.workspace.www)
    assert kernels.kept(published.workspace, published.config, told, REPORT) == directory


def test_a_version_that_is_not_signed_is_known_by_its_hash(published: Any) -> None:
    told = facts(published)
    (published.www / "10/Manifest.MoM.sig").unlink()
    assert kernels.kept(published.workspace, published.config, told, REPORT).is_dir()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"mom": "../../etc"}, "does not say of which version"),
        ({"mom": None}, "does not say of which version"),
        ({"version": "10"}, "does not say of which version"),
        ({"mom": "f" * 64}, "another version 10 than the published one"),
        ({"version": 77}, "77"),
    ],
)
def test_an_image_of_no_version_that_is_there_is_one_line(
    published: Any, wrong: dict[str, object], message: str
) -> None:
    with pytest.raises(BuildError, match=message):
        kernels.kept(published.workspace, published.config, facts(published, **wrong), REPORT)
    assert not published.workspace.kernels.exists()


def test_a_version_without_a_kernel_is_one_line(mix: Any) -> None:
    mix.build(packs=False)
    with pytest.raises(BuildError, match="no bundle of version 10 has a kernel") as caught:
        kernels.kept(mix.workspace, mix.config, facts(mix), REPORT)
    assert "--kernel DIR" in caught.value.hint
