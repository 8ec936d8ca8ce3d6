"""Whose paths are whose."""

from __future__ import annotations

import pytest

from swupd.protected import PathClass, classify, is_protected, needs_boot_update, needs_reexec, never_deleted


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/etc", PathClass.CONFIG),
        ("/etc/passwd", PathClass.CONFIG),
        ("/etcetera", PathClass.ORDINARY),
        ("/usr/share/defaults/etc/passwd", PathClass.ORDINARY),
        ("/data", PathClass.STATE),
        ("/data/x", PathClass.STATE),
        ("/database", PathClass.ORDINARY),
        ("/lost+found", PathClass.STATE),
        ("/lost+found/#123", PathClass.STATE),
        ("/lost+foundation", PathClass.ORDINARY),
        ("/usr", PathClass.ORDINARY),
        ("/usr/bin/ls", PathClass.ORDINARY),
        ("/usr/var/lib", PathClass.ORDINARY),
        ("/usr/src", PathClass.ORDINARY),
        ("/usr/src/linux", PathClass.STATE),
        ("/usr/src/debug", PathClass.ORDINARY),
        ("/usr/src/debug/bash", PathClass.STATE),
        ("/usr/src/debugger", PathClass.STATE),
        ("/usr/src/kernel", PathClass.ORDINARY),
        ("/usr/src/kernel/Makefile", PathClass.ORDINARY),
        ("/usr/src/kernels", PathClass.STATE),
        ("/boot", PathClass.BOOT),
        ("/boot/vmlinuz", PathClass.BOOT),
        ("/bootstrap", PathClass.ORDINARY),
        ("/usr/lib/modules/6.1.0/modules.dep", PathClass.BOOT),
        ("/usr/lib/modules-load.d/x.conf", PathClass.ORDINARY),
        ("/usr/lib/kernel/cmdline", PathClass.BOOT),
        ("/usr/lib/systemd/boot/efi/systemd-bootx64.efi", PathClass.BOOT),
        ("/usr/lib/systemd/systemd", PathClass.ORDINARY),
    ],
)
def test_a_path_belongs_to(path: str, expected: PathClass) -> None:
    assert classify(path) is expected


@pytest.mark.parametrize(
    "top", ["data", "dev", "etc", "home", "lost+found", "proc", "root", "run", "sys", "tmp", "var"]
)
def test_directories_of_users_are_protected_themselves_and_with_all_below(top: str) -> None:
    assert is_protected(f"/{top}")
    assert is_protected(f"/{top}/below/it")
    assert not is_protected(f"/{top}x")
    assert not is_protected(f"/usr/{top}")


def test_what_a_boot_manager_cleans_up_is_not_protected_but_never_deleted() -> None:
    assert never_deleted("/usr/lib/modules/6.1.0/modules.dep")
    assert not is_protected("/usr/lib/modules/6.1.0/modules.dep")
    assert not never_deleted("/usr/bin/ls")
    assert not never_deleted("/etc/passwd")


def test_a_mount_point_is_protected_and_its_content_is_not() -> None:
    mounts = frozenset({"/opt", "/usr/share/big"})
    assert is_protected("/usr/share/big", mounts)
    assert not is_protected("/usr/share/big/file", mounts)
    assert not is_protected("/usr/share/big")


@pytest.mark.parametrize(
    "path",
    [
        "/usr/lib/kernel/org.example.6.1",
        "/usr/lib/systemd/boot/efi/systemd-bootx64.efi",
        "/usr/bin/bootctl",
        "/usr/bin/clr-boot-manager",
        "/usr/bin/gummiboot",
        "/usr/lib/gummiboot",
        "/usr/share/syslinux/ldlinux.c32",
    ],
)
def test_the_boot_manager_runs_after_a_change_of(path: str) -> None:
    assert needs_boot_update(path)


@pytest.mark.parametrize("path", ["/boot/vmlinuz", "/usr/lib/modules/6.1.0", "/usr/bin/bootctl-helper", "/usr/bin/ls"])
def test_the_boot_manager_does_not_run_after_a_change_of(path: str) -> None:
    assert not needs_boot_update(path)


def test_only_the_init_system_itself_asks_for_its_execution() -> None:
    assert needs_reexec("/usr/lib/systemd/systemd")
    assert not needs_reexec("/usr/lib/systemd/systemd-journald")
