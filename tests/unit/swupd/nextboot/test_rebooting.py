"""A reboot at a chosen time; of shutdown there is only a stand-in."""

from __future__ import annotations

import re
from argparse import ArgumentTypeError
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swupd.errors import CommandError, UsageError
from swupd.nextboot import rebooting
from swupd.nextboot.rebooting import MAX_MINUTES, parse_time


@pytest.mark.parametrize(
    ("text", "time"),
    [("now", "now"), ("3:05", "03:05"), ("23:59", "23:59"), ("+0", "+0"), ("+007", "+7"), ("+10080", "+10080")],
)
def test_a_time_is_understood(text: str, time: str) -> None:
    assert parse_time(text) == time


@pytest.mark.parametrize(
    "text", ["", "24:00", "12:60", "+10081", "+", "-5", "5", "Now", "tomorrow", "12:00 ", "+٣", "+5; true", "3:5"]
)
def test_what_is_no_time_is_a_mistake(text: str) -> None:
    with pytest.raises(ArgumentTypeError, match=r"is not now, HH:MM, or \+MINUTES"):
        parse_time(text)


@given(st.text(st.sampled_from("+0123456789:now -"), max_size=7) | st.text(max_size=5))
def test_whatever_is_given_only_times_come_out(text: str) -> None:
    try:
        found = parse_time(text)
    except ArgumentTypeError:
        return
    assert re.fullmatch(r"now|[0-2][0-9]:[0-5][0-9]|\+[0-9]{1,5}", found)
    assert parse_time(found) == found
    assert not found.startswith("+") or int(found) <= MAX_MINUTES


def test_it_needs_an_update_for_the_next_boot() -> None:
    with pytest.raises(UsageError) as caught:
        rebooting.check(None, next_boot=False)
    assert "--next-boot" in caught.value.hint


def test_another_system_cannot_be_rebooted(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="only the running system"):
        rebooting.check(tmp_path, next_boot=True)
    rebooting.check(Path("/"), next_boot=True)


def test_shutdown_is_told_the_time_and_a_message(tmp_path: Path) -> None:
    stand_in = tmp_path / "shutdown"
    stand_in.write_text(f'#!/bin/sh\nprintf "%s|" "$@" > {tmp_path}/said\n')
    stand_in.chmod(0o755)
    rebooting.schedule("03:30", shutdown=stand_in)
    said = (tmp_path / "said").read_text().split("|")
    assert said[:2] == ["-r", "03:30"]
    assert "reboots" in said[2]


def test_without_the_program_one_is_told_to_reboot_by_hand(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="everything is installed, but no reboot could be arranged") as caught:
        rebooting.schedule("now", shutdown=tmp_path / "none")
    assert caught.value.hint == "reboot by hand"
