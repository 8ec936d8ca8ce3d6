"""The switch of a running system in the middle of a real systemd: PID 1 of a container that boots from a deployment.

Its root is mounted as our initrd does it, and systemd, its tools and all libraries lie in the deployments; only the
Python that runs `swupd.nextboot.live` is this one. So mounts propagate, services have mounts of their own, and units
are restarted for real, in seconds and without a virtual machine.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path

import pytest

from swupd.nextboot import place
from tests.unit.swupd.nextboot.disk import MachineDisk, machine_on_disk

SYSTEMD = Path("/usr/lib/systemd/systemd")
PROGRAMS = (
    *("/usr/bin/systemctl", "/usr/bin/systemd-sysusers", "/usr/bin/systemd-tmpfiles", str(SYSTEMD)),
    *("/usr/bin/mount", "/usr/bin/umount", "/usr/sbin/blkid", "/usr/bin/unshare", "/usr/bin/nsenter"),
    *("/usr/bin/env", "/usr/bin/sh", "/usr/bin/sleep", "/usr/bin/cat"),
)
SECONDS = 60
"""How long the system may take for anything."""
REPOSITORY = Path(__file__).parents[2]
SWITCH = """
import json, sys
from pathlib import Path
from swupd.nextboot import live, place
from swupd.report import TextReport
place.BOOT_MOUNT = {boot_mount}
with place.Place.open(place.locate(Path("/"))) as opened:
    result = live.switch(opened, "{name}", TextReport(verbose=True, out=sys.stderr))
