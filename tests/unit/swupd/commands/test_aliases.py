from __future__ import annotations

import io
from pathlib import Path

import pytest

from swupd.commands.aliases import Aliases, parse, read_aliases
from swupd.report import TextReport

SYSTEM = "usr/share/defaults/swupd/alias.d"
MINE = "etc/swupd/alias.d"


def write(root: Path, name: str, text: str) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def read(root: Path) -> Aliases:
    return read_aliases(root, TextReport(out=io.StringIO(), err=io.StringIO()))


def test_an_alias_stands_for_bundles_and_other_names_for_themselves() -> None:
    aliases = Aliases({"dev": ("c-basic", "git")})
    assert aliases.expand(["git", "dev", "editors"]) == ["git", "c-basic", "editors"]


def test_lines_are_an_alias_and_its_bundles_separated_by_tabs() -> None:
    assert parse("# comment\tx\n\ndev\tc-basic\tgit\nempty\n\tnone\nspace bundle\n") == {"dev": ("c-basic", "git")}


def test_the_first_definition_counts_within_a_file_and_among_files(tmp_path: Path) -> None:
    write(tmp_path, f"{SYSTEM}/a", "x\tone\nx\ttwo\n")
    write(tmp_path, f"{SYSTEM}/b", "x\tthree\ny\tfour\n")
    assert read(tmp_path).expand(["x", "y"]) == ["one", "four"]


def test_the_administrator_comes_first(tmp_path: Path) -> None:
    write(tmp_path, f"{SYSTEM}/a", "x\tsystem\n")
    write(tmp_path, f"{MINE}/z", "x\tmine\n")
    assert read(tmp_path).expand(["x"]) == ["mine"]


def test_a_file_of_the_administrator_hides_the_systems_file_of_the_same_name(tmp_path: Path) -> None:
    write(tmp_path, f"{SYSTEM}/a", "x\tsystem\n")
    (tmp_path / MINE).mkdir(parents=True)
    (tmp_path / MINE / "a").symlink_to("/dev/null")
    assert read(tmp_path).expand(["x"]) == ["x"]


def test_a_file_that_cannot_be_read_is_a_warning(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / MINE / "directory").mkdir(parents=True)
    read_aliases(tmp_path, TextReport())
    assert "directory are not used" in capsys.readouterr().err
