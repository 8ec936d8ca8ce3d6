"""Whoever updated hears what only a reboot brings into use, and nothing else makes him reboot."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swupd.reboot import NOTE, reasons, remember, remembered, sentence


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("/usr/lib/kernel/org.clearlinux.native.6.2.0-11", "kernel"),
        ("/usr/lib/modules/6.1.0-47-amd64/vmlinuz", "kernel"),
        ("/boot/vmlinuz-6.1.0-47-amd64", "kernel"),
        ("/usr/lib64/libc.so.6", "C library"),
        ("/usr/lib/x86_64-linux-gnu/libc.so.6", "C library"),
        ("/usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2", "C library"),
        ("/usr/lib64/libc-2.36.so", "C library"),
        ("/usr/lib/systemd/systemd", "systemd"),
        ("/usr/lib/x86_64-linux-gnu/systemd/libsystemd-shared-252.so", "systemd"),
        ("/usr/bin/dbus-broker", "D-Bus"),
        ("/usr/bin/dbus-daemon", "D-Bus"),
    ],
)
def test_what_runs_all_the_time_needs_a_reboot(name: str, what: str) -> None:
    assert reasons(["/usr/bin/a", name]) == (what,)


@pytest.mark.parametrize(
    "name",
    [
        "/usr/bin/systemctl",
        "/usr/lib/systemd/systemd-logind",
        "/usr/lib/systemd/system/sshd.service",
        "/usr/lib64/libcrypto.so.3",
        "/usr/share/doc/usr/lib/kernel/readme",
        "/usr/bin/dbus-send",
        "/usr/lib/modules/6.1.0/kernel/fs/ext4.ko",
        "/usr/lib/libc.so.60",
    ],
)
def test_all_the_rest_does_not(name: str) -> None:
    assert reasons([name]) == ()


def test_modules_count_if_they_are_those_of_the_running_kernel() -> None:
    names = ["/usr/lib/modules/6.1.0-47-amd64/kernel/fs/ext4.ko"]
    assert reasons(names, "6.1.0-47-amd64") == ("modules of the running kernel",)
    assert reasons(names, "6.1.0-4") == ()


def test_it_is_told_in_one_sentence() -> None:
    assert sentence([]) == ""
    assert sentence(["kernel"]) == "A reboot is needed to use the new kernel"
    assert sentence(["kernel", "systemd"]) == "A reboot is needed to use the new kernel and the new systemd"
    assert sentence("abc") == "A reboot is needed to use the new a, the new b and the new c"


def test_it_is_remembered_until_the_next_boot_together_with_what_was_remembered_before(tmp_path: Path) -> None:
    remember(["kernel"], tmp_path)
    remember(["systemd", "kernel"], tmp_path)
    assert remembered(tmp_path) == ("kernel", "systemd")
    assert (tmp_path / NOTE).stat().st_mode & 0o777 == 0o644
    (tmp_path / NOTE).unlink()
    assert remembered(tmp_path) == ()


def test_a_note_that_cannot_be_written_is_no_error(tmp_path: Path) -> None:
    (tmp_path / NOTE).mkdir(parents=True)
    remember(["kernel"], tmp_path)
    remember(["kernel"], tmp_path / "nowhere")
    assert remembered(tmp_path) == ()


@given(note=st.binary() | st.builds(json.dumps, st.recursive(st.text() | st.integers(), st.lists)).map(str.encode))
def test_whatever_lies_there_is_read_without_harm(tmp_path_factory: pytest.TempPathFactory, note: bytes) -> None:
    run = tmp_path_factory.getbasetemp()
    (run / NOTE).parent.mkdir(exist_ok=True)
    (run / NOTE).write_bytes(note)
    assert all(what.isprintable() for what in remembered(run))
