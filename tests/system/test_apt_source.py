"""Real Debian packages: resolved, installed with mmdebstrap, finished, kept. Needs root and a mirror in /etc/apt."""

from __future__ import annotations

import dataclasses
import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

import pytest

from mixer.config import AptSource, Mirror
from mixer.errors import SourceError, UnknownPackageError
from mixer.sources import PackageDatabase, Resolution, aptconfig, ids
from mixer.sources.apt import AptPackages
from swupd.formats import filehash
from swupd.report import TextReport

SUITE = "bookworm"
PACKAGES = ("dbus", "iputils-ping", "less", "openssh-server", "python3-minimal", "usr-is-merged", "vim-tiny")
"""Users and groups, a capability, alternatives, host keys, compiled Python, no perl beyond the essential one."""

pytestmark = [
    pytest.mark.system,
    pytest.mark.timeout(600),
    pytest.mark.skipif(os.geteuid() != 0, reason="file owners are part of an OS: needs root"),
    pytest.mark.skipif(not shutil.which("mmdebstrap"), reason="needs mmdebstrap"),
    pytest.mark.skipif(
        not any(entry.suite == SUITE for entry in aptconfig.host_entries(aptconfig.HOST_DIRECTORY)),
        reason=f"the host's apt does not have {SUITE}",
    ),
]


class Built(NamedTuple):
    root: Path
    database: PackageDatabase
    resolution: Resolution
    workspace: Path
    hashes: dict[str, str]


def source(workspace: Path) -> AptPackages:
    config = AptSource((SUITE,), ("main",), (), None, "", ("/usr/share/doc/*",), workspace / "ids.txt")
    return AptPackages(config, workspace / "cache")


def hashes(root: Path) -> dict[str, str]:
    names = [found.name for found in filehash.walk(str(root))]
    return dict(zip(names, filehash.hash_paths([f"{root}{name}" for name in names]), strict=True))


def build(workspace: Path) -> Built:
    packages = source(workspace)
    resolution = packages.resolve(PACKAGES, TextReport())
    database = packages.install(resolution, workspace / "root", TextReport())
    return Built(workspace / "root", database, resolution, workspace, hashes(workspace / "root"))


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Built]:
    workspace = tmp_path_factory.mktemp("first")
    (workspace / "cache").mkdir()
    yield build(workspace)
    shutil.rmtree(workspace)


