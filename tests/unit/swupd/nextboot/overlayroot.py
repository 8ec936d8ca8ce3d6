"""A stateless root whose /etc is a real overlay, mounted as our initrd does it; `boot` is what its next start does.

Imported by the tests of what is the user's in /etc: `with overlay_root(tmp_path) as root`.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from swupd.cli import main
from swupd.formats.filehash import hash_path, walk
from swupd.nextboot.etcoverlay import Layers, find_layers

STATE_SCRIPT = Path(__file__).parents[4] / "mixer/osfiles/initrd/state"
OPTIONS = "index=off,metacopy=off,redirect_dir=off,xino=off,nfs_export=off"


class OverlayRoot:
    """A root; before `boot` its /etc is an empty directory."""

    def __init__(self, directory: Path) -> None:
        self.root = directory / "root"
        self.etc = self.root / "etc"
        self.factory = self.root / "usr/share/factory/etc"
        self.state = self.root / "run/state"
        self.upper = self.state / "etc/upper"
        self.statedir = directory / "statedir"
        self.out = ""
        self.err = ""
        for path in (self.etc, self.factory, self.upper, self.state / "etc/work", self.state / "boot"):
            path.mkdir(parents=True)
        for name in ("var", "home", "usr/lib"):
            (self.root / name).mkdir(exist_ok=True)
        (self.root / "usr/lib/os-release").write_text("VERSION_ID=10\n")
        for name in ("passwd", "hosts", "networks"):
            (self.factory / name).write_text(f"{name} of the factory\n")
        (self.factory / "link").symlink_to("hosts")
        for name in ("d", "d/sub", "private"):
            (self.factory / name).mkdir()
        for name in ("d/x", "d/y", "d/sub/z", "private/key"):
            (self.factory / name).write_text(f"{name} of the factory\n")
        (self.factory / "private/key").chmod(0o640)
        (self.factory / "private").chmod(0o750)
        os.chown(self.factory / "private", 0, 12)

    @property
    def layers(self) -> Layers:
        return find_layers(self.root)

    @property
    def queue(self) -> list[str]:
        with suppress(FileNotFoundError):
            return (self.state / "etc/revert").read_text().splitlines()
        return []

    def boot(self) -> None:
        """Carry out the lists as the initrd does, with its own script, and mount /etc."""
        self.shut_down()
        script = f'say() {{ :; }}; . "{STATE_SCRIPT}"; reset "$1"; revert "$1"'
        subprocess.run(["busybox", "sh", "-c", script, "state", self.state], check=True)
        layers = f"lowerdir={self.factory},upperdir={self.upper},workdir={self.state}/etc/work"
        argv = ["mount", "-t", "overlay", "-o", f"{layers},{OPTIONS}", "etc", self.etc]
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            pytest.skip(f"no overlay can be mounted here: {done.stderr.strip()}")

    def shut_down(self) -> None:
        if os.path.ismount(self.etc):
            subprocess.run(["umount", self.etc], check=True)

    def run(self, capsys: pytest.CaptureFixture[str], command: str, *arguments: str, status: int = 0) -> None:
        """Run a command on this root; what it prints is in `out` and `err`."""
        argv = [command, "--path", str(self.root), "--statedir", str(self.statedir), "--ignore-time", *arguments]
        found = main(argv)
        self.out, self.err = capsys.readouterr()
        assert found == status, self.out + self.err

    def changes(self) -> dict[str, str]:
        """The listed differences, with ! for conflicts and + for what is queued."""
        from swupd.nextboot import etcoverlay

        state = self.state / "etc"
        bases = etcoverlay.read_bases(state, Silent())
        found = etcoverlay.survey(self.layers, bases, etcoverlay.read_queue(state))
        return {d.path: d.kind.value + "!" * d.is_conflict + "+" * d.is_queued for d in found}

    def is_factory(self) -> bool:
        """Whether programs see the factory's /etc, with all owners, modes and contents."""
        return tree(self.etc) == tree(self.factory)


class Silent:
    """A report that nobody reads; it keeps what was told."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def start(self, section: str) -> None: ...

    def end(self, status: int) -> None: ...

    def answer(self, text: str) -> None:
        self.lines.append(text)

    info = verbose = debug = warning = answer

    def error(self, text: str, hint: str = "") -> None: ...

    def step(self, name: str, text: str, number: int = 0, total: int = 0) -> None: ...

    def progress(self, done: int, total: int, received: int = 0) -> None: ...

    def question(self, text: str) -> bool:
        return False

    def hand_over(self) -> dict[str, str]:
        return {}


def tree(top: Path) -> dict[str, str]:
    return {"": hash_path(str(top))} | {
        found.name: hash_path(found.path) for found in walk(str(top), one_file_system=False)
    }


@contextmanager
def overlay_root(directory: Path, *, booted: bool = True) -> Iterator[OverlayRoot]:
    if os.geteuid() != 0:
        pytest.skip("mounting needs root")
    # In memory: unmounting an overlay waits until its upper layer is on disk.
    disk = directory / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=0755", "tmpfs", disk], check=True)
    try:
        root = OverlayRoot(disk)
        try:
            if booted:
                root.boot()
            yield root
        finally:
            root.shut_down()
    finally:
        subprocess.run(["umount", disk], check=True)
        disk.rmdir()
