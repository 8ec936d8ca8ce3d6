from __future__ import annotations

import dataclasses
import os
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mixer.errors import BuildError
from mixer.guest import machine
from mixer.guest.machine import MIB, Device, Image, Machine, command_line

PLAIN = Machine(Path("/k/vmlinuz"), "quiet")
VHOST_GET_FEATURES = struct.pack("<III", 1, 1, 0)
PORTS = {"log": 10, "stdin": 11, "stdout": 12, "stderr": 13, "status": 14}


def with_image(device: Device, path: str = "/i/guest.img") -> Machine:
    return dataclasses.replace(PLAIN, image=Image(Path(path), 4 * MIB, device))


def line(made: Machine, channels: dict[str, int] | None = None) -> str:
    return " ".join(command_line(made, 9, PORTS if channels is None else channels))


def test_a_guest_sees_nothing_of_the_users_configuration() -> None:
    assert {"-nodefaults", "-no-user-config", "-no-reboot"} <= set(command_line(PLAIN, 9, PORTS))


def test_kernel_initrd_and_command_line_are_given() -> None:
    assert "-kernel /k/vmlinuz -initrd /dev/fd/9 -append quiet" in line(PLAIN)


@pytest.mark.parametrize("device", list(Device))
def test_an_image_is_never_written_to(device: Device) -> None:
    assert "readonly=on" in line(with_image(device))
    assert ("share=off" in line(with_image(device))) == (device is not Device.BLOCK)


def test_an_image_with_a_header_is_an_nvdimm() -> None:
    text = line(with_image(Device.NVDIMM))
    assert "q35,nvdimm=on" in text
    assert "-device nvdimm,memdev=image,unarmed=on" in text
    assert "-m 256M,slots=1,maxmem=2308M" in text


def test_a_plain_image_is_persistent_memory_of_virtio() -> None:
    assert "-device virtio-pmem-pci,memdev=image" in line(with_image(Device.PMEM))


def test_a_comma_in_a_name_does_not_begin_an_option() -> None:
    assert "mem-path=/i/a,,share=on,size=" in line(with_image(Device.PMEM, "/i/a,share=on"))
    assert "file=/i/a,,readonly=off,format" in line(with_image(Device.BLOCK, "/i/a,readonly=off"))


def test_every_channel_is_a_port_of_its_number() -> None:
    text = line(PLAIN)
    assert "socket,id=stdout,fd=12" in text
    assert "virtserialport,chardev=stdout,name=guest.stdout,nr=2" in text
    assert "-serial chardev:log" in text


def test_a_shell_has_a_console_and_still_a_status() -> None:
    text = line(PLAIN, {"log": 10, "console": 11, "status": 12})
    assert "virtconsole,chardev=console" in text
    assert "name=guest.status,nr=4" in text
    assert "guest.stdin" not in text


def test_a_share_needs_memory_that_another_program_sees() -> None:
    text = line(PLAIN, {**PORTS, "share": 15})
    assert "-M q35,memory-backend=memory" in text
    assert f"memory-backend-memfd,id=memory,size={256 * MIB},share=on" in text
    assert "vhost-user-fs-pci,chardev=share,tag=share" in text


def test_the_small_machine_has_a_bus_for_its_devices() -> None:
    assert "-M microvm,pcie=on" in line(dataclasses.replace(PLAIN, model="microvm"))


def test_with_kvm_the_processor_is_the_real_one() -> None:
    assert "-accel kvm -cpu host" in line(dataclasses.replace(PLAIN, kvm=True))
    assert "-accel tcg" in line(PLAIN)


def alive(pid: int) -> bool:
    """Whether a process runs; one that nobody has waited for yet does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def await_end(pid: int) -> None:
    end = time.monotonic() + 20
    while alive(pid):
        assert time.monotonic() < end, "it still runs"
        time.sleep(0.01)


def test_a_program_ends_with_its_block_whatever_ends_that(pipe: tuple[int, int]) -> None:
    printed, printing = pipe
    pids = []

    def be_interrupted() -> None:
        with machine._running(["sh", "-c", "echo $$; exec sleep 1000"], [], printing, package="dash"):
            pids.append(int(os.read(printed, 100)))
            assert alive(pids[0])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        be_interrupted()
    assert not alive(pids[0])


def test_a_program_ends_with_its_mixer_however_that_ends() -> None:
    code = """\
import os, sys
from mixer.guest.machine import _running
printed, printing = os.pipe()
with _running(["sh", "-c", "echo $$; exec sleep 1000"], [], printing, package="dash"):
    print(int(os.read(printed, 100)), flush=True)
    sys.stdin.read()
"""
    mixer = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with mixer:
        assert mixer.stdout is not None
        pid = int(mixer.stdout.readline())
        assert alive(pid)
        mixer.kill()
    await_end(pid)


def test_a_program_that_is_not_there_is_one_line() -> None:
    with (
        pytest.raises(BuildError, match="cannot run no-such-program") as caught,
        machine._running(["no-such-program"], [], 2, package="some-package"),
    ):
        pass
    assert "some-package" in caught.value.hint


needs_virtiofsd = pytest.mark.skipif(
    os.geteuid() != 0 or not Path(machine.VIRTIOFSD).exists(), reason="needs root and virtiofsd"
)


@needs_virtiofsd
def test_the_connection_ends_with_a_virtiofsd_that_gives_up_and_says_why(
    tmp_path: Path, pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    printed, printing = pipe
    refusing = tmp_path / "virtiofsd"
    refusing.write_text("#!/bin/sh\necho no room\nexit 1\n")
    refusing.chmod(0o755)
    monkeypatch.setattr(machine, "VIRTIOFSD", str(refusing))
    with machine._virtiofsd(tmp_path, printing) as connection:
        connection.settimeout(20)
        with pytest.raises(ConnectionResetError):
            connection.recv(1)
    assert os.read(printed, 100) == b"no room\n"


@needs_virtiofsd
def test_a_name_with_a_comma_or_backslash_is_shared_and_no_other(tmp_path: Path) -> None:
    directory = tmp_path / r"a,cache=none\,b"
    directory.mkdir()
    with machine._virtiofsd(directory, 2) as connection:
        # It would give up at once: there is no directory "a".
        connection.sendall(VHOST_GET_FEATURES)
        connection.settimeout(20)
        assert connection.recv(1)


def test_only_a_directory_can_be_shared_and_only_by_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    with pytest.raises(BuildError, match="is not a directory"), machine._virtiofsd(tmp_path / "missing", 2):
        pass
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(BuildError, match="needs root"), machine._virtiofsd(tmp_path, 2):
        pass
