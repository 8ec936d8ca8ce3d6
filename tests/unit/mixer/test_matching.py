from __future__ import annotations

import os
import random
import signal
import stat
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixer import hdiff
from mixer.errors import BuildError
from mixer.matching import Match, TooCostly, by_bsdiff, by_hdiffpatch, by_hdiffpatch_limited, proved
from swupd.formats.delta import apply, encode

MODE = stat.S_IFREG | 0o755


def limited(old: bytes, new: bytes) -> Match:
    return by_hdiffpatch_limited(old, new, seconds=60, memory_bytes=1 << 30)


def applied(old: bytes, match: Match) -> bytes:
    return apply(old, encode(len(old), match.triples, match.diff, match.extra, mode=MODE, uid=0, gid=0))[0]


def program() -> tuple[bytes, bytes]:
    """Two versions of something like a program: mostly equal, some numbers changed, a part inserted, one moved."""
    numbers = random.Random(5)
    old = numbers.randbytes(6000)
    new = bytearray(old[1000:] + old[:1000])
    for position in range(100, 5000, 70):
        new[position] = (new[position] + 3) % 256
    new[3000:3000] = numbers.randbytes(150)
    return old, bytes(new)


OLD, NEW = program()

PIECES = st.one_of(
    st.binary(max_size=60),
    st.integers(0, 400).map(bytes),
    st.builds(lambda pattern, count: pattern * count, st.binary(min_size=1, max_size=7), st.integers(0, 80)),
    st.builds(lambda seed, size: random.Random(seed).randbytes(size), st.integers(0, 3), st.integers(0, 300)),
)
FILES = st.lists(PIECES, max_size=5).map(b"".join)


@st.composite
def edited(draw: st.DrawFn) -> tuple[bytes, bytes]:
    """A file, and the same with parts replaced, inserted, removed and moved."""
    old = draw(FILES)
    new = bytearray(old)
    for _ in range(draw(st.integers(0, 4))):
        start, end = sorted((draw(st.integers(0, len(new))), draw(st.integers(0, len(new)))))
        part = bytes(new[start:end])
        match draw(st.sampled_from(("replace", "move", "change"))):
            case "replace":
                new[start:end] = draw(PIECES)
            case "move":
                del new[start:end]
                at = draw(st.integers(0, len(new)))
                new[at:at] = part
            case "change":
                new[start:end] = bytes((byte + 1) % 256 for byte in part)
    return old, bytes(new)


@pytest.mark.parametrize("matcher", [by_hdiffpatch, by_bsdiff])
@given(pair=st.one_of(edited(), st.tuples(FILES, FILES)))
@settings(max_examples=200, deadline=None)
def test_a_match_is_exactly_the_new_file(matcher: Callable[[bytes, bytes], Match], pair: tuple[bytes, bytes]) -> None:
    old, new = pair
    assert applied(old, matcher(old, new)) == new


@pytest.mark.parametrize("matcher", [by_hdiffpatch, by_bsdiff, limited])
@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"", b""),
        (b"", NEW),
        (OLD, b""),
        (OLD, OLD),
        (bytes(100_000), bytes(70_000)),
        (bytes(5_000), b"abcdefg" * 1000),
        (b"abcdefg" * 3000, b"gfedcba" + b"abcdefg" * 2000),
        (OLD, NEW),
    ],
    ids=["nothing", "from nothing", "to nothing", "the same", "zeros", "from zeros", "a pattern", "a program"],
)
def test_extreme_files_are_matched(matcher: Callable[[bytes, bytes], Match], old: bytes, new: bytes) -> None:
    assert applied(old, matcher(old, new)) == new


@pytest.mark.parametrize("matcher", [by_hdiffpatch, by_bsdiff])
def test_what_moved_and_what_changed_little_is_found(matcher: Callable[[bytes, bytes], Match]) -> None:
    match = matcher(OLD, NEW)

    assert len(match.extra) < 300
    assert len(match.triples) < 12
    assert len(match.diff.replace(b"\0", b"")) < 150


def test_limits_do_not_change_what_is_found() -> None:
    assert limited(OLD, NEW) == by_hdiffpatch(OLD, NEW)


def test_an_hdiffpatch_that_is_not_understood_is_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hdiffpatch.diff", lambda *_, **__: b"HDIFF20&\0" + bytes(20))
    with pytest.raises(BuildError, match="hdiffpatch returned not an uncompressed HDIFF13 container"):
        by_hdiffpatch(OLD, NEW)


# -- limits ------------------------------------------------------------------------------------------------------------


def children() -> dict[int, str]:
    """The processes that this one started and did not wait for: number -> command line."""
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            parent = (process / "stat").read_text().rpartition(")")[2].split()[1]
            if int(parent) == os.getpid():
                found[int(process.name)] = (process / "cmdline").read_text()
    return found


