"""What is read from an installed system, and what is remembered about it."""

from __future__ import annotations

import os
import stat
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swupd import system as system_module
from swupd.errors import ClockError, StateDirectoryError, VersionUnknownError
from swupd.formats.manifest import BASE_LEVELS, Level
from swupd.statedir import StateDir
from swupd.system import Mount, System, parse_mount_table, parse_mounts, parse_os_release, parse_processor


@pytest.fixture
def system(tmp_path: Path) -> System:
    state = StateDir(tmp_path / "state", tmp_path / "state", "https://example.org/update")
    state.prepare()
    (tmp_path / "root").mkdir()
    return System(tmp_path / "root", state)


def write(system: System, name: str, text: str = "") -> None:
    path = system.root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_the_version_is_in_os_release(system: System) -> None:
    write(system, "usr/lib/os-release", "NAME=x\nVERSION_ID=20\n")
    assert system.installed_version() == 20


def test_the_version_may_be_quoted(system: System) -> None:
    write(system, "usr/lib/os-release", 'VERSION_ID="20"\nPRETTY_NAME=\'An "OS"\'\n')
    assert (system.installed_version(), system.pretty_name()) == (20, 'An "OS"')


def test_os_release_in_etc_is_the_second_choice(system: System) -> None:
    write(system, "etc/os-release", "VERSION_ID=30\n")
    assert system.installed_version() == 30


@pytest.mark.parametrize("text", [None, "", "VERSION_ID=\n", "VERSION_ID=12.1\n", "VERSION_ID=-1\n", "#VERSION_ID=1\n"])
def test_an_unknown_version_is_an_error_with_a_hint(system: System, text: str | None) -> None:
    if text is not None:
        write(system, "usr/lib/os-release", text)
    with pytest.raises(VersionUnknownError) as caught:
        system.installed_version()
    assert "--path" in caught.value.hint


def test_the_format_file_may_be_missing(system: System) -> None:
    assert system.format() is None
    write(system, "usr/share/defaults/swupd/format", "30\n")
    assert system.format() == "30"


def test_markers_are_the_installed_bundles_and_the_core_always_is_one(system: System) -> None:
    assert system.installed_bundles() == {"os-core"}
    write(system, "usr/share/clear/bundles/editors")
    write(system, "usr/share/clear/bundles/.hidden")
    (system.root / "usr/share/clear/bundles/directory").mkdir()
    (system.root / "usr/share/clear/bundles/link").symlink_to("editors")
    assert system.installed_bundles() == {"os-core", "editors"}


def test_tracking_files_are_empty_and_private(system: System, tmp_path: Path) -> None:
    system.track(["editors"])
    status = (tmp_path / "state/bundles/editors").stat()
    assert (status.st_size, stat.S_IMODE(status.st_mode)) == (0, 0o600)


def test_tracking_twice_and_untracking_what_is_not_tracked_are_fine(system: System) -> None:
    system.track(["a", "b"])
    system.track(["b"])
    system.untrack(["a", "c"])
    assert system.tracked() == {"b"}


def test_an_empty_tracking_directory_is_seeded_with_the_installed_bundles(system: System) -> None:
    write(system, "usr/share/clear/bundles/os-core")
    write(system, "usr/share/clear/bundles/editors")
    system.seed_tracking()
    assert system.tracked() == {"os-core", "editors"}


def test_a_tracking_directory_that_is_in_use_is_not_seeded(system: System) -> None:
    write(system, "usr/share/clear/bundles/editors")
    system.track(["docs"])
    system.seed_tracking()
    assert system.tracked() == {"docs"}


def test_tracking_without_a_state_directory_is_an_error(tmp_path: Path) -> None:
    system = System(tmp_path, StateDir(tmp_path / "none", tmp_path / "none", ""))
    assert system.tracked() == set()
    with pytest.raises(StateDirectoryError):
        system.track(["editors"])


def test_the_version_of_the_last_update_is_recorded(system: System, tmp_path: Path) -> None:
    system.record_version(10)
    system.record_version(20)
    assert (tmp_path / "state/version").read_bytes() == b"20\n"


MOUNTS = rb"""22 1 0:20 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
23 22 0:21 / /proc rw - proc proc rw
24 22 0:22 / /srv/my\040root rw - ext4 /dev/sdb1 rw
25 24 0:23 / /srv/my\040root/home/a\134b rw - ext4 /dev/sdc1 rw
26 22 0:24 / /srv/my\040rootless rw - ext4 /dev/sdd1 rw
short line
"""


def test_mount_points_of_the_host_do_not_include_its_root() -> None:
    assert parse_mounts(MOUNTS, "/") == {
        "/proc",
        "/srv/my root",
        "/srv/my root/home/a\\b",
        "/srv/my rootless",
    }


def test_mount_points_below_another_root_are_named_from_there() -> None:
    assert parse_mounts(MOUNTS, "/srv/my root") == {"/home/a\\b"}


@settings(max_examples=50, deadline=None)
@given(st.binary(max_size=200))
def test_any_mount_table_can_be_read(data: bytes) -> None:
    assert all(point.startswith("/") for point in parse_mounts(data, "/"))


@settings(max_examples=50, deadline=None)
@given(st.text(max_size=200))
def test_any_os_release_can_be_read(text: str) -> None:
    parse_os_release(text)


