"""A small root with users and bundles, written object by object, and converted in one call."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from mixer.composition import ComposedBundle
from mixer.stateless import convert
from mixer.subtraction import parents
from swupd.report import TextReport

PASSWD = """\
root:x:0:0:root:/root:/bin/bash
man:x:6:12:man:/var/cache/man:/usr/sbin/nologin
sshd:x:102:65534:secure "shell":/run/sshd:/usr/sbin/nologin
nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin
"""
GROUP = "root:x:0:\nman:x:12:\nstaff:x:50:sshd,alice\nnogroup:x:65534:\n"
SHADOW = "root:*:19358:0:99999:7:::\nman:*:19358:0:99999:7:::\n"


class System:
    """Two bundles: os-core and web, which includes it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir()
        self.listed: dict[str, set[str]] = {"os-core": set(), "web": set()}
        self.origins: dict[str, str] = {}
        self.directory("/usr/lib")
        self.file("/etc/passwd", PASSWD)
        self.file("/etc/group", GROUP)
        self.file("/etc/shadow", SHADOW, mode=0o640)

    def directory(
        self, path: str, *, bundle: str = "os-core", mode: int = 0o755, owner: tuple[int, int] = (0, 0)
    ) -> None:
        self.place(path).mkdir(parents=True, exist_ok=True)
        self._finish(path, bundle, mode, owner)

    def file(
        self, path: str, text: str = "", *, bundle: str = "os-core", mode: int = 0o644, owner: tuple[int, int] = (0, 0)
    ) -> None:
        self.place(path).parent.mkdir(parents=True, exist_ok=True)
        self.place(path).write_bytes(os.fsencode(text))
        self._finish(path, bundle, mode, owner)

    def link(self, path: str, target: str, *, bundle: str = "os-core") -> None:
        self.place(path).parent.mkdir(parents=True, exist_ok=True)
        self.place(path).symlink_to(target)
        self.listed[bundle].add(path)

    def place(self, path: str) -> Path:
        return self.root / path[1:]

    def read(self, path: str) -> str:
        return self.place(path).read_text()

    def bundles(self) -> dict[str, ComposedBundle]:
        above = {"os-core": (), "web": ("os-core",)}
        return {
            name: ComposedBundle(name, includes=above[name], files=dict.fromkeys(sorted(paths | parents(paths)), False))
            for name, paths in self.listed.items()
        }

    def convert(self, password: str = "") -> dict[str, ComposedBundle]:
        bundles, self.origins = convert(self.root, self.bundles(), TextReport(quiet=True), root_password=password)
        return bundles

    def copy(self, root: Path) -> System:
        """The same once more."""
        shutil.copytree(self.root, root, symlinks=True)
        other = System.__new__(System)
        other.root, other.listed = root, {name: set(paths) for name, paths in self.listed.items()}
        other.origins = {}
        return other

    def _finish(self, path: str, bundle: str, mode: int, owner: tuple[int, int]) -> None:
        if os.geteuid() == 0:
            os.chown(self.place(path), *owner)
        self.place(path).chmod(mode)
        self.listed[bundle].add(path)


@pytest.fixture
def system(tmp_path: Path) -> System:
    return System(tmp_path / "root")
