"""Switching a running system to another deployment: real btrfs, real overlay, real programs that have files open."""

from __future__ import annotations

import ctypes
import errno
import os
import subprocess
import sys
import threading
import types
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from swupd.nextboot import live, mounts, place
from swupd.nextboot.live import LiveResult
from swupd.nextboot.place import Place, locate

KERNEL = "6.1"
"""The one of version 10."""


@pytest.fixture(autouse=True)
def _no_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "PATIENCE_SECONDS", 0.0)


@pytest.fixture
def twenty(machine_disk: Any) -> Any:
    """A machine that runs deployment 10 and has a deployment 20 beside it."""
    _deploy(machine_disk, "20", {"usr/bin/core": "core 20", "usr/share/factory/etc/issue": "Test OS 20\n"})
    return machine_disk


def test_the_running_system_becomes_the_new_version(twenty: Any, report: Any) -> None:
    (twenty.root / "etc/hosts").write_text("mine")
    (twenty.root / "etc/site.conf").write_text("mine")
    assert _switch(twenty, "20", report).is_active
    assert twenty.read("/usr/bin/core") == "core 20"
    assert twenty.read("/usr/bin/constant") == "constant"
    assert (twenty.read("/etc/issue"), twenty.read("/etc/hosts")) == ("Test OS 20\n", "mine")
    located = locate(twenty.root)
    assert (located.running, located.current) == ("10", "20")
    assert report.warnings == []
    assert "Version 20 is active now" in report.lines[0]


def test_files_that_are_written_to_etc_afterwards_belong_to_the_user(twenty: Any, report: Any) -> None:
    _switch(twenty, "20", report)
    (twenty.root / "etc/issue").write_text("mine")
    (twenty.root / "etc/hosts").unlink()
    upper = twenty.root / "run/state/etc/upper"
    assert (upper / "issue").read_text() == "mine"
    assert (upper / "hosts").is_char_device()
    twenty.boot()
    assert twenty.read("/etc/issue") == "mine"
    assert not twenty.has("/etc/hosts")


def test_nothing_of_a_deployment_is_changed(twenty: Any, report: Any) -> None:
    with twenty.top() as top:
        before = _digest(top / "@/10"), _digest(top / "@/20")
        _switch(twenty, "20", report)
        (twenty.root / "etc/issue").write_text("mine")
        for directory in ("usr", "boot"):
            with pytest.raises(OSError, match="Read-only"):
                (twenty.root / directory / "new").write_text("x")
        assert (_digest(top / "@/10"), _digest(top / "@/20")) == before


def test_what_programs_have_open_stays_as_it_was(twenty: Any, report: Any) -> None:
    with (twenty.root / "usr/bin/core").open() as usr, (twenty.root / "etc/issue").open() as etc:
        directory = os.open(twenty.root / "usr/bin", os.O_RDONLY)
        try:
            assert _switch(twenty, "20", report).is_active
            assert (usr.read(), etc.read()) == ("core 10", "Test OS 10\n")
            with open(os.open("core", os.O_RDONLY, dir_fd=directory)) as beside:
                assert beside.read() == "core 10"
        finally:
            os.close(directory)


def test_who_writes_to_etc_is_named_and_nothing_is_changed(twenty: Any, report: Any) -> None:
    before = _table(twenty)
    argv = [sys.executable, "-c", f"open({str(twenty.root / 'etc/cron.log')!r}, 'a').write(input('ready'))"]
    writer = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert writer.stdout is not None
        assert writer.stdout.read(5) == "ready"
        result = _switch(twenty, "20", report)
        program = Path(f"/proc/{writer.pid}/comm").read_text().strip()
    finally:
        writer.communicate("written in the end")
    assert result.obstacle == f"{program} has /etc/cron.log open"
    assert report.lines == []
    assert _table(twenty) == before
    assert twenty.read("/etc/cron.log") == "written in the end"
    _is_untouched(twenty)


def test_somebody_who_only_reads_etc_is_in_nobodys_way(twenty: Any, report: Any) -> None:
    with (twenty.root / "etc/hosts").open():
        assert _switch(twenty, "20", report).is_active


def test_a_writer_that_ends_soon_is_waited_for(twenty: Any, report: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "PATIENCE_SECONDS", 30.0)
    file = (twenty.root / "etc/short").open("w")
    timer = threading.Timer(0.3, file.close)
    timer.start()
    assert _switch(twenty, "20", report).is_active
    timer.join()


