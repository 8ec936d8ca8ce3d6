from __future__ import annotations

import ast
import os
import shutil
import stat
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from mixer import updater
from mixer.errors import BuildError
from swupd import manual
from swupd.report import TextReport

REPOSITORY = Path(__file__).parents[3]
OURS = f"python3.{sys.version_info.minor}"
UNITS = "usr/lib/systemd/system"


def make_root(path: Path, python: str = OURS) -> Path:
    """A root with what the updater looks at."""
    library = path / "usr/lib" / python / "http"
    library.mkdir(parents=True)
    (library / "client.py").touch()
    (path / "usr/bin").mkdir()
    shutil.copy(Path(sys.executable).resolve(), path / "usr/bin" / python)
    (path / "usr/bin/python3").symlink_to(python)
    return path


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A root with the updater, and the names of what was written."""
    root = make_root(tmp_path_factory.mktemp("updater") / "root")
    return root, updater.ship(root, TextReport(quiet=True))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make_root(tmp_path / "root")


def run(root: Path, code: str) -> str:
    """Run Python with the standard library and what was shipped, and nothing else; what it printed."""
    begin = f"import sys; sys.path.insert(0, {str(root / updater.PYTHON[1:])!r});"
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-B", "-c", begin + code], capture_output=True, text=True, check=False, env={}
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def third_party_imports() -> Iterator[str]:
    """Every module of a library that something in swupd imports."""
    for path in (REPOSITORY / "swupd").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                yield from (alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                yield node.module


# -- what is shipped


def test_everything_that_swupd_imports_can_be_imported_there(shipped: tuple[Path, list[str]]) -> None:
    ours_or_the_systems = {*sys.stdlib_module_names, "swupd", "btrfsutil", "_typeshed"}
    names = {name for name in third_party_imports() if name.partition(".")[0] not in ours_or_the_systems}
    assert {"requests", "zstandard", "rich.progress"} <= names
    run(shipped[0], f"import importlib; [importlib.import_module(name) for name in {sorted(names)}]")


def test_the_libraries_are_those_that_the_project_depends_on() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    assert tuple(sorted(map(updater._distribution_name, project["dependencies"]))) == updater.LIBRARIES


def test_swupd_runs_with_nothing_else(shipped: tuple[Path, list[str]]) -> None:
    code = "from swupd.cli import main; sys.exit(main(['--version']))"
    assert run(shipped[0], code).startswith("swupd ")


def test_servers_are_verified_with_the_certificates_of_the_system(shipped: tuple[Path, list[str]]) -> None:
    assert run(shipped[0], "import requests.certs; print(requests.certs.where())") == (
        "/etc/ssl/certs/ca-certificates.crt\n"
    )
    assert not any(name.endswith(".pem") for name in shipped[1])


def test_every_file_and_link_that_was_written_is_named(shipped: tuple[Path, list[str]]) -> None:
    root, names = shipped
    before = {"/usr/bin/python3", f"/usr/bin/{OURS}", f"/usr/lib/{OURS}/http/client.py"}
    found = {f"/{path.relative_to(root)}" for path in root.rglob("*") if path.is_symlink() or path.is_file()}
    assert set(names) == found - before
    assert names == sorted(names)


def test_modes_are_those_of_programs_and_files(shipped: tuple[Path, list[str]]) -> None:
    root, names = shipped
    programs = {"/usr/bin/swupd", "/usr/bin/verifytime", "/usr/lib/swupd/health.d/10-state-is-writable"}
    for name in names:
        status = (root / name[1:]).lstat()
        if not stat.S_ISLNK(status.st_mode):
            assert stat.S_IMODE(status.st_mode) == (0o755 if name in programs else 0o644), name
    assert all(stat.S_IMODE(p.stat().st_mode) == 0o755 for p in (root / "usr/lib/swupd").rglob("*") if p.is_dir())


@pytest.mark.parametrize("name", ["swupd", "verifytime"])
def test_launchers_look_into_the_place_of_the_libraries(shipped: tuple[Path, list[str]], name: str) -> None:
    text = (shipped[0] / "usr/bin" / name).read_text()
    assert text.startswith("#!/usr/bin/python3 -I\n")
    assert f'sys.path.insert(0, "{updater.PYTHON}")' in text


def test_a_launcher_that_executes_itself_again_is_the_same_command(
    shipped: tuple[Path, list[str]], tmp_path: Path
) -> None:
    text = (shipped[0] / "usr/bin/swupd").read_text()
    text = text.replace("/usr/bin/python3", sys.executable).replace(updater.PYTHON, f"{shipped[0]}{updater.PYTHON}")
    again = "from swupd.commands.rerun import own_command\nprint(own_command(sys.argv, sys.orig_argv, sys.executable))"
    launcher = tmp_path / "swupd"
    launcher.write_text(text.replace("from swupd.cli import main\n\nsys.exit(main())", again))
    launcher.chmod(0o755)
    done = subprocess.run([launcher, "update", "--quiet"], capture_output=True, text=True, check=True)
    assert ast.literal_eval(done.stdout) == [str(launcher), "update", "--quiet"]


def test_compiled_modules_name_their_place_in_the_root_and_need_no_check(shipped: tuple[Path, list[str]]) -> None:
    root, names = shipped
    compiled = [name for name in names if name.endswith(".pyc")]
    assert len(compiled) == sum(name.endswith(".py") for name in names)
    data = (root / f"usr/lib/swupd/python/swupd/__pycache__/cli.cpython-3{sys.version_info.minor}.pyc").read_bytes()
    assert int.from_bytes(data[4:8], "little") == 0b01
    assert b"/usr/lib/swupd/python/swupd/cli.py" in data
    assert os.fsencode(root) not in data


def test_the_same_environment_ships_the_same_bytes(shipped: tuple[Path, list[str]], root: Path) -> None:
    names = updater.ship(root, TextReport(quiet=True))
    assert names == shipped[1]
    assert [n for n in names if (root / n[1:]).read_bytes() != (shipped[0] / n[1:]).read_bytes()] == []


def test_manual_pages_and_completion_come_along(shipped: tuple[Path, list[str]]) -> None:
    root, names = shipped
    assert "/usr/share/man/man1/swupd-update.1" in names
    made = manual.all_files()
    assert (root / "usr/share/man/man1/swupd.1").read_text() == made["man/swupd.1"]
    assert (root / "usr/share/bash-completion/completions/swupd").read_text() == made["completion/swupd.bash"]
    assert (root / "usr/share/zsh/vendor-completions/_swupd").exists()


def test_nothing_is_shipped_that_is_not_loaded(shipped: tuple[Path, list[str]]) -> None:
    root, names = shipped
    below = [name.removeprefix(f"{updater.PYTHON}/") for name in names if name.startswith(updater.PYTHON)]
    assert {name.partition("/")[0] for name in below}.isdisjoint({"pygments", "pycparser", "markdown_it", "certifi"})
    assert not any("/tests/" in name or name.endswith((".pyi", ".h", "RECORD")) for name in below)
    assert any(name.endswith("METADATA") for name in below)
    assert any("licenses/LICENSE" in name for name in below)
    assert sum((root / name[1:]).lstat().st_size for name in names) < 30_000_000


def test_automatic_updates_are_not_switched_on(shipped: tuple[Path, list[str]]) -> None:
    units = shipped[0] / UNITS
    assert (units / "swupd-update.timer").exists()
    assert list(units.glob("*.wants/swupd-update.timer")) == []


@pytest.mark.parametrize(
    "link",
    [
        "sysinit.target.wants/swupd-recover.service",
        "sysinit.target.wants/swupd-trial.timer",
        "multi-user.target.wants/swupd-boot-complete.service",
        "multi-user.target.wants/verifytime.service",
        "boot-complete.target.requires/swupd-health.service",
    ],
)
def test_units_are_enabled_below_usr(shipped: tuple[Path, list[str]], link: str) -> None:
    assert (shipped[0] / UNITS / link).readlink() == Path("..") / Path(link).name
    assert (shipped[0] / UNITS / link).exists()


# -- what cannot be shipped


def test_another_python_is_refused(tmp_path: Path) -> None:
    root = make_root(tmp_path / "root", "python3.99")
    with pytest.raises(BuildError, match=f"the root has python3.99, but mixer runs with {OURS}") as caught:
        updater.ship(root, TextReport(quiet=True))
    assert "PYTHON=python3.99" in caught.value.hint
    assert not (root / "usr/bin/swupd").exists()


@pytest.mark.parametrize("missing", ["usr/bin/python3", f"usr/lib/{OURS}/http/client.py"])
def test_a_root_without_the_whole_of_python_is_refused(root: Path, missing: str) -> None:
    (root / missing).unlink()
    with pytest.raises(BuildError, match="with its whole standard library") as caught:
        updater.ship(root, TextReport(quiet=True))
    assert caught.value.hint == "name the package python3 in the update bundle"


def test_a_root_for_another_kind_of_machine_is_refused(root: Path) -> None:
    path = root / "usr/bin" / OURS
    data = bytearray(path.read_bytes())
    data[18:20] = (0xF3).to_bytes(2, "little")
    path.unlink()
    path.write_bytes(data)
    with pytest.raises(BuildError, match="for another kind of machine"):
        updater.ship(root, TextReport(quiet=True))


def test_a_python_that_is_no_program_is_refused(root: Path) -> None:
    (root / "usr/bin" / OURS).unlink()
    (root / "usr/bin" / OURS).write_text("#!/bin/sh\n")
    with pytest.raises(BuildError, match=f"/usr/bin/{OURS} of the root is not ELF"):
        updater.ship(root, TextReport(quiet=True))


def test_a_library_that_is_not_installed_is_named(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(updater, "LIBRARIES", (*updater.LIBRARIES, "no-such-library"))
    with pytest.raises(BuildError, match="the Python library no-such-library, which the updater needs") as caught:
        updater.ship(root, TextReport(quiet=True))
    assert "make setup" in caught.value.hint


def test_what_does_not_run_is_not_shipped(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(updater, "NOT_LOADED", {**updater.NOT_LOADED, "requests/adapters.py": "a mistake"})
    with pytest.raises(BuildError, match=r"does not run with the libraries that were copied.*adapters"):
        updater.ship(root, TextReport(quiet=True))


# -- the base of a stateless system


def test_the_base_starts_the_system_through_the_wrapper(root: Path) -> None:
    (root / "usr/sbin").mkdir()
    (root / "usr/lib/systemd").mkdir(parents=True)
    (root / "usr/lib/systemd/systemd").write_text("service manager")
    (root / "usr/sbin/init").symlink_to("/usr/lib/systemd/systemd")
    names = updater.ship_base(root)
    assert "/usr/sbin/init" in names
    assert (root / "usr/sbin/init").resolve() == root / "usr/lib/swupd/init"
    assert os.access(root / "usr/lib/swupd/init", os.X_OK)
    assert (root / "usr/lib/systemd/systemd").read_text() == "service manager"


def test_a_link_in_the_place_of_a_file_is_replaced_and_not_followed(root: Path) -> None:
    (root / "usr/lib/kernel").mkdir(parents=True)
    (root / "usr/lib/victim").write_text("another's")
    (root / "usr/lib/kernel/cmdline").symlink_to("../victim")
    updater.ship_base(root)
    assert (root / "usr/lib/victim").read_text() == "another's"
    assert "panic=10" in (root / "usr/lib/kernel/cmdline").read_text()


def test_a_directory_in_the_way_is_an_error(root: Path) -> None:
    (root / "usr/lib/kernel/cmdline").mkdir(parents=True)
    with pytest.raises(BuildError, match="/usr/lib/kernel/cmdline is a directory in the root"):
        updater.ship_base(root)


def test_names_are_canonical_in_a_root_with_links_to_directories(root: Path) -> None:
    (root / "usr/bin/x").touch()
    (root / "usr/sbin").symlink_to("bin")
    names = updater.ship_base(root)
    assert "/usr/bin/init" in names
    assert "/usr/sbin/init" not in names


def test_the_network_is_enabled_if_the_root_has_it(root: Path) -> None:
    units = root / UNITS
    units.mkdir(parents=True)
    (units / "systemd-networkd.service").write_text(
        "[Service]\nWantedBy=no.target\n"
        "[Install]\nWantedBy=multi-user.target\nAlso=systemd-networkd.socket\nAlias=dbus-network.service\n"
        "# a comment\nAlso=not-there.service\n"
    )
    (units / "systemd-networkd.socket").write_text("[Install]\nWantedBy=sockets.target other.target\n")
    names = updater.ship_base(root)
    enabled = {
        name.removeprefix(f"/{UNITS}/") for name in names if "network" in name and (root / name[1:]).is_symlink()
    }
    assert enabled == {
        "multi-user.target.wants/systemd-networkd.service",
        "sockets.target.wants/systemd-networkd.socket",
        "other.target.wants/systemd-networkd.socket",
        "dbus-network.service",
    }
    assert all((units / link).exists() for link in enabled)


def test_units_that_enable_each_other_are_enabled_once(root: Path) -> None:
    units = root / UNITS
    units.mkdir(parents=True)
    (units / "systemd-networkd.service").write_text("[Install]\nWantedBy=a.target\nAlso=other.service\n")
    (units / "other.service").write_text("[Install]\nWantedBy=b.target\nAlso=systemd-networkd.service other.service\n")
    names = updater.ship_base(root)
    assert {f"/{UNITS}/a.target.wants/systemd-networkd.service", f"/{UNITS}/b.target.wants/other.service"} <= {*names}


def test_the_base_boots_without_a_desktop_and_with_tmp_in_memory(root: Path) -> None:
    updater.ship_base(root)
    assert (root / UNITS / "default.target").readlink() == Path("multi-user.target")
    assert (root / UNITS / "local-fs.target.wants/tmp.mount").exists()