def test_two_builds_of_the_same_set_are_identical(built: Built, tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir()
    (built.workspace / "cache/debs").rename(tmp_path / "cache/debs")
    try:
        again = build(tmp_path)
    finally:
        (tmp_path / "cache/debs").rename(built.workspace / "cache/debs")
    assert again.resolution == built.resolution
    assert again.hashes == built.hashes
    assert again.database == built.database


def test_a_root_from_the_cache_is_the_one_that_was_installed(built: Built, tmp_path: Path) -> None:
    started = time.monotonic()
    database = source(built.workspace).install(built.resolution, tmp_path / "root", TextReport())
    assert time.monotonic() - started < 20
    assert hashes(tmp_path / "root") == built.hashes
    assert database == built.database


def test_a_cached_root_is_not_used_if_its_ids_are_not_those_of_the_mix(built: Built, tmp_path: Path) -> None:
    table = tmp_path / "ids.txt"
    ids.IdTable.load(built.workspace / "ids.txt").save(table)
    table.write_text(table.read_text().replace("user sshd ", "user former ") + "user sshd 777\n")
    (built.workspace / "ids.txt").rename(built.workspace / "ids.saved")
    shutil.copy(table, built.workspace / "ids.txt")
    record = built.workspace / "cache/roots" / f"{built.resolution.key}.json"
    saved = record.read_bytes()
    try:
        source(built.workspace).install(built.resolution, tmp_path / "root", TextReport())
        assert ids.read_accounts(tmp_path / "root")["user"]["sshd"] == 777
        changed = {name for name, value in hashes(tmp_path / "root").items() if built.hashes[name] != value}
        assert changed == {"/etc/passwd"}
    finally:
        record.write_bytes(saved)
        (built.workspace / "ids.saved").rename(built.workspace / "ids.txt")


def test_nothing_that_identifies_a_machine_and_no_state_ships(built: Built) -> None:
    paths = set(built.hashes)
    assert not [path for path in paths if path.startswith(("/etc/ssh/ssh_host_", "/var/lib/dpkg", "/var/lib/apt"))]
    assert not [path for path in paths if path.startswith(("/dev/", "/run/", "/tmp/", "/proc/", "/sys/"))]
    assert not paths & {"/etc/hostname", "/etc/resolv.conf", "/etc/ld.so.cache", "/etc/shadow-", "/etc/alternatives"}
    assert "" not in built.hashes.values(), "devices, fifos and sockets"
    assert not (built.root / "etc/apt/sources.list.d").exists()


def test_documentation_that_is_left_out_tells_licences_all_the_same(built: Built) -> None:
    assert os.listdir(built.root / "usr/share/doc") == []
    packages = built.database.packages
    assert "GPL-3.0-or-later" in packages["less"].licence
    assert packages["zlib1g"].licence == "Zlib"
    assert sum(bool(package.licence) for package in packages.values()) > len(packages) / 2


def test_packages_say_where_they_come_from(built: Built) -> None:
    package = built.database.packages["libpam-modules"]
    assert (
        package.purl == f"pkg:deb/debian/libpam-modules@{quote(package.version, safe='')}?arch={package.architecture}"
    )
    assert package.source.startswith("pam ")
    assert "@" in package.maintainer
    assert package.homepage.startswith("http")


def test_the_root_works_and_is_complete(built: Built) -> None:
    def run(*argv: str) -> str:
        return subprocess.run(["chroot", built.root, *argv], check=True, capture_output=True, text=True).stdout

    assert run("/bin/sh", "-c", "echo it works") == "it works\n"
    assert run("python3", "-B", "-c", "import pickle; print(pickle.loads(pickle.dumps(1)))") == "1\n"
    assert os.readlink(built.root / "usr/bin/vi") == "vim.tiny"
    assert os.readlink(built.root / "usr/bin/pager") == "less"
    assert stat.S_IMODE((built.root / "usr/bin/ping").stat().st_mode) == 0o4755
    assert not os.listxattr(built.root / "usr/bin/ping")


def test_every_path_has_an_owner_or_is_nobodys(built: Built) -> None:
    owned = {path for package in built.database.packages.values() for path in package.files}
    unowned = set(built.database.unowned)
    assert not owned & unowned
    assert owned | unowned <= built.hashes.keys()
    rest = built.hashes.keys() - owned - unowned
    parents = {path.rpartition("/")[0] for path in owned | unowned}
    for path in sorted(rest, reverse=True):
        assert path in parents, f"{path} is in the root, but no bundle can get it"
        parents.add(path.rpartition("/")[0])
    assert len(unowned) < 60


def test_scripts_results_belong_to_the_package_that_they_are_about(built: Built) -> None:
    owner = {path: name for name, package in built.database.packages.items() for path in package.files}
    assert owner["/etc/ssh/sshd_config"] == "openssh-server"
    assert owner["/usr/bin/vi"] == "vim-tiny"
    compiled = next(path for path in built.hashes if path.endswith("/__pycache__/pickle.cpython-311.pyc"))
    assert owner[compiled] == owner[compiled.replace("__pycache__/", "").replace(".cpython-311.pyc", ".py")]
    assert owner["/etc/systemd/system/multi-user.target.wants/ssh.service"] == "openssh-server"


@pytest.mark.parametrize("package", PACKAGES)
def test_a_closure_is_what_apt_would_install(built: Built, package: str) -> None:
    """The same package alone on an empty machine: apt and the walk over the database find the same set."""
    alone = source(built.workspace).resolve([package, "usr-is-merged"], TextReport())
    expected = {file.name.partition("_")[0] for file in alone.files}
    assert built.database.closure([package, "usr-is-merged", *built.database.base]) == expected


def test_an_unknown_package_is_named(built: Built) -> None:
    with pytest.raises(UnknownPackageError) as caught:
        source(built.workspace).resolve([*PACKAGES, "opensssh-server"], TextReport())
    assert caught.value.packages == ("opensssh-server",)
    assert "openssh-server" in caught.value.hint


def test_a_mirror_that_cannot_be_reached_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir()
    config = AptSource((SUITE,), ("main",), (), None, "", (), tmp_path / "ids.txt")
    config = dataclasses.replace(config, mirrors=(Mirror("http://mirror.invalid/debian"),))
    with pytest.raises(SourceError, match=r"^cannot read the package lists of bookworm: [^\n]*mirror\.invalid[^\n]*$"):
        AptPackages(config, tmp_path / "cache").resolve(["less"], TextReport())


KILLED = """\
import sys
from pathlib import Path
sys.path.insert(0, {here!r})
import test_apt_source
test_apt_source.build(Path({workspace!r}))
"""


def test_a_killed_build_leaves_no_process_no_mount_and_no_cached_root(built: Built, tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir()
    shutil.copytree(built.workspace / "cache/debs", tmp_path / "cache/debs", copy_function=os.link)
    code = KILLED.format(here=str(Path(__file__).parent), workspace=str(tmp_path))
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.DEVNULL)
    log = tmp_path / "cache/install.log"
    try:
        for _ in range(600):
            if log.exists() and b"Unpacking" in log.read_bytes():
                break
            time.sleep(0.1)
        assert child.poll() is None, "the build ended before it could be killed"
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()
    for _ in range(50):
        left = [line for line in commands() if str(tmp_path) in line]
        if not left:
            break
        time.sleep(0.1)
    assert left == []
    assert str(tmp_path) not in Path("/proc/self/mounts").read_text()
    assert not list((tmp_path / "cache").glob("roots/*.json"))


def commands() -> list[str]:
    """The command lines of all processes."""
    lines = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            lines.append(path.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
        except OSError:
            continue
    return lines
