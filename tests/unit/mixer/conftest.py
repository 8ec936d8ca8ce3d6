"""A small mix over a prepared tree, built in this process."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from mixer import build, updates
from mixer.build import BuildOptions, Summary
from mixer.config import Config, TreeSource
from mixer.updates import DeltaSummary, Span
from mixer.workspace import State, Workspace
from swupd.formats import signature
from swupd.formats.manifest import Manifest, parse
from swupd.report import TextReport


class Mix:
    """A workspace over a prepared tree that is changed in one line and built in one call."""

    def __init__(self, path: Path) -> None:
        self.source = path / "tree"
        self.workspace = Workspace(path / "mix")
        self.workspace.path.mkdir()
        self.config = Config(
            source=TreeSource(self.source),
            certificate=self.workspace.path / "Swupd_Root.pem",
            key=self.workspace.path / "private.pem",
            workers=1,
        )
        self.www = self.workspace.www

    def version(self, version: int, bundles: dict[str, dict[str, str | bytes]], stamp: int = 1700000000) -> None:
        """Prepare a version: bundle -> path -> content."""
        files: dict[str, dict[str, str | bytes]]
        files = {name: {**content, f"/usr/share/clear/bundles/{name}": ""} for name, content in bundles.items()}
        files["os-core"]["/usr/share/clear/versionstamp"] = f"{stamp + version}"
        directory = self.source / str(version)
        for name, listed in files.items():
            paths: set[str] = set()
            for path, content in listed.items():
                target = directory / "full" / path[1:]
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(content.encode() if isinstance(content, str) else content)
                paths |= {path, *(str(parent) for parent in Path(path).parents)} - {"/"}
            info = {"Files": dict.fromkeys(sorted(paths), False)}
            (directory / f"{name}-info").write_text(json.dumps(info))
        (directory / "groups.ini").write_text("".join(f"[{name}]\n" for name in files))
        self.workspace.set_mix_version(version)
        self.workspace.set_state(State(30, self.workspace.last_version()))

    def build(self, **options: object) -> Summary:
        return build.build_all(
            self.workspace,
            self.config,
            TextReport(),
            BuildOptions(**options),  # type: ignore[arg-type]
        )

    def manifest(self, version: int, name: str) -> Manifest:
        data = (self.www / f"{version}/Manifest.{name}").read_bytes()
        return parse(data, name=name, is_mom=name == "MoM")

    def delta_packs(self, **span: int) -> DeltaSummary:
        return updates.build_delta_packs(
            self.workspace, self.config, TextReport(), Span(**span), workers=1, sign=self.config.key.exists()
        )

    def snapshot(self) -> dict[str, bytes]:
        return {str(p.relative_to(self.www)): p.read_bytes() for p in self.www.rglob("*") if p.is_file()}


@pytest.fixture(scope="session")
def certificate() -> tuple[bytes, bytes]:
    return signature.make_certificate("Test", 1000, datetime.now(UTC))


@pytest.fixture
def mix(tmp_path: Path, certificate: tuple[bytes, bytes]) -> Iterator[Mix]:
    mix = Mix(tmp_path)
    mix.config.certificate.write_bytes(certificate[0])
    mix.config.key.write_bytes(certificate[1])
    mix.version(10, {"os-core": {"/usr/bin/sh": "shell 10"}, "b": {"/usr/bin/b": "b"}})
    return mix
