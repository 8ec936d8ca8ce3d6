"""A virtual machine with one disk, booted again and again: QEMU without KVM, its serial console, and the boot loader.

Two ways to boot: `firmware` starts OVMF and the real systemd-boot from the disk; the direct one, which is much quicker,
does here what systemd-boot does with boot counting, and gives QEMU the kernel and initrd that the entry names. The disk
is a raw file; between boots it is read and changed with mtools. `-no-reboot` makes every reboot the end of a process.

Nothing here knows the product: what an entry means is read here a second time, on purpose.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

QEMU = "qemu-system-x86_64"
OVMF_CODE = Path("/usr/share/OVMF/OVMF_CODE_4M.fd")
OVMF_VARS = Path("/usr/share/OVMF/OVMF_VARS_4M.fd")
MEMORY = "1024"
BOOT_SECONDS = 400
"""A boot takes 15 s on an idle machine; a busy one is not an error."""
COMMAND_SECONDS = 600
_ENTRY = re.compile(r"os-([0-9.]+?)(?:\+(\d+)(?:-(\d+))?)?\.conf")


def missing_programs() -> str:
    """Why no machine can be started here; empty if one can."""
    for program in (QEMU, "mcopy", "mren", "mdir", "sfdisk"):
        if not shutil.which(program):
            return f"needs {program}"
    return "" if OVMF_CODE.exists() else "needs OVMF"


@dataclass
class Entry:
    """A boot entry as the disk has it."""

    file: str
    name: str
    left: int | None
    done: int
    values: dict[str, str]


class Disk:
    """The disk of a machine, while that is off."""

    def __init__(self, path: Path) -> None:
        self.path = path
        table = json.loads(run("sfdisk", "--json", path))["partitiontable"]
        self._esp = f"{path}@@{table['partitions'][0]['start'] * 512}"
        part = table["partitions"][1]
        self.root = part["start"] * 512, part["size"] * 512
        """Offset and size of the btrfs, in bytes."""

    def copy(self, path: Path) -> Disk:
        run("cp", "--sparse=always", "--reflink=auto", self.path, path)
        return Disk(path)

    def list(self, directory: str) -> list[str]:
        listing = run("mdir", "-b", "-i", self._esp, f"::{directory}")
        return sorted(line.rpartition("/")[2] for line in listing.splitlines() if not line.endswith("/"))

    def read(self, name: str) -> bytes:
        return subprocess.run(["mtype", "-i", self._esp, f"::{name}"], check=True, capture_output=True).stdout

    def write(self, name: str, data: bytes) -> None:
        subprocess.run(["mcopy", "-o", "-i", self._esp, "-", f"::{name}"], input=data, check=True)

    def rename(self, old: str, new: str) -> None:
        run("mren", "-i", self._esp, f"::{old}", f"::{new}")

    def entries(self) -> list[Entry]:
        """All that a loader would offer, the first one first."""
        found = []
        for file in self.list("/loader/entries"):
            match = _ENTRY.fullmatch(file)
            if match is None:
                continue
            lines = self.read(f"/loader/entries/{file}").decode().splitlines()
            values = dict(line.split(" ", 1) for line in lines)
            if "linux" not in values:
                continue  # what a power cut has left without content: systemd-boot passes over it as well
            left = None if match[2] is None else int(match[2])
            found.append(Entry(file, match[1], left, int(match[3] or 0), values))
        return sorted(found, key=lambda entry: (entry.left == 0, -int(entry.values["version"])))

    def names(self) -> list[str]:
        return [entry.file for entry in self.entries()]

    def count(self) -> Entry:
        """What the boot loader does before it starts an entry: choose, and use up a try."""
        entry = self.entries()[0]
        if entry.left:
            new = f"os-{entry.name}+{entry.left - 1}-{entry.done + 1}.conf"
            self.rename(f"/loader/entries/{entry.file}", f"/loader/entries/{new}")
            entry.file, entry.left, entry.done = new, entry.left - 1, entry.done + 1
        return entry


class Machine:
    """A machine; `boot` starts it, `command` types into its console."""

    def __init__(self, disk: Disk, directory: Path) -> None:
        self.disk = disk
        self._directory = Path(tempfile.mkdtemp(dir=directory))
        self._process: subprocess.Popen[bytes] | None = None
        self._output = b""
        self._changed = threading.Condition()
        self._seen = 0
        self._monitor: socket.socket | None = None
        self.booted = ""
        """The deployment that the loader has started last."""
        self.log = self._directory / "console"

    # -- power -----------------------------------------------------------------------------------------------------

    def boot(
        self, *, firmware: bool = False, options: str = "", incoming: Path | None = None, wait: bool = True
    ) -> None:
        """Switch it on. options: more for the kernel's command line (direct boots). incoming: a saved state.

        wait: return when it asks for a login.
        """
        assert self._process is None
        self._seen = len(self._output)
        monitor = self._directory / "monitor"
        monitor.unlink(missing_ok=True)
        argv: list[str | Path] = [
            QEMU, "-M", "q35", "-accel", "tcg,thread=multi", "-cpu", "Nehalem", "-smp", "2", "-m", MEMORY,
            "-nodefaults", "-display", "none", "-no-reboot", "-serial", "stdio",
            "-qmp", f"unix:{monitor},server=on,wait=off",
            "-device", "virtio-rng-pci",
            "-netdev", "user,id=net", "-device", "virtio-net-pci,netdev=net,romfile=",
            "-drive", f"file={self.disk.path},format=raw,if=virtio,cache=writeback",
        ]  # fmt: skip
        if firmware:
            variables = self._directory / "variables"
            if not variables.exists():
                shutil.copy(OVMF_VARS, variables)
            argv += ["-drive", f"if=pflash,format=raw,readonly=on,file={OVMF_CODE}"]
            argv += ["-drive", f"if=pflash,format=raw,file={variables}"]
        else:
            argv += self._loader(options, count=incoming is None)
        if incoming is not None:
            argv += ["-incoming", f"exec:cat {shlex.quote(str(incoming))}"]
        self._process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        threading.Thread(target=self._collect, args=(self._process,), daemon=True).start()
        if wait and incoming is None:
            self.expect(r"login: ", BOOT_SECONDS)

    def _loader(self, options: str, *, count: bool) -> list[str | Path]:
        entry = self.disk.count() if count else self.disk.entries()[0]
        self.booted = entry.name
        argv: list[str | Path] = []
        for option, key in (("-kernel", "linux"), ("-initrd", "initrd")):
            place = self._directory / key
            place.write_bytes(self.disk.read(entry.values[key]))
            argv += [option, place]
        return [*argv, "-append", f"{entry.values['options']} no_timer_check panic=1 {options}"]

    def kill(self) -> None:
        """Pull the plug."""
        assert self._process is not None
        self._process.kill()
        self._end()

    def await_end(self, seconds: float = BOOT_SECONDS) -> None:
        """Wait until it has switched itself off, or wants to boot again."""
        assert self._process is not None
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"the machine does not end; its console:\n{self.tail()}") from None
        self._end()

    def _end(self) -> None:
        assert self._process is not None
        self._process.wait(30)
        if self._monitor is not None:
            self._monitor.close()
            self._monitor = None
        self._process = None

    def close(self) -> None:
        """Switch it off, whatever it does, and forget it."""
        if self._process is not None:
            self.kill()
        shutil.rmtree(self._directory, ignore_errors=True)

    def reboot(self, **how: Any) -> None:
        """Let it shut down in order, and boot it again."""
        self.type("systemctl reboot")
        self.await_end()
        self.boot(**how)

    # -- console ---------------------------------------------------------------------------------------------------

    def login(self, password: str = "root") -> None:
        self.type("root")
        self.expect(r"Password: ")
        self.type(password)
        self.expect(r"[#$] ")
        # Short lines without colours or echo: what comes back is output alone.
        self.type(
            "stty -echo cols 500; unset PROMPT_COMMAND; PS1=; PS2=; bind 'set enable-bracketed-paste off'; dmesg -n 1"
        )
        self.command("true")

    def command(self, text: str, *, expect: int | None = 0, seconds: float = COMMAND_SECONDS) -> str:
        """Run a command in the shell; its output. expect: its exit status; None takes any."""
        output, status = self.run(text, seconds)
        assert expect is None or status == expect, f"{text!r} ended with {status}:\n{output}"
        return output

    def run(self, text: str, seconds: float = COMMAND_SECONDS) -> tuple[str, int]:
        """Run a command in the shell; its output and its exit status."""
        number = time.monotonic_ns()
        self.type(f"echo; echo '<''{number}'; {{ {text}; }} </dev/null 2>&1; echo \"<$?\"'/{number}>'")
        found = self.expect(rf"<{number}\r*\n(.*?)<(\d+)/{number}>", seconds)
        return found[1].decode(errors="replace").replace("\r", ""), int(found[2])

    def type(self, text: str) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(text.encode() + b"\n")
        self._process.stdin.flush()

    def expect(self, pattern: str, seconds: float = 60) -> re.Match[bytes]:
        """Wait until the console has shown something that it had not shown before the last match."""
        expression = re.compile(pattern.encode(), re.DOTALL)
        end = time.monotonic() + seconds
        with self._changed:
            while True:
                if found := expression.search(self._output, self._seen):
                    self._seen = found.end()
                    return found
                left = end - time.monotonic()
                ended = self._process is None or self._process.poll() is not None
                if left <= 0 or ended:
                    # QEMU stops a machine with "io-error" when the disk of its host is full.
                    state = "ended" if ended else self._qmp("query-status")["status"]
                    raise AssertionError(f"no {pattern!r} on the console of the machine ({state}):\n{self.tail()}")
                self._changed.wait(min(left, 1))

    def tail(self, size: int = 3000) -> str:
        return self._output[-size:].decode(errors="replace")

    def _collect(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        while data := os.read(process.stdout.fileno(), 1 << 16):
            with self._changed:
                self._output += data
                self._changed.notify_all()
            with self.log.open("ab") as log:
                log.write(data)

    # -- saved states ----------------------------------------------------------------------------------------------

    def save(self, path: Path) -> None:
        """Stop it and write its memory to a file; together with its disk that is the whole machine. It is off then."""
        self._qmp("stop")
        self._qmp("migrate", uri=f"exec:cat > {shlex.quote(str(path))}")
        end = time.monotonic() + COMMAND_SECONDS
        while (status := self._qmp("query-migrate").get("status")) != "completed":
            assert status != "failed"
            assert time.monotonic() < end
            time.sleep(0.2)
        self.kill()

    def resume(self) -> None:
        """Let a machine go on that was booted with `incoming`."""
        end = time.monotonic() + COMMAND_SECONDS
        while self._qmp("query-status").get("status") == "inmigrate":
            assert time.monotonic() < end
            time.sleep(0.1)
        self._qmp("cont")

    def _qmp(self, command: str, **arguments: Any) -> dict[str, Any]:
        if self._monitor is None:
            self._monitor = socket.socket(socket.AF_UNIX)
            end = time.monotonic() + 30
            while True:
                with suppress(OSError):
                    self._monitor.connect(str(self._directory / "monitor"))
                    break
                assert time.monotonic() < end
                time.sleep(0.05)
            self._stream = self._monitor.makefile("rwb")
            self._stream.readline()
            self._qmp("qmp_capabilities")
        self._stream.write(json.dumps({"execute": command, "arguments": arguments}).encode() + b"\n")
        self._stream.flush()
        while True:
            answer = json.loads(self._stream.readline())
            if "event" not in answer:
                assert "return" in answer, answer
                found: dict[str, Any] = answer["return"]
                return found


def run(*argv: str | Path) -> str:
    words: Sequence[str] = [str(word) for word in argv]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{shlex.join(words)}: {done.stderr}"
    return done.stdout
