"""Which kernel a root boots with, and its command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from swupd.errors import NextBootError
from swupd.nextboot import kernels


def add_kernel(root: Path, release: str, *, initrd: bool = True, modules: bool = True) -> None:
    (root / "boot").mkdir(parents=True, exist_ok=True)
    (root / f"boot/vmlinuz-{release}").write_text("kernel")
    if initrd:
        (root / f"boot/initrd-{release}").write_text("initrd")
    if modules:
        (root / f"usr/lib/modules/{release}").mkdir(parents=True)


def put(root: Path, name: str, text: str) -> None:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(text)


def test_the_newest_complete_kernel_is_taken(tmp_path: Path) -> None:
    for release in ("6.1.0-9-cloud-amd64", "6.1.0-10-cloud-amd64", "6.1.0-2-cloud-amd64"):
        add_kernel(tmp_path, release)
    add_kernel(tmp_path, "6.2", initrd=False)
    add_kernel(tmp_path, "6.3", modules=False)
    found = kernels.find(tmp_path)
    assert found.files == ("boot/vmlinuz-6.1.0-10-cloud-amd64", "boot/initrd-6.1.0-10-cloud-amd64")


def test_a_root_without_a_kernel_is_told_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(NextBootError, match="no kernel in /boot") as caught:
        kernels.find(tmp_path)
    assert "bundle-add kernel" in caught.value.hint


def test_a_kernel_without_an_initrd_is_none(tmp_path: Path) -> None:
    add_kernel(tmp_path, "6.1", initrd=False)
    with pytest.raises(NextBootError, match=r"no /boot/initrd-6\.1"):
        kernels.find(tmp_path)


def test_a_link_is_no_kernel(tmp_path: Path) -> None:
    add_kernel(tmp_path, "6.1")
    (tmp_path / "boot/vmlinuz-6.1").unlink()
    (tmp_path / "boot/vmlinuz-6.1").symlink_to("/etc/shadow")
    with pytest.raises(NextBootError):
        kernels.find(tmp_path)


def test_no_link_leads_out_of_the_root(tmp_path: Path) -> None:
    add_kernel(tmp_path / "outside", "6.1")
    root = tmp_path / "root"
    root.mkdir()
    (root / "boot").symlink_to(tmp_path / "outside/boot")
    (root / "usr/lib").mkdir(parents=True)
    (root / "usr/lib/modules").symlink_to(tmp_path / "outside/usr/lib/modules")
    with pytest.raises(NextBootError):
        kernels.find(root)


def test_the_administrators_command_line_comes_first(tmp_path: Path) -> None:
    machine, root = tmp_path / "machine", tmp_path / "root"
    put(root, "usr/lib/kernel/cmdline", "console=ttyS0\nquiet\n")
    own = "root=UUID=u rootflags=subvol=@/20"
    assert kernels.options("u", "20", machine=machine, root=root) == f"{own} console=ttyS0 quiet"
    put(machine, "etc/kernel/cmdline", "# mine\ndebug\n")
    assert kernels.options("u", "20", machine=machine, root=root) == f"{own} debug"


def test_what_no_kernel_would_take_is_refused(tmp_path: Path) -> None:
    put(tmp_path, "etc/kernel/cmdline", "x" * 3000)
    with pytest.raises(NextBootError, match="command line"):
        kernels.options("u", "20", machine=tmp_path, root=tmp_path)


def test_the_administrators_tries_come_first(tmp_path: Path) -> None:
    assert kernels.tries(machine=tmp_path, root=tmp_path) == 3
    put(tmp_path, "usr/lib/kernel/tries", "2")
    assert kernels.tries(machine=tmp_path, root=tmp_path) == 2
    put(tmp_path, "etc/kernel/tries", "7")
    assert kernels.tries(machine=tmp_path, root=tmp_path) == 7
