"""Running a command in a guest: image, kernel and command become a machine, whose end is an exit status.

* The exit status is that of the command; 124 if its time was over.
* A guest that ends by itself without a status, or does not come up in time, is a BuildError with the last lines of its
  console. Whatever happens, the guest has ended when `run` returns, and a terminal is as it was.
* Where KVM does not work (nested ones may not), the guest is started once more without it. Our input is not touched
  before the command has begun.
"""

from __future__ import annotations

import os
import re
import socket
import termios
import time
import tty
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from mixer.errors import BuildError
from mixer.guest import channels
from mixer.guest.channels import CONSOLE, PORTS, STATUS, Relay, Terminal
from mixer.guest.machine import LOG, SHARE, Device, Image, Machine, Running, started
from mixer.images import output
from mixer.images.guest import root_parameters
from mixer.images.kernel import EMULATED, INITRD, KIND, OPTIONS, VMLINUZ
from swupd.report import Report

BOOTED = ("guest-erofs", "guest-ext4", "initrd")
"""Types of images that can be run."""
NOT_STARTED = (
    *("systemd-network-generator.service", "systemd-networkd.socket", "systemd-resolved.service"),
    *("systemd-timesyncd.service", "systemd-udev-trigger.service", "systemd-update-utmp.service"),
)
"""What systemd leaves out: a guest has no network, and no devices but those that its initrd has found."""
PARTS = {
    "guest-minimal": "",
    "guest-systemd": " ".join(("systemd.unit=guest.target", *(f"systemd.mask={unit}" for unit in NOT_STARTED))),
}
"""Bundles that know how to run a command, and what else the kernel is told for their sake."""
TIME_IS_OVER = 124
START_SECONDS = 20.0
"""How long a guest may take to begin with its command. With KVM it is less than a second; one that takes so much longer
is started without it."""
EMULATED_START_SECONDS = 600.0
"""The same without KVM: some seconds on an idle machine."""
LEAVE = b"\x1d"
"""Ctrl-]: a person leaves a guest that does not answer any more."""
TAIL_BYTES = 64 << 10
TAIL_LINES = 5
"""Of a console that an error repeats."""
KVM_GAVE_UP = b"KVM internal error"
"""What QEMU says then; the guest stands still."""
FAILED = "GUEST-FAIL"
"""What our initrd says when it cannot go on."""
TELLING = (FAILED, "Kernel panic")
"""Lines with these say what has happened; if there are none, the last ones are repeated."""
ANSWER_BYTES = 16
"""More than a status has."""
MAX_STATUS = 255
ALIGNMENT = 4

_WORD = re.compile(r"[!-~]{1,200}")


@dataclass(frozen=True)
class Wish:
    """What is to be run, and how."""

    image: Path
    kernel: Path
    """A directory made by the type kernel."""
    command: Sequence[str]
    """Empty: a shell."""
    model: str
    memory: int
    """Bytes."""
    cpus: int
    kvm: bool
    dax: bool
    timeout: float | None
    """Seconds."""
    share: Path | None


def facts_of(image: Path) -> Mapping[str, object]:
    """What is said about an image that can be run. Raises BuildError."""
    if not image.is_file():
        raise BuildError(f"{image} is not a file", hint="`mixer build image --type guest-erofs` makes an image")
    facts = output.read_facts(image)
    if facts.get("type") not in BOOTED:
        raise BuildError(
            f"{image}{output.FACTS} does not say that this is an image of the type {', '.join(BOOTED)}",
            hint="`mixer build image` writes it; keep it beside the image",
        )
    if not _bundles(facts):
        raise BuildError(
            f"{image} does not know how to run a command", hint=f"make it with --bundles {' or '.join(PARTS)}"
        )
    return facts


def run(wish: Wish, report: Report) -> int:
    """Run it with our standard input, output and error; the exit status. Raises BuildError."""
    until = None if wish.timeout is None else time.monotonic() + wish.timeout
    try:
        return _run(wish, until, report)
    except _KvmGaveUpError:
        report.warning("KVM does not work here: the processor is emulated; --no-kvm says so from the beginning")
        return _run(replace(wish, kvm=False), until, report)


class _KvmGaveUpError(Exception):
    """The guest has not begun with its command."""


def _run(wish: Wish, until: float | None, report: Report) -> int:
    facts = facts_of(wish.image)
    machine, initrd = _machine(wish, facts)
    terminal = _terminal() if not wish.command and os.isatty(0) and os.isatty(1) else None
    initrd += channels.archive(wish.command or ("sh",), terminal)
    names = (CONSOLE, STATUS) if terminal else PORTS
    report.verbose(f"booting {wish.image} ({'KVM' if wish.kvm else 'without KVM'}, {wish.model})")
    with started(machine, initrd, names, wish.share) as running:
        guest = _Guest(running)
        starts = time.monotonic() + (START_SECONDS if wish.kvm else EMULATED_START_SECONDS)
        is_in_time = guest.follow(guest.has_begun_or_ended, starts if until is None else min(starts, until))
        if not is_in_time and until is not None and until <= starts:
            return _too_late(wish, report)
        if wish.kvm and not guest.has_begun and not guest.has_failed:
            raise _KvmGaveUpError
        if not is_in_time:
            raise guest.error("the guest has not begun with the command in time")
        guest.listen()
        # Not before: until then Ctrl-C ends a guest that does not come up.
        with _raw(0) if terminal else nullcontext():
            has_ended = guest.follow(guest.has_ended, until)
        if not has_ended:
            return _too_late(wish, report)
        if guest.status is None:
            raise guest.error("the guest ended without an exit status of the command")
        return guest.status


def _too_late(wish: Wish, report: Report) -> int:
    report.error(f"the command did not end within {wish.timeout:g} seconds")
    return TIME_IS_OVER