def test_the_clock_is_right_when_it_is_after_the_stamp(system: System) -> None:
    write(system, "usr/share/clear/versionstamp", f"{int(time.time()) - 5}\n")
    assert system.check_clock() is None


def test_a_day_before_the_stamp_is_tolerated(system: System) -> None:
    write(system, "usr/share/clear/versionstamp", f"{int(time.time()) + 80_000}\n")
    assert system.check_clock() is None


def test_a_clock_far_behind_is_set_to_the_stamp(system: System, monkeypatch: pytest.MonkeyPatch) -> None:
    stamp = int(time.time()) + 200_000
    write(system, "usr/share/clear/versionstamp", f"{stamp}\n")
    done: list[float] = []
    monkeypatch.setattr(time, "clock_settime", lambda clock, seconds: done.append(seconds))
    assert system.check_clock() == stamp
    assert done == [stamp]


def test_a_clock_that_cannot_be_set_is_an_error(system: System, monkeypatch: pytest.MonkeyPatch) -> None:
    write(system, "usr/share/clear/versionstamp", f"{int(time.time()) + 200_000}")

    def refuse(clock: int, seconds: float) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(time, "clock_settime", refuse)
    with pytest.raises(ClockError) as caught:
        system.check_clock()
    assert "--ignore-time" in caught.value.hint


def test_the_clock_is_not_looked_at_when_ignored(system: System) -> None:
    write(system, "usr/share/clear/versionstamp", "9999999999")
    assert system.check_clock(ignore=True) is None


@pytest.mark.skipif(Path("/usr/share/clear/versionstamp").exists(), reason="this host has a version stamp")
def test_a_root_without_a_stamp_is_fine_but_the_running_system_needs_one(system: System) -> None:
    assert system.check_clock() is None
    with pytest.raises(ClockError):
        System(Path("/"), system._statedir).check_clock()


def cpuinfo(flags: str, model: int = 85) -> str:
    one = f"vendor_id\t: GenuineIntel\ncpu family\t: 6\nmodel\t\t: {model}\nflags\t\t: fpu {flags}\n"
    return f"{one}\n{one.replace(flags, '')}"


@pytest.mark.parametrize(
    ("flags", "levels"),
    [
        ("", {Level.SSE}),
        ("avx2", {Level.SSE}),
        ("avx2 fma", {Level.SSE, Level.AVX2}),
        ("avx2 fma avx512f", {Level.SSE, Level.AVX2}),
        ("avx2 fma avx512vl", {Level.SSE, Level.AVX2, Level.AVX512}),
    ],
)
def test_processor_flags_decide_the_levels(flags: str, levels: set[Level]) -> None:
    assert parse_processor(cpuinfo(flags)) == levels


def test_a_mount_table_has_points_sources_types_and_devices() -> None:
    line = rb"36 35 0:31 /@/20 / ro,noatime shared:1 master:2 - btrfs /dev/vda2 ro,subvol=/@/20"
    other = rb"37 36 0:32 / /mnt/my\040disk rw - vfat /dev/sd\040a rw"
    assert parse_mount_table(line + b"\nnonsense\n" + other) == [
        Mount("/", "/@/20", "btrfs", "/dev/vda2"),
        Mount("/mnt/my disk", "/", "vfat", "/dev/sd a"),
    ]


@given(st.binary())
def test_any_mount_table_may_be_read(data: bytes) -> None:
    assert all(len(mount) == 4 for mount in parse_mount_table(data))


def test_a_snapshot_is_for_the_processor_of_its_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    processor = tmp_path / "cpuinfo"
    processor.write_text(cpuinfo("avx2 fma"))
    monkeypatch.setattr(system_module, "PROCESSOR", processor)
    state = StateDir(tmp_path, tmp_path, "")
    assert System(tmp_path, state, machine=Path("/")).cpu_levels() == {Level.SSE, Level.AVX2}
    assert System(tmp_path, state, machine=tmp_path / "other").cpu_levels() == {Level.SSE}


@pytest.mark.parametrize("model", [0x8C, 0x8D])
def test_tiger_lake_counts_as_avx2(model: int) -> None:
    assert parse_processor(cpuinfo("avx2 fma avx512vl", model)) == {Level.SSE, Level.AVX2}


@pytest.mark.parametrize(
    ("files", "levels"),
    [
        (["elf-replace-avx512"], {Level.SSE, Level.AVX2}),
        (["elf-replace-avx2"], {Level.SSE, Level.AVX512}),
        (["elf-replace-avx2", "elf-replace-avx512"], {Level.SSE}),
    ],
)
def test_the_administrator_can_switch_levels_off(
    system: System, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: list[str], levels: set[Level]
) -> None:
    processor = tmp_path / "cpuinfo"
    processor.write_text(cpuinfo("avx2 fma avx512vl"))
    monkeypatch.setattr(system_module, "PROCESSOR", processor)
    monkeypatch.setattr(System, "is_host", True)
    for name in files:
        write(system, f"etc/clear/{name}")
    assert system.cpu_levels() == levels


def test_a_root_that_is_not_running_gets_the_base_level(system: System) -> None:
    assert system.cpu_levels() == BASE_LEVELS


def test_the_host_is_the_root_directory(system: System) -> None:
    assert not system.is_host
    assert System(Path("/"), system._statedir).is_host


def test_mount_points_are_read_from_the_kernel(system: System) -> None:
    assert "/proc" in System(Path("/"), system._statedir).mount_points() or not os.path.ismount("/proc")
