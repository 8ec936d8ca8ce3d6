from __future__ import annotations

import gzip
import lzma
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import zstandard

from mixer import initrd, initrdparts
from mixer.errors import BuildError

VERSION = "6.1.0-test"
DEPENDENCIES = """\
kernel/fs/btrfs/btrfs.ko: kernel/lib/xor.ko kernel/lib/libcrc32c.ko
kernel/fs/overlayfs/overlay.ko:
kernel/lib/xor.ko:
kernel/lib/libcrc32c.ko:
kernel/crypto/crc32c-intel.ko:
kernel/drivers/virtio_blk.ko: kernel/drivers/virtio.ko kernel/drivers/virtio_ring.ko
kernel/drivers/virtio.ko: kernel/drivers/virtio_ring.ko
kernel/drivers/virtio_ring.ko:
kernel/drivers/sd_mod.ko: kernel/drivers/scsi_mod.ko
kernel/drivers/scsi_mod.ko:
kernel/net/unwanted.ko:
"""
BUSYBOX = shutil.which("busybox")
needs_busybox = pytest.mark.skipif(BUSYBOX is None, reason="needs busybox-static")


class Root:
    """A root with a kernel of a few modules."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.modules = path / "usr/lib/modules" / VERSION
        self.modules.mkdir(parents=True)
        for name in ("usr/bin", "boot"):
            (path / name).mkdir(parents=True)
        (path / "bin").symlink_to("usr/bin")
        if BUSYBOX:
            shutil.copy(BUSYBOX, path / "usr/bin/busybox")
        (path / "boot" / f"vmlinuz-{VERSION}").write_bytes(b"kernel")
        self.kernel(DEPENDENCIES)

    def kernel(self, dependencies: str, built_in: str = "") -> None:
        (self.modules / "modules.dep").write_text(dependencies)
        (self.modules / "modules.builtin").write_text(built_in)
        for line in dependencies.splitlines():
            path = self.modules / line.partition(":")[0]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(path.name.encode())

    def order(self, wanted: tuple[str, ...]) -> list[str]:
        modules = initrdparts.Modules(initrdparts.of_root(self.path), VERSION)
        return [path.rpartition("/")[2] for path in modules.order(wanted, essential=initrd.ESSENTIAL)]

    def unpacked(self, target: Path) -> Path:
        """The initrd as it looks after the kernel has unpacked it."""
        made = initrd.make(self.path)
        assert made == {f"/boot/initrd-{VERSION}": f"/boot/vmlinuz-{VERSION}"}
        data = zstandard.decompress((self.path / "boot" / f"initrd-{VERSION}").read_bytes())
        target.mkdir()
        subprocess.run(["cpio", "-id", "--no-absolute-filenames", "--quiet"], input=data, cwd=target, check=True)
        return target


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(initrd, "COMPRESSION_LEVEL", 1)


@pytest.fixture
def root(tmp_path: Path) -> Root:
    return Root(tmp_path / "root")


def test_a_module_comes_after_those_that_it_needs(root: Root) -> None:
    order = root.order(initrd.FIRST)
    assert order == [
        *("crc32c-intel.ko", "libcrc32c.ko", "xor.ko", "btrfs.ko", "overlay.ko"),
        *("virtio_ring.ko", "virtio.ko", "virtio_blk.ko"),
    ]


def test_what_is_built_in_is_left_out(root: Root) -> None:
    root.kernel("kernel/drivers/nvme.ko:\n", "kernel/fs/btrfs/btrfs.ko\nkernel/fs/overlayfs/overlay.ko\n")
    assert root.order(initrd.FIRST) == []
    assert root.order(initrd.LATER) == ["nvme.ko"]


@pytest.mark.parametrize("name", initrd.ESSENTIAL)
def test_a_kernel_that_cannot_mount_a_deployment_is_an_error(root: Root, name: str) -> None:
    root.kernel("".join(line for line in DEPENDENCIES.splitlines(keepends=True) if f"/{name}.ko" not in line))
    with pytest.raises(BuildError, match=f"the kernel {VERSION} has no module {name}") as caught:
        initrd.make(root.path)
    assert "built in" in caught.value.hint


def test_a_kernel_without_modules_is_an_error(root: Root) -> None:
    shutil.rmtree(root.modules)
    with pytest.raises(BuildError, match=r"cannot read .*modules\.dep: No such file"):
        initrd.make(root.path)


def test_a_root_without_a_kernel_gets_no_initrd(root: Root) -> None:
    (root.path / "boot" / f"vmlinuz-{VERSION}").unlink()
    assert initrd.make(root.path) == {}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "the root has no /bin/busybox"),
        (b"#!/bin/sh\n", "/bin/busybox of the root is not ELF"),
        (Path("/bin/true").read_bytes(), "/bin/busybox of the root needs libraries"),
    ],
)
def test_only_a_static_busybox_will_do(root: Root, content: bytes | None, message: str) -> None:
    program = root.path / "usr/bin/busybox"
    program.unlink(missing_ok=True)
    if content is not None:
        program.write_bytes(content)
    with pytest.raises(BuildError, match=message) as caught:
        initrd.make(root.path)
    assert "busybox-static" in caught.value.hint


@pytest.mark.parametrize("name", ["usr/bin/busybox", "bin"])
def test_a_busybox_outside_of_the_root_is_none(root: Root, tmp_path: Path, name: str) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/busybox").write_bytes(b"another's")
    link = root.path / name
    link.unlink(missing_ok=True)
    link.symlink_to(tmp_path / "outside" / ("busybox" if "busybox" in name else ""))
    with pytest.raises(BuildError, match="the root has no /bin/busybox"):
        initrd.make(root.path)


@needs_busybox
def test_the_boot_directory_is_the_one_of_the_root(root: Root, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    inside = root.path / str(outside)[1:]
    shutil.copytree(root.path / "boot", inside)
    shutil.move(root.path / "boot", outside)
    (root.path / "boot").symlink_to(outside)
    assert initrd.make(root.path) == {f"/boot/initrd-{VERSION}": f"/boot/vmlinuz-{VERSION}"}
    assert (inside / f"initrd-{VERSION}").exists()
    assert not (outside / f"initrd-{VERSION}").exists()


@needs_busybox
def test_the_initrd_has_all_that_its_scripts_use(root: Root, tmp_path: Path) -> None:
    unpacked = root.unpacked(tmp_path / "unpacked")
    assert {path.name for path in unpacked.iterdir()} == {"init", "state", *initrd.DIRECTORIES}
    assert (unpacked / "init").stat().st_mode & 0o111
    listed = [line for name in ("first", "later") for line in (unpacked / "modules" / name).read_text().splitlines()]
    assert {*listed, "first", "later"} == {path.name for path in (unpacked / "modules").iterdir()}
    assert len(listed) == len(set(listed))
    assert listed.index("scsi_mod.ko") + 1 == listed.index("sd_mod.ko")
    assert "unwanted.ko" not in listed
    assert (unpacked / "dev/console").is_char_device()


@needs_busybox
def test_every_program_of_the_scripts_is_an_applet_that_is_linked(root: Root) -> None:
    scripts = Path(initrd.__file__).parent / "osfiles" / "initrd"
    text = "\n".join((scripts / name).read_text() for name in ("init", "state"))
    code = re.sub(r"#.*|'[^']*'", "", text)
    known = set(subprocess.run([str(BUSYBOX), "--list"], capture_output=True, text=True, check=True).stdout.split())
    used = set(re.findall(r"(?<![/\w])[a-z_]+\b(?![=/])", code)) & known
    in_the_shell = {"echo", "false"}
    no_programs = {"hostname", "id", "reset", "yes"}
    assert used - in_the_shell - no_programs | {"sh"} == set(initrd.APPLETS)


@needs_busybox
def test_equal_roots_have_equal_initrds(tmp_path: Path) -> None:
    one, other = Root(tmp_path / "one"), Root(tmp_path / "other")
    assert initrd.build(one.path, VERSION) == initrd.build(other.path, VERSION)


@needs_busybox
@pytest.mark.parametrize(
    ("suffix", "compress"), [(".xz", lzma.compress), (".zst", zstandard.compress), (".gz", gzip.compress)]
)
def test_modules_are_decompressed(root: Root, tmp_path: Path, suffix: str, compress: object) -> None:
    root.kernel(DEPENDENCIES.replace(".ko", f".ko{suffix}"))
    for path in root.modules.rglob(f"*{suffix}"):
        path.write_bytes(compress(path.name.encode()))  # type: ignore[operator]
    unpacked = root.unpacked(tmp_path / "unpacked")
    assert (unpacked / "modules/btrfs.ko").read_bytes() == f"btrfs.ko{suffix}".encode()


@needs_busybox
@pytest.mark.parametrize(
    ("suffix", "content"),
    [
        *(pytest.param(suffix, b"damaged", id=f"damaged {suffix}") for suffix in (".xz", ".zst", ".gz")),
        pytest.param(".xz", lzma.compress(bytes(5000))[:-20], id="cut off .xz"),
        pytest.param(".zst", zstandard.compress(bytes(5000))[:-2], id="cut off .zst"),
        pytest.param(".gz", gzip.compress(bytes(5000))[:-10], id="cut off .gz"),
        pytest.param("", gzip.compress(b"module"), id="compressed without a suffix"),
    ],
)
def test_a_damaged_module_is_named(root: Root, suffix: str, content: bytes) -> None:
    root.kernel(DEPENDENCIES.replace(".ko", f".ko{suffix}"))
    (root.modules / f"kernel/crypto/crc32c-intel.ko{suffix}").write_bytes(content)
    with pytest.raises(BuildError, match=r"cannot decompress the module .*crc32c-intel\.ko"):
        initrd.make(root.path)