class _Guest:
    """The channels of a guest, connected with ours."""

    def __init__(self, running: Running) -> None:
        self._answer = b""
        self._log = b""
        ports = running.channels
        status, log = ports[STATUS].fileno(), ports[LOG].fileno()
        self._needed = [Relay(status, self._take_answer), Relay(log, self._take_log)]
        if CONSOLE in ports:
            self._input = Relay(0, partial(_type, ports[CONSOLE]))
            self._needed.append(Relay(ports[CONSOLE].fileno(), 1))
        else:
            stdin = ports["stdin"]
            self._input = Relay(0, stdin.fileno(), at_end=partial(_close, stdin), may_break=True)
            self._needed += [Relay(ports["stdout"].fileno(), 1), Relay(ports["stderr"].fileno(), 2)]
        self._relays = [*self._needed, Relay(running.complaints, self._take_log)]

    def listen(self) -> None:
        """From now on our input is the guest's."""
        self._relays.append(self._input)

    def follow(self, done: Callable[[], bool], until: float | None) -> bool:
        return channels.pass_on(self._relays, done, until)

    @property
    def has_begun(self) -> bool:
        return b"\n" in self._answer

    def has_begun_or_ended(self) -> bool:
        return self.has_begun or KVM_GAVE_UP in self._log or self.has_ended()

    def has_ended(self) -> bool:
        """All that it said has arrived."""
        return all(relay.is_over for relay in self._needed)

    @property
    def has_failed(self) -> bool:
        """Whether our initrd has told why there will be no command."""
        return FAILED.encode() in self._log

    @property
    def status(self) -> int | None:
        """The exit status of the command."""
        text = self._answer.strip()
        return int(text) if text.isdigit() and int(text) <= MAX_STATUS else None

    def error(self, what: str) -> BuildError:
        """With the end of the console."""
        lines = [line.strip() for line in self._log.decode(errors="replace").splitlines() if line.strip()]
        telling = [line for line in lines if any(mark in line for mark in TELLING)] or lines[-TAIL_LINES:]
        printable = ("".join(sign for sign in line if sign.isprintable()) for line in telling[-TAIL_LINES:])
        return BuildError(f"{what}; its console: {' | '.join(printable) or 'nothing'}")

    def _take_answer(self, data: bytes) -> None:
        self._answer = (self._answer + data)[:ANSWER_BYTES]

    def _take_log(self, data: bytes) -> None:
        self._log = (self._log + data)[-TAIL_BYTES:]


def _close(stdin: socket.socket) -> None:
    # A guest that has ended needs no end of its input.
    with suppress(OSError):
        stdin.shutdown(socket.SHUT_WR)


def _type(console: socket.socket, data: bytes) -> None:
    if LEAVE in data:
        raise KeyboardInterrupt
    with suppress(BrokenPipeError, ConnectionResetError):
        console.sendall(data)


# -- the machine -------------------------------------------------------------------------------------------------------


def _machine(wish: Wish, facts: Mapping[str, object]) -> tuple[Machine, bytes]:
    """The machine, and its initrd without the command."""
    kernel, initrd = wish.kernel / VMLINUZ, wish.kernel / INITRD
    if output.read_facts(wish.kernel).get("type") != KIND:
        raise BuildError(
            f"{wish.kernel} is not a kernel with its initrd",
            hint="`mixer build image --type kernel --bundles kernel -o DIR` makes one",
        )
    archive = initrd.read_bytes()
    init = facts.get("init")
    if not isinstance(init, str) or not _WORD.fullmatch(init):
        raise BuildError(f"{wish.image}{output.FACTS} does not name the init of the image", hint="make the image again")
    options = [OPTIONS] if wish.kvm else [OPTIONS, EMULATED]
    image = None
    if facts["type"] == "initrd":
        archive = _padded(wish.image.read_bytes()) + archive
        options.append("rdinit=/guest/init")
    else:
        image = Image(wish.image, wish.image.stat().st_size, _device(wish, facts))
        system = str(facts["type"]).removeprefix("guest-")
        is_mapped = image.device is not Device.BLOCK
        options.append(root_parameters(system, partitioned=facts.get("dax") is True, mapped=is_mapped))
    options += [f"init={init}", *(PARTS[name] for name in _bundles(facts) if PARTS[name])]
    if wish.share is not None:
        options.append(f"guest.share={SHARE}")
    machine = Machine(kernel, " ".join(options), image, wish.model, wish.memory, wish.cpus, wish.kvm)
    return machine, _padded(archive)


def _device(wish: Wish, facts: Mapping[str, object]) -> Device:
    if not wish.dax or wish.model == "microvm":
        return Device.BLOCK
    return Device.NVDIMM if facts.get("dax") is True else Device.PMEM


def _bundles(facts: Mapping[str, object]) -> list[str]:
    """Those that know how to run a command; the first one's init is started."""
    bundles = facts.get("bundles")
    return [name for name in PARTS if name in bundles][:1] if isinstance(bundles, list) else []


def _padded(archive: bytes) -> bytes:
    """As the kernel wants it where another archive follows."""
    return archive + bytes(-len(archive) % ALIGNMENT)


# -- the terminal ------------------------------------------------------------------------------------------------------


def _terminal() -> Terminal:
    rows, columns = termios.tcgetwinsize(1)
    return Terminal(os.environ.get("TERM", "linux"), rows or 24, columns or 80)


@contextmanager
def _raw(fd: int) -> Iterator[None]:
    """Every key goes to the guest meanwhile."""
    before = termios.tcgetattr(fd)
    try:
        # What was typed before is kept.
        tty.setraw(fd, termios.TCSADRAIN)
        yield
    finally:
        termios.tcsetattr(fd, termios.TCSADRAIN, before)
