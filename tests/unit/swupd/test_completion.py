"""The scripts in contrib/completion, in real shells."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

SCRIPTS = Path(__file__).parents[3] / "contrib" / "completion"
MOM = "MANIFEST\t30\n\nM...\tab\t10\teditors\nMe..\tab\t10\tedges\nMd..\tab\t10\tedicts\nM...\tab\t10\tgames\n"
SECONDS = 0.15

COMPLETE = """\
source {script}
COMP_WORDS=({words})
COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))
_swupd
printf '%s\\n' "${{COMPREPLY[@]}}"
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A system with the bundles editors and os-core, the list of all bundles, and two repositories."""
    for directory in ("usr/share/clear/bundles", "var/tmp/swupd", "opt/3rd-party"):
        (tmp_path / directory).mkdir(parents=True)
    for bundle in ("editors", "os-core"):
        (tmp_path / "usr/share/clear/bundles" / bundle).touch()
    (tmp_path / "var/tmp/swupd/Manifest.MoM").write_text(MOM)
    (tmp_path / "opt/3rd-party/repo.ini").write_text("[mine]\nurl=https://example.org\n\n[yours]\nurl=file:///x\n")
    return tmp_path


def in_bash(*words: str) -> list[str]:
    """What bash offers for the last word, which may be empty."""
    code = COMPLETE.format(script=shlex.quote(str(SCRIPTS / "swupd.bash")), words=shlex.join(words))
    done = subprocess.run(["bash", "--norc", "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return done.stdout.split()


def test_bash_completes_subcommands() -> None:
    assert in_bash("swupd", "up") == ["update"]
    assert in_bash("swupd", "bundle-") == ["bundle-add", "bundle-remove", "bundle-list", "bundle-info"]
    assert in_bash("swupd", "3rd-party", "rem") == ["remove"]
    assert "verify" not in in_bash("swupd", "")


def test_bash_completes_options_own_and_common_ones() -> None:
    assert in_bash("swupd", "update", "--down") == ["--download"]
    assert in_bash("swupd", "update", "--quie") == ["--quiet"]
    assert in_bash("swupd", "hashdump", "--json") == []
    assert in_bash("swupd", "3rd-party", "add", "--for") == ["--force", "--format"]


def test_bash_completes_bundles_that_the_subcommand_can_use(root: Path) -> None:
    path = ("--path", str(root))
    assert in_bash("swupd", "bundle-remove", *path, "ed") == ["editors"]
    assert in_bash("swupd", "bundle-add", *path, "ed") == ["editors", "edges"]
    assert in_bash("swupd", "bundle-add", *path, "games", "os") == []
    (root / "var/tmp/swupd/Manifest.MoM").unlink()
    assert in_bash("swupd", "bundle-add", *path, "o") == ["os-core"]


def test_bash_completes_each_name_of_a_list(root: Path) -> None:
    assert in_bash("swupd", "diagnose", "--path", str(root), "--bundles", "os-core,ed") == ["os-core,editors"]
    assert in_bash("swupd", "diagnose", "--path", "=", str(root), "--bundles", "=", "ed") == ["editors"]


def test_bash_completes_repositories(root: Path) -> None:
    path = ("--path", str(root))
    assert in_bash("swupd", "3rd-party", "remove", *path, "") == ["mine", "yours"]
    assert in_bash("swupd", "3rd-party", "update", *path, "--repo", "y") == ["yours"]
    assert in_bash("swupd", "3rd-party", "bundle-remove", *path, "-e", "m") == ["mine"]


def test_bash_completes_values(tmp_path: Path) -> None:
    (tmp_path / "directory").mkdir()
    (tmp_path / "document").touch()
    assert in_bash("swupd", "info", "--path", f"{tmp_path}/d") == [f"{tmp_path}/directory"]
    assert in_bash("swupd", "info", "--path", "=", f"{tmp_path}/d") == [f"{tmp_path}/directory"]
    assert sorted(in_bash("swupd", "info", "--certpath", f"{tmp_path}/d")) == [
        f"{tmp_path}/directory",
        f"{tmp_path}/document",
    ]
    assert in_bash("swupd", "info", "--assume", "") == ["yes", "no"]
    assert in_bash("swupd", "search-file", "--order", "=") == ["alpha", "size"]
    assert in_bash("swupd", "update", "--version", "") == ["latest"]
    assert in_bash("swupd", "info", "--url", "") == []


def test_bash_completes_each_argument_as_what_it_is(root: Path) -> None:
    (root / "hosts").touch()
    assert in_bash("swupd", "etc", "") == ["diff", "revert"]
    assert in_bash("swupd", "etc", "revert", f"{root}/ho") == [f"{root}/hosts"]
    assert in_bash("swupd", "etc", "--path", "/", "revert", "/etc/hosts", f"{root}/ho") == [f"{root}/hosts"]
    assert in_bash("swupd", "etc", "--path", "=", "/", "re") == ["revert"]
    assert in_bash("swupd", "reset", "--etc", f"{root}/ho") == [f"{root}/hosts"]
    assert in_bash("swupd", "boot", "") == ["check", "complete"]
    assert in_bash("swupd", "boot", "check", "") == []
    assert in_bash("swupd", "snapshots", "un") == ["unpin"]


def test_bash_completes_deployments_that_have_booted_well(root: Path) -> None:
    for name in ("10", "20.1"):
        (root / "run/state/boot/good").mkdir(parents=True, exist_ok=True)
        (root / "run/state/boot/good" / name).touch()
    assert in_bash("swupd", "snapshots", "--path", str(root), "delete", "") == ["10", "20.1"]
    assert in_bash("swupd", "snapshots", "--path", str(root), "delete", "10", "2") == ["20.1"]
    assert in_bash("swupd", "rollback", "--path", str(root), "1") == ["10"]


def test_an_answer_takes_no_time(root: Path) -> None:
    def measured() -> float:
        begin = time.monotonic()
        in_bash("swupd", "bundle-add", "--path", str(root), "ed")
        return time.monotonic() - begin

    assert min(measured() for _ in range(5)) < SECONDS


@pytest.mark.skipif(shutil.which("zsh") is None, reason="needs zsh")
@pytest.mark.parametrize(
    ("typed", "completed"),
    [
        ("swupd upd", "swupd update"),
        ("swupd update --downl", "swupd update --download"),
        ("swupd update --qui", "swupd update --quiet"),
        ("swupd bundle-remove --path {root} ed", "swupd bundle-remove --path {root} editors"),
        ("swupd bundle-add --path={root} g", "swupd bundle-add --path={root} games"),
        ("swupd diagnose --path {root} --bundles os-core,ed", "swupd diagnose --path {root} --bundles os-core,editors"),
        ("swupd 3rd-party upd", "swupd 3rd-party update"),
        ("swupd 3rd-party remove --path {root} m", "swupd 3rd-party remove --path {root} mine"),
        ("swupd info --assume y", "swupd info --assume yes"),
        ("swupd search-file --order s", "swupd search-file --order size"),
    ],
)
def test_zsh_completes_what_is_typed(typed: str, completed: str, root: Path, terminal: Any) -> None:
    dump = shlex.quote(str(root / "dump"))
    setup = f"fpath=({SCRIPTS} $fpath); autoload -Uz compinit; compinit -u -d {dump}; PS1='re''ady '\n"
    # The completed line is not run but printed.
    keys = typed.format(root=root).encode() + b"\t\x01print -r -- \x05\n"
    answers = [("start ", setup.encode()), ("ready ", keys), ("ready ", b"exit\n")]
    terminal.run(shutil.which("zsh"), "-f", "-i", answers=answers, TERM="dumb", PS1="start ")
    assert completed.format(root=root) in [line.strip() for line in terminal.raw.splitlines()]
