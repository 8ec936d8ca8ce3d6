"""The updater's Python libraries as packages, from a root with libraries of this environment."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

import pytest

from mixer.composition import ComposedBundle
from mixer.pythonlist import libraries
from mixer.updater import PYTHON


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """With idna as the updater ships it, and a library that nobody here knows."""
    for library, name in (("idna", "idna"), ("unknown_library", "unknown_library")):
        data = metadata.distribution("idna").read_text("METADATA") or ""
        place = tmp_path / PYTHON[1:]
        (place / f"{library}-1.dist-info").mkdir(parents=True)
        (place / f"{library}-1.dist-info/METADATA").write_text(data.replace("Name: idna", f"Name: {name}"))
        (place / library / "__pycache__").mkdir(parents=True)
        for file in ("core.py", "__pycache__/core.cpython-311.pyc"):
            (place / library / file).write_text("")
    return tmp_path


def bundle(root: Path, name: str) -> ComposedBundle:
    paths = sorted(f"/{path.relative_to(root)}" for path in root.rglob("*"))
    return ComposedBundle(name, files=dict.fromkeys(paths, False))


def test_a_library_is_a_package_with_its_files_and_licence(root: Path) -> None:
    (found,) = libraries(root, {"update": bundle(root, "update")})
    version = metadata.version("idna")
    assert (found.name, found.version, found.purl) == ("pypi:idna", version, f"pkg:pypi/idna@{version}")
    assert found.licence == "BSD-3-Clause"
    assert found.bundles == ("update",)
    names = [path.removeprefix(f"{PYTHON}/idna") for path in found.files if path.startswith(f"{PYTHON}/idna/")]
    assert names == ["/__pycache__/core.cpython-311.pyc", "/core.py"]


def test_a_root_without_the_updater_has_none(tmp_path: Path) -> None:
    (tmp_path / "usr").mkdir()
    assert list(libraries(tmp_path, {"os-core": bundle(tmp_path, "os-core")})) == []
