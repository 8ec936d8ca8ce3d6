"""What mixer and a guest tell each other: the command, and the bytes that go in and out while it runs.

To the guest goes, as a second archive behind its initrd, /run/guest/command: a shell script, readable by root alone,
that the init of the guest runs and after which it ends the machine. The script runs the command with standard input,
output and error on serial ports of virtio and writes the exit status to a fourth one. A shell for a person has a
console instead of the three.

* Bytes are not changed, in either direction. Arguments have any bytes but NUL.
* The end of our standard input is the end of the guest's. What the guest has written before it ended arrives.
* Nothing is read before it can be passed on: a slow reader slows the guest down, and memory stays small.

A port can be opened once: what the command has as standard output cannot be opened a second time as /dev/stdout.
"""

from __future__ import annotations

import os
import selectors
import shlex
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from mixer.errors import BuildError
from mixer.images import cpio

STATUS = "status"
PORTS = ("stdin", "stdout", "stderr", STATUS)
"""Serial ports of the guest, from number 1 on. The host connects them in this order, so the last one is waited for."""
CONSOLE = "console"
MAX_COMMAND_BYTES = 64 << 10
"""Of all arguments."""
CHUNK_BYTES = 64 << 10
WRITE_BYTES = 4096
"""What is written at once: a pipe that has room has room for so much."""

_SCRIPT = """\
# Written by mixer run-guest.
export HOME=/root PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin TERM={term}
cd /
until for port in /sys/class/virtio-ports/vport*p4; do [ -e "$port/name" ]; done; do sleep 0.02; done
port=${{port##*/}}
port=/dev/${{port%4}}
exec 3>"$port"4
echo >&3
"""
_RUN = """\
set -- {words}
"$@" <"$port"1 >"$port"2 2>"$port"3 3>&-
echo $? >&3
"""
_SHELL = """\
setsid -c sh -c 'stty rows {rows} cols {columns}; exec sh' </dev/hvc0 >/dev/hvc0 2>&1 3>&-
echo $? >&3
"""


@dataclass(frozen=True)
class Terminal:
    """What a person sits at."""

    name: str
    """Its type, as in TERM."""
    rows: int
    columns: int


def archive(command: Sequence[str], terminal: Terminal | None) -> bytes:
    """What is appended to the initrd: the command, or for a terminal a shell. Raises BuildError."""
    if terminal is None:
        text = _SCRIPT.format(term="dumb") + _RUN.format(words=shlex.join(command))
    else:
        text = _SCRIPT.format(term=shlex.quote(terminal.name))
        text += _SHELL.format(rows=terminal.rows, columns=terminal.columns)
    data = os.fsencode(text)
    if len(data) > MAX_COMMAND_BYTES or b"\0" in data:
        raise BuildError(f"the command is longer than {MAX_COMMAND_BYTES >> 10} KiB", hint="put it into a script")
    directories = [cpio.directory("guest"), cpio.directory("guest/run", 0o700)]
    return cpio.write([*directories, cpio.file("guest/run/command", data, 0o600)])


class Relay:
    """Passes bytes from a source to a target, which is a descriptor or a function."""

    def __init__(
        self,
        source: int,
        target: int | Callable[[bytes], object],
        *,
        at_end: Callable[[], object] | None = None,
        may_break: bool = False,
    ) -> None:
        """at_end: called at the end of the source. may_break: a target that takes nothing any more is an end as well,
        and no BrokenPipeError."""
        self._source = source
        self._target = target
        self._at_end = at_end
        self._may_break = may_break
        self._pending = b""
        self.is_over = False

    @property
    def waits_for(self) -> tuple[int, int]:
        """Descriptor and event."""
        if self._pending and isinstance(self._target, int):
            return self._target, selectors.EVENT_WRITE
        return self._source, selectors.EVENT_READ

    def proceed(self) -> None:
        """The event has come."""
        if self._pending and isinstance(self._target, int):
            try:
                written = os.write(self._target, self._pending[:WRITE_BYTES])
            except BlockingIOError:
                return
            except (BrokenPipeError, ConnectionResetError):
                if not self._may_break:
                    raise
                self.is_over = True
                return
            self._pending = self._pending[written:]
            return
        try:
            data = os.read(self._source, CHUNK_BYTES)
        except (BlockingIOError, InterruptedError):
            return
        except ConnectionResetError:
            data = b""
        if not data:
            self.is_over = True
            if self._at_end is not None:
                self._at_end()
        elif isinstance(self._target, int):
            self._pending = data
        else:
            self._target(data)


def pass_on(relays: Iterable[Relay], done: Callable[[], bool], until: float | None) -> bool:
    """Let bytes flow until all is done; False if that was not before the time `until` (monotonic)."""
    relays = list(relays)
    while not done():
        left = None if until is None else until - time.monotonic()
        if left is not None and left <= 0:
            return False
        with selectors.PollSelector() as selector:
            for relay in relays:
                if not relay.is_over:
                    selector.register(*relay.waits_for, relay)
            for key, _ in selector.select(left):
                key.data.proceed()
    return True
