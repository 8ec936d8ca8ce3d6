from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from swupd.formats.filehash import hash_path
from swupd.formats.manifest import Entry, FileType
from swupd.scripts import BOOT_MANAGER, PRE_UPDATE, SERVICE_RESTART, Scripts

LDCONFIG = "/usr/sbin/ldconfig"
SYSTEMCTL = "/usr/bin/systemctl"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "root").mkdir()
    return tmp_path / "root"


@pytest.fixture
def calls(root: Path) -> Path:
    """Where the programs of `program` note how they were called."""
    return root.parent / "calls"


def program(root: Path, path: str, status: int = 0, output: str = "") -> None:
    """A program that notes its name, its arguments and its environment."""
    target = root / path[1:]
    target.parent.mkdir(parents=True, exist_ok=True)
    said = f"echo '{output}'\n" if output else ""
    target.write_text(
        f'#!/bin/sh\necho "{target.name} $*" >> {root.parent}/calls\ntest -z "$HOME" || exit 99\n{said}exit {status}\n'
    )
    target.chmod(0o755)


def called(calls: Path) -> list[str]:
    return calls.read_text().splitlines() if calls.exists() else []


def booted(root: Path) -> None:
    (root / "run/systemd/system").mkdir(parents=True)
    program(root, SYSTEMCTL)


def test_the_running_system_gets_all_helpers_in_order(root: Path, calls: Path, report: Any) -> None:
    booted(root)
    for path in (BOOT_MANAGER, LDCONFIG, SERVICE_RESTART):
        program(root, path)
    Scripts(root, report, is_host=True).after_update(boot=True)
    assert called(calls) == [
        "clr-boot-manager update",
        "ldconfig ",
        "systemctl daemon-reload",
        "clr-service-restart ",
        "systemctl restart --no-block update-triggers.target",
    ]
    assert report.warnings == []


def test_a_new_systemd_is_executed_again_and_services_can_be_waited_for(root: Path, calls: Path, report: Any) -> None:
    booted(root)
    program(root, LDCONFIG)
    Scripts(root, report, is_host=True).after_update(boot=False, reexec=True, wait=True)
    assert called(calls) == ["ldconfig ", "systemctl daemon-reexec", "systemctl restart update-triggers.target"]


def test_without_a_running_systemd_no_services_are_restarted(root: Path, calls: Path, report: Any) -> None:
    program(root, SYSTEMCTL)
    program(root, LDCONFIG)
    Scripts(root, report, is_host=True).after_update(boot=False)
    assert called(calls) == ["ldconfig "]


def test_another_root_gets_its_boot_manager_with_the_path_and_no_services(root: Path, calls: Path, report: Any) -> None:
    booted(root)
    program(root, BOOT_MANAGER)
    Scripts(root, report).after_update(boot=True)
    assert called(calls) == [f"clr-boot-manager update --path {root}"]


@pytest.mark.skipif(os.geteuid() != 0, reason="chroot needs root")
def test_ldconfig_of_another_root_runs_inside_of_it(root: Path, report: Any) -> None:
    (root / "usr/sbin").mkdir(parents=True)
    shutil.copy("/usr/sbin/ldconfig", root / "usr/sbin/ldconfig")
    (root / "etc").mkdir()
    Scripts(root, report).after_update(boot=False)
    assert (root / "etc/ld.so.cache").exists()
    assert not [line for line in report.warnings if "status" in line]


def test_a_link_to_ldconfig_does_not_lead_out_of_another_root(root: Path, report: Any) -> None:
    (root / "usr").mkdir()
    (root / "usr/sbin").symlink_to("/usr/sbin")
    Scripts(root, report).after_update(boot=False)
    assert report.warnings == [f"there is no ldconfig in {root}: the library cache was not refreshed"]


def test_a_missing_boot_manager_is_a_warning(root: Path, report: Any) -> None:
    program(root, LDCONFIG)
    Scripts(root, report, is_host=True).after_update(boot=True)
    assert len(report.warnings) == 1
    assert BOOT_MANAGER in report.warnings[0]


def test_a_boot_manager_that_fails_is_a_warning_with_what_it_said(root: Path, report: Any) -> None:
    program(root, LDCONFIG)
    program(root, BOOT_MANAGER, status=3, output="No space left on the boot partition")
    Scripts(root, report, is_host=True).after_update(boot=True)
    assert "External command: No space left on the boot partition" in report.lines
    assert any("status 3" in warning for warning in report.warnings)
    assert any("the boot manager failed" in warning for warning in report.warnings)


def test_in_a_container_there_is_nothing_to_boot(root: Path, calls: Path, report: Any) -> None:
    for path in (BOOT_MANAGER, LDCONFIG, "/usr/bin/systemd-detect-virt"):
        program(root, path)
    Scripts(root, report, is_host=True).after_update(boot=True)
    assert called(calls) == ["systemd-detect-virt -c", "ldconfig "]
    assert report.warnings == []


def test_a_program_that_cannot_be_started_is_a_warning(root: Path, report: Any) -> None:
    program(root, LDCONFIG)
    (root / LDCONFIG[1:]).write_text("#!/does/not/exist\n")
    Scripts(root, report, is_host=True).after_update(boot=False)
    assert len(report.warnings) == 1


def test_scripts_and_the_boot_manager_can_be_turned_off(root: Path, calls: Path, report: Any) -> None:
    for path in (BOOT_MANAGER, LDCONFIG):
        program(root, path)
    Scripts(root, report, enabled=False, is_host=True).after_update(boot=True)
    assert called(calls) == []
    Scripts(root, report, update_boot=False, is_host=True).after_update(boot=True)
    assert called(calls) == ["ldconfig "]


def test_the_pre_update_script_runs_only_if_it_is_the_one_of_the_target(root: Path, calls: Path, report: Any) -> None:
    scripts = Scripts(root, report, is_host=True)
    scripts.before_update({PRE_UPDATE: Entry.present(FileType.FILE, "a" * 64, 20, PRE_UPDATE)})
    program(root, PRE_UPDATE)
    scripts.before_update({})
    scripts.before_update({PRE_UPDATE: Entry.deleted(20, PRE_UPDATE)})
    scripts.before_update({PRE_UPDATE: Entry.present(FileType.FILE, "a" * 64, 20, PRE_UPDATE)})
    assert called(calls) == []
    good = {PRE_UPDATE: Entry.present(FileType.FILE, hash_path(str(root / PRE_UPDATE[1:])), 20, PRE_UPDATE)}
    scripts.before_update(good)
    Scripts(root, report).before_update(good)
    Scripts(root, report, enabled=False).before_update(good)
    assert called(calls) == ["clr_pre_update.sh ", f"clr_pre_update.sh {root}"]
