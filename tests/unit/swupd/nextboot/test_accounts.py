"""Accounts of a new version against those of the machine."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swupd.errors import NextBootError
from swupd.nextboot.accounts import Account, check, clashes, passwd, sysusers

FRAGMENT = """\
# generated
g root 0 -
u root 0 "root" /root /bin/bash
g newsvc 950 -
u newsvc 950:950 "a b:c" / -
u dynamic - "no fixed id"
m newsvc root
r - 500-900
"""


def test_a_fragment_is_read() -> None:
    assert sysusers(FRAGMENT) == {
        Account("group", "root", 0),
        Account("user", "root", 0),
        Account("group", "newsvc", 950),
        Account("user", "newsvc", 950),
    }


@given(st.text())
def test_anything_may_be_read(text: str) -> None:
    assert all(account.number >= 0 for account in sysusers(text))
    assert all(number >= 0 for number in passwd(text).values())


@given(st.dictionaries(st.from_regex(r"[a-z_][a-z0-9_-]{0,30}", fullmatch=True), st.integers(0, 65535)))
def test_a_passwd_file_is_read(users: dict[str, int]) -> None:
    assert passwd("".join(f"{name}:x:{uid}:100::/:/bin/sh\n" for name, uid in users.items())) == users


def test_an_id_that_somebody_has_is_a_clash() -> None:
    new = frozenset({Account("user", "newsvc", 950), Account("group", "newsvc", 950)})
    there = {"user": {"alice": 950}, "group": {"alice": 1000}}
    assert clashes(new, there) == ["user alice has the id 950 of newsvc"]


def test_a_name_with_another_id_is_a_clash() -> None:
    new = frozenset({Account("group", "newsvc", 950)})
    assert clashes(new, {"user": {}, "group": {"newsvc": 960}}) == ["group newsvc has the id 960, but 950 there"]


def test_an_account_that_is_there_as_it_should_be_is_none() -> None:
    new = frozenset({Account("user", "newsvc", 950)})
    assert clashes(new, {"user": {"newsvc": 950}, "group": {}}) == []


def test_only_accounts_that_are_new_are_looked_at(tmp_path: Path) -> None:
    for name, text in (("machine/etc/passwd", "alice:x:950:950::/:/bin/sh\n"), ("machine/etc/group", "")):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    for root, text in (("old", FRAGMENT), ("new", FRAGMENT), ("before", "u root 0\n")):
        (tmp_path / root / "usr/lib/sysusers.d").mkdir(parents=True)
        (tmp_path / root / "usr/lib/sysusers.d/00-mix.conf").write_text(text)
    check(tmp_path / "machine", tmp_path / "old", tmp_path / "new")
    with pytest.raises(NextBootError, match="user alice has the id 950 of newsvc") as caught:
        check(tmp_path / "machine", tmp_path / "before", tmp_path / "new")
    assert "usermod" in caught.value.hint
