"""Commands with --next-boot, on a real disk."""

from __future__ import annotations

import errno
import json
from collections.abc import Iterable
from typing import Any

import pytest

from swupd.nextboot import live
from swupd.system import System


@pytest.fixture
def disk(machine_disk: Any) -> Any:
    """Version 10 runs, version 20 is published; a user has changed something."""
    (machine_disk.root / "etc/mine").write_text("mine")
    machine_disk.publish(20)
    return machine_disk


def test_an_update_becomes_active_on_the_next_boot(disk: Any) -> None:
    disk.run("update", "--next-boot")
    assert "Version 20 becomes active on the next boot (deployment 20" in disk.out
    assert disk.read("/usr/bin/core") == "core 10"
    assert disk.entries() == ["os-10.conf", "os-20+3.conf"]
    assert disk.boot() == "20"
    assert disk.read("/usr/bin/core") == "core 20"
    assert disk.read("/etc/issue") == "Test OS 20\n"
    assert disk.read("/etc/mine") == "mine"
    assert disk.deployments() == ["10", "20"]


def test_what_boots_next_is_sealed_and_named(disk: Any) -> None:
    disk.run("update", "--next-boot")
    entry = disk.entry("20")
    assert entry.title == "Test OS 20"
    assert entry.options == f"root=UUID={disk.uuid} rootflags=subvol=@/20 console=ttyS0 version=20"
    assert entry.sequence > disk.entry("10").sequence
    disk.boot()
    with pytest.raises(OSError, match="Read-only"):
        (disk.root / "usr/bin/core").write_text("changed")


def test_nothing_is_left_of_an_update_that_has_nothing_to_do(disk: Any) -> None:
    disk.run("update", "--next-boot")
    disk.boot()
    disk.bless()
    disk.run("update", "--next-boot")
    assert "nothing newer" in disk.out
    assert disk.deployments() == ["10", "20"]
    assert not (disk.state / "nextboot").exists()


def test_changes_before_the_next_boot_add_up(disk: Any) -> None:
    disk.run("update", "--next-boot")
    disk.run("bundle-add", "--next-boot", "editors")
    assert "Deployment 20 waits for the next boot" in disk.out
    assert disk.deployments() == ["10", "20.1"]
    assert disk.entries() == ["os-10.conf", "os-20.1+3.conf"]
    assert disk.boot() == "20.1"
    assert disk.read("/usr/bin/edit") == "edit 20"
    disk.bless()
    disk.run("bundle-remove", "--next-boot", "editors")
    assert disk.boot() == "20.2"
    assert not disk.has("/usr/bin/edit")
    assert not disk.has("/usr/share/clear/bundles/editors")


def test_bundles_are_tracked_as_on_any_system(disk: Any) -> None:
    disk.run("bundle-add", "--next-boot", "editors")
    assert (disk.state / "bundles/editors").exists()
    disk.boot()
    disk.run("bundle-remove", "--next-boot", "editors")
    assert not (disk.state / "bundles/editors").exists()


def test_the_history_knows_it(disk: Any) -> None:
    disk.run("update", "--next-boot")
    disk.run("history", "--json-output")
    assert "update --next-boot" in disk.out


def test_a_new_kernel_comes_with_its_modules_and_the_old_one_goes(disk: Any) -> None:
    disk.publish(30, disk.content(30, kernel="6.2"))
    before = disk.kernels()
    disk.run("update", "--next-boot")
    assert set(before) < set(disk.kernels())
    disk.boot()
    assert disk.has("/usr/lib/modules/6.2/modules.dep")
    assert not disk.has("/usr/lib/modules/6.1/modules.dep")
    assert not disk.has("/boot/vmlinuz-6.1")


def test_a_dry_run_makes_nothing(disk: Any) -> None:
    disk.run("update", "--next-boot", "--dry-run")
    assert disk.deployments() == ["10"]
    assert disk.entries() == ["os-10.conf"]


