"""A small published OS as a file URL, and the commands run on it in this process."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from swupd.cli import main
from swupd.formats import archive, layout
from swupd.formats.archive import Member, ObjectType
from swupd.formats.filehash import hash_content
from swupd.formats.manifest import Entry, FileType, Manifest, serialise
from swupd.formats.signature import SigningKey

FORMAT = 30


@dataclass
class Bundle:
    """What a bundle has: content by path; a text that begins with "-> " is a link, None is a directory."""

    files: dict[str, str | None] = field(default_factory=dict)
    includes: Sequence[str] = ()
    also_add: Sequence[str] = ()
    experimental: bool = False
    executable: Sequence[str] = ()
    exported: Sequence[str] = ()
    modes: Mapping[str, int] = field(default_factory=dict)


class Publisher:
    """Publishes versions; what did not change keeps its version, what went gets a tombstone."""

    def __init__(self, directory: Path, *, signer: SigningKey | None = None) -> None:
        self.directory = directory
        self._signer = signer
        self._bundles: dict[str, tuple[Manifest, str]] = {}
        self._minversion = 0

    @property
    def url(self) -> str:
        return f"file://{self.directory}"

    def publish(
        self,
        version: int,
        bundles: Mapping[str, Bundle],
        *,
        number: int = FORMAT,
        says: tuple[int, int] | None = None,
        minversion: int = 0,
    ) -> None:
        """Publish `version` in format `number`; `says` is the version and format that its own files tell.

        minversion: files with a lower version get this one, though they did not change.
        """
        self._minversion = minversion
        release, told_format = says or (version, number)
        own = {
            layout.OS_RELEASE: f"VERSION_ID={release}\n",
            layout.FORMAT_FILE: f"{told_format}\n",
        }
        entries = []
        for name, bundle in bundles.items():
            files = {**(own if name == layout.OS_CORE else {}), **bundle.files, layout.marker(name): ""}
            manifest = self._manifest(name, bundle, files, version, number)
            data = serialise(manifest)
            file_hash = hash_content(0o100644, 0, 0, data)
            old = self._bundles.get(name)
            if old is not None and _content(old[0]) == _content(manifest):
                manifest, file_hash = old
            else:
                self._write(
                    layout.manifest_tar(version, name), archive.manifest_tar({layout.manifest_name(name): data}, 0)
                )
            self._bundles[name] = (manifest, file_hash)
            flags = "Me.." if bundle.experimental else "M..."
            entries.append(Entry(flags, file_hash, manifest.version, name))
        mom = Manifest(number, version, 0, 1, 0, entries=tuple(sorted(entries, key=lambda e: (e.version, e.name))))
        data = serialise(mom, name=layout.MOM)
        if self._signer is not None:
            self._write(layout.manifest_signature(version), self._signer.sign(data))
        self._write(layout.manifest_tar(version, layout.MOM), archive.manifest_tar({"Manifest.MoM": data}, 0))
        self._write(layout.format_file(version), str(number).encode())
        self._write_signed(layout.latest(number), str(version).encode())
        self._write_signed(layout.latest_overall(), str(version).encode())

    def _manifest(
        self, name: str, bundle: Bundle, files: Mapping[str, str | None], version: int, number: int
    ) -> Manifest:
        old = {e.name: e for e in self._bundles[name][0].entries} if name in self._bundles else {}
        entries = {}
        everything = dict(files)
        for path in files:
            everything |= {str(parent): None for parent in Path(path).parents if str(parent) != "/"}
        size = 0
        for path, content in everything.items():
            member, data = _member(content, executable=path in bundle.executable)
            member = replace(member, mode=bundle.modes.get(path, member.mode))
            size += member.size
            file_hash = archive.object_hash(member, [data])
            entry = Entry.present(
                FileType(member.type.value), file_hash, version, path, exported=path in bundle.exported
            )
            before = old.get(path)
            if (
                before is not None
                and before.is_present
                and before.hash == file_hash
                and before.is_exported == entry.is_exported
                and before.version >= self._minversion
            ):
                entry = before
            else:
                self._write(
                    layout.fullfile(version, file_hash), archive.fullfile(replace(member, name=file_hash), data)
                )
            entries[path] = entry
        for path, before in old.items():
            if path not in entries:
                entries[path] = Entry.deleted(version, path) if before.is_present else before
        ordered = tuple(sorted(entries.values(), key=lambda e: (e.version, os.fsencode(e.name))))
        return Manifest(
            number,
            version,
            0,
            1,
            size,
            includes=tuple(bundle.includes),
            also_add=tuple(bundle.also_add),
            entries=ordered,
        )

    def _write(self, name: str, data: bytes) -> None:
        path = self.directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    def _write_signed(self, name: str, data: bytes) -> None:
        self._write(name, data)
        if self._signer is not None:
            self._write(layout.signature(name), self._signer.sign(data))


def _content(manifest: Manifest) -> object:
    """What makes a new manifest necessary when it changes."""
    return manifest.format, manifest.includes, manifest.also_add, manifest.entries


def _member(content: str | None, *, executable: bool) -> tuple[Member, bytes]:
    if content is None:
        return Member("x", ObjectType.DIRECTORY, stat.S_IFDIR | 0o755, 0, 0), b""
    if content.startswith("-> "):
        return Member("x", ObjectType.LINK, stat.S_IFLNK | 0o777, 0, 0, target=content[3:]), b""
    data = content.encode()
    mode = stat.S_IFREG | (0o755 if executable else 0o644)
    return Member("x", ObjectType.FILE, mode, 0, 0, len(data)), data


class Commands:
    """Runs commands in this process on a root with its state directory; neither has to be there yet."""

    def __init__(self, root: Path, state: Path, url: str, capsys: pytest.CaptureFixture[str]) -> None:
        self.root = root
        self.state = state
        self.out = ""
        self.err = ""
        self._url = url
        self._capsys = capsys

    def argv(self, command: str, *arguments: str) -> list[str]:
        return [
            *(command, "--path", str(self.root), "--statedir", str(self.state), "--url", self._url),
            *("--nosigcheck", "--ignore-time", *arguments),
        ]

    def run(self, command: str, *arguments: str, status: int = 0) -> None:
        """Run a command; what it prints is in `out` and `err`."""
        found = main(self.argv(command, *arguments))
        self.out, self.err = self._capsys.readouterr()
        assert found == status, self.out + self.err

    @property
    def errors(self) -> list[str]:
        return [line for line in self.err.splitlines() if line.startswith("Error: ")]

    def read(self, path: str) -> str:
        return (self.root / path[1:]).read_text()

    def has(self, path: str) -> bool:
        return os.path.lexists(self.root / path[1:])


class Machine(Commands):
    """An ordinary root, in a directory with its state."""

    def __init__(self, directory: Path, url: str, capsys: pytest.CaptureFixture[str]) -> None:
        super().__init__(directory / "root", directory / "state", url, capsys)

    def bundles(self) -> set[str]:
        return {path.name for path in (self.root / layout.TRACKING[1:]).iterdir()}


@pytest.fixture(autouse=True)
def _no_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SWUPD_CONFIG_PATH", "")


@pytest.fixture
def bundle() -> type[Bundle]:
    """The class, because test modules cannot import this one."""
    return Bundle


@pytest.fixture
def published(tmp_path: Path, no_sync: None) -> Publisher:
    """Version 10: os-core, libs, editors (needs libs, suggests docs), docs, games."""
    if os.geteuid() != 0:
        pytest.skip("commands that change a system need root")
    publisher = Publisher(tmp_path / "www")
    publisher.publish(10, version_10())
    return publisher


@pytest.fixture
def ten() -> dict[str, Bundle]:
    """The bundles of version 10, to make another version of."""
    return version_10()


def version_10() -> dict[str, Bundle]:
    return {
        "os-core": Bundle({"/usr/bin/core": "core", "/etc/hosts": "hosts", "/var/lib/state": None}),
        "libs": Bundle({"/usr/lib/lib.so": "-> lib.so.1", "/usr/lib/lib.so.1": "lib"}, ["os-core"]),
        "editors": Bundle({"/usr/bin/edit": "edit", "/etc/edit": "config"}, ["os-core", "libs"], ["docs"]),
        "docs": Bundle({"/usr/share/doc/manual": "manual"}, ["os-core"]),
        "games": Bundle({"/usr/bin/game": "game"}, ["os-core"], experimental=True),
    }


@pytest.fixture
def machine(published: Publisher, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Machine:
    """Version 10 with os-core, libs and editors."""
    machine = Machine(tmp_path, published.url, capsys)
    machine.run("os-install", "--version", "10", "--bundles", "editors", "--skip-optional", "--no-scripts")
    return machine


@pytest.fixture
def bare(published: Publisher, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Machine:
    """No root yet."""
    return Machine(tmp_path, published.url, capsys)


@pytest.fixture
def blessed(machine_disk: Any) -> Any:
    """A machine that boots deployments: 10 has been left for 20, which runs."""
    machine_disk.publish(20)
    machine_disk.run("update", "--next-boot")
    machine_disk.boot()
    machine_disk.bless()
    return machine_disk
