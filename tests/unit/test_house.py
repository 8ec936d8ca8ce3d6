"""The rules of the house: who may import whom, and that linters and types are clean."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HEAVY = {
    "asn1crypto",
    "bsdiff4",
    "cryptography",
    "debian",
    "distributed",
    "fsspec",
    "hdiffpatch",
    "numpy",
    "requests",
    "rich",
    "s3fs",
    "yaml",
    "zstandard",
}
OF_SWUPD_FOR_MIXER = {"formats", "errors", "report", "process", "fs"}


def modules(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def imports(path: Path, *, top_level_only: bool = False) -> Iterator[str]:
    """Dotted names that a module imports; those for the type checker alone do not count."""
    tree = ast.parse(path.read_text())
    body: Iterator[ast.AST] = iter(tree.body) if top_level_only else ast.walk(tree)
    for node in body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", modules("swupd/formats"), ids=name)
def test_formats_import_nothing_of_ours_but_errors(path: Path) -> None:
    ours = {n for n in imports(path) if n.startswith(("swupd.", "mixer."))}
    assert {n for n in ours if not n.startswith(("swupd.errors", "swupd.formats"))} == set()


@pytest.mark.parametrize("path", modules("swupd"), ids=name)
def test_the_client_never_imports_the_builder(path: Path) -> None:
    assert [n for n in imports(path) if n.split(".")[0] == "mixer"] == []


@pytest.mark.parametrize("path", modules("mixer"), ids=name)
def test_the_builder_uses_only_the_shared_part_of_the_client(path: Path) -> None:
    used = {n.split(".")[1] for n in imports(path) if n.startswith("swupd.")}
    assert used <= OF_SWUPD_FOR_MIXER | {"__version__"}


def test_there_are_no_circular_imports() -> None:
    graph = {}
    known = {".".join(p.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for p in ALL}
    for path in ALL:
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        graph[module] = {n if n in known else n.rpartition(".")[0] for n in imports(path, top_level_only=True)} & known
    done: set[str] = set()

    def visit(module: str, above: tuple[str, ...]) -> None:
        assert module not in above, " -> ".join([*above, module])
        if module not in done:
            for imported in graph[module] - {module}:
                visit(imported, (*above, module))
            done.add(module)

    for module in graph:
        visit(module, ())


ALL = modules("swupd") + modules("mixer")


@pytest.mark.parametrize("path", [*(ROOT / "swupd" / "commands").glob("*.py"), ROOT / "swupd" / "cli.py"], ids=name)
def test_commands_import_heavy_libraries_only_where_they_use_them(path: Path) -> None:
    assert HEAVY.isdisjoint(n.split(".")[0] for n in imports(path, top_level_only=True))


def run(*argv: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", *argv], cwd=ROOT, capture_output=True, text=True, check=False)


def test_ruff_finds_nothing() -> None:
    done = run("ruff", "check", ".")
    assert done.returncode == 0, done.stdout


def test_the_code_is_formatted() -> None:
    done = run("ruff", "format", "--check", ".")
    assert done.returncode == 0, done.stdout


def test_types_are_strict_and_clean() -> None:
    done = run("mypy")
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("path", ALL, ids=name)
def test_every_module_states_its_contract(path: Path) -> None:
    source = path.read_text()
    if source.strip():
        assert ast.get_docstring(ast.parse(source)), "a module begins with a docstring"


@pytest.mark.parametrize("path", ALL, ids=name)
def test_no_module_grows_beyond_600_lines(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 600
