"""Two versions of a small OS in which everything happens that an update can do, published as plain files.

Version 10 becomes version 20 by about 200 changed paths: files that change, come, go and move; links; directories with
new attributes; every change of type, with content; a bundle that comes as a new dependency and one that is withdrawn;
odd names, modes and owners; os-release. `FOREIGN` is what users have put into the root: it has to survive everything.
"""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from swupd.formats import archive, delta, layout
from swupd.formats.archive import Member, ObjectType
from swupd.formats.filehash import hash_content
from swupd.formats.manifest import Entry, FileType, Manifest, serialise

FORMAT = 30
INSTALLED = ("base", "withdrawn", "optional")
"""The bundles that a machine has in version 10."""

LARGE_BYTES = 1_100_000
"""More than is staged in one piece."""
_LONG_NAME = "n" * 250
_TIME = 1_600_000_000


class Object(NamedTuple):
    """A file (`content` is bytes), a link (`content` is its target) or a directory (`content` is None)."""

    content: bytes | str | None
    mode: int = 0o644
    uid: int = 0
    gid: int = 0

    @property
    def kind(self) -> str:
        """As `ls -l` shows it."""
        return "d" if self.content is None else "l" if isinstance(self.content, str) else "-"


Tree = dict[str, Object]
"""Objects by absolute path."""


@dataclass(frozen=True)
class Bundle:
    files: Tree
    includes: tuple[str, ...] = ()


def file(text: str, mode: int = 0o644, uid: int = 0, gid: int = 0) -> Object:
    return Object(text.encode(), mode, uid, gid)


def link(target: str, uid: int = 0) -> Object:
    return Object(target, 0o777, uid)


def directory(mode: int = 0o755, uid: int = 0, gid: int = 0) -> Object:
    return Object(None, mode, uid, gid)


def bundles(version: int) -> dict[str, Bundle]:
    """What each bundle has in version 10 or 20."""
    new = version == 20
    made = {
        "os-core": Bundle(_os_core(version)),
        "base": Bundle(_base(version), ("os-core", "dependency") if new else ("os-core",)),
        "optional": Bundle(_several("/usr/lib/optional", 12, str(version)), ("os-core",)),
        "extra": Bundle(_several("/usr/lib/extra", 25, "extra") | _types(new=True, below="/usr/extra"), ("os-core",)),
    }
    if new:
        made["dependency"] = Bundle(_several("/usr/lib/dependency/deep/down", 12, "new"), ("os-core",))
    else:
        made["withdrawn"] = Bundle(_several("/usr/lib/withdrawn/deep/down", 12, "old"), ("os-core",))
    return made


def others(version: int) -> dict[str, Bundle]:
    """What a publisher of programs for this OS has: ordinary files, and nothing that asks for privileges."""
    core = {layout.OS_RELEASE: file(f"VERSION_ID={version}\n"), layout.FORMAT_FILE: file(f"{FORMAT}\n")}
    return {
        "os-core": Bundle(core | {"/usr/bin/other": file(str(version), 0o755)}),
        "optional": Bundle(_several("/usr/bin/optional", 5, str(version)), ("os-core",)),
        "extra": Bundle(_several("/usr/bin/extra", 25, "extra"), ("os-core",)),
    }


def _os_core(version: int) -> Tree:
    core = {
        layout.OS_RELEASE: file(f"VERSION_ID={version}\n"),
        layout.FORMAT_FILE: file(f"{FORMAT}\n"),
        "/usr/bin/core": file(f"core {version}", 0o4755),
        "/etc/hosts": file(f"hosts {version}"),
        "/var/lib/state": directory(0o750, 3, 4),
        "/var/tmp": directory(0o1777),
        "/bin": link("usr/bin"),
    }
    return core | ({"/etc/new.conf": file("new")} if version == 20 else {})


