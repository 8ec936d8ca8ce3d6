"""What an object store says when it cannot be used at all; tests/system/test_object_store.py has one that works."""

from __future__ import annotations

import socket
import sys
from pathlib import Path

import pytest

from mixer.errors import BuildError
from mixer.store import open_tree
from swupd.report import TextReport

URL = "s3://bucket/mix"


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name, value in {
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "very-secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_MAX_ATTEMPTS": "1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": str(tmp_path / "config"),
        "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "credentials"),
    }.items():
        monkeypatch.setenv(name, value)


def refused(tmp_path: Path) -> BuildError:
    with pytest.raises(BuildError) as caught:
        open_tree(URL, tmp_path / "update/www", TextReport())
    assert "very-secret" not in f"{caught.value} {caught.value.hint}"
    return caught.value


def test_a_missing_library_is_named_with_its_cure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "s3fs", None)

    error = refused(tmp_path)

    assert str(error) == f"{URL} cannot be used without s3fs"
    assert error.hint == "pip install 'swupd-mixer[s3]'"


def test_a_server_that_does_not_answer_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("s3fs")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        # Bound but not listening: connections are refused.
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free.getsockname()[1]}")
        error = refused(tmp_path)

    assert str(error).startswith(f"cannot use {URL}: ")
    assert "\n" not in str(error)


def test_missing_credentials_are_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("s3fs")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")

    assert "AWS_ACCESS_KEY_ID" in refused(tmp_path).hint


def test_a_wrong_endpoint_is_one_line_without_its_password(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("s3fs")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://me:very-secret@")

    assert str(refused(tmp_path)) == f"cannot use {URL}: Invalid endpoint: http://"
