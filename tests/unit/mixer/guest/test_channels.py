from __future__ import annotations

import os
import socket
import subprocess
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixer.errors import BuildError
from mixer.guest import channels
from mixer.guest.channels import Relay, Terminal, archive, pass_on

WORDS = st.lists(st.binary(min_size=0, max_size=30).filter(lambda word: b"\0" not in word), min_size=1, max_size=5)


def script(data: bytes) -> bytes:
    """The command in an archive."""
    return subprocess.run(
        ["cpio", "-i", "--to-stdout", "--quiet", "guest/run/command"], input=data, capture_output=True, check=True
    ).stdout


@settings(deadline=None, max_examples=30)
@given(WORDS)
def test_a_shell_reads_the_very_words(words: list[bytes]) -> None:
    text = script(archive([os.fsdecode(word) for word in words], None))
    line = next(line for line in text.split(b"\nset -- ")[1:])
    line = b"set -- " + line.rpartition(b'\n"$@" <')[0]
    shell = subprocess.run(["sh", "-c", line + b"\nprintf '%s\\0' \"$@\""], capture_output=True, check=True)
    assert shell.stdout == b"".join(word + b"\0" for word in words)


@pytest.mark.parametrize("terminal", [None, Terminal("xterm; reboot", 30, 100)])
def test_a_shell_reads_the_script(terminal: Terminal | None) -> None:
    text = script(archive(["ls"], terminal))
    assert subprocess.run(["sh", "-n"], input=text, capture_output=True, check=True).stderr == b""
    assert terminal is None or b"TERM='xterm; reboot'\n" in text


def test_only_root_reads_the_command(tmp_path: Path) -> None:
    data = archive(["secret"], None)
    assert len(data) % 4 == 0
    subprocess.run(["cpio", "-id", "--quiet"], input=data, cwd=tmp_path, check=True)
    assert (tmp_path / "guest/run/command").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "guest/run").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("word", ["x" * channels.MAX_COMMAND_BYTES, "a\0b"])
def test_what_cannot_be_passed_is_an_error(word: str) -> None:
    with pytest.raises(BuildError, match="command"):
        archive([word], None)


def test_bytes_arrive_unchanged_and_the_end_is_passed_on(tmp_path: Path) -> None:
    data = os.urandom(300_000)
    (tmp_path / "in").write_bytes(data)
    ours, theirs = socket.socketpair()
    received: list[bytes] = []

    def read() -> None:
        while chunk := theirs.recv(1000):
            received.append(chunk)

    reader = threading.Thread(target=read)
    reader.start()
    with ours, theirs, (tmp_path / "in").open("rb") as source:
        relay = Relay(source.fileno(), ours.fileno(), at_end=lambda: ours.shutdown(socket.SHUT_WR))
        assert pass_on([relay], lambda: relay.is_over, time.monotonic() + 30)
        reader.join(30)
    assert b"".join(received) == data


def test_nothing_is_read_that_nobody_takes(pipe: tuple[int, int]) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.setblocking(False)
        relay = Relay(ours.fileno(), pipe[1])
        sent = 0
        for _ in range(10):
            with suppress(BlockingIOError):
                sent += theirs.send(bytes(1 << 20))
            assert not pass_on([relay], lambda: False, time.monotonic() + 0.02)
        assert sent < 2 << 20
        assert len(os.read(pipe[0], 1 << 20)) > 0


def test_time_ends_it(pipe: tuple[int, int]) -> None:
    relay = Relay(pipe[0], lambda data: None)
    begin = time.monotonic()
    assert not pass_on([relay], lambda: relay.is_over, begin + 0.05)
    assert time.monotonic() - begin >= 0.05


def test_a_function_takes_what_comes() -> None:
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            theirs.sendall(b"7\n")
        taken: list[bytes] = []
        relay = Relay(ours.fileno(), taken.append)
        assert pass_on([relay], lambda: relay.is_over, time.monotonic() + 10)
        assert taken == [b"7\n"]


@pytest.mark.parametrize("may_break", [True, False])
def test_a_target_that_has_gone_is_an_end_where_it_may_be(may_break: bool, pipe: tuple[int, int]) -> None:
    ours, theirs = socket.socketpair()
    theirs.close()
    os.write(pipe[1], b"nobody takes this")
    with ours:
        relay = Relay(pipe[0], ours.fileno(), may_break=may_break)
        if may_break:
            assert pass_on([relay], lambda: relay.is_over, time.monotonic() + 10)
        else:
            with pytest.raises(BrokenPipeError):
                pass_on([relay], lambda: relay.is_over, time.monotonic() + 10)
