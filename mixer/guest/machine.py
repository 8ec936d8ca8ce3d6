"""A guest as a process: the command line of QEMU, and its life.

* Nothing that the guest does changes the image: it is opened read-only, and what is written to it is memory.
* No descriptor but those that are named, and nothing of the user's configuration of QEMU, reaches the guest.
* No process outlives this one: QEMU and virtiofsd die with it, whatever it dies of, and are waited for in any case.

Persistent memory is mapped by all guests from one page cache. With a header for it an image is an NVDIMM, without one a
virtio-pmem; the machine microvm has neither, and gets a disk.
"""

from __future__ import annotations

import enum
import fcntl
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from mixer.errors import BuildError
from mixer.guest.channels import CONSOLE, PORTS
from mixer.images.programs import ENVIRONMENT

QEMU = "qemu-system-x86_64"
VIRTIOFSD = "/usr/lib/qemu/virtiofsd"
MACHINES = ("q35", "microvm")
SHARE = "share"
"""The channel to virtiofsd, and the tag by which the guest mounts it."""
LOG = "log"
"""The channel of the kernel's console."""
MIB = 1 << 20

_WITH_US = ("setpriv", "--pdeathsig", "KILL", "--")
_KVM_CREATE_VM = 0xAE01


class Device(enum.Enum):
    """What an image is in the guest."""

    NVDIMM = enum.auto()
    PMEM = enum.auto()
    BLOCK = enum.auto()


@dataclass(frozen=True)
class Image:
    """An image as the root of a guest."""

    path: Path
    size: int
    """Bytes."""
    device: Device


@dataclass(frozen=True)
class Machine:
    """What QEMU is to make."""

    kernel: Path
    append: str
    """The kernel's command line."""
    image: Image | None = None
    """None: the root is the initrd."""
    model: str = MACHINES[0]
    memory: int = 256 * MIB
    """Bytes, a multiple of 1 MiB."""
    cpus: int = 1
    kvm: bool = False


def command_line(machine: Machine, initrd: int, channels: Mapping[str, int]) -> list[str]:
    """How QEMU is called. `initrd` and `channels` are descriptors that it inherits."""
    model = {"q35": "q35", "microvm": "microvm,pcie=on"}[machine.model]
    memory = f"{machine.memory // MIB}M"
    devices = ["-device", "virtio-rng-pci", "-device", "virtio-serial-pci"]
    if machine.image is not None:
        path = str(machine.image.path).replace(",", ",,")
        if machine.image.device is Device.BLOCK:
            devices += ["-drive", f"file={path},format=raw,if=none,id=image,readonly=on"]
            devices += ["-device", "virtio-blk-pci,drive=image"]
        else:
            size = machine.image.size
            devices += [
                "-object",
                f"memory-backend-file,id=image,mem-path={path},size={size},share=off,readonly=on",
            ]
            memory += f",slots=1,maxmem={(machine.memory + size) // MIB + 2048}M"
            if machine.image.device is Device.NVDIMM:
                model += ",nvdimm=on"
                devices += ["-device", "nvdimm,memdev=image,unarmed=on"]
            else:
                devices += ["-device", "virtio-pmem-pci,memdev=image"]
    for number, name in enumerate(PORTS, start=1):
        if name in channels:
            devices += ["-device", f"virtserialport,chardev={name},name=guest.{name},nr={number}"]
    if CONSOLE in channels:
        devices += ["-device", f"virtconsole,chardev={CONSOLE}"]
    if SHARE in channels:
        model += ",memory-backend=memory"
        devices += ["-object", f"memory-backend-memfd,id=memory,size={machine.memory},share=on"]
        devices += ["-device", f"vhost-user-fs-pci,chardev={SHARE},tag={SHARE}"]
    return [
        *(QEMU, "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"),
        *("-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"),
        *("-M", model, "-m", memory, "-smp", f"{machine.cpus}"),
        # Without KVM: the oldest processor that distributions still build for. A newer one takes longer to emulate.
        *(("-accel", "kvm", "-cpu", "host") if machine.kvm else ("-accel", "tcg,thread=multi", "-cpu", "Nehalem")),
        *("-kernel", str(machine.kernel), "-initrd", f"/dev/fd/{initrd}", "-append", machine.append),
        *(word for name, fd in channels.items() for word in ("-chardev", f"socket,id={name},fd={fd}")),
        *("-serial", f"chardev:{LOG}"),
        *devices,
    ]


