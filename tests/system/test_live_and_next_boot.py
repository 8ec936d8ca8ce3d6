"""The same system, changed in three ways, is the same afterwards, in every path, type, mode, owner, content, link
target and extended attribute:

* live: an ordinary root, changed in place;
* next boot: a snapshot of a deployment, looked at as the subvolume that boots next;
* switched: a deployment that runs, as its users see it after a live update.

The content is generated: files, links and directories that stay, change, come, go and turn into one another. One thing
differs by intention: on an ordinary root the boot manager removes old kernels, so what is gone from below /boot and
/usr/lib/modules (`swupd.protected.never_deleted`) stays there; a deployment has the kernel of its version alone.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

import pytest

from swupd.cli import main
from swupd.nextboot import place
from tests.transaction.scenario import Bundle, Object, Publisher, Tree, directory, file, link
from tests.unit.swupd.nextboot.disk import DIRECTORIES, HAS_FAT, MachineDisk

pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(os.geteuid() != 0, reason="file owners are part of an OS: needs root"),
]

FILE_MODES = (0o644, 0o644, 0o755, 0o600, 0o444, 0o640, 0o4755, 0o2755, 0o6711, 0)
DIRECTORY_MODES = (0o755, 0o755, 0o755, 0o700, 0o711, 0o1777, 0o2755)
SIZES = (0, 1, 100, 5000, 70_000)
ODD_NAMES = ("bücher und mehr", "-dash", "back\\slash", ".hidden", "n" * 240, "'quoted' \"name\"")
OF_OLD_KERNELS = ("boot/", "usr/lib/modules/")

Item = tuple[str, int, int, int, str, tuple[tuple[str, bytes], ...]]
"""Type, mode, uid, gid, digest of the content or link target, extended attributes."""
Picture = dict[str, Item]


# -- the content -------------------------------------------------------------------------------------------------------


class Generator:
    """A tree and what becomes of it, both the same for the same seed."""

    def __init__(self, seed: int) -> None:
        self._random = Random(seed)
        self._number = 0

    def tree(self, below: str, depth: int = 3) -> Tree:
        """A directory with all below it."""
        made: Tree = {below: directory(self._random.choice(DIRECTORY_MODES), *self._owner())}
        for _ in range(self._random.randint(6, 10)):
            made |= self._anything(f"{below}/{self._name()}", depth)
        return made

    def changed(self, tree: Tree, top: str) -> Tree:
        """What an update makes of a tree whose uppermost directory is `top`; that stays one."""
        made: Tree = {}
        gone: set[str] = set()
        for path in sorted(tree):
            found = tree[path]
            if not gone.isdisjoint(map(str, Path(path).parents)):
                continue
            fate = "same" if path == top else self._random.choice(("same",) * 5 + ("gone", "other", "content", "mode"))
            if fate == "gone":
                gone.add(path)
            elif fate == "other":
                gone.add(path)
                made |= self._anything(path, 2)
            elif fate == "content" and found.content is not None:
                made[path] = self._file_or_link(is_link=found.kind == "l")
            elif fate == "mode" and found.kind != "l":
                modes = DIRECTORY_MODES if found.kind == "d" else FILE_MODES
                made[path] = Object(found.content, self._random.choice(modes), *self._owner())
            else:
                made[path] = found
            if made.get(path, link("")).kind == "d" and path not in gone and self._random.random() < 0.5:
                made |= self._anything(f"{path}/{self._name()}", 2)
        return made

    def _anything(self, path: str, depth: int) -> Tree:
        kind = self._random.choice("ffffllddd" if depth else "ffffll")
        return self.tree(path, depth - 1) if kind == "d" else {path: self._file_or_link(is_link=kind == "l")}

    def _file_or_link(self, *, is_link: bool) -> Object:
        if is_link:
            return link(f"../{self._name()}", self._owner()[0])
        return Object(
            self._random.randbytes(self._random.choice(SIZES)), self._random.choice(FILE_MODES), *self._owner()
        )

    def _owner(self) -> tuple[int, int]:
        return self._random.choice(((0, 0), (0, 0), (0, 12), (65534, 3), (4242, 4242)))

    def _name(self) -> str:
        self._number += 1
        return f"{self._number}{self._random.choice(ODD_NAMES) if self._number % 7 == 0 else ''}"


def content(seed: int, version: int) -> dict[str, Bundle]:
    """The bundles of version 10 or 20. `kernel` brings all that a machine has, `extra` something to be added."""
    generator = Generator(seed)
    trees = {}
    for name in ("base", "dependency", "extra"):
        top = f"/usr/lib/{name}"
        old = generator.tree(top)
        trees[name] = {10: old, 20: generator.changed(old, top)}[version]
    kernel = f"6.{version}"
    shared = {"/usr/share/shared/file": file(f"shared {version}", 0o640, 3, 4), "/usr/share/shared": directory(0o750)}
    core = {
        "/usr/lib/os-release": file(f'PRETTY_NAME="Test OS"\nVERSION_ID={version}\n'),
        "/usr/share/defaults/swupd/format": file("30\n"),
        "/usr/sbin/init": file("init", 0o755),
        "/usr/lib/systemd/systemd": file("systemd", 0o755),
        "/usr/lib/kernel/cmdline": file(f"quiet version={version}\n"),
        "/usr/share/factory/etc/passwd": file("root:x:0:0::/root:/bin/bash\n"),
        "/usr/share/factory/etc/issue": file(f"Test OS {version}\n"),
        "/bin": link("usr/bin"),
        **{f"/{name}": directory() for name in DIRECTORIES},
    }
    boot = {
        f"/boot/vmlinuz-{kernel}": file(f"kernel {version}" * 5000, 0o600),
        f"/boot/initrd-{kernel}": file(f"initrd {version}" * 5000, 0o600),
        f"/usr/lib/modules/{kernel}/modules.dep": file(kernel),
    }
    return {
        "os-core": Bundle(core),
        "base": Bundle(trees["base"] | shared, ("os-core",)),
        "kernel": Bundle(boot, ("os-core", "base")),
        "dependency": Bundle(trees["dependency"], ("os-core",)),
        "extra": Bundle(trees["extra"] | shared, ("dependency",)),
    }


# -- the machines ------------------------------------------------------------------------------------------------------


class Ordinary:
    """A root that is changed in place."""

    def __init__(self, directory: Path, publisher: Publisher, capsys: pytest.CaptureFixture[str]) -> None:
        self.root = directory / "ordinary"
        self._options = ["--path", str(self.root), "--statedir", str(directory / "state"), "--url", publisher.url]
        self._options += ["--nosigcheck", "--ignore-time", "--no-scripts"]
        self._capsys = capsys
        self.run("os-install", "--version", "10", "--bundles", "kernel")

    def run(self, *arguments: str) -> None:
        status = main([arguments[0], *self._options, *arguments[1:]])
        told = self._capsys.readouterr()
        assert status == 0, told.out + told.err


@pytest.fixture
def start(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[Publisher], MachineDisk]]:
    """Starts a machine of deployments with version 10; skips where there can be none."""
    pytest.importorskip("btrfsutil")
    monkeypatch.setenv("SWUPD_CONFIG_PATH", "")
    if not HAS_FAT:
        monkeypatch.setattr(place, "BOOT_MOUNT", ("ext2", "noatime"))
    with ExitStack() as resources:

        def make(publisher: Publisher) -> MachineDisk:
            image = Path(resources.enter_context(TemporaryDirectory(dir=tmp_path)), "disk.img")
            disk = MachineDisk(tmp_path, image, publisher, capsys)  # type: ignore[arg-type]
            resources.callback(disk.remove)
            disk.make()
            disk.install()
            return disk

        yield make


@pytest.fixture
def publisher(tmp_path: Path, seed: int) -> Publisher:
    """Versions 10 and 20; 10 is the newest until 20 is announced."""
    publisher = Publisher(tmp_path / "www", partial(content, seed))
    publisher.publish(10)
    publisher.publish(20)
    publisher.announce(10)
    return publisher


# -- what a root is ----------------------------------------------------------------------------------------------------


def picture(root: Path) -> Picture:
    """Everything at and below a root, by path."""
    found = {"": item(root)}
    pending = [root]
    while pending:
        for path in pending.pop().iterdir():
            found[str(path.relative_to(root))] = item(path)
            if stat.S_ISDIR(path.lstat().st_mode):
                pending.append(path)
    return found


def item(path: Path) -> Item:
    status = path.lstat()
    kind = stat.S_IFMT(status.st_mode)
    if kind == stat.S_IFREG:
        what, detail = "file", hashlib.sha256(path.read_bytes()).hexdigest()
        # Two paths of a system never share a file: what changes one of them would change the other.
        assert status.st_nlink == 1, path
    elif kind == stat.S_IFLNK:
        what, detail = "link", os.readlink(path)
    else:
        assert kind == stat.S_IFDIR, path
        what, detail = "directory", ""
    names = sorted(os.listxattr(path, follow_symlinks=False))
    attributes = tuple((name, os.getxattr(path, name, follow_symlinks=False)) for name in names)
    return what, stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid, detail, attributes


def digest(found: Picture) -> str:
    lines = (repr((path, found[path])) for path in sorted(found))
    return hashlib.sha256("\n".join(lines).encode("utf-8", "surrogateescape")).hexdigest()


def assert_same(live: Picture, deployment: Picture) -> None:
    """The two are the same, but for old kernels."""
    old_kernels = {path for path in live.keys() - deployment.keys() if f"{path}/".startswith(OF_OLD_KERNELS)}
    assert all("6.10" in path for path in old_kernels), old_kernels
    rest = {path: found for path, found in live.items() if path not in old_kernels}
    different = {path for path in rest.keys() | deployment.keys() if rest.get(path) != deployment.get(path)}
    assert {path: (rest.get(path), deployment.get(path)) for path in different} == {}
    assert digest(rest) == digest(deployment)


@contextmanager
def deployed(disk: MachineDisk, name: str) -> Iterator[Path]:
    """The subvolume of a deployment."""
    with disk.top() as top:
        yield top / "@" / name


# -- the tests ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_live_and_next_boot_give_the_same_system(
    publisher: Publisher,
    start: Callable[[Publisher], MachineDisk],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    seed: int,
) -> None:
    disk, ordinary = start(publisher), Ordinary(tmp_path, publisher, capsys)
    with deployed(disk, "10") as ten:
        before = picture(ten)
        assert_same(picture(ordinary.root), before)
    publisher.announce(20)
    steps = (("20", ("update",)), ("20.1", ("bundle-add", "extra")), ("20.2", ("bundle-remove", "extra", "dependency")))
    digests = {digest(before)}
    for name, command in steps:
        ordinary.run(*command)
        disk.run(command[0], "--next-boot", *command[1:])
        with deployed(disk, name) as tree:
            after = picture(tree)
            assert_same(picture(ordinary.root), after)
        assert disk.boot() == name
        disk.bless()
        digests.add(digest(after))
    assert (ordinary.root / "boot/vmlinuz-6.10").exists()
    assert "boot/vmlinuz-6.10" not in after
    # What is removed last was added before.
    assert len(digests) == len(steps), seed
    with deployed(disk, "10") as ten:
        assert picture(ten) == before


@pytest.mark.parametrize("seed", [7])
def test_a_system_that_was_switched_while_it_ran_is_the_same_too(
    publisher: Publisher, start: Callable[[Publisher], MachineDisk], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    disk, ordinary = start(publisher), Ordinary(tmp_path, publisher, capsys)
    publisher.announce(20)
    for command in (("update",), ("bundle-add", "extra"), ("bundle-remove", "extra")):
        ordinary.run(*command)
        disk.run(*command)
        for part in ("usr", "boot"):
            live = {path: found for path, found in picture(ordinary.root).items() if _is_below(path, part)}
            assert_same(
                live, {f"{part}/{path}".rstrip("/"): found for path, found in picture(disk.root / part).items()}
            )
        assert disk.read("/etc/issue") == "Test OS 20\n"
    current = place.locate(disk.root).current
    assert current == disk.boot() == "20.2"
    with deployed(disk, current) as tree:
        assert_same(picture(ordinary.root), picture(tree))


def test_the_generator_makes_every_change_there_is() -> None:
    """Else the tests above say less than they seem to."""
    seen = set()
    for seed in range(3):
        old, new = (content(seed, version)["base"].files for version in (10, 20))
        for path in old.keys() | new.keys():
            before, after = old.get(path), new.get(path)
            if before is not None and after is not None and before.kind == after.kind:
                seen |= {f"{before.kind} content"} if before.content != after.content else set()
                seen |= {f"{before.kind} attributes"} if before[1:] != after[1:] else set()
            else:
                seen.add(f"{before.kind if before else ' '} to {after.kind if after else ' '}")
    kinds = "-ld"
    assert seen >= {f"{a} to {b}" for a in f"{kinds} " for b in f"{kinds} " if a != b}
    assert seen >= {"- content", "l content", "- attributes", "d attributes"}


def _is_below(path: str, part: str) -> bool:
    return f"{path}/".startswith(f"{part}/")
