"""A small mix that builds in a moment and needs no package archive."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path

import pytest

from mixer.cli import main
from mixer.workspace import Workspace


@pytest.fixture
def prepared(tmp_path: Path) -> Workspace:
    """A mix of prepared roots with one version that has two files."""
    version = tmp_path / "roots" / "10"
    marker = "usr/share/clear/bundles/os-core"
    for name, content in ((marker, ""), ("usr/bin/hello", "#!/bin/sh\n")):
        path = version / "full" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    files = {f"/{name}": name == "usr/bin/hello" for name in (marker, "usr/bin/hello")}
    (version / "os-core-info").write_text(json.dumps({"Name": "os-core", "Files": files}))
    (version / "groups.ini").write_text("[os-core]\ngroup=os-core\n")
    path = tmp_path / "mix"
    tree = ["--source", "tree", "--tree-path", str(tmp_path / "roots")]
    assert main(["--quiet", "--workspace", str(path), "init", *tree]) == 0
    return Workspace(path)


@pytest.fixture
def changed(prepared: Workspace, capsys: pytest.CaptureFixture[str]) -> Workspace:
    """Versions 10 and 20, in which one program changed."""
    mix = ["--workspace", str(prepared.path)]
    roots = prepared.path.parent / "roots"
    program = random.Random(1).randbytes(5000)
    (roots / "10/full/usr/bin/hello").write_bytes(program)
    assert main([*mix, "build", "all", "--no-signing", "--increment", "--workers", "1"]) == 0
    shutil.copytree(roots / "10", roots / "20")
    (roots / "20/full/usr/bin/hello").write_bytes(program + b"changed")
    assert main([*mix, "build", "all", "--no-signing", "--workers", "1"]) == 0
    capsys.readouterr()
    return prepared