def kvm_works() -> bool:
    """Whether this process may make virtual machines of the hardware."""
    try:
        device = os.open("/dev/kvm", os.O_RDWR | os.O_CLOEXEC)
        try:
            os.close(fcntl.ioctl(device, _KVM_CREATE_VM, 0))
        finally:
            os.close(device)
    except OSError:
        return False
    return True


@dataclass(frozen=True)
class Running:
    """A guest that runs."""

    channels: Mapping[str, socket.socket]
    """Our ends of its channels."""
    complaints: int
    """A descriptor from which that is read what QEMU and virtiofsd print."""


@contextmanager
def started(machine: Machine, initrd: bytes, channels: Collection[str], share: Path | None) -> Iterator[Running]:
    """Start a guest; it is ended when the block is left. Raises BuildError if a program is missing or refuses."""
    with ExitStack() as stack:
        complaints, printing = _pipe(stack)
        ours, theirs = {}, {}
        for name in (LOG, *channels):
            ours[name], theirs[name] = (stack.enter_context(end) for end in socket.socketpair())
        if share is not None:
            theirs[SHARE] = stack.enter_context(_virtiofsd(share, printing.fileno()))
        archive = os.memfd_create("initrd")
        stack.callback(os.close, archive)
        with open(archive, "wb", closefd=False) as file:
            file.write(initrd)
        argv = command_line(machine, archive, {name: end.fileno() for name, end in theirs.items()})
        descriptors = (archive, *(end.fileno() for end in theirs.values()))
        stack.enter_context(_running(argv, descriptors, printing.fileno(), package="qemu-system-x86"))
        # The end of a channel is seen when nobody has its other side.
        printing.close()
        for end in theirs.values():
            end.close()
        yield Running(ours, complaints)


def _pipe(stack: ExitStack) -> tuple[int, BinaryIO]:
    """Where to read, and where to write."""
    readable, writable = os.pipe()
    stack.callback(os.close, readable)
    return readable, stack.enter_context(open(writable, "wb"))


@contextmanager
def _running(argv: Sequence[str], descriptors: Collection[int], printing: int, *, package: str) -> Iterator[None]:
    """A program with no other descriptors than these; what it prints goes to `printing`.

    It ends with this process and with this block.
    """
    for program, where in ((_WITH_US[0], "util-linux"), (argv[0], package)):
        if shutil.which(program, path=ENVIRONMENT["PATH"]) is None:
            raise BuildError(f"cannot run {program}: it is not there", hint=f"install the package {where}")
    process = subprocess.Popen(
        [*_WITH_US, *argv],
        env=dict(ENVIRONMENT),
        stdin=subprocess.DEVNULL,
        stdout=printing,
        stderr=printing,
        pass_fds=tuple(descriptors),
        # Ctrl-C is for us; we end it then.
        start_new_session=True,
    )
    with process:
        try:
            yield
        finally:
            process.kill()


@contextmanager
def _virtiofsd(directory: Path, printing: int) -> Iterator[socket.socket]:
    """The connection to a virtiofsd that shares a directory; what it prints goes to `printing`."""
    if os.geteuid() != 0:
        raise BuildError("--share needs root, because virtiofsd does", hint="run it with sudo, or without --share")
    if not directory.is_dir():
        raise BuildError(f"{directory} is not a directory", hint="name a directory that the guest shares with --share")
    with ExitStack() as stack:
        place = f"{stack.enter_context(tempfile.TemporaryDirectory())}/socket"
        ear, ours = (stack.enter_context(socket.socket(socket.AF_UNIX)) for _ in range(2))
        ear.bind(place)
        ear.listen(1)
        ours.connect(place)
        # A comma would begin another option; a backslash before it prevents that.
        source = str(directory.resolve()).replace("\\", r"\\").replace(",", r"\,")
        argv = [VIRTIOFSD, f"--fd={ear.fileno()}", "-o", f"source={source}", "-o", "cache=auto", "-o", "log_level=warn"]
        stack.enter_context(_running(argv, [ear.fileno()], printing, package="qemu-system-common"))
        # The connection ends with virtiofsd only when nobody else listens.
        ear.close()
        yield ours
