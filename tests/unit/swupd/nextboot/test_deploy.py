"""Making deployments on a real disk: full disks, interruptions, clashes, failed versions."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from swupd.cli import main
from swupd.formats.bootentry import KERNELS, kernel_names
from swupd.nextboot import record, removal, subvolumes
from swupd.nextboot.bootentries import sha256_of
from swupd.nextboot.deployments import survey
from swupd.nextboot.place import Place, locate
from swupd.nextboot.record import Failure
from tests.transaction import seam
from tests.transaction.seam import END, KILL, Interference, Seam

SAMPLE = 6
"""Points of the whole command at which it is interrupted."""
LAST = 45
"""Calls at the end of a command, of which each third is one."""


@pytest.fixture
def disk(machine_disk: Any) -> Any:
    """Version 10 runs; version 20, with another kernel, is published."""
    machine_disk.publish(20, machine_disk.content(20, kernel="6.2"))
    return machine_disk


@contextmanager
def opened(disk: Any) -> Iterator[Place]:
    with Place.open(locate(disk.root)) as place:
        yield place


def check_whole(disk: Any, *, allowed: Sequence[list[str]]) -> list[str]:
    """Every boot entry leads to a deployment that is sealed and has all of one version; returns their names."""
    with disk.top() as top, disk.esp() as esp, opened(disk) as place:
        entries = place.entries.read()
        for entry in entries:
            root = top / "@" / entry.name
            version = entry.name.partition(".")[0]
            assert subvolumes.is_sealed(root)
            assert (root / "usr/bin/core").read_text() == f"core {version}"
            assert f"VERSION_ID={version}\n" in (root / "usr/lib/os-release").read_text()
            assert entry.options.split()[1] == f"rootflags=subvol=@/{entry.name}"
            for name, kind in ((entry.kernel, "vmlinuz"), (entry.initrd, "initrd")):
                (source,) = root.glob(f"boot/{kind}-*")
                assert name in kernel_names(sha256_of(source))
                assert (esp / KERNELS / name).read_bytes() == source.read_bytes()
        names = [entry.name for entry in entries]
    assert names in allowed
    return names


def check_clean(disk: Any, names: list[str]) -> None:
    """Nothing is there besides these deployments."""
    assert disk.deployments() == sorted(names)
    assert len(disk.entries()) == len(names)
    assert len(disk.kernels()) == 2 * len({name.partition(".")[0] for name in names})
    assert not (disk.state / "nextboot").exists()


def run_disturbed(disk: Any, interference: Interference | None, *arguments: str) -> tuple[int, int]:
    """Run a command in a process of its own; its wait status, and how many changing calls it made."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        status = 99
        try:
            disturbing = Seam(str(disk.root), interference, lambda call: None)
            seam.install(disturbing)
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                status = main(disk.argv(*arguments))
            os.write(write, str(len(disturbing.calls[False])).encode())
        finally:
            os._exit(status)
    os.close(write)
    with os.fdopen(read) as file:
        count = file.read()
    return os.waitpid(child, 0)[1], int(count or 0)


def forget_twenty(disk: Any) -> None:
    with opened(disk) as place:
        removal.remove(place, [d for d in survey(place) if d.version == 20])
    check_clean(disk, ["10"])


