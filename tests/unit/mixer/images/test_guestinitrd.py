from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from mixer.errors import BuildError
from mixer.images import guestinitrd

RELEASE = "6.10.0"
MODULES = f"/usr/lib/modules/{RELEASE}"
DEPENDENCIES = """\
kernel/fs/erofs/erofs.ko: kernel/lib/libcrc32c.ko
kernel/lib/libcrc32c.ko:
kernel/fs/overlayfs/overlay.ko:
kernel/drivers/virtio_blk.ko:
kernel/net/unwanted.ko:
"""
SCRIPT = Path(guestinitrd.__file__).parents[1] / "osfiles/guest-initrd/init"
BUSYBOX = shutil.which("busybox")
pytestmark = pytest.mark.skipif(BUSYBOX is None, reason="needs busybox-static")


@pytest.fixture
def files() -> dict[str, bytes]:
    """What is read of a root."""
    modules = [line.partition(":")[0] for line in DEPENDENCIES.splitlines()]
    return {
        "/bin/busybox": Path(str(BUSYBOX)).read_bytes(),
        f"{MODULES}/modules.dep": DEPENDENCIES.encode(),
        f"{MODULES}/modules.builtin": b"",
        **{f"{MODULES}/{module}": module.encode() for module in modules},
    }


def reader(files: dict[str, bytes]) -> Any:
    def read(name: str) -> bytes:
        try:
            return files[name]
        except KeyError:
            raise FileNotFoundError(2, "No such file or directory", name) from None

    return read


@pytest.fixture
def unpacked(files: dict[str, bytes], tmp_path: Path) -> Path:
    data = guestinitrd.build(reader(files), RELEASE)
    subprocess.run(["cpio", "-id", "--no-absolute-filenames", "--quiet"], input=data, cwd=tmp_path, check=True)
    return tmp_path


def test_all_of_it_is_below_one_directory_that_no_image_has(unpacked: Path) -> None:
    assert {path.name for path in unpacked.iterdir()} == {"dev", "guest", "init", "proc", "run", "sys"}
    assert (unpacked / "init").readlink() == Path("guest/init")
    assert (unpacked / "guest/init").stat().st_mode & 0o111
    assert (unpacked / "dev/console").is_char_device()


def test_each_list_names_modules_that_are_there_in_their_order(unpacked: Path) -> None:
    place = unpacked / "guest/modules"
    lists = {name: (place / name).read_text().split() for name in guestinitrd.LISTS}
    assert lists["erofs"] == ["libcrc32c.ko", "erofs.ko"]
    assert lists["block"] == ["virtio_blk.ko"]
    assert lists["ext4"] == []
    assert {name for names in lists.values() for name in names} | set(lists) == {path.name for path in place.iterdir()}


def test_the_same_files_give_the_same_bytes(files: dict[str, bytes]) -> None:
    assert guestinitrd.build(reader(files), RELEASE) == guestinitrd.build(reader(files), RELEASE)


def test_without_busybox_or_modules_there_is_none(files: dict[str, bytes]) -> None:
    busybox = files.pop("/bin/busybox")
    with pytest.raises(BuildError, match="the root has no /bin/busybox"):
        guestinitrd.build(reader(files), RELEASE)
    files["/bin/busybox"] = busybox
    del files[f"{MODULES}/modules.dep"]
    with pytest.raises(BuildError, match=r"cannot read .*modules\.dep"):
        guestinitrd.build(reader(files), RELEASE)


def test_every_program_of_the_script_is_an_applet_that_is_linked() -> None:
    code = re.sub(r"#.*|'[^']*'|\"[^\"]*\"", "", SCRIPT.read_text())
    known = set(subprocess.run([str(BUSYBOX), "--list"], capture_output=True, text=True, check=True).stdout.split())
    used = set(re.findall(r"(?<![-/\w.])[a-z_]+\b(?![=/])", code)) & known
    assert used - {"echo"} | {"sh", "cat"} == set(guestinitrd.APPLETS)


def test_files_of_a_tree_are_found_through_its_links(prepared: Any) -> None:
    root = prepared.root
    (root / "bin").symlink_to("usr/bin")
    (root / "usr/bin/absolute").symlink_to("/bin/../bin/./link")
    (root / "usr/bin/circle").symlink_to("circle")
    (root / "usr/bin/broken").symlink_to("../nothing")
    prepared.list("os-core", "/bin", "/usr/bin/absolute", "/usr/bin/circle", "/usr/bin/broken")
    prepared.build(packs=False)
    tree = prepared.load()
    read = guestinitrd.of_tree(tree, tree.content)
    assert read("/bin/absolute") == b"shell 10"
    for name in ("/bin/circle", "/bin/broken", "/bin/missing", "/usr/bin", "/usr/bin/sh/x"):
        with pytest.raises(FileNotFoundError, match=name):
            read(name)