@pytest.mark.parametrize("call", range(1, 6))
def test_a_step_that_fails_undoes_all_before_it(
    twenty: Any, report: Any, monkeypatch: pytest.MonkeyPatch, call: int
) -> None:
    _boot_with(monkeypatch, KERNEL)
    _deploy(twenty, "30", {"usr/lib/modules/7.1/modules.dep": "new"}, remove=[f"usr/lib/modules/{KERNEL}"])
    before = _table(twenty)
    calls = _fail_at(monkeypatch, call, errno.EIO)
    result = _switch(twenty, "30", report)
    assert result.obstacle.endswith("could not be mounted over: Input/output error")
    assert calls[call - 1] == result.obstacle.partition(" ")[0]
    assert _table(twenty) == before
    _is_untouched(twenty)


def test_those_are_all_steps(twenty: Any, report: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    _boot_with(monkeypatch, KERNEL)
    _deploy(twenty, "30", {"usr/lib/modules/7.1/modules.dep": "new"}, remove=[f"usr/lib/modules/{KERNEL}"])
    calls = _fail_at(monkeypatch, 0, 0)
    assert _switch(twenty, "30", report).is_active
    assert len(calls) == 5


def test_an_interruption_undoes_everything_too(twenty: Any, report: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*layers: Path) -> None:
        assert twenty.read("/usr/bin/core") == "core 20"
        raise KeyboardInterrupt

    before = _table(twenty)
    monkeypatch.setattr(mounts, "overlay", interrupt)
    with pytest.raises(KeyboardInterrupt):
        _switch(twenty, "20", report)
    assert _table(twenty) == before
    _is_untouched(twenty)


@pytest.mark.parametrize("missing", ["boot", "usr/share/factory"])
def test_a_deployment_that_is_no_whole_system_is_refused(twenty: Any, report: Any, missing: str) -> None:
    _deploy(twenty, "30", {}, remove=[missing])
    before = _table(twenty)
    assert not _switch(twenty, "30", report).is_active
    assert _table(twenty) == before
    _is_untouched(twenty)


def test_the_running_kernel_keeps_its_modules(twenty: Any, report: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    _boot_with(monkeypatch, KERNEL)
    _deploy(twenty, "30", {"usr/lib/modules/7.1/modules.dep": "new"}, remove=[f"usr/lib/modules/{KERNEL}"])
    _switch(twenty, "30", report)
    assert twenty.read(f"/usr/lib/modules/{KERNEL}/modules.dep") == f"modules of {KERNEL}"
    assert locate(twenty.root).current == "30"
    # The next one has them by itself.
    _deploy(twenty, "40", {"usr/lib/modules/7.2/modules.dep": "newer"})
    _switch(twenty, "40", report)
    assert sorted(os.listdir(twenty.root / "usr/lib/modules")) == [KERNEL, "7.2"]


def test_a_new_kernel_waits_for_a_reboot(machine_disk: Any) -> None:
    machine_disk.publish(20, machine_disk.content(20, kernel="6.2"))
    machine_disk.run("update")
    assert "A reboot is needed to use the new kernel" in machine_disk.out
    assert machine_disk.read("/run/swupd/reboot-needed") == '["kernel"]\n'
    machine_disk.run("bundle-add", "editors")
    assert machine_disk.read("/usr/bin/edit") == "edit 20"
    assert "A reboot is needed to use the new kernel" in machine_disk.out


def test_of_the_same_kernel_nothing_is_said(machine_disk: Any) -> None:
    machine_disk.publish(20)
    machine_disk.run("update")
    assert machine_disk.read("/usr/bin/core") == "core 20"
    assert "reboot" not in machine_disk.out


def test_a_system_can_be_switched_again_but_not_for_ever(
    twenty: Any, report: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "MAX_SWITCHES", 3)
    for number in range(1, 4):
        _deploy(twenty, f"20.{number}", {"usr/bin/core": f"core {number}"})
        (twenty.root / "etc/mine").write_text(str(number))
        assert _switch(twenty, f"20.{number}", report).is_active
        assert (twenty.read("/usr/bin/core"), twenty.read("/etc/mine")) == (f"core {number}", str(number))
        assert locate(twenty.root).current == f"20.{number}"
    before = _table(twenty)
    assert "switched 3 times" in _switch(twenty, "20", report).obstacle
    assert _table(twenty) == before


@pytest.mark.parametrize("point", ["usr/bin", "boot", "etc"])
def test_what_somebody_else_has_mounted_is_not_hidden(twenty: Any, report: Any, point: str) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "mine", twenty.root / point], check=True)
    before = _table(twenty)
    result = _switch(twenty, "20", report)
    assert result.obstacle == f"something of its own is mounted at {twenty.root / point}"
    assert _table(twenty) == before