def test_a_process_that_is_killed_leaves_the_old_version_or_the_new_one(disk: Any) -> None:
    command = ("update", "--next-boot")
    status, calls = run_disturbed(disk, None, *command)
    assert (status, calls > 100) == (0, True)
    forget_twenty(disk)
    points = sorted({*range(1, calls, calls // SAMPLE), *range(calls - LAST, calls, 3)})
    seen = set()
    for point in points:
        status, _ = run_disturbed(disk, Interference(point, KILL), *command)
        assert os.WIFSIGNALED(status)
        seen.add(tuple(check_whole(disk, allowed=(["10"], ["20", "10"]))))
        disk.run(*command)
        check_whole(disk, allowed=(["20", "10"],))
        check_clean(disk, ["10", "20"])
        forget_twenty(disk)
    assert seen == {("10",), ("20", "10")}


def test_killed_while_one_replaces_another_that_waits_one_of_both_is_next(disk: Any) -> None:
    command = ("bundle-add", "--next-boot", "editors")
    disk.run("update", "--next-boot")
    _, calls = run_disturbed(disk, None, *command)
    seen = set()
    for point in range(calls - LAST, calls, 4):
        forget_twenty(disk)
        disk.run("update", "--next-boot")
        status, _ = run_disturbed(disk, Interference(point, KILL), *command)
        if status == 0:
            break  # less is to be done than for the first time
        assert os.WIFSIGNALED(status)
        seen.add(tuple(check_whole(disk, allowed=(["20", "10"], ["20.1", "20", "10"], ["20.1", "10"]))))
        disk.run("bundle-add", "--next-boot", "editors")
        names = check_whole(disk, allowed=(["20.1", "10"],))
        check_clean(disk, names)
    assert len(seen) > 1


@pytest.mark.parametrize("error", [errno.EIO, errno.ENOSPC])
def test_an_error_leaves_the_old_version_or_the_new_one(disk: Any, error: int) -> None:
    command = ("update", "--next-boot")
    _, calls = run_disturbed(disk, None, *command)
    forget_twenty(disk)
    for point in (*range(1, calls, calls // SAMPLE), *range(calls - LAST, calls, 7)):
        status = os.waitstatus_to_exitcode(run_disturbed(disk, Interference(point, error), *command)[0])
        names = check_whole(disk, allowed=(["10"], ["20", "10"]))
        assert (status == 0) <= (names == ["20", "10"])
        disk.run(*command)
        check_clean(disk, ["10", "20"])
        forget_twenty(disk)


@pytest.mark.parametrize("call", ["create_snapshot", "set_subvolume_read_only"])
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_process_that_is_killed_at_a_subvolume_leaves_the_old_version(
    disk: Any, monkeypatch: pytest.MonkeyPatch, call: str, after: bool
) -> None:
    import btrfsutil

    real = getattr(btrfsutil, call)

    def die(*arguments: object) -> None:
        if after:
            real(*arguments)
        os.kill(os.getpid(), signal.SIGKILL)

    with monkeypatch.context() as patch:
        patch.setattr(btrfsutil, call, die)
        status, _ = run_disturbed(disk, None, "update", "--next-boot")
    assert os.WIFSIGNALED(status)
    check_whole(disk, allowed=(["10"],))
    disk.run("update", "--next-boot")
    check_clean(disk, ["10", "20"])


def test_a_process_that_is_asked_to_end_leaves_nothing(disk: Any) -> None:
    _, calls = run_disturbed(disk, None, "update", "--next-boot")
    forget_twenty(disk)
    for point in (calls // 4, calls // 2):
        status, _ = run_disturbed(disk, Interference(point, END), "update", "--next-boot")
        assert os.waitstatus_to_exitcode(status) == 128 + signal.SIGTERM
        check_clean(disk, ["10"])


def test_a_full_boot_partition_is_told_before_the_download(disk: Any) -> None:
    with disk.esp() as esp:
        fill(esp / "filler", leave=1 << 20)
    disk.run("update", "--next-boot", status=25)
    assert "the boot partition has" in disk.err
    assert "swupd snapshots" in disk.err
    with disk.esp() as esp:
        (esp / "filler").unlink()
    check_clean(disk, ["10"])


def test_a_kernel_that_is_too_large_is_told_before_anything_is_changed(disk: Any) -> None:
    bundles = disk.content(30, kernel="6.3")
    bundles["kernel"].files["/boot/vmlinuz-6.3"] = "x" * (4 << 20)
    disk.publish(30, bundles)
    with disk.esp() as esp:
        fill(esp / "filler", leave=3 << 20)
    disk.run("update", "--next-boot", status=25)
    assert "the boot partition has" in disk.err
    with disk.esp() as esp:
        (esp / "filler").unlink()
    check_clean(disk, ["10"])


def test_a_full_disk_leaves_the_old_version(disk: Any) -> None:
    bundles = disk.content(30)
    bundles["os-core"].files["/usr/share/large"] = "x" * (24 << 20)
    disk.publish(30, bundles)
    with disk.top() as top:
        fill(top / "@state/filler", leave=16 << 20)
        os.sync()
    disk.run("update", "--next-boot", "--skip-diskspace-check", status=25)
    assert "are free there" in disk.err
    check_clean(disk, ["10"])
    (disk.root / "run/state/filler").unlink()
    os.sync()
    disk.run("update", "--next-boot")
    assert disk.boot() == "30"


def test_a_server_that_is_gone_leaves_the_old_version(disk: Any) -> None:
    for pack in disk.publisher.directory.glob("20/files/*"):
        pack.unlink()
    disk.run("update", "--next-boot", status=17)
    check_clean(disk, ["10"])
    assert disk.boot() == "10"


def test_a_version_on_record_as_failed_is_not_offered_again(disk: Any) -> None:
    with opened(disk) as place, place.boot_state() as boot:
        record.write(boot, record.Record((Failure("20", 1_700_000_000, "health check site: down"),)))
    disk.run("update", "--next-boot")
    assert "version 20 is held back since 2023-11-1" in disk.out
    assert "health check site: down" in disk.out
    assert "--retry" in disk.out
    check_clean(disk, ["10"])
    disk.run("update", "--next-boot", "--retry")
    assert disk.boot() == "20"
    with opened(disk) as place, place.boot_state() as boot:
        assert record.read(boot).failures == ()


def test_the_name_of_a_failed_deployment_is_not_given_again(disk: Any) -> None:
    disk.run("update", "--next-boot")
    disk.boot()
    disk.bless()
    with opened(disk) as place, place.boot_state() as boot:
        record.write(boot, record.Record((Failure("20.1", 1_700_000_000, "why"),)))
    disk.run("bundle-add", "--next-boot", "editors")
    assert disk.boot() == "20.2"


def test_what_is_known_of_good_boots_is_forgotten_for_a_new_deployment(disk: Any) -> None:
    (disk.root / "run/state/boot/good/20").touch()
    disk.run("update", "--next-boot")
    assert disk.boot() == "20"
    assert (disk.root / "run/swupd/trial").exists()


def test_accounts_that_clash_stop_the_update(disk: Any) -> None:
    bundles = disk.content(30)
    fragment = "/usr/lib/sysusers.d/00-mix.conf"
    bundles["os-core"].files[fragment] += "u newsvc 950 - / /usr/sbin/nologin\n"
    disk.publish(30, bundles)
    with (disk.root / "etc/passwd").open("a") as file:
        file.write("alice:x:950:950::/home/alice:/bin/sh\n")
    disk.run("update", "--next-boot", status=39)
    assert "user alice has the id 950 of newsvc" in disk.err
    check_clean(disk, ["10"])


def test_files_of_etc_that_both_have_changed_are_told(disk: Any) -> None:
    (disk.root / "etc/issue").write_text("mine\n")
    disk.run("update", "--next-boot")
    assert "/etc/issue" in disk.out
    disk.boot()
    assert disk.read("/etc/issue") == "mine\n"


def test_old_deployments_go_and_the_previous_one_stays(disk: Any) -> None:
    for version in (20, 30, 40, 50):
        if version > 20:
            disk.publish(version)
        disk.run("update", "--next-boot")
        assert disk.boot() == str(version)
        disk.bless()
    disk.run("bundle-add", "--next-boot", "editors")
    assert disk.deployments() == ["30", "40", "50", "50.1"]


def test_an_entry_without_a_subvolume_goes(disk: Any) -> None:
    import btrfsutil

    disk.run("update", "--next-boot")
    with disk.top() as top:
        btrfsutil.delete_subvolume(str(top / "@/20"))
    disk.run("update", "--next-boot")
    check_clean(disk, ["10", "20"])


def test_a_format_that_only_the_next_program_knows_needs_a_reboot_first(disk: Any) -> None:
    disk.publisher.publish(30, disk.content(30), says=(30, 31))
    disk.run("update", "--next-boot")
    assert "Another update has to follow it after the next boot" in disk.out
    disk.run("bundle-add", "--next-boot", "editors", status=39)
    assert "another format" in disk.err
    assert disk.boot() == "30"


def test_without_its_library_it_says_what_to_install(disk: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "btrfsutil", None)
    disk.run("update", "--next-boot", status=39)
    assert "python3-btrfsutil" in disk.err


def test_without_a_boot_loader_it_says_so_before_anything_is_done(disk: Any) -> None:
    with disk.esp() as esp:
        (esp / "loader/entries").rename(esp / "loader/away")
    disk.run("update", "--next-boot", status=39)
    assert "no boot loader that we know" in disk.err
    assert disk.deployments() == ["10"]


def test_without_the_shared_state_it_says_so(disk: Any) -> None:
    import subprocess

    subprocess.run(["umount", disk.root / "run/state"], check=True)
    disk.run("update", "--next-boot", status=39)
    assert "the shared state is not mounted" in disk.err


def fill(path: Path, *, leave: int) -> None:
    """A file that leaves so many bytes of its file system free."""
    status = os.statvfs(path.parent)
    with path.open("wb") as file, contextlib.suppress(OSError):
        for _ in range((status.f_bavail * status.f_frsize - leave) >> 16):
            file.write(os.urandom(1 << 16))
            file.flush()


def test_a_link_beside_the_kernels_is_none_of_them(disk: Any) -> None:
    bundles = disk.content(30)
    bundles["kernel"].files["/boot/vmlinuz-newest"] = "-> vmlinuz-6.1"
    disk.publish(30, bundles)
    disk.run("update", "--next-boot")
    assert disk.boot() == "30"