def files_in_memory() -> list[str]:
    links = []
    for number in os.listdir("/proc/self/fd"):
        with suppress(OSError):
            links.append(os.readlink(f"/proc/self/fd/{number}"))
    return [link for link in links if link.startswith("/memfd:")]


@pytest.fixture
def nothing_is_left() -> Iterator[None]:
    before = children().keys(), files_in_memory()
    yield
    assert (children().keys(), files_in_memory()) == before


def strangers() -> tuple[bytes, bytes]:
    """Files with nothing in common: those that take the longest, here some seconds."""
    numbers = random.Random(6)
    return numbers.randbytes(24 << 20), numbers.randbytes(24 << 20)


@pytest.mark.usefixtures("nothing_is_left")
def test_a_match_that_needs_more_memory_than_it_may_is_given_up() -> None:
    old = random.Random(7).randbytes(8 << 20)
    with pytest.raises(
        TooCostly, match="comparing files of 8388608 and 8388608 bytes needs more than 60 MiB of memory"
    ):
        by_hdiffpatch_limited(old, old[::-1], seconds=60, memory_bytes=60 << 20)


@pytest.mark.usefixtures("nothing_is_left")
def test_a_process_that_cannot_even_read_the_files_is_given_up() -> None:
    with pytest.raises(TooCostly, match="needs more than 1 MiB of memory"):
        by_hdiffpatch_limited(OLD, bytes(8 << 20), seconds=60, memory_bytes=1 << 20)


@pytest.mark.usefixtures("nothing_is_left")
def test_a_match_that_needs_more_processor_time_than_it_may_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mixer.matching.PATIENCE", 100)  # the machine may be busy
    with pytest.raises(TooCostly, match="took more than 1 s of processor time"):
        by_hdiffpatch_limited(*strangers(), seconds=1, memory_bytes=1 << 30)


@pytest.mark.usefixtures("nothing_is_left")
def test_a_match_that_does_not_end_in_time_is_given_up() -> None:
    with pytest.raises(TooCostly, match=r"took more than 0\.05 s"):
        by_hdiffpatch_limited(*strangers(), seconds=0.01, memory_bytes=1 << 30)


@pytest.mark.usefixtures("nothing_is_left")
def test_a_process_that_is_killed_costs_only_its_match() -> None:
    killed = []

    def kill() -> None:
        while not killed:
            for number, command in children().items():
                if hdiff.__file__ in command:
                    os.kill(number, signal.SIGKILL)
                    killed.append(number)
            time.sleep(0.01)

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    with pytest.raises(TooCostly, match="failed: status -9"):
        by_hdiffpatch_limited(*strangers(), seconds=60, memory_bytes=1 << 30)
    killer.join()


def test_nothing_of_the_working_directory_is_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "hdiffpatch.py").write_text("raise SystemExit('this was run')")
    monkeypatch.chdir(tmp_path)

    assert applied(OLD, limited(OLD, NEW)) == NEW


# -- deltas ------------------------------------------------------------------------------------------------------------


def made(old: bytes, new: bytes, *, compressed: bool = False) -> bytes | None:
    return proved(old, new, by_hdiffpatch(old, new), mode=MODE, uid=3, gid=4, compressed=compressed)


def test_a_delta_gives_the_new_file_with_its_mode_and_owner() -> None:
    delta = made(OLD, NEW)

    assert delta is not None
    new, header = apply(OLD, delta)
    assert new == NEW
    assert (header.mode, header.uid, header.gid, header.new_size) == (MODE, 3, 4, len(new))


def test_a_delta_that_stands_alone_is_small_by_itself() -> None:
    delta, plain = made(OLD, NEW, compressed=True), made(OLD, NEW)

    assert delta is not None
    assert plain is not None
    assert len(delta) < 700 < len(NEW) < len(plain)
    assert apply(OLD, delta)[0] == NEW


def test_equal_files_have_a_tiny_delta() -> None:
    delta = made(OLD, OLD)

    assert delta is not None
    assert len(delta) < 150


def test_no_delta_is_made_of_a_match_that_leads_elsewhere() -> None:
    match = by_hdiffpatch(OLD, NEW)
    for other in (
        replace(match, diff=b"\1" + match.diff[1:]),
        replace(match, triples=match.triples[:-1]),
        replace(match, triples=[(0, 0, len(OLD) + 1), *match.triples]),
    ):
        assert proved(OLD, NEW, other, mode=MODE, uid=0, gid=0) is None


@given(edited())
@settings(max_examples=100, deadline=None)
def test_whatever_is_made_leads_to_the_new_file(pair: tuple[bytes, bytes]) -> None:
    old, new = pair
    for compressed in (False, True):
        delta = made(old, new, compressed=compressed)
        assert delta is None or apply(old, delta)[0] == new
