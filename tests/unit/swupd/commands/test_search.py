from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from swupd.cli import main
from swupd.commands import search
from swupd.errors import ExitCode

RUN = """
import sys
from pathlib import Path
from swupd.cli import main
from swupd.commands import search
search.PROGRAM = Path(sys.argv[1])
sys.exit(main(sys.argv[2:]))
"""


def test_the_program_gets_the_arguments_as_they_are_and_takes_our_place(tmp_path: Path) -> None:
    program = tmp_path / "swupd-search"
    program.write_text('#!/bin/sh\nprintf "<%s>\\n" "$$" "$@"\nexit 7\n')
    program.chmod(0o755)
    arguments = ["-h", "--quiet", "two words", "--", "--unknown"]
    with subprocess.Popen(
        [sys.executable, "-c", RUN, program, "search", *arguments], stdout=subprocess.PIPE, text=True
    ) as process:
        out, _ = process.communicate()
    assert process.returncode == 7
    assert out.splitlines() == [f"<{process.pid}>", *(f"<{argument}>" for argument in arguments)]


@pytest.mark.parametrize("arguments", [[], ["--json-output", "term"], ["-h"]])
def test_without_the_program_a_hint_says_where_it_comes_from(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(search, "PROGRAM", tmp_path / "swupd-search")
    assert main(["search", *arguments]) == ExitCode.BINARY_MISSING
    error, hint = capsys.readouterr().err.splitlines()
    assert error == f"Error: cannot run {tmp_path}/swupd-search: No such file or directory"
    assert "swupd bundle-add os-core-search" in hint
    assert "swupd search-file" in hint