def _base(version: int) -> Tree:
    new = version == 20
    tree = _several("/usr/lib/base/changed", 40, f"content of {version}") | _several("/usr/lib/base/same", 10, "same")
    tree |= (
        _several("/usr/lib/base/added/sub", 25, "added") if new else _several("/usr/lib/base/removed/sub", 25, "old")
    )
    tree |= _several("/usr/share/base/new name" if new else "/usr/share/base/old", 15, "moved")
    tree |= {f"/usr/lib/base/links/{n}": link(f"to-{version if n < 6 else 0}-{n}") for n in range(8)}
    tree |= {f"/usr/lib/base/links/{'new' if new else 'old'}{n}": link("somewhere", n) for n in range(4)}
    modes = (0o700, 0o1777, 0o2755, 0o555) if new else (0o755,)
    for n in range(6):
        owner = 7 if new and n == 5 else 0
        tree[f"/usr/lib/base/attributes/{n}"] = directory(modes[n % len(modes)], owner, owner)
        tree[f"/usr/lib/base/attributes/{n}/file"] = file("unchanged")
    tree |= {
        "/usr/lib/base/odd/setuid": file(str(version), 0o4755),
        "/usr/lib/base/odd/setgid": file("1", 0o2755 if new else 0o755, 0, 5),
        "/usr/lib/base/odd/secret": file(str(version), 0o600, 5, 6),
        "/usr/lib/base/odd/owner": file("1", 0o640, 8 if new else 0, 9),
        "/usr/lib/base/odd/no-mode": file(str(version), 0),
        "/usr/lib/base/odd/empty": file("" if new else "x"),
        "/usr/lib/base/odd/bücher und mehr": file(str(version)),
        f"/usr/lib/base/odd/{_LONG_NAME}": file(str(version)),
        "/usr/lib/base/odd/large": Object(f"{version} ".encode() * (LARGE_BYTES // 3)),
        "/usr/lib/base/odd/twin1": file(f"twins {version}"),
        "/usr/lib/base/odd/twin2": file(f"twins {version}"),
        f"/usr/lib/modules/{version}/kernel": file(f"kernel {version}"),
        "/usr/lib/base/emptied": directory(),
    }
    tree |= {} if new else {"/usr/lib/base/emptied/file": file("goes"), "/usr/lib/base/shared/ours": file("goes")}
    return tree | _types(new=new, below="/usr/lib/base/types")


def _types(*, new: bool, below: str) -> Tree:
    """Every change of type, the directories with content."""
    filled: Tree = {
        "": directory(),
        "/a": file("a"),
        "/sub": directory(0o711, 3, 4),
        "/sub/b": file("b"),
        "/sub/c": link("b"),
    }
    kinds: dict[str, Tree] = {
        "file": {"": file(f"file {new}")},
        "link": {"": link(f"../{new}", 4)},
        "directory": filled,
    }
    return {
        f"{below}/{before}-to-{after}{path}": found
        for before in kinds
        for after in kinds
        if before != after
        for path, found in kinds[after if new else before].items()
    }


def _several(parent: str, count: int, text: str) -> Tree:
    return {f"{parent}/{n:02}": file(f"{text} {n}", 0o755 if n % 5 == 0 else 0o644) for n in range(count)}


FOREIGN: Tree = {
    "/usr/lib/base/changed/notes": file("mine", 0o600, 1000, 1000),
    "/usr/lib/base/shared/mine": file("mine too"),
    "/usr/lib/base/attributes/1/mine": directory(0o700, 1000, 1000),
    "/usr/lib/base/attributes/1/mine/link": link("../file"),
    "/usr/local/bin/tool": file("tool", 0o755),
    "/etc/hosts": file("hosts of the administrator"),
    "/etc/own.conf": file("own", 0o640),
    "/home/user/.update.diary": file("not a sibling"),
}
"""Some of it lies where ours comes, changes or goes."""
KEPT = ("/usr/lib/base/shared", "/usr/lib/modules/10", "/usr/lib/modules/10/kernel")
"""Of version 10, and in version 20 still there: a directory with a foreign file, and what the boot manager deletes."""


def with_parents(tree: Tree) -> Tree:
    """The tree and ordinary directories above all that it has."""
    above = {str(parent) for path in tree for parent in Path(path).parents} - {"/"}
    return {path: directory() for path in above} | tree


def whole(version: int, names: Iterable[str]) -> Tree:
    """What these bundles bring, with their markers."""
    tree: Tree = {}
    for name in names:
        tree |= with_parents(bundles(version)[name].files | {layout.marker(name): file("")})
    # Directories that one bundle describes and another one only needs.
    for name in names:
        tree |= bundles(version)[name].files
    return tree


def put(root: Path, tree: Tree) -> None:
    """Write a tree over what is there; the files get an extended attribute."""
    for path, found in sorted(with_parents(tree).items()):
        place = root / path[1:]
        if found.content is None:
            if not place.exists():
                place.mkdir(found.mode)
            if path not in tree:
                continue
        elif isinstance(found.content, str):
            place.symlink_to(found.content)
            continue
        else:
            place.write_bytes(found.content)
            os.setxattr(place, "user.note", b"kept")
        os.chown(place, found.uid, found.gid)
        place.chmod(found.mode)


class Publisher:
    """Publishes versions 10 and 20 below one directory. content: what the bundles of a version have."""

    def __init__(self, target: Path, content: Callable[[int], dict[str, Bundle]] = bundles) -> None:
        self._target = target
        self._content = content
        self._manifests: dict[str, tuple[Manifest, str]] = {}
        self._trees: dict[str, Tree] = {}

    @property
    def url(self) -> str:
        return f"file://{self._target}"

    def publish(self, version: int) -> None:
        entries = []
        for name, bundle in self._content(version).items():
            manifest = self._manifest(name, bundle, version)
            data = serialise(manifest)
            self._write(layout.manifest_tar(version, name), archive.manifest_tar({layout.manifest_name(name): data}, 0))
            if name == "base" and version == 20:
                self._write_pack(name, manifest, bundle)
            file_hash = hash_content(stat.S_IFREG | 0o644, 0, 0, data)
            self._manifests[name] = (manifest, file_hash)
            self._trees[name] = bundle.files
            entries.append(Entry("M...", file_hash, version, name))
        mom = Manifest(FORMAT, version, 0, 1, 0, entries=tuple(sorted(entries, key=lambda e: (e.version, e.name))))
        data = serialise(mom, name=layout.MOM)
        self._write(layout.manifest_tar(version, layout.MOM), archive.manifest_tar({"Manifest.MoM": data}, 0))
        self._write(layout.format_file(version), str(FORMAT).encode())
        self.announce(version)

    def announce(self, version: int) -> None:
        """Say which version is the newest one."""
        self._write(layout.latest(FORMAT), str(version).encode())
        self._write(layout.latest_overall(), str(version).encode())

    def _manifest(self, name: str, bundle: Bundle, version: int) -> Manifest:
        tree = with_parents(bundle.files | {layout.marker(name): file("")})
        old = {entry.name: entry for entry in self._manifests[name][0].entries} if name in self._manifests else {}
        entries = {}
        for path, found in tree.items():
            member, data = _member(found)
            file_hash = archive.object_hash(member, [data])
            entry = Entry.present(FileType(member.type.value), file_hash, version, path)
            before = old.get(path)
            if before is not None and before.is_present and before.hash == file_hash:
                entry = before
            else:
                data = archive.fullfile(replace(member, name=file_hash), data)
                self._write(layout.fullfile(version, file_hash), data)
            entries[path] = entry
        gone = {path: Entry.deleted(version, path) for path in old.keys() - entries.keys()}
        ordered = sorted((entries | gone).values(), key=lambda entry: (entry.version, os.fsencode(entry.name)))
        size = sum(len(found.content) for found in tree.values() if isinstance(found.content, bytes))
        return Manifest(FORMAT, version, 0, 1, size, includes=bundle.includes, entries=tuple(ordered))

    def _write_pack(self, name: str, manifest: Manifest, bundle: Bundle) -> None:
        """The files that change, two of them as deltas; everything else has to come as fullfiles."""
        old = {entry.name: entry for entry in self._manifests[name][0].entries}
        members: list[tuple[Member, list[bytes]]] = []
        for entry in manifest.entries:
            if entry.version != 20 or not entry.name.startswith("/usr/lib/base/changed/"):
                continue
            member, data = _member(bundle.files[entry.name])
            if entry.name.endswith(("/01", "/02")):
                data = _delta(self._trees[name][entry.name], bundle.files[entry.name])
                path = f"{layout.DELTA_DIRECTORY}/{layout.delta_name(old[entry.name].hash, entry.hash)}"
                member = Member(path, ObjectType.FILE, stat.S_IFREG | 0o644, 0, 0, len(data))
            else:
                member = replace(member, name=layout.staged_name(entry.hash))
            members.append((member, [data]))
        pack = io.BytesIO()
        archive.write_pack(pack, members)
        self._write(layout.pack(20, name, 10), pack.getvalue())

    def _write(self, name: str, data: bytes) -> None:
        path = self._target / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def _member(found: Object) -> tuple[Member, bytes]:
    if found.content is None:
        return Member("x", ObjectType.DIRECTORY, stat.S_IFDIR | found.mode, found.uid, found.gid), b""
    if isinstance(found.content, str):
        target = found.content
        return Member("x", ObjectType.LINK, stat.S_IFLNK | 0o777, found.uid, found.gid, target=target), b""
    mode = stat.S_IFREG | found.mode
    size = len(found.content)
    return Member("x", ObjectType.FILE, mode, found.uid, found.gid, size, _TIME), found.content


def _delta(old: Object, new: Object) -> bytes:
    """A delta that inserts the whole new file."""
    assert isinstance(old.content, bytes)
    assert isinstance(new.content, bytes)
    owner = {"mode": stat.S_IFREG | new.mode, "uid": new.uid, "gid": new.gid}
    return delta.encode(len(old.content), [(0, len(new.content), 0)], b"", new.content, **owner)
