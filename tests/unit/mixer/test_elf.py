from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixer import elf

PROGRAM = Path(sys.executable).resolve()


def test_a_program_that_needs_libraries_is_not_static() -> None:
    assert elf.read(Path("/bin/true").read_bytes()).is_static is False


@pytest.mark.skipif(shutil.which("busybox") is None, reason="needs busybox-static")
def test_the_static_busybox_is() -> None:
    assert elf.read(Path(shutil.which("busybox") or "").read_bytes()).is_static is True


def test_the_machine_is_that_of_the_interpreter() -> None:
    expected = {"x86_64": 62, "aarch64": 183}.get(sysconfig.get_platform().partition("-")[2])
    assert elf.read(PROGRAM.read_bytes()).machine == expected


def test_a_program_without_sections_is_smaller_and_runs(tmp_path: Path) -> None:
    data = Path("/bin/echo").read_bytes()
    cut = elf.without_sections(data)
    (tmp_path / "echo").write_bytes(cut)
    (tmp_path / "echo").chmod(0o755)
    assert len(cut) < len(data)
    assert subprocess.run([tmp_path / "echo", "hello"], capture_output=True, check=True).stdout == b"hello\n"
    assert elf.without_sections(cut) == cut


@pytest.mark.parametrize("data", [b"", b"#!/bin/sh\n", b"\x7fELF\x01\x01", b"\x7fELF\x02\x01"])
def test_what_is_no_whole_program_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="ELF"):
        elf.read(data)


def test_a_table_of_segments_beyond_everything_is_refused() -> None:
    data = bytearray(PROGRAM.read_bytes()[:4096])
    data[0x20:0x28] = b"\xff" * 8
    with pytest.raises(ValueError, match="cut off"):
        elf.read(bytes(data))


@given(st.data())
def test_whatever_is_wrong_with_a_program_is_a_value_error(data: st.DataObject) -> None:
    good = bytearray(Path("/bin/true").read_bytes()[:4096])
    for _ in range(data.draw(st.integers(1, 8))):
        good[data.draw(st.integers(6, 511))] = data.draw(st.integers(0, 255))
    with suppress(ValueError):
        assert elf.read(bytes(good)).end <= len(good)
