"""Manual pages, and that what contrib has is what the parsers say."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from swupd import cli, manual
from swupd.errors import ExitCode

CONTRIB = Path(__file__).parents[3] / "contrib"
PAGES = sorted((CONTRIB / "man").glob("*.1"))


def test_the_files_in_contrib_are_up_to_date() -> None:
    outdated = [
        name
        for name, text in manual.all_files().items()
        if not (CONTRIB / name).exists() or (CONTRIB / name).read_text() != text
    ]
    assert outdated == [], "make them anew with: make manual"


def test_there_is_no_page_of_a_subcommand_that_is_gone() -> None:
    made = {Path(name).name for name in manual.all_files() if name.startswith("man/")}
    assert {page.name for page in PAGES} <= made


def test_every_subcommand_has_a_page_but_hidden_ones() -> None:
    files = manual.all_files()
    for name in cli.COMMANDS:
        assert (f"man/swupd-{name}.1" in files) is (name not in cli.HIDDEN)


@pytest.mark.skipif(shutil.which("groff") is None, reason="needs groff")
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_groff_has_no_complaint(page: Path) -> None:
    done = subprocess.run(["groff", "-ww", "-man", "-Tutf8", str(page)], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert page.stem.upper() in done.stdout


@pytest.mark.skipif(shutil.which("man") is None, reason="needs man")
def test_a_page_reads_as_the_help_does() -> None:
    done = subprocess.run(
        ["man", "-l", str(CONTRIB / "man" / "swupd-hashdump.1")],
        capture_output=True,
        text=True,
        check=True,
        env={"MANWIDTH": "100", "LC_ALL": "C.UTF-8", "PATH": "/usr/bin:/bin", "MAN_KEEP_FORMATTING": ""},
    )
    text = re.sub(r"\s+", " ", done.stdout)
    assert "swupd-hashdump - print the hash of a file" in text
    assert "-p, --path DIR Directory that FILE is relative to." in text
    assert "swupd hashdump --path /mnt/root /usr/lib/os-release" in text


def test_signs_that_roff_would_take_for_its_own_are_printed() -> None:
    assert manual._escaped(".so it's -\\n~^") == "\\&.so it\\(aqs \\-\\en\\(ti\\(ha"


def test_every_exit_status_is_explained() -> None:
    page = manual.all_files()["man/swupd.1"]
    assert all(f"\n.TP\n.B {int(code)}\n" in page for code in ExitCode)


def test_nothing_in_the_files_tells_where_they_were_made(tmp_path: Path) -> None:
    for directory in ("man", "completion"):
        (tmp_path / directory).mkdir()
    assert manual.main([str(tmp_path)]) == 0
    for name, text in manual.all_files().items():
        assert (tmp_path / name).read_text() == text
        assert not re.search(rf"(?<![\w/]){re.escape(str(Path.cwd()))}\b", text)
