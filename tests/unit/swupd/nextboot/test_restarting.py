"""What has to be restarted after a switch: real processes that run from a real btrfs."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swupd.nextboot import live
from swupd.nextboot.place import Place, locate
from swupd.nextboot.restarting import Service, look, outdated_processes, parse_services, services, to_restart, unit_of

SHOWN = """\
Id=cron.service
Names=cron.service
SubState=running
FragmentPath=/usr/lib/systemd/system/cron.service
DropInPaths=/etc/systemd/system/cron.service.d/a.conf /usr/lib/systemd/system/service.d/b.conf
RefuseManualStart=no
RefuseManualStop=no

Id=fstrim.service
Names=fstrim.service
SubState=dead
FragmentPath=/usr/lib/systemd/system/fstrim.service
DropInPaths=
RefuseManualStart=no
RefuseManualStop=no

Id=auditd.service
Names=auditd.service
SubState=running
FragmentPath=/usr/lib/systemd/system/auditd.service
DropInPaths=
RefuseManualStart=no
RefuseManualStop=yes

Id=gdm.service
Names=gdm.service display-manager.service
SubState=running
FragmentPath=/usr/lib/systemd/system/gdm.service
DropInPaths=
RefuseManualStart=no
RefuseManualStop=no
"""
Run = Callable[..., "subprocess.Popen[bytes]"]


# -- what systemd says -------------------------------------------------------------------------------------------------


def test_running_services_are_read_with_their_files(tmp_path: Path) -> None:
    unit = tmp_path / "usr/lib/systemd/system/cron.service"
    unit.parent.mkdir(parents=True)
    unit.write_text("[Service]")
    found = dict(parse_services(SHOWN, tmp_path))
    assert list(found) == ["cron.service", "auditd.service", "gdm.service"]
    cron = found["cron.service"]
    assert [file for file, _ in cron.files] == [
        "/usr/lib/systemd/system/cron.service",
        "/etc/systemd/system/cron.service.d/a.conf",
        "/usr/lib/systemd/system/service.d/b.conf",
    ]
    unit.write_text("[Service]\nNice=1")
    assert dict(parse_services(SHOWN, tmp_path))["cron.service"].files[0] != cron.files[0]


def test_what_systemd_refuses_to_restart_is_left_alone(tmp_path: Path) -> None:
    found = dict(parse_services(SHOWN, tmp_path))
    assert [name for name, service in found.items() if service.may_restart] == ["cron.service"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("dbus.service", False),
        ("systemd-logind.service", False),
        ("getty@tty1.service", False),
        ("serial-getty@ttyS0.service", False),
        ("user@1000.service", False),
        ("swupd-update.service", False),
        ("ssh.service", True),
        ("systemd-journald.service", True),
        ("getty-static.service", True),
    ],
)
def test_what_sessions_hang_on_is_never_restarted(name: str, expected: bool, tmp_path: Path) -> None:
    text = f"Id={name}\nSubState=running\nFragmentPath=/usr/lib/systemd/system/x.service\n"
    assert dict(parse_services(text, tmp_path))[name].may_restart == expected


@given(
    st.text()
    | st.lists(st.sampled_from(["Id=a", "SubState=running", "", "=", "DropInPaths=/x", "Names"])).map("\n".join)
)
def test_whatever_systemd_says_is_no_failure(text: str) -> None:
    for name, service in parse_services(text, Path("/nonexistent")):
        assert name in service.names


@pytest.mark.parametrize(
    ("cgroups", "unit"),
    [
        ("0::/system.slice/cron.service\n", "cron.service"),
        ("0::/system.slice/system-getty.slice/getty@tty1.service\n", "getty@tty1.service"),
        ("0::/user.slice/user-0.slice/user@0.service/app.slice/mine.service\n", "user@0.service"),
        ("0::/user.slice/user-0.slice/session-3.scope\n", "session-3.scope"),
        ("0::/system.slice/docker.service/payload.service\n", "docker.service"),
        ("0::/system.slice/_io.service\n", "io.service"),
        ("4:memory:/x.service\n1:name=systemd:/system.slice/old.service\n0::/\n", "old.service"),
        ("0::/\n", ""),
        ("", ""),
    ],
)
def test_a_process_belongs_to_the_unit_of_its_cgroup(cgroups: str, unit: str) -> None:
    assert unit_of(cgroups) == unit


@given(st.text(alphabet=":/\n0a_.service") | st.text())
def test_whatever_a_cgroup_is_called_is_no_failure(text: str) -> None:
    unit = unit_of(text)
    assert unit == "" or unit.endswith((".service", ".scope"))


def test_services_with_old_files_or_another_unit_file_are_restarted() -> None:
    def service(content: str = "", *, may_restart: bool = True, alias: str = "") -> Service:
        return Service(frozenset({alias} if alias else ()), (("/usr/lib/unit", content),), may_restart)

    before = {name: service("old") for name in ("a", "b", "c", "d", "own", "gone")}
    after = {
        "a": service("old"),
        "b": service("new"),
        "c": service("old", alias="c"),
        "d": service("new", may_restart=False),
        "own": service("new", alias="own"),
        "new": service("new"),
    }
    assert to_restart(before, after, {"c", "own", "gone"}, own="own") == ("b", "c")


# -- processes ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def disk(machine_disk: Any) -> Any:
    """A machine with programs in 10, and 20 beside it, where some of them are others. The root runs systemd."""
    import btrfsutil

    program = Path("/bin/sleep").read_bytes()
    with machine_disk.top() as top:
        ten, twenty = str(top / "@/10"), str(top / "@/20")
        btrfsutil.set_subvolume_read_only(ten, False)
        for name in ("changed", "gone", "same", "touched"):
            _put(top / "@/10/usr/bin" / name, program)
        _put(top / "@/10/usr/bin/shell", Path("/bin/sh").read_bytes())
        _put(top / "@/10/usr/lib/library.so", b"old" * 4096)
        for name in ("script", "same script"):
            _put(top / "@/10/usr/bin" / name, b"echo; read line")
        _put(top / "@/10/usr/bin/systemctl", _SYSTEMCTL.encode())
        btrfsutil.create_snapshot(ten, twenty)
        btrfsutil.set_subvolume_read_only(ten, True)
        (top / "@/20/usr/bin/gone").unlink()
        for name, content in (("changed", program + b"\0"), ("touched", program)):
            (top / "@/20/usr/bin" / name).unlink()
            _put(top / "@/20/usr/bin" / name, content)
        _put(top / "@/20/usr/lib/library.so", b"new" * 4096)
        _put(top / "@/20/usr/bin/script", b"exit")
        _put(top / "@/20/usr/bin/systemd-sysusers", _PROGRAM.encode())
        _put(top / "@/20/usr/bin/systemd-tmpfiles", _PROGRAM.encode())
        btrfsutil.set_subvolume_read_only(twenty, True)
    (machine_disk.root / "run/systemd/system").mkdir(parents=True)
    return machine_disk


@pytest.fixture
def run() -> Iterator[Run]:
    """Starts a program that lasts until the end of the test."""
    running: list[subprocess.Popen[bytes]] = []

    def start(*argv: str | Path) -> subprocess.Popen[bytes]:
        running.append(subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE))
        return running[-1]

    yield start
    for program in running:
        program.kill()
        program.communicate()


def test_programs_that_changed_or_are_gone_are_outdated(disk: Any, run: Run) -> None:
    running = {name: run(disk.root / "usr/bin" / name, "600") for name in ("changed", "gone", "same", "touched")}
    for name, process in running.items():
        _wait_for_program(process.pid, name)
    found = _outdated(disk)
    assert {name for name, process in running.items() if process.pid in found} == {"changed", "gone"}


def test_what_runs_from_a_deployment_that_was_removed_is_outdated(disk: Any, run: Run, report: Any) -> None:
    import btrfsutil

    with Place.open(locate(disk.root)) as place:
        btrfsutil.create_snapshot(str(place.path("20")), str(place.path("30")))
        btrfsutil.set_subvolume_read_only(str(place.path("30")), True)
        live.switch(place, "20", report)
        process = run(disk.root / "usr/bin/changed", "600")
        _wait_for_program(process.pid, "changed")
        live.switch(place, "30", report)
        assert process.pid not in {found.pid for found in outdated_processes(place, "30")}
        btrfsutil.set_subvolume_read_only(str(place.path("30")), False)
        (place.path("30") / "usr/bin/changed").unlink()
        btrfsutil.delete_subvolume(str(place.path("20")))
        assert process.pid in {found.pid for found in outdated_processes(place, "30")}


def test_who_maps_code_of_a_library_that_changed_is_outdated(disk: Any, run: Run) -> None:
    mapping = (
        "import mmap, time, sys; f = open(sys.argv[1], 'rb');"
        "m = mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ | int(sys.argv[2]), flags=mmap.MAP_PRIVATE); f.close();"
        "print(flush=True); time.sleep(600)"
    )
    code, data = (
        run(sys.executable, "-c", mapping, disk.root / "usr/lib/library.so", str(protection)) for protection in (4, 0)
    )
    for process in (code, data):
        _wait_for_line(process)
    found = _outdated(disk)
    assert code.pid in found
    assert data.pid not in found


def test_a_script_that_changed_is_outdated(disk: Any, run: Run) -> None:
    shell = disk.root / "usr/bin/shell"
    changed, same = (run(shell, "-e", disk.root / "usr/bin" / name) for name in ("script", "same script"))
    for process in (changed, same):
        _wait_for_line(process)
    found = _outdated(disk)
    assert changed.pid in found
    assert same.pid not in found


def test_a_program_of_the_new_version_is_not_outdated(disk: Any, run: Run, report: Any) -> None:
    with Place.open(locate(disk.root)) as place:
        live.switch(place, "20", report)
        process = run(disk.root / "usr/bin/changed", "600")
        _wait_for_program(process.pid, "changed")
        assert process.pid not in {found.pid for found in outdated_processes(place, "20")}


# -- all together ------------------------------------------------------------------------------------------------------


def test_what_follows_a_switch_happens_in_order(disk: Any, run: Run, report: Any) -> None:
    process = run(disk.root / "usr/bin/changed", "600")
    _wait_for_program(process.pid, "changed")
    unit = disk.root / "run/systemd/system/cron.service"
    unit.write_text("old")
    (disk.root / "run/shown").write_text(SHOWN.replace("/usr/lib/systemd/system/cron", "/run/systemd/system/cron"))
    with Place.open(locate(disk.root)) as place:
        known = look(disk.root).running
        unit.write_text("new")
        assert known["cron.service"] != services(disk.root)["cron.service"]
        unit.write_text("old")
        # The unit file changes with the switch.
        (disk.root / "run/changes").write_text(str(unit))
        result = live.switch(place, "20", report)
    called = (disk.root / "run/called").read_text().splitlines()
    assert [line for line in called if not line.startswith("systemctl show")] == [
        "systemd-sysusers",
        "systemd-tmpfiles --create",
        "systemctl daemon-reload",
        "systemctl try-restart cron.service",
    ]
    assert result.restarted == ("cron.service",)
    assert f"changed ({process.pid})" in result.outdated
    assert "  restarted: cron.service" in report.lines
    assert report.warnings == []


def test_a_program_that_fails_is_a_warning(disk: Any, report: Any) -> None:
    (disk.root / "run/fails").touch()
    with Place.open(locate(disk.root)) as place:
        result = live.switch(place, "20", report)
    assert result.is_active
    assert report.warnings == [
        "systemd-sysusers failed with status 3: it does not want to",
        "systemd-tmpfiles --create failed with status 3: it does not want to",
        "systemctl daemon-reload failed with status 3: it does not want to",
    ]


def test_where_systemd_does_not_run_nothing_follows(disk: Any, report: Any) -> None:
    (disk.root / "run/systemd/system").rmdir()
    with Place.open(locate(disk.root)) as place:
        assert live.switch(place, "20", report).is_active
    assert not (disk.root / "run/called").exists()


_PROGRAM = """\
#!/bin/sh
run=${0%/usr/bin/*}/run
echo "$(/usr/bin/basename "$0")${*:+ $*}" >>"$run/called"
[ ! -e "$run/fails" ] || { echo "it does not want to" >&2; exit 3; }
"""
_SYSTEMCTL = f"""\
{_PROGRAM}
case $1 in
show) /bin/cat "$run/shown";;
daemon-reload) [ ! -e "$run/changes" ] || echo new >"$(/bin/cat "$run/changes")";;
esac
"""


def _put(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    path.chmod(0o755)


def _outdated(disk: Any) -> set[int]:
    with Place.open(locate(disk.root)) as place:
        return {process.pid for process in outdated_processes(place, "20")}


def _wait_for_program(pid: int, name: str) -> None:
    """Until the process has become the program."""
    while os.path.basename(os.readlink(f"/proc/{pid}/exe")) != name:
        os.sched_yield()


def _wait_for_line(process: subprocess.Popen[bytes]) -> None:
    assert process.stdout is not None
    assert process.stdout.readline() == b"\n"