print(json.dumps([result.obstacle, result.restarted, result.outdated]))
"""

pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root"),
    pytest.mark.skipif(not SYSTEMD.exists(), reason="systemd is not installed"),
]


def service(command: str, more: str = "") -> str:
    return f"[Unit]\nDefaultDependencies=no\n[Service]\nExecStart={command}\n{more}"


UNITS = {
    "default.target": (
        "[Unit]\nWants=worker.service same.service other-unit.service\n"
        "Wants=private.service protected.service getty@tty7.service\n"
    ),
    "worker.service": service("/usr/bin/worker 1000"),
    "same.service": service("/usr/bin/same 1000"),
    "other-unit.service": service("/usr/bin/same 1000"),
    "private.service": service("/usr/bin/same 1000", "PrivateTmp=yes\n"),
    "protected.service": service("/usr/bin/same 1000", "ProtectSystem=full\n"),
    "getty@tty7.service": service("/usr/bin/worker 1000"),
}


class Container:
    """A machine whose systemd runs."""

    def __init__(self, disk: MachineDisk, groups: Path) -> None:
        self._disk = disk
        self._group = groups / f"swupd-test-{os.getpid()}"
        self._program: subprocess.Popen[bytes] | None = None
        self._pid = 0
        self._log = Path(disk.root).with_name("console")

    def start(self) -> None:
        root = self._disk.root
        self._group.mkdir()
        prepare = f"""
            set -e
            echo 0 > {self._group}/cgroup.procs
            exec unshare --mount --pid --fork --kill-child --cgroup --uts --ipc sh -ec '
                mount --make-rprivate /
                cd {root}
                mount -t proc proc proc; mount -t sysfs sysfs sys; mount --rbind /dev dev
                mount -t cgroup2 cgroup2 sys/fs/cgroup
                mkdir run/host run/old run/systemd; mount --rbind / run/host
                pivot_root . run/old; umount --lazy /run/old
                mount --make-rshared /  # what systemd does by itself outside of containers
                export container=lxc
                exec /usr/lib/systemd/systemd --system --log-target=console --show-status=0
            '
        """
        with self._log.open("wb") as log:
            self._program = subprocess.Popen(["sh", "-c", prepare], stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        self._wait_for_systemd()

    def _wait_for_systemd(self) -> None:
        assert self._program is not None
        until = time.monotonic() + SECONDS
        while time.monotonic() < until and self._program.poll() is None:
            children = Path(f"/proc/{self._program.pid}/task/{self._program.pid}/children").read_text().split()
            if children:
                self._pid = int(children[0])
                if self.run("systemctl", "is-active", "default.target", check=False).strip() == "active":
                    return
            time.sleep(0.1)
        pytest.fail(self._log.read_text(errors="replace")[-3000:])

    def run(self, *argv: str, check: bool = True, environment: Mapping[str, str] | None = None) -> str:
        """Run a program in it."""
        enter = ["nsenter", f"--target={self._pid}", "--mount", "--pid", "--cgroup", "--uts", "--ipc"]
        path = {"PATH": "/usr/sbin:/usr/bin"} | dict(environment or {})
        done = subprocess.run(
            [*enter, "/usr/bin/env", "-i", *(f"{key}={value}" for key, value in path.items()), *argv],
            capture_output=True,
            text=True,
            check=False,
            timeout=SECONDS,
        )
        assert done.returncode == 0 or not check, done.stdout + done.stderr
        return done.stdout

    def switch(self, name: str, *before: str) -> tuple[str, list[str], list[str]]:
        """Switch it to a deployment: the obstacle, what was restarted, what is outdated.

        before: a program that starts the switching one.
        """
        host = "/run/host"
        libraries = ":".join(host + os.path.dirname(path) for path in sorted(_libraries([sys.executable])))
        modules = (REPOSITORY, sysconfig.get_path("purelib"))
        environment = {
            "LD_LIBRARY_PATH": libraries,
            "PYTHONHOME": host + sys.base_prefix,
            "PYTHONPATH": ":".join(f"{host}{path}" for path in modules),
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        python = host + os.path.realpath(sys.executable)
        program = SWITCH.format(boot_mount=place.BOOT_MOUNT, name=name)
        told = self.run(*before, host + os.path.realpath(_loader()), python, "-c", program, environment=environment)
        obstacle, restarted, outdated = json.loads(told)
        return obstacle, restarted, outdated

    def main_pid(self, unit: str) -> str:
        return self.run("systemctl", "show", "--property=MainPID", "--value", unit).strip()

    def version_in(self, unit: str) -> str:
        """The version that a service sees."""
        return self.run("cat", f"/proc/{self.main_pid(unit)}/root/usr/lib/version")

    def can_write(self, unit: str, directory: str) -> bool:
        """Whether a service could write there, as root."""
        program = f"echo >{directory}/new 2>/dev/null && echo written"
        enter = ["nsenter", f"--target={self.main_pid(unit)}", "--mount"]
        return self.run(*enter, "sh", "-c", program, check=False) == "written\n"

    def systemd(self) -> bytes:
        """The program that runs as PID 1."""
        return Path(f"/proc/{self._pid}/exe").read_bytes()

    def stop(self) -> None:
        if self._program is not None:
            with suppress(ProcessLookupError):
                os.kill(self._pid or self._program.pid, signal.SIGKILL)
            self._program.wait()
        until = time.monotonic() + SECONDS
        while self._group.exists() and time.monotonic() < until:
            for directory, _, _ in os.walk(self._group, topdown=False):
                with suppress(OSError):
                    os.rmdir(directory)


@pytest.fixture
def machine_disk(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[MachineDisk]:
    with machine_on_disk(tmp_path, capsys, monkeypatch) as disk:
        yield disk


@pytest.fixture
def container(machine_disk: MachineDisk) -> Iterator[Container]:
    """Runs deployment 10; 20 and 30 are there."""
    import btrfsutil

    groups = _cgroups()
    if groups is None:
        pytest.skip("there are no cgroups of version 2")
    with machine_disk.top() as top:
        ten = top / "@/10"
        btrfsutil.set_subvolume_read_only(str(ten), False)
        _install(ten)
        _deploy(ten, top / "@/20", _make_20)
        _deploy(top / "@/20", top / "@/30", _make_30)
        btrfsutil.set_subvolume_read_only(str(ten), True)
    machine_disk.boot()
    # As our initrd does.
    _write(machine_disk.root / "etc/machine-id", f"{os.urandom(16).hex()}\n")
    container = Container(machine_disk, groups)
    try:
        container.start()
        yield container
    finally:
        container.stop()


def test_a_running_system_is_switched_with_its_services(container: Container) -> None:
    before = {unit: container.main_pid(unit) for unit in UNITS if unit.endswith(".service")}
    obstacle, restarted, outdated = container.switch("20")
    assert obstacle == ""
    # Those with another program, another unit file, or mounts of their own over /usr; and nobody else.
    assert restarted == ["other-unit.service", "protected.service", "worker.service"]
    assert outdated == ["getty@tty7.service"]
    changed = {unit for unit, pid in before.items() if container.main_pid(unit) != pid}
    assert changed == set(restarted)
    assert "/usr/bin/same 2000" in container.run("systemctl", "show", "--property=ExecStart", "other-unit.service")
    # What a new process, a service and the new accounts look like.
    assert container.run("cat", "/usr/lib/version") == "20"
    assert {container.version_in(f"{name}.service") for name in ("same", "private", "protected")} == {"20"}
    assert "newcomer:x:712:" in container.run("cat", "/etc/passwd")
    assert container.run("sh", "-c", "test -d /var/lib/newcomer && echo there") == "there\n"
    assert not container.can_write("protected.service", "/etc")
    assert container.can_write("private.service", "/etc")
    assert container.run("systemctl", "is-system-running", check=False).strip() in ("running", "starting")


def test_systemd_itself_is_exchanged(container: Container) -> None:
    container.switch("20")
    assert container.systemd() == SYSTEMD.read_bytes()
    obstacle, restarted, outdated = container.switch("30")
    assert (obstacle, restarted) == ("", ["protected.service"])
    # Neither the old systemd, which has executed the new one.
    assert outdated == ["getty@tty7.service"]
    assert container.systemd() == SYSTEMD.read_bytes() + b"\0"
    assert container.run("systemctl", "is-active", "worker.service").strip() == "active"


def test_mounts_that_only_the_command_would_see_are_refused(container: Container) -> None:
    obstacle, _, _ = container.switch("20", "unshare", "--mount")
    assert "mounts of its own" in obstacle
    assert container.run("cat", "/usr/lib/version") == "10"


# -- the deployments ---------------------------------------------------------------------------------------------------


def _install(root: Path) -> None:
    """Programs with all their libraries, and units."""
    for path in {*PROGRAMS, *_libraries(PROGRAMS), _loader()}:
        target = root / os.path.realpath(os.path.dirname(path)).lstrip("/") / os.path.basename(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)
        shutil.copy2(path, target)
    for name in ("bin", "sbin", "lib", "lib64"):
        (root / name).symlink_to(f"usr/{name}")
    for name in ("same", "worker"):
        shutil.copy2("/usr/bin/sleep", root / "usr/bin" / name)
    for name, text in UNITS.items():
        _write(root / "usr/lib/systemd/system" / name, text)
    _write(root / "usr/lib/version", "10")


def _make_20(root: Path) -> None:
    _write(root / "usr/lib/version", "20")
    _write(root / "usr/bin/worker", (root / "usr/bin/worker").read_bytes() + b"\0", mode=0o755)
    _write(root / "usr/lib/systemd/system/other-unit.service", service("/usr/bin/same 2000"))
    _write(root / "usr/lib/sysusers.d/00-mix.conf", 'g newcomer 712\nu newcomer 712:712 "" / /usr/sbin/nologin\n')
    _write(root / "usr/lib/tmpfiles.d/mix.conf", "d /var/lib/newcomer 0750 newcomer newcomer\n")


def _make_30(root: Path) -> None:
    _write(root / "usr/lib/systemd/systemd", SYSTEMD.read_bytes() + b"\0", mode=0o755)


def _deploy(base: Path, new: Path, change: Callable[[Path], None]) -> None:
    import btrfsutil

    btrfsutil.create_snapshot(str(base), str(new))
    change(new)
    btrfsutil.set_subvolume_read_only(str(new), True)


def _write(path: Path, content: str | bytes, mode: int = 0o644) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    path.chmod(mode)


def _libraries(programs: Iterable[str]) -> set[str]:
    told = subprocess.run(["ldd", *programs], capture_output=True, text=True, check=True).stdout
    return set(re.findall(r"=> (/\S+)", told))


def _loader() -> str:
    told = subprocess.run(["ldd", "/usr/bin/sleep"], capture_output=True, text=True, check=True).stdout
    found = re.search(r"^\s*(/\S+)", told, re.MULTILINE)
    assert found is not None
    return found[1]


def _cgroups() -> Path | None:
    """Where cgroups of version 2 are mounted."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        if " - cgroup2 " in line:
            return Path(line.split(" ")[4])
    return None
