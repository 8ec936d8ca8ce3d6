"""A disk image, mounted by the kernel, is the system that `swupd os-install` makes; anybody gets the same bytes."""

from __future__ import annotations

import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

PROGRAMS = Path(sys.executable).parent
MIB = 1 << 20
ROOT_OFFSET = 257 * MIB
SIZE = "900M"
SAMPLES = {"/usr/bin": 60, "/usr/lib/x86_64-linux-gnu": 30, "/usr/share/doc": 150}
"""Directory of this machine -> how many of its files and links the version has."""
LARGEST = 4 * MIB
BOOT = {
    "/boot/vmlinuz-6.1.0": b"kernel" * 100_000,
    "/boot/initrd-6.1.0": b"initrd" * 300_000,
    "/usr/lib/modules/6.1.0/modules.dep": b"",
    "/usr/share/factory/etc/passwd": b"root:x:0:0::/root:/bin/sh\n",
    "/usr/lib/systemd/boot/efi/systemd-bootx64.efi": b"loader" * 10_000,
}

pytestmark = [
    pytest.mark.system,
    pytest.mark.timeout(600),
    pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root"),
]


def run(*argv: str | Path) -> str:
    done = subprocess.run([str(a) for a in argv], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{argv}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def put(root: Path, path: str, data: bytes) -> str:
    target = root / path[1:]
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(data)
    return path


def prepare(version: Path) -> None:
    """A version with files of this machine and some that are rare."""
    root = version / "full"
    core: set[str] = set()
    for directory, count in SAMPLES.items():
        found = (path for path in sorted(Path(directory).rglob("*")) if path.is_symlink() or path.is_file())
        small = (path for path in found if path.is_symlink() or path.stat().st_size <= LARGEST)
        for path, _ in zip(small, range(count), strict=False):
            target = root / path.relative_to("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, target, follow_symlinks=False)
            core.add(str(path))
    core.add(put(root, "/usr/lib/os-release", b'PRETTY_NAME="Disk 10"\nVERSION_ID=10\n'))
    core.add(put(root, "/usr/lib/kernel/cmdline", b"quiet\n"))
    core.add(put(root, "/usr/share/clear/versionstamp", b"1700000010"))
    core.add(put(root, "/usr/share/defaults/swupd/format", b"30"))
    for mode in (0o4755, 0o2750, 0o600, 0o444):
        core.add(put(root, f"/usr/share/odd/mode {mode:o}", b"x" * mode))
        (root / f"usr/share/odd/mode {mode:o}").chmod(mode)
    for size in (0, 1, 2047, 2048, 2049, 4095, 4096, 4097, 200_000, 5 * MIB):
        core.add(put(root, f"/usr/share/odd/size-{size}", os.urandom(size)))
    os.chown(root / "usr/share/odd/size-1", 1234, 4321)
    (root / "usr/share/odd/näme\\x2d").symlink_to("x" * 200)
    core.add("/usr/share/odd/näme\\x2d")
    (root / "var").mkdir()
    (root / "var").chmod(0o1777)
    core.add("/var")
    bundles = {"os-core": core, "kernel": {put(root, path, data) for path, data in BOOT.items()}}
    for name, paths in bundles.items():
        paths.add(put(root, f"/usr/share/clear/bundles/{name}", b""))
        parents = {str(parent) for path in paths for parent in Path(path).parents} - {"/"}
        info = {"Name": name, "Files": dict.fromkeys(sorted(paths | parents), False)}
        (version / f"{name}-info").write_text(json.dumps(info))
    (version / "groups.ini").write_text("[os-core]\n[kernel]\n")


@pytest.fixture(scope="module")
def mix() -> Iterator[Path]:
    """The workspace of a mix with version 10, where every user can come."""
    with tempfile.TemporaryDirectory(prefix="disk-image-") as name:
        top = Path(name)
        top.chmod(0o755)
        prepare(top / "trees/10")
        workspace = top / "mix"
        run(PROGRAMS / "mixer", "--workspace", workspace, "init", "--source", "tree", "--tree-path", top / "trees")
        run(PROGRAMS / "mixer", "--workspace", workspace, "build", "all")
        yield workspace


def make(workspace: Path, target: Path, *before: str) -> Path:
    image = ("build", "image", "--type", "disk", "--bundles", "kernel", "--size", SIZE, "-o", target)
    run(*before, PROGRAMS / "mixer", "--workspace", workspace, *image)
    return target


@pytest.fixture(scope="module")
def image(mix: Path) -> Path:
    return make(mix, mix.parent / "disk.img")


@contextmanager
def mounted(image: Path, where: Path, offset: int, options: str) -> Iterator[Path]:
    where.mkdir(exist_ok=True)
    run(
        "mount", "-o", f"loop,offset={offset},sizelimit={os.stat(image).st_size - offset - MIB},{options}", image, where
    )
    try:
        yield where
    finally:
        run("umount", where)


@pytest.fixture
def installed(mix: Path, tmp_path: Path) -> Path:
    """What the client installs of the same bundles."""
    root = tmp_path / "installed"
    root.mkdir()
    argv = [PROGRAMS / "mixer", "--workspace", mix, "serve", "--port", "0"]
    with subprocess.Popen([str(a) for a in argv], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        url = process.stdout.readline().split()[-1]
        options = ["--statedir", tmp_path / "state", "--certpath", mix / "Swupd_Root.pem", "--path", root, "--url", url]
        options += ["--allow-insecure-http", "--ignore-time", "--format", "30", "--no-scripts", "--version", "10"]
        run(PROGRAMS / "swupd", "os-install", "--bundles", "kernel", *options)
        process.send_signal(signal.SIGTERM)
        process.stdout.read()
    return root


def snapshot(root: Path) -> dict[str, tuple[object, ...]]:
    """Path -> type, mode, owner, content of everything below a directory."""
    found: dict[str, tuple[object, ...]] = {}
    for path in root.rglob("*"):
        status = path.lstat()
        content: object = None
        if stat.S_ISLNK(status.st_mode):
            content = os.readlink(path)
        elif stat.S_ISREG(status.st_mode):
            content = path.read_bytes()
        found[str(path.relative_to(root))] = (status.st_mode, status.st_uid, status.st_gid, content)
    return found


def test_the_root_is_what_the_client_installs(image: Path, installed: Path, tmp_path: Path) -> None:
    with mounted(image, tmp_path / "disk", ROOT_OFFSET, "ro,subvol=@/10") as root:
        found = snapshot(root)

    wanted = snapshot(installed)
    assert found.keys() == wanted.keys()
    assert [path for path in wanted if found[path] != wanted[path]] == []
    assert len(wanted) > 250


def test_the_version_is_sealed_and_the_state_is_not(image: Path, tmp_path: Path) -> None:
    copy = tmp_path / "disk.img"
    run("cp", "--sparse=always", image, copy)

    with mounted(copy, tmp_path / "disk", ROOT_OFFSET, "subvolid=5") as top:
        assert run("btrfs", "property", "get", top / "@/10", "ro") == "ro=true\n"
        with pytest.raises(OSError, match="Read-only file system"):
            (top / "@/10/usr/new").touch()
        modes = {
            str(path.relative_to(top / "@state")): oct(path.lstat().st_mode) for path in (top / "@state").rglob("*")
        }
        assert modes == {
            "boot": "0o40755",
            "boot/good": "0o40755",
            "boot/good/10": "0o100644",
            "etc": "0o40700",
            "etc/upper": "0o40755",
            "etc/work": "0o40700",
            "home": "0o40755",
            "opt": "0o40755",
            "root": "0o40700",
            "srv": "0o40755",
            "var": "0o40755",
        }
        for name in ("etc/upper", "var", "home", "root"):
            (top / "@state" / name / "new").write_bytes(bytes(100_000))
        listed = run("btrfs", "subvolume", "list", top)
        assert {line.split()[-1] for line in listed.splitlines()} == {"@/10", "@state", "@state/var", "@state/home"}
        run("btrfs", "subvolume", "snapshot", top / "@/10", top / "@/20.part")
        (top / "@/20.part/usr/new").write_text("new")
        run("btrfs", "scrub", "start", "-B", top)

    # What the kernel has written goes well with what was there.
    part = tmp_path / "root"
    run("dd", f"if={copy}", f"of={part}", "bs=1M", f"skip={ROOT_OFFSET // MIB}", "conv=sparse", "status=none")
    run("btrfs", "check", part)


def test_another_user_gets_the_same_bytes_in_another_place_and_at_another_time(image: Path, mix: Path) -> None:
    other = mix.parent / "other"
    run("cp", "-a", mix, other)
    shutil.rmtree(other / "cache")

    # In a user namespace without any mapping: nobody, and without capabilities.
    second = make(other, other / "disk.img", "unshare", "--user", "env", "-i", "TZ=Asia/Tokyo")

    assert second.stat().st_mtime - image.stat().st_mtime > 2, "FAT counts time in steps of two seconds"
    run("cmp", image, second)
    assert Path(f"{second}.json").read_bytes() == Path(f"{image}.json").read_bytes()


@pytest.mark.parametrize("size", ["1m", "12m"])
def test_a_full_disk_is_one_line_and_leaves_nothing(mix: Path, tmp_path: Path, size: str) -> None:
    run("mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", tmp_path)
    try:
        argv = [PROGRAMS / "mixer", "--workspace", mix, "build", "image", "--type", "disk", "--bundles", "kernel"]
        done = subprocess.run([*argv, "-o", tmp_path / "disk.img"], capture_output=True, text=True, check=False)

        assert done.returncode == 1
        errors = [line for line in done.stderr.splitlines() if line.startswith("Error: ")]
        assert len(errors) == 1
        assert errors[0].endswith("disk.img: No space left on device")
        assert "Traceback" not in done.stderr
        assert os.listdir(tmp_path) == []
    finally:
        run("umount", tmp_path)