def test_a_root_without_the_overlay_is_refused(twenty: Any, report: Any) -> None:
    subprocess.run(["umount", twenty.root / "etc"], check=True)
    assert "/etc is no overlay" in _switch(twenty, "20", report).obstacle


def test_nothing_is_imported_from_the_new_version(twenty: Any) -> None:
    program = f"""
import sys
from pathlib import Path
from swupd.nextboot import live, place
from swupd.nextboot.place import Place, locate
from swupd.report import TextReport
place.BOOT_MOUNT = {place.BOOT_MOUNT}
with Place.open(locate(Path({str(twenty.root)!r}))) as opened:
    before = set(sys.modules)
    assert live.switch(opened, "20", TextReport()).is_active
    assert set(sys.modules) == before, set(sys.modules) - before
"""
    (twenty.root / "run/systemd/system").mkdir(parents=True)
    subprocess.run([sys.executable, "-c", program], check=True, stdout=subprocess.DEVNULL)


def test_a_process_with_mounts_of_its_own_is_known() -> None:
    other = subprocess.Popen(["unshare", "--mount", "sh", "-c", "echo; exec sleep 60"], stdout=subprocess.PIPE)
    try:
        assert other.stdout is not None
        other.stdout.readline()
        assert mounts.shares_the_systems(os.getppid())
        assert not mounts.shares_the_systems(other.pid)
    finally:
        other.kill()
        other.communicate()


# -- the machine -------------------------------------------------------------------------------------------------------


def _deploy(disk: Any, name: str, files: Mapping[str, str], remove: list[str] | None = None) -> None:
    """A deployment made of 10."""
    import btrfsutil

    with disk.top() as top:
        new = top / "@" / name
        btrfsutil.create_snapshot(str(top / "@/10"), str(new))
        for path in remove or ():
            subprocess.run(["rm", "-r", new / path], check=True)
        for path, content in files.items():
            (new / path).parent.mkdir(parents=True, exist_ok=True)
            (new / path).write_text(content)
        btrfsutil.set_subvolume_read_only(str(new), True)


def _switch(disk: Any, name: str, report: Any) -> LiveResult:
    with Place.open(locate(disk.root)) as opened:
        return live.switch(opened, name, report)


def _is_untouched(disk: Any) -> None:
    assert (disk.read("/usr/bin/core"), disk.read("/etc/issue")) == ("core 10", "Test OS 10\n")
    (disk.root / "etc/site.conf").write_text("can be written")


def _table(disk: Any) -> list[str]:
    """What is mounted below the root, and how."""
    return [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if f" {disk.root}" in line]


def _digest(tree: Path) -> str:
    return subprocess.run(["ls", "-lRi", "--full-time", tree], check=True, capture_output=True, text=True).stdout


def _boot_with(monkeypatch: pytest.MonkeyPatch, release: str) -> None:
    monkeypatch.setattr(os, "uname", lambda: types.SimpleNamespace(release=release))


def _fail_at(monkeypatch: pytest.MonkeyPatch, number: int, code: int) -> list[str]:
    """Let the call mount(2) of this number fail; where calls mount is noted in the list."""
    real = ctypes.CDLL(None, use_errno=True)
    calls: list[str] = []

    def mount(source: Any, point: bytes, *more: Any) -> int:
        calls.append(os.fsdecode(point))
        if len(calls) == number:
            ctypes.set_errno(code)
            return -1
        result: int = real.mount(source, point, *more)
        return result

    library: Callable[[], Any] = lambda: types.SimpleNamespace(mount=mount, umount2=real.umount2)  # noqa: E731
    monkeypatch.setattr(mounts, "_libc", library)
    return calls
