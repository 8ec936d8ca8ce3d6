"""The rules of the house: who may import whom, and that linters and types are clean."""

from __future__ import annotations

import ast
import re
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
    "lz4",
    "numpy",
    "packaging",
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


CHANGING_OS_CALL = re.compile(
    "[fl]?chmod|[fl]?chown|copy_file_range|f?truncate|f(data)?sync|sync|link|symlink|makedirs|mkdir|mkfifo|mknod|"
    "posix_fallocate|p?writev?|removedirs|remove|rmdir|unlink|renames?|replace|(set|remove)xattr|sendfile|splice|utime|"
    "O_(APPEND|CREAT|RDWR|TMPFILE|TRUNC|WRONLY)"
)
CHANGING_PATH_CALLS = frozenset(
    {"chmod", "hardlink_to", "lchmod", "mkdir", "rmdir", "symlink_to", "touch", "write_bytes", "write_text"}
)
CHANGING_BY_ARGUMENTS = {"unlink": 0, "rename": 1, "replace": 1}
"""Calls of a Path with so many arguments; those of a Directory or a text have more."""
CHANGING_LIBRARIES = frozenset({"ctypes", "shutil", "tempfile"})
WRITING_MODE = re.compile("[rbt]*[wax+][bt+]*")
BESIDE_FS = {
    "swupd/faces/patientstream.py": {"open for writing": "/dev/null, where output goes that nobody can take"},
    "swupd/memory.py": {"import ctypes": "for malloc_trim"},
    "swupd/nextboot/mounts.py": {"import ctypes": "for mount and umount2, which change no file system"},
    "swupd/statedir.py": {
        "os.O_CREAT": "the lock file, which has to stay open for as long as the lock is held",
        "os.O_RDWR": "the same",
        "os.pwrite": "our pid in the lock file; that it cannot be written is no failure",
    },
}
"""What changes a file system outside of fs.py, or looks as if it did; and why."""


def changes(path: Path) -> Iterator[tuple[int, str]]:
    """What a module has that may change a file system: (line, what)."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            yield from ((node.lineno, f"import {n}") for n in names if n in CHANGING_LIBRARIES)
        elif isinstance(node, ast.Attribute):
            if ast.unparse(node.value) == "os" and CHANGING_OS_CALL.fullmatch(node.attr):
                yield node.lineno, f"os.{node.attr}"
        elif isinstance(node, ast.Call):
            values = [a.value for a in (*node.args, *(k.value for k in node.keywords)) if isinstance(a, ast.Constant)]
            writes = any(isinstance(value, str) and WRITING_MODE.fullmatch(value) for value in values)
            called = node.func.attr if isinstance(node.func, ast.Attribute) else ast.unparse(node.func)
            if called in ("open", "fdopen") and writes:
                yield node.lineno, "open for writing"
            elif not isinstance(node.func, ast.Attribute) or ast.unparse(node.func.value) in ("os", "dataclasses"):
                continue
            elif called in CHANGING_PATH_CALLS or CHANGING_BY_ARGUMENTS.get(called) == len(node.args):
                yield node.lineno, f".{called}()"


@pytest.mark.parametrize("path", [path for path in modules("swupd") if path.name != "fs.py"], ids=name)
def test_only_fs_changes_a_file_system(path: Path) -> None:
    """So that a test can stand between all changing calls and the system (tests/transaction)."""
    allowed = BESIDE_FS.get(name(path), {})
    found = [f"{name(path)}:{line}: {what}" for line, what in changes(path) if what not in allowed]
    assert found == [], "this belongs into swupd/fs.py"


def test_what_is_allowed_beside_fs_is_still_there() -> None:
    for module, allowed in BESIDE_FS.items():
        assert {what for _, what in changes(ROOT / module)} == allowed.keys()


@pytest.mark.parametrize(
    "text",
    [
        "os.rename('a', 'b')",
        "os.open('a', os.O_WRONLY)",
        "open('a', 'w')",
        "path.open(mode='ab')",
        "os.fdopen(3, 'r+b')",
        "path.unlink()",
        "path.unlink(missing_ok=True)",
        "path.replace(other)",
        "path.write_text('x')",
        "from shutil import rmtree",
    ],
)
def test_a_call_that_changes_a_file_system_is_found(tmp_path: Path, text: str) -> None:
    (tmp_path / "module.py").write_text(text)
    assert list(changes(tmp_path / "module.py"))


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
