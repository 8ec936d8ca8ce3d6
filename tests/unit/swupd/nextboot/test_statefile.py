"""JSON files of the shared state."""

from __future__ import annotations

from pathlib import Path

import pytest

from swupd.fs import Directory
from swupd.nextboot import statefile


def read(directory: Path) -> dict[str, object]:
    with Directory.open(directory) as boot:
        return statefile.read(boot, "state.json")


def test_what_was_written_is_read_and_nothing_else_is_left(tmp_path: Path) -> None:
    with Directory.open(tmp_path) as boot:
        statefile.write(boot, "state.json", {"a": [1]})
        statefile.write(boot, "state.json", {"a": [2]})
    assert read(tmp_path) == {"a": [2]}
    assert [path.name for path in tmp_path.iterdir()] == ["state.json"]


@pytest.mark.parametrize("content", [b"", b"[1]", b'{"a"', b"\xff", b"[" * 100_000, b'{"a": ' + b"1" * 5000 + b"}"])
def test_of_what_is_no_object_nothing_is_known(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "state.json").write_bytes(content)
    assert read(tmp_path) == {}


def test_of_a_file_that_is_too_large_nothing_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "state.json").write_text('{"a": 1}')
    assert read(tmp_path) == {"a": 1}
    monkeypatch.setattr(statefile, "FILE_LIMIT", 7)
    assert read(tmp_path) == {}


def test_what_is_missing_or_no_file_is_as_if_it_were_empty(tmp_path: Path) -> None:
    assert read(tmp_path) == {}
    (tmp_path / "state.json").mkdir()
    assert read(tmp_path) == {}


def test_only_lists_and_objects_come_out() -> None:
    raw = {"list": [1, {"a": 1}, [2]], "other": {"a": 1}}
    assert statefile.items(raw, "list") == raw["list"]
    assert statefile.objects(raw, "list") == [{"a": 1}]
    assert statefile.items(raw, "other") == statefile.items(raw, "none") == []
