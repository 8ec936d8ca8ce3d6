"""A small published mix whose versions could be images: with a kernel, a boot loader and files of every kind."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from mixer.images import tree
from mixer.images.tree import ImageTree
from swupd.report import TextReport

KERNEL = b"kernel " * 5000
INITRD = b"initrd " * 9000
CONTENT: dict[str, dict[str, str | bytes]] = {
    "os-core": {
        "/usr/bin/sh": "shell 10",
        "/usr/lib/os-release": 'NAME=Test\nPRETTY_NAME="Test OS 10"\n',
        "/usr/lib/kernel/cmdline": "quiet  console=ttyS0\n",
        "/usr/share/empty": "",
        "/usr/share/factory/etc/passwd": "root:x:0:0::/root:/bin/sh\n",
        "/usr/share/large": b"large " * 500_000,
    },
    "kernel": {
        "/boot/vmlinuz-6.9.0": b"older " + KERNEL,
        "/boot/initrd-6.9.0": b"older " + INITRD,
        "/boot/vmlinuz-6.10.0": KERNEL,
        "/boot/initrd-6.10.0": INITRD,
        "/usr/lib/modules/6.9.0/modules.dep": "",
        "/usr/lib/modules/6.10.0/modules.dep": "",
        "/usr/lib/systemd/boot/efi/systemd-bootx64.efi": b"loader " * 3000,
    },
    "editor": {"/usr/bin/editor": "editor"},
    "office": {"/usr/bin/office": "office"},
    "guest": {"/usr/lib/guest/init": "init", "/usr/lib/swupd/standalone/guest": ""},
}


class Published:
    """Version 10 of a mix: kernel and editor need os-core, office includes editor, guest is standalone."""

    def __init__(self, mix: Any) -> None:
        self.mix = mix
        shutil.rmtree(mix.source / "10")
        mix.version(10, {name: dict(content) for name, content in CONTENT.items()})
        root = mix.source / "10/full"
        (root / "usr/bin/link").symlink_to("sh")
        (root / "usr/bin/sh").chmod(0o4755)
        (root / "usr/share").chmod(0o2770)
        self.list("os-core", "/usr/bin/link")
        self.include("office", "editor")

    @property
    def root(self) -> Path:
        """The prepared root, owned by whoever runs the test."""
        path: Path = self.mix.source / "10/full"
        return path

    def list(self, bundle: str, *paths: str) -> None:
        """Add paths to a bundle."""
        info = self._info(bundle)
        info["Files"] |= dict.fromkeys(paths, False)
        self._write(bundle, info)

    def remove(self, bundle: str, *paths: str) -> None:
        """Remove paths from a bundle."""
        info = self._info(bundle)
        for path in paths:
            del info["Files"][path]
        self._write(bundle, info)

    def include(self, bundle: str, *names: str) -> None:
        self._write(bundle, {**self._info(bundle), "DirectIncludes": list(names)})

    def build(self, **options: object) -> None:
        self.mix.build(**options)

    def load(self, *bundles: str, **options: Any) -> ImageTree:
        return tree.load(self.mix.workspace, self.mix.config, TextReport(), bundles=bundles, **options)

    def _info(self, bundle: str) -> dict[str, Any]:
        info: dict[str, Any] = json.loads((self.mix.source / f"10/{bundle}-info").read_text())
        return info

    def _write(self, bundle: str, info: dict[str, Any]) -> None:
        (self.mix.source / f"10/{bundle}-info").write_text(json.dumps({"Name": bundle, **info}))


@pytest.fixture
def prepared(mix: Any) -> Published:
    """Not built yet."""
    return Published(mix)


@pytest.fixture
def published(prepared: Published) -> Published:
    prepared.build(packs=False)
    return prepared
