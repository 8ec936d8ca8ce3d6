from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from mixer.composition import Composition
from mixer.errors import BuildError
from mixer.scan import Record, scan
from swupd.formats.filehash import hash_path
from swupd.formats.manifest import FileType
from swupd.report import TextReport


@pytest.fixture
def composed(tmp_path: Path) -> Composition:
    root = tmp_path / "full"
    (root / "usr").mkdir(parents=True)
    (root / "usr/file").write_text("hello")
    (root / "usr/link").symlink_to("file")
    return Composition(10, root, {})


def test_everything_below_the_root_is_recorded_in_byte_order(composed: Composition) -> None:
    records = scan(composed, TextReport())

    assert records == {
        "/usr": Record(FileType.DIRECTORY, hash_path(str(composed.root / "usr")), 0),
        "/usr/file": Record(FileType.FILE, hash_path(str(composed.root / "usr/file")), 5),
        "/usr/link": Record(FileType.LINK, hash_path(str(composed.root / "usr/link")), 4),
    }
    assert list(records) == ["/usr", "/usr/file", "/usr/link"]


def test_objects_of_the_overlay_are_recorded_as_well(composed: Composition, tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.write_text("own")
    overlaid = Composition(10, composed.root, {}, {"/usr/own": str(own)})

    assert scan(overlaid, TextReport())["/usr/own"] == Record(FileType.FILE, hash_path(str(own)), 3)


def test_names_with_backslashes_and_quotes_are_content_like_all_others(composed: Composition) -> None:
    name = "system-systemd\\x2dcryptsetup;&|*'\"`<>.slice"
    (composed.root / "usr" / name).write_text("x")

    assert f"/usr/{name}" in scan(composed, TextReport())


def test_a_name_with_a_line_break_stops_the_build(composed: Composition) -> None:
    (composed.root / "usr/a\nb").write_text("x")

    with pytest.raises(BuildError, match="control character"):
        scan(composed, TextReport())


def test_sockets_and_fifos_are_left_out_with_a_warning(
    composed: Composition, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(composed.root)
    os.mkfifo("usr/fifo")
    with socket.socket(socket.AF_UNIX) as unix:
        unix.bind("usr/socket")

        records = scan(composed, TextReport())

    assert list(records) == ["/usr", "/usr/file", "/usr/link"]
    assert capsys.readouterr().err.count("is left out") == 2


def test_a_root_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="cannot read"):
        scan(Composition(10, tmp_path / "none", {}), TextReport())
