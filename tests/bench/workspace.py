"""The workspace that is measured: versions 10 and 20 of tests.bench.pair, built by the real command `mixer`.

It lies in `workspace` of the data directory. `builds` makes it anew; `client` takes it as it is then, packs included.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from swupd.formats import layout
from tests.bench import measure
from tests.bench.measure import Finished
from tests.bench.pair import FIRST, SECOND


def mixer(workspace: Path, *arguments: str) -> Finished:
    """Run a command of the builder. Raises CommandError if it fails."""
    return measure.run(["mixer", "--workspace", workspace, "--no-progress", *arguments])


def fresh(data: Path) -> Path:
    """A new workspace, whose next version is the first one."""
    workspace = data / "workspace"
    shutil.rmtree(workspace, ignore_errors=True)
    mixer(workspace, "init", "--source", "tree", "--tree-path", str(data / "pair"), "--mix-version", str(FIRST))
    return workspace


def go_on(workspace: Path) -> None:
    """Make the second version the next one."""
    mixer(workspace, "versions", "update", "--mix-version", str(SECOND))


def complete(data: Path) -> Path:
    """The workspace with both versions, packs and delta manifests; made if it is not there."""
    workspace = data / "workspace"
    if not (published(workspace) / layout.update_index(SECOND)).exists():
        fresh(data)
        mixer(workspace, "build", "all")
        go_on(workspace)
        mixer(workspace, "build", "all")
        mixer(workspace, "build", "delta-manifests")
        mixer(workspace, "build", "delta-packs")
    return workspace


def published(workspace: Path) -> Path:
    """The published tree."""
    return workspace / "update/www"


@contextmanager
def linked_copy(source: Path, target: Path) -> Iterator[Path]:
    """A copy of a directory of hard links; what it is used for replaces files and never writes into them."""
    shutil.rmtree(target, ignore_errors=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    measure.run(["cp", "--archive", "--link", source, target])
    try:
        yield target
    finally:
        shutil.rmtree(target)
