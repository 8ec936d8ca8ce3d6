"""Lines of tmpfiles.d and sysusers.d."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixer.stateless.fragments import (
    SysusersLine,
    TmpfilesLine,
    field,
    sysusers_lines,
    tmpfiles_line,
    tmpfiles_lines,
)

NAMES = st.text(st.characters(codec="utf-8", exclude_categories=["Cc"]), min_size=1, max_size=20).filter(
    lambda name: "/" not in name and name not in (".", "..")
)


def test_fields_of_tmpfiles_are_read() -> None:
    text = "# x\n\n  d+! '/a b' :0755 :root\tman -\nL /x\\\"y - - - - ../z\nf\n"
    assert list(tmpfiles_lines(text)) == [TmpfilesLine("d", "/a b", "root", "man"), TmpfilesLine("L", '/x"y')]


def test_fields_of_sysusers_are_read() -> None:
    assert list(sysusers_lines('g a 5\nu b 7:5 "B \\"x\\"" /\nu c\n')) == [
        SysusersLine("g", "a", "5"),
        SysusersLine("u", "b", "7:5"),
        SysusersLine("u", "c"),
    ]


@given(NAMES)
def test_any_path_comes_back_from_its_line(name: str) -> None:
    assert list(tmpfiles_lines(tmpfiles_line("d", f"/{name}", user="u"))) == [TmpfilesLine("d", f"/{name}", "u")]


def test_a_link_keeps_its_text_to_the_end() -> None:
    assert tmpfiles_line("L", "/x", target="y -") == "L /x - - - - y -\n"
    assert tmpfiles_line("d", "/x", mode="0755") == "d /x 0755 - - -\n"


@given(st.text(st.characters(codec="utf-8", exclude_categories=["Cc"]), max_size=20))
def test_any_text_is_one_field(text: str) -> None:
    assert [line.id for line in sysusers_lines(f"m a {field(text)} x")] == [text]


@given(st.text(max_size=80))
def test_any_text_has_lines_or_none(text: str) -> None:
    assert all(line.path for line in tmpfiles_lines(text) if line.path != "")
    assert all(len(line.type) == 1 for line in sysusers_lines(text))


@pytest.mark.skipif(os.geteuid() != 0, reason="systemd-tmpfiles changes owners")
@settings(max_examples=5, deadline=None)
@given(st.lists(NAMES, min_size=20, max_size=20, unique=True))
def test_systemd_reads_paths_as_they_were_written(tmp_path_factory: pytest.TempPathFactory, names: list[str]) -> None:
    root = tmp_path_factory.mktemp("root")
    fragment = Path(root, "x.conf")
    fragment.write_text("".join(tmpfiles_line("f", f"/d/{name}", mode="0644") for name in names))
    subprocess.run(["systemd-tmpfiles", f"--root={root}", "--create", fragment], check=True)
    assert set(os.listdir(root / "d")) == set(names)
