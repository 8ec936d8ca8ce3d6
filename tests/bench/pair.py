"""Two versions, 10 and 20, of a small server OS from real Debian packages, as a prepared tree (mixer.composition).

Version 10 has the lowest, version 20 the highest version of each package that apt offers: the archive as it was
released, and with its security updates. So most differences are real ones; a few scripted changes add the awkward
cases. server-os.json says which packages a bundle has. Owners, modes and times are those of the packages, so it needs
root. In the data directory:

    pair/<V>/full/           the root; /usr is merged
    pair/<V>/<bundle>-info   paths, packages and includes of a bundle
    pair/<V>/groups.ini      the bundles
    debs/                    the packages as they were fetched

`pair` is made once: beside its place, and renamed when it is whole. A file whose name tar quotes (systemd has units
with a backslash) is in the root but in no bundle, as in the data that the baselines were measured with.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from debian.debian_support import Version

from swupd import process
from swupd.errors import CommandError
from tests.bench.measure import BenchError, say

SPECIFICATION = Path(__file__).parent / "server-os.json"
FIRST, SECOND = 10, 20
EPOCH, DAY_SECONDS = 1_700_000_000, 86_400
"""Time stamp of a version 0, and how much later each number is."""

CORE = "os-core"
MERGED = ("bin", "sbin", "lib", "lib64")
"""Links to what has the same name in /usr."""
UNTRACKED = ("/var/lib/", "/var/cache/", "/var/log/", "/dev/", "/run/", "/tmp/")
EXPORTED = ("/bin/", "/usr/bin/", "/usr/local/bin/")
OS_RELEASE = "/usr/lib/os-release"
BASH = "/usr/bin/bash"
"""Where the bytes of scripted libraries come from."""


@dataclass(frozen=True)
class Bundle:
    """What server-os.json says about one."""

    includes: Sequence[str]
    packages: Sequence[str]
    optional: Sequence[str] = ()
    versions: Sequence[int] = (FIRST, SECOND)


@dataclass(frozen=True)
class Root:
    """The root of a version while it is made, and which bundle has which path."""

    directory: Path
    lists: dict[str, dict[str, bool]] = field(default_factory=dict)
    """Bundle -> path -> exported."""

    def place(self, path: str) -> Path:
        return self.directory / path.lstrip("/")

    def write(self, bundle: str, path: str, content: str | bytes, mode: int = 0o644) -> None:
        """A file that a bundle has."""
        target = self.place(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content.encode() if isinstance(content, str) else content)
        target.chmod(mode)
        self.give(bundle, path)

    def link(self, bundle: str, path: str, target: str) -> None:
        """A link that a bundle has."""
        place = self.place(path)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(target)
        self.give(bundle, path)

    def give(self, bundle: str, path: str) -> None:
        """A bundle has this path and the directories above it."""
        if path == "/" or path.startswith(UNTRACKED):
            return
        above = (str(parent) for parent in Path(path).parents)
        files = self.lists.setdefault(bundle, {})
        files |= {name: name.startswith(EXPORTED) for name in (*above, path) if name != "/"}


def make(data: Path) -> Path:
    """The directory with both versions, made now if it is not there. Raises BenchError and CommandError."""
    pair, new = data / "pair", data / "pair.new"
    if pair.is_dir():
        return pair
    if os.geteuid() != 0:
        raise BenchError("the data of the benchmark needs root: its files have owners", hint="run it with sudo")
    say(f"Making two versions of an OS from Debian packages in {pair}")
    bundles = {name: Bundle(**raw) for name, raw in json.loads(SPECIFICATION.read_text()).items()}
    offered = _offered({package for bundle in bundles.values() for package in bundle.packages})
    os.umask(0o022)
    shutil.rmtree(new, ignore_errors=True)
    for version, which in ((FIRST, 0), (SECOND, -1)):
        here = {name: bundle for name, bundle in bundles.items() if version in bundle.versions}
        chosen = {package: offered[package][which] for bundle in here.values() for package in bundle.packages}
        _make_version(version, new, here, _fetched(chosen, data / "debs"))
    new.rename(pair)
    return pair


# -- packages ----------------------------------------------------------------------------------------------------------


def _offered(packages: Iterable[str]) -> dict[str, list[str]]:
    """Package -> its versions, the lowest first."""
    wanted = sorted(packages)
    found: dict[str, set[str]] = {package: set() for package in wanted}
    for line in _run("apt-cache", "madison", *wanted).splitlines():
        package, version, source = (part.strip() for part in line.split("|"))
        if source.endswith("Packages"):
            found[package].add(version)
    unknown = [package for package, versions in found.items() if not versions]
    if unknown:
        raise BenchError(f"apt offers no package {unknown[0]}", hint="run `apt-get update` on Debian 12 first")
    return {package: sorted(versions, key=Version) for package, versions in found.items()}


def _fetched(chosen: Mapping[str, str], debs: Path) -> dict[str, Path]:
    """Package -> its file of the chosen version."""
    debs.mkdir(parents=True, exist_ok=True)
    lacking = [f"{package}={version}" for package, version in chosen.items() if not _deb(debs, package, version)]
    if lacking:
        say(f"Fetching {len(lacking)} packages")
        _run("apt-get", "download", "-q", "--option=APT::Sandbox::User=root", *lacking, cwd=debs)
    files = {package: _deb(debs, package, version) for package, version in chosen.items()}
    return {package: file for package, file in files.items() if file is not None}


def _deb(debs: Path, package: str, version: str) -> Path | None:
    beginning = f"{package}_{version.replace(':', '%3a')}_"
    return next((path for path in debs.iterdir() if path.name.startswith(beginning)), None)


def _unpack(deb: Path, root: Path) -> list[str]:
    """Put the content of a package into the root; its paths as they are in a merged /usr."""
    content = process.run(["dpkg-deb", "--fsys-tarfile", deb], env=os.environ).stdout
    extract = ["tar", "-x", "-v", "-p", "--keep-directory-symlink", f"--directory={root}"]
    listed = process.run(extract, env=os.environ, stdin=content).stdout.decode()
    return [_merged(line.removeprefix(".").rstrip("/") or "/") for line in listed.splitlines()]


def _merged(path: str) -> str:
    return f"/usr{path}" if path.startswith(tuple(f"/{name}/" for name in MERGED)) else path


def _run(*argv: str, cwd: Path | None = None) -> str:
    try:
        return process.run(argv, env=os.environ, cwd=cwd).stdout.decode()
    except CommandError as error:
        raise BenchError(
            str(error), hint="the data is made with apt of Debian 12: run `apt-get update` first"
        ) from error


# -- versions ----------------------------------------------------------------------------------------------------------


def _make_version(version: int, top: Path, bundles: Mapping[str, Bundle], debs: Mapping[str, Path]) -> None:
    root = Root(top / str(version) / "full")
    for name in (*(f"usr/{name}" for name in MERGED), "etc"):
        root.place(name).mkdir(parents=True)
    for name in MERGED:
        root.link(CORE, f"/{name}", f"usr/{name}")
    paths = {package: _unpack(debs[package], root.directory) for package in sorted(debs)}
    for path in UNTRACKED:
        shutil.rmtree(root.place(path), ignore_errors=True)
        root.place(path).mkdir(parents=True)
    for name, bundle in bundles.items():
        for package in bundle.packages:
            for path in paths[package]:
                root.give(name, path)
        root.write(name, f"/usr/share/clear/bundles/{name}", "")
    _name_version(version, root)
    seed = (top / str(FIRST) / "full" / BASH.lstrip("/")).read_bytes()
    one, other = [name for name in bundles if name != CORE][:2]
    (_scripted_first if version == FIRST else _scripted_second)(root, one, other, seed)
    for name, bundle in bundles.items():
        (top / str(version) / f"{name}-info").write_text(json.dumps(_info(name, bundle, root)))
    groups = "".join(f"[{name}]\ngroup={name}\n\n" for name in sorted(bundles))
    (top / str(version) / "groups.ini").write_text(groups)
    say(f"Version {version} has {len(bundles)} bundles, which list {sum(map(len, root.lists.values()))} paths")


def _name_version(version: int, root: Root) -> None:
    root.write(CORE, "/usr/share/clear/version", f"{version}")
    root.write(CORE, "/usr/share/clear/versionstamp", f"{EPOCH + version * DAY_SECONDS}")
    lines = root.place(OS_RELEASE).read_text().splitlines()
    kept = [line for line in lines if not line.startswith(("VERSION_ID=", "ID="))]
    root.write(CORE, OS_RELEASE, "\n".join([*kept, "ID=mix", f"VERSION_ID={version}", "BUILD_ID=0", ""]))


def _scripted_first(root: Root, one: str, other: str, seed: bytes) -> None:
    """What the second version deletes, renames, changes the type or mode of, or moves to another bundle."""
    top = "/usr/share/scripted"
    root.write(one, f"{top}/to-delete.txt", "delete me\n" * 50)
    root.write(one, f"{top}/file-to-link", "I am a file\n")
    root.link(one, f"{top}/link-to-file", "file-to-link")
    root.write(one, f"{top}/mode-change", "#!/bin/sh\necho hi\n")
    root.write(one, f"{top}/emptied/.keep", "")
    root.write(one, f"{top}/moves-bundle", "moves from one bundle to another\n" * 20)
    root.write(other, f"{top}/lib.so.1.2", seed[:400_000])
    root.write(other, f"{top}/pure-rename-a", seed[400_000:700_000])


def _scripted_second(root: Root, one: str, other: str, seed: bytes) -> None:
    top = "/usr/share/scripted"
    root.link(one, f"{top}/file-to-link", "mode-change")
    root.write(one, f"{top}/link-to-file", "now a file\n")
    root.write(one, f"{top}/mode-change", "#!/bin/sh\necho hi\n", 0o755)
    root.write(one, f"{top}/added.txt", "new file\n" * 100)
    root.write(other, f"{top}/moves-bundle", "moves from one bundle to another\n" * 20)
    changed = bytearray(seed[:400_000])
    changed[1_000:1_100] = b"Z" * 100
    changed[200_000:200_000] = b"inserted" * 40
    root.write(other, f"{top}/lib.so.1.3", bytes(changed))
    root.write(other, f"{top}/pure-renamed-b", seed[400_000:700_000])


def _info(name: str, bundle: Bundle, root: Root) -> dict[str, object]:
    """A bundle as the original builder writes it."""
    packages = dict.fromkeys(bundle.packages, True)
    header = {"Title": name, "Description": name, "Status": "Active", "Capabilities": "", "Maintainer": "bench"}
    return {
        "Name": name,
        "Filename": name,
        "Header": header,
        "DirectIncludes": bundle.includes,
        "OptionalIncludes": bundle.optional,
        "DirectPackages": packages,
        "AllPackages": packages,
        "Files": {path: flag for path, flag in sorted(root.lists[name].items()) if os.path.lexists(root.place(path))},
    }