def test_a_download_makes_nothing_but_is_used(disk: Any) -> None:
    disk.run("update", "--next-boot", "--download")
    assert disk.deployments() == ["10"]
    disk.run("update", "--next-boot", "--offline")
    assert disk.boot() == "20"


def test_repair_mends_a_snapshot(disk: Any) -> None:
    with disk.top() as top:
        import btrfsutil

        btrfsutil.set_subvolume_read_only(str(top / "@/10"), False)
        (top / "@/10/usr/bin/constant").write_text("damaged")
        btrfsutil.set_subvolume_read_only(str(top / "@/10"), True)
    disk.run("update", "--next-boot", status=10)
    assert "swupd repair --next-boot" in disk.err
    disk.run("history")
    assert "failed" in disk.out
    assert "of the snapshot would not be as in version 20" in disk.out
    assert disk.deployments() == ["10"]
    disk.run("repair", "--next-boot", "--quiet")
    assert disk.out.splitlines() == [f"{disk.root}/usr/bin/constant -> fixed"]
    assert disk.boot() == "10.1"
    assert disk.read("/usr/bin/constant") == "constant"


def test_a_version_without_a_kernel_does_not_become_active(disk: Any) -> None:
    disk.run("bundle-remove", "--next-boot", "kernel", status=39)
    assert "swupd bundle-add kernel" in disk.err
    assert disk.deployments() == ["10"]
    assert disk.entries() == ["os-10.conf"]
    assert (disk.state / "bundles/kernel").exists()


def test_an_ordinary_root_is_told_so_before_anything_is_done(machine: Any) -> None:
    machine.run("update", "--next-boot", status=39)
    assert "it cannot be given another version for its next boot" in machine.err


def test_the_disk_is_named_as_its_user_knows_it(disk: Any) -> None:
    disk.run("update", "--next-boot", "--dry-run")
    assert f"disk:     system ({disk.root}): " in disk.out
    assert "run/swupd/mounts" not in disk.out


def test_a_quiet_update_says_nothing(disk: Any) -> None:
    disk.run("update", "--next-boot", "--quiet")
    assert disk.out == ""
    assert disk.boot() == "20"


def test_a_live_update_that_has_to_wait_for_the_next_boot_says_so_to_scripts_too(
    disk: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "PATIENCE_SECONDS", 0.0)
    with (disk.root / "etc/in-use").open("w"):
        disk.run("update", "--quiet", status=35)
    assert disk.out == ""
    assert "version 20 is ready and becomes active on the next boot; it could not be made active now" in disk.err
    assert disk.read("/usr/bin/core") == "core 10"
    assert disk.boot() == "20"


def test_what_is_declined_leaves_nothing(disk: Any) -> None:
    disk.run("update", "--next-boot", "--assume", "no", status=1)
    assert disk.deployments() == ["10"]
    assert not (disk.state / "nextboot").exists()


def test_aliases_of_the_administrator_are_known(disk: Any) -> None:
    (disk.root / "etc/swupd/alias.d").mkdir(parents=True)
    (disk.root / "etc/swupd/alias.d/mine").write_text("writing\teditors\n")
    disk.run("bundle-add", "--next-boot", "writing")
    disk.boot()
    assert disk.has("/usr/bin/edit")


def test_json_output_is_one_array(disk: Any) -> None:
    disk.run("update", "--next-boot", "--json-output")
    assert isinstance(json.loads(disk.out), list)


def test_what_fails_after_a_deployment_was_made_does_not_take_it_back(
    disk: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    untrack = System.untrack

    def full(self: System, bundles: Iterable[str]) -> None:
        if self.root == disk.root:
            raise OSError(errno.ENOSPC, "No space left on device")
        untrack(self, bundles)

    monkeypatch.setattr(System, "untrack", full)
    disk.run("update", "--next-boot")
    assert "deployment 20 is ready, but not everything could be tidied up: " in disk.err
    assert disk.boot() == "20"
