"""`mixer serve`."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import requests

from mixer.cli import main, parser
from mixer.serve import DEFAULT_BIND, DEFAULT_PORT
from mixer.workspace import Workspace


def test_the_published_tree_is_served(prepared: Workspace) -> None:
    workspace = ["--workspace", str(prepared.path)]
    assert main(["--quiet", *workspace, "build", "update", "--no-signing"]) == 0
    command = [sys.executable, "-m", "mixer.cli", *workspace, "serve", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            url = next(match[0] for line in server.stdout if (match := re.search(r"http://127\.0\.0\.1:\d+", line)))
            assert requests.get(f"{url}/10/format", timeout=10).text == "30"
        finally:
            server.send_signal(signal.SIGTERM)
        assert server.wait(timeout=10) == 0


def test_a_tree_in_an_object_store_is_left_to_the_store(
    prepared: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    with prepared.config_file.open("a") as file:
        file.write("published: s3://bucket/mix\n")

    assert main(["--workspace", str(prepared.path), "serve"]) == 1

    assert capsys.readouterr().err == (
        "Error: the published tree is in an object store, s3://bucket/mix\n"
        "Hint: let clients use the store's own web server: see docs/object-store.md\n"
    )


def test_only_a_workspace_is_served(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--workspace", str(tmp_path), "serve"]) == 1
    assert "is not a workspace" in capsys.readouterr().err


def test_the_defaults_are_those_of_the_server(tmp_path: Path) -> None:
    arguments = parser().parse_args(["serve"])
    assert (arguments.bind, arguments.port) == (DEFAULT_BIND, DEFAULT_PORT)
