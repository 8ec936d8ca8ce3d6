"""What a repository would do outside of its prefix is found before it does it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from swupd.errors import ExportError
from swupd.formats.manifest import Entry, FileType
from swupd.fs import Directory
from swupd.thirdparty.exports import check_exports, dangerous, exported, programs
from swupd.thirdparty.wrappers import synchronise

HASH = "1" * 64


def entry(path: str, *, kind: FileType = FileType.FILE, marked: bool = True) -> Entry:
    return Entry.present(kind, HASH, 10, path, exported=marked)


def test_marked_files_and_links_among_programs_are_exported() -> None:
    entries = [
        entry("/usr/bin/b"),
        entry("/bin/a", kind=FileType.LINK),
        entry("/usr/local/bin/c/d"),
        entry("/usr/bin", kind=FileType.DIRECTORY),
        entry("/usr/bin/e", marked=False),
        entry("/usr/binary"),
        entry("/usr/sbin/f"),
        Entry.deleted(10, "/usr/bin/gone"),
    ]
    assert exported(entries) == ["/bin/a", "/usr/bin/b", "/usr/local/bin/c/d"]


def test_a_program_is_an_executable_file_inside_the_prefix(tmp_path: Path) -> None:
    prefix = tmp_path / "prefix"
    (prefix / "bin").mkdir(parents=True)
    for name, mode in (("program", 0o755), ("data", 0o644)):
        (prefix / "bin" / name).touch()
        (prefix / "bin" / name).chmod(mode)
    (tmp_path / "outside").touch(mode=0o755)
    (prefix / "bin/inner").symlink_to("program")
    (prefix / "bin/outer").symlink_to("../../outside")
    (prefix / "bin/loop").symlink_to("loop")
    (prefix / "bin/directory").mkdir()
    names = ("program", "data", "inner", "outer", "loop", "directory", "missing")
    assert programs(prefix, [f"/bin/{name}" for name in names]) == {"program": "/bin/program", "inner": "/bin/inner"}


def test_a_command_that_is_there_already_is_refused(tmp_path: Path, report: Any) -> None:
    synchronise(tmp_path, "other", {"a": "/usr/bin/a"}, report)
    check_exports(tmp_path, "other", ["/usr/bin/a", "/usr/bin/b"])
    with pytest.raises(ExportError, match="that is /usr/bin/a of repository other"):
        check_exports(tmp_path, "mine", ["/usr/bin/a"])
    with pytest.raises(ExportError, match="that is /usr/bin/a of repository other"):
        check_exports(tmp_path, "other", ["/bin/a"])


def test_two_programs_cannot_become_one_command(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="/usr/bin/a of repository mine cannot become the command a: that is /bin/a"):
        check_exports(tmp_path, "mine", ["/bin/a", "/usr/bin/a"])


@pytest.mark.parametrize(
    ("old", "new", "found"),
    [
        (None, 0o755, []),
        (None, 0o4755, ["/usr/bin/su (setuid)"]),
        (None, 0o7755, ["/usr/bin/su (setuid, setgid, sticky)"]),
        (0o755, 0o2755, ["/usr/bin/su (setgid)"]),
        (0o4755, 0o4755, []),
        (0o4755, 0o6755, ["/usr/bin/su (setgid)"]),
        (0o4755, 0o755, []),
    ],
)
def test_newly_gained_bits_are_found(old: int | None, new: int, found: list[str], tmp_path: Path) -> None:
    prefix, staged = tmp_path / "prefix", tmp_path / "staged"
    (prefix / "usr/bin").mkdir(parents=True)
    staged.mkdir()
    if old is not None:
        (prefix / "usr/bin/su").touch()
        (prefix / "usr/bin/su").chmod(old)
    (staged / HASH).touch()
    (staged / HASH).chmod(new)
    with Directory.open(staged) as directory:
        assert dangerous([entry("/usr/bin/su")], directory, prefix) == found


def test_what_lies_behind_a_link_excuses_nothing(tmp_path: Path) -> None:
    prefix, staged, away = tmp_path / "prefix", tmp_path / "staged", tmp_path / "away"
    for directory in (prefix, staged, away):
        directory.mkdir()
    for file in (away / "su", staged / HASH):
        file.touch()
        file.chmod(0o4755)
    (prefix / "usr").symlink_to(away)
    with Directory.open(staged) as objects:
        assert dangerous([entry("/usr/su")], objects, prefix) == ["/usr/su (setuid)"]
