"""A machine of the size of Clear Linux with everything installed: 450,000 paths, installed, checked, searched, updated.

The content is small and made up, because this is about what the client does for each path, and about its memory. Every
twentieth file changes in the second version, so that each bundle has a new manifest and a pack.

Packs and manifests are written here directly, in the published format and without signatures.
"""

from __future__ import annotations

import shutil
import stat
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import zstandard

from swupd.formats import archive, archive_write, layout
from swupd.formats.archive import Member, ObjectType
from swupd.formats.filehash import hash_content
from swupd.formats.manifest import Entry, FileType, Manifest, serialise
from tests.bench import measure
from tests.bench.measure import load_average, say
from tests.bench.rows import MB, Row

PATHS = 450_000
BUNDLES = 100
PACKAGE_FILES = 99
"""Files of a package, which all lie in one directory."""
CHANGED_EACH = 20
FIRST, SECOND = 10, 20
FORMAT = 30
TIME = 1_700_000_000

GOAL_MB = 350
"""Of any command."""

_MANIFEST_MODE = stat.S_IFREG | 0o644
_TARGET = "some-file-of-it-7"
"""What is searched for."""


def rows(data: Path) -> list[Row]:
    """What the commands cost. Raises ProjectError."""
    top = data / "large"
    shutil.rmtree(top, ignore_errors=True)
    www = top / "www"
    say(f"Publishing two versions of {PATHS:,} paths")
    measure.in_fresh_process(publish, www)
    machine = Machine(top, www)
    bundles = ",".join(_names())
    found = []
    for what, command in (
        ("os-install", ("os-install", "--version", str(FIRST), "--bundles", bundles)),
        ("diagnose", ("diagnose",)),
        ("diagnose --picky", ("diagnose", "--picky")),
        ("search-file", ("search-file", _TARGET)),
        ("bundle-list --all", ("bundle-list", "--all")),
        ("update", ("update",)),
        ("repair", ("repair",)),
    ):
        usage = machine.swupd(*command)
        found += [
            Row(f"{what}: wall time", usage.wall, "s", note=load_average()),
            Row(f"{what}: CPU", usage.cpu, "CPU s"),
            Row(f"{what}: memory", usage.memory / MB, "MB", GOAL_MB, "goal"),
        ]
    shutil.rmtree(top)
    return found


@dataclass(frozen=True)
class Machine:
    """A root below `top` that is updated from `www`."""

    top: Path
    www: Path

    def swupd(self, command: str, *arguments: str) -> measure.Usage:
        """What a command of the client costs. Raises CommandError if it fails."""
        options = ["--url", f"file://{self.www}", "--nosigcheck", "--no-scripts", "--no-progress", "--quiet"]
        for option, name in (("--path", "root"), ("--statedir", "state")):
            options += [option, str(self.top / name)]
        return measure.run(["swupd", command, *arguments, *options]).usage


# -- the published tree ------------------------------------------------------------------------------------------------


def publish(www: Path) -> None:
    """Both versions, with the packs that lead to them."""
    former: dict[str, Manifest] = {}
    for version in (FIRST, SECOND):
        entries = []
        for number, name in enumerate(_names()):
            manifest = _publish_bundle(www, version, number, name, former.get(name))
            former[name] = manifest
            data = serialise(manifest)
            _write(
                www / layout.manifest_tar(version, name), archive.manifest_tar({layout.manifest_name(name): data}, 0)
            )
            entries.append(Entry.present(FileType.MANIFEST, hash_content(_MANIFEST_MODE, 0, 0, data), version, name))
        mom = serialise(Manifest(FORMAT, version, 0, TIME, 0, entries=tuple(entries)), name=layout.MOM)
        _write(www / layout.manifest_tar(version, layout.MOM), archive.manifest_tar({"Manifest.MoM": mom}, 0))
    _write(www / layout.latest(FORMAT), b"%d" % SECOND)


def _names() -> list[str]:
    return [layout.OS_CORE, *(f"bundle-{number}" for number in range(1, BUNDLES))]


def _publish_bundle(www: Path, version: int, number: int, name: str, former: Manifest | None) -> Manifest:
    old = {entry.name: entry for entry in former.entries} if former else {}
    entries = []
    objects: dict[str, tuple[Member, bytes]] = {}
    size = 0
    for path, content in _content(number, name, version):
        size += len(content or b"")
        entry, member = _object(path, content, version)
        before = old.get(path)
        if before is not None and before.hash == entry.hash:
            entry = before
        else:
            objects[entry.hash] = (member, content or b"")
        entries.append(entry)
    pack = www / layout.pack(version, name, former.version if former else 0)
    pack.parent.mkdir(parents=True, exist_ok=True)
    with zstandard.open(pack, "wb", cctx=zstandard.ZstdCompressor(level=3)) as target:
        archive_write.write_pack(target, ((member, [data]) for member, data in objects.values()))
    includes = (layout.OS_CORE,) if number else ()
    return Manifest(FORMAT, version, 0, TIME, size, includes=includes, entries=tuple(entries))


def _content(number: int, name: str, version: int) -> Iterator[tuple[str, bytes | None]]:
    """Path and content of all that a bundle has in a version; None is a directory."""
    if number == 0:
        for directory in ("/usr", "/usr/lib", "/usr/share", "/usr/share/clear", layout.TRACKING):
            yield directory, None
        yield layout.OS_RELEASE, b"VERSION_ID=%d\n" % version
    yield layout.marker(name), b""
    for package in range(number, PATHS // (PACKAGE_FILES + 1), BUNDLES):
        directory = f"/usr/share/package-{package}"
        yield directory, None
        for file in range(PACKAGE_FILES):
            path = f"{directory}/some-file-of-it-{file}"
            changes = (package * PACKAGE_FILES + file) % CHANGED_EACH == 0
            yield path, f"{path} of version {version if changes else FIRST}\n".encode()


def _object(path: str, content: bytes | None, version: int) -> tuple[Entry, Member]:
    if content is None:
        member = Member("x", ObjectType.DIRECTORY, stat.S_IFDIR | 0o755, 0, 0)
        kind = FileType.DIRECTORY
    else:
        member = Member("x", ObjectType.FILE, stat.S_IFREG | 0o644, 0, 0, len(content))
        kind = FileType.FILE
    file_hash = archive.object_hash(member, [content or b""])
    return Entry.present(kind, file_hash, version, path), replace(member, name=layout.staged_name(file_hash))


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
