"""Wrapper scripts say whose they are, and are quoted for every file name."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swupd.errors import UnsafePathError
from swupd.thirdparty.wrappers import TEMPLATE, Program, program_of, refresh, script, synchronise, wrappers

names = st.from_regex(r"[a-z0-9_-][a-z0-9_.-]{0,10}", fullmatch=True)
paths = st.binary(min_size=1, max_size=30).filter(lambda name: b"\n" not in name and b"\0" not in name)


@given(names, paths)
def test_a_script_says_what_it_is_for(repository: str, path: bytes) -> None:
    program = Program(repository, os.fsdecode(b"/usr/bin/" + path))
    assert program_of(script(program)) == program


@given(paths)
def test_a_script_is_sound_for_any_file_name(path: bytes) -> None:
    text = script(Program("mine", os.fsdecode(b"/usr/bin/" + path)))
    last = text.rstrip(b"\n").rpartition(b"\n")[2]
    shown = subprocess.run(
        ["bash", "-c", b"prefix=/p; exec() { printf '%s' \"$1\"; }; " + last], capture_output=True, check=True
    )
    assert shown.stdout == b"/p/usr/bin/" + path


@given(st.binary(max_size=200))
def test_whatever_a_file_contains_it_is_somebodys_or_nobodys(data: bytes) -> None:
    assert program_of(data) is None or b"3rd-party" in data


def test_wrappers_are_made_and_removed(tmp_path: Path, report: Any) -> None:
    synchronise(tmp_path, "mine", {"a": "/usr/bin/a", "b": "/bin/b"}, report)
    assert wrappers(tmp_path) == {"a": Program("mine", "/usr/bin/a"), "b": Program("mine", "/bin/b")}
    synchronise(tmp_path, "mine", {"b": "/usr/bin/b"}, report)
    assert wrappers(tmp_path) == {"b": Program("mine", "/usr/bin/b")}


def test_what_belongs_to_somebody_else_is_left_to_him(tmp_path: Path, report: Any) -> None:
    directory = tmp_path / "opt/3rd-party/bin"
    synchronise(tmp_path, "other", {"a": "/usr/bin/a"}, report)
    (directory / "b").write_text("the administrator's")
    (directory / "c").symlink_to("/bin/sh")
    synchronise(tmp_path, "mine", {"a": "/usr/bin/a", "b": "/usr/bin/b", "c": "/usr/bin/c"}, report)
    assert wrappers(tmp_path) == {"a": Program("other", "/usr/bin/a"), "b": None, "c": None}
    assert (directory / "b").read_text() == "the administrator's"
    synchronise(tmp_path, "mine", {}, report)
    assert sorted(wrappers(tmp_path)) == ["a", "b", "c"]


@pytest.mark.parametrize("mode", [0o644, 0o777, 0o4755])
def test_a_script_with_a_wrong_mode_is_written_anew(mode: int, tmp_path: Path, report: Any) -> None:
    synchronise(tmp_path, "mine", {"a": "/usr/bin/a"}, report)
    file = tmp_path / "opt/3rd-party/bin/a"
    file.chmod(mode)
    synchronise(tmp_path, "mine", {"a": "/usr/bin/a"}, report)
    assert file.stat().st_mode & 0o7777 == 0o755


def test_a_directory_that_is_a_link_is_refused(tmp_path: Path, report: Any) -> None:
    (tmp_path / "away").mkdir()
    (tmp_path / "opt/3rd-party").mkdir(parents=True)
    (tmp_path / "opt/3rd-party/bin").symlink_to(tmp_path / "away")
    with pytest.raises(UnsafePathError):
        synchronise(tmp_path, "mine", {"a": "/usr/bin/a"}, report)
    assert list((tmp_path / "away").iterdir()) == []


def test_all_scripts_are_written_anew_once_if_the_template_has_changed(tmp_path: Path, report: Any) -> None:
    synchronise(tmp_path, "mine", {"a": "/usr/bin/a"}, report)
    file = tmp_path / "opt/3rd-party/bin/a"
    right = file.read_bytes()
    for expected in (right, b"changed"):
        file.write_bytes(right + b"# old\n")
        refresh(tmp_path)
        assert file.read_bytes() == (right if expected == right else right + b"# old\n")
    assert (tmp_path / "opt/3rd-party/script.template").read_text() == TEMPLATE


@pytest.mark.parametrize("quote", ["", '"'])
def test_the_scripts_of_the_original_are_known(quote: str) -> None:
    text = f'#!/bin/bash\n\nexport PATH=x\n\n{quote}/opt/3rd-party/bundles/mine/usr/bin/edit{quote} "$@"\n'
    assert program_of(text.encode()) == Program("mine", "/usr/bin/edit")
