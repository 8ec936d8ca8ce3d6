"""A prepared tree of real files → versions 10 and 20 → served, installed, updated; all that is published is checked."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from swupd.formats import archive, filehash, signature
from swupd.formats.manifest import Manifest, parse

PROGRAMS = Path(sys.executable).parent
BUNDLES = {
    "os-core": {"includes": [], "from": ("/usr/bin", 40, 200_000)},
    "libraries": {"includes": ["os-core"], "from": ("/usr/lib/x86_64-linux-gnu", 40, 600_000)},
    "documents": {"includes": ["libraries"], "from": ("/usr/share/doc", 200, 100_000)},
}
"""Bundle -> what of this machine it is made of: a directory, how many files at most, bytes of the largest."""

pytestmark = [
    pytest.mark.system,
    pytest.mark.timeout(600),
    pytest.mark.skipif(os.geteuid() != 0, reason="file owners are part of an OS: needs root"),
]


def run(*argv: str | Path, expect: int = 0) -> str:
    done = subprocess.run([str(a) for a in argv], capture_output=True, text=True, check=False)
    assert done.returncode == expect, f"{argv}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def sample(directory: str, count: int, largest: int) -> list[str]:
    """Real files and links of this machine."""
    found: list[str] = []
    for entry in filehash.walk(directory):
        is_small = entry.status.st_size <= largest
        if Path(entry.path).is_symlink() or (Path(entry.path).is_file() and is_small):
            found.append(entry.path)
        if len(found) == count:
            break
    return found


def put(root: Path, path: str, data: bytes) -> None:
    target = root / path[1:]
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(data)


def prepare(directory: Path, version: int, files: dict[str, set[str]]) -> None:
    """Write the lists of a version whose root is complete."""
    root = directory / str(version) / "full"
    for name, listed in files.items():
        put(root, f"/usr/share/clear/bundles/{name}", b"")
        listed.add(f"/usr/share/clear/bundles/{name}")
    put(root, "/usr/lib/os-release", f'PRETTY_NAME="Tree"\nVERSION_ID={version}\n'.encode())
    put(root, "/usr/share/clear/versionstamp", f"{1700000000 + version}".encode())
    put(root, "/usr/share/defaults/swupd/format", b"30")
    own = ("/usr/lib/os-release", "/usr/share/clear/versionstamp", "/usr/share/defaults/swupd/format")
    files["os-core"] |= set(own)
    for name, paths in files.items():
        parents = {str(parent) for path in paths for parent in Path(path).parents} - {"/"}
        exported = {path: path.startswith("/usr/bin/") for path in sorted(paths | parents)}
        includes = BUNDLES[name]["includes"] if name in BUNDLES else ["os-core"]
        info = {"Name": name, "DirectIncludes": includes, "OptionalIncludes": None, "Files": exported}
        (root.parent / f"{name}-info").write_text(json.dumps(info))
    (root.parent / "groups.ini").write_text("".join(f"[{name}]\ngroup={name}\n\n" for name in sorted(files)))


def make_10(directory: Path) -> dict[str, set[str]]:
    root = directory / "10/full"
    files: dict[str, set[str]] = {}
    for name, bundle in BUNDLES.items():
        files[name] = set(sample(*bundle["from"]))  # type: ignore[misc]
        for path in files[name]:
            target = root / path[1:]
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, target, follow_symlinks=False)
    special = {
        "/usr/bin/setuid": 0o4755,
        "/usr/share/odd/back\\x2dslash.slice": 0o644,
        "/usr/share/odd/name with é": 0o600,
        "/usr/share/odd/becomes-a-link": 0o644,
        "/usr/share/odd/moves": 0o644,
        "/usr/share/odd/goes": 0o644,
        "/usr/share/odd/tree/file": 0o644,
    }
    for path, mode in special.items():
        put(root, path, path.encode())
        (root / path[1:]).chmod(mode)
    os.chown(root / "usr/share/odd/name with é", 1234, 4321)
    files["documents"] |= set(special)
    prepare(directory, 10, files)
    return files


def make_20(directory: Path, files: dict[str, set[str]]) -> None:
    """Version 20: changes of every kind, a bundle more and a bundle less."""
    (directory / "20").mkdir()
    run("cp", "-a", directory / "10/full", directory / "20/full")
    root = directory / "20/full"
    odd = root / "usr/share/odd"
    (odd / "becomes-a-link").unlink()
    (odd / "becomes-a-link").symlink_to("name with é")
    (odd / "goes").unlink()
    (odd / "tree/file").unlink()
    (odd / "tree").rmdir()
    put(root, "/usr/share/odd/tree", b"now a file")
    (root / "usr/bin/setuid").chmod(0o755)
    put(root, "/usr/bin/new", b"new")
    for path in sorted(files["libraries"])[:10]:
        target = root / path[1:]
        if target.is_file() and not target.is_symlink():
            target.write_bytes(target.read_bytes() + b"\0changed")
    files["documents"] -= {"/usr/share/odd/goes", "/usr/share/odd/tree/file", "/usr/share/odd/moves"}
    files["documents"] |= {"/usr/share/odd/tree"}
    files["new"] = {"/usr/bin/new", "/usr/share/odd/moves"}
    prepare(directory, 20, files)


class Mix:
    def __init__(self, directory: Path) -> None:
        self.trees = directory / "trees"
        self.path = directory / "mix"
        self.www = self.path / "update/www"
        self.run("init", "--source", "tree", "--tree-path", self.trees)

    def run(self, *arguments: str | Path) -> str:
        return run(PROGRAMS / "mixer", "--workspace", self.path, *arguments)

    def build(self, version: int) -> str:
        self.run("versions", "update", "--mix-version", str(version))
        return self.run("build", "all")

    def manifest(self, version: int, name: str) -> Manifest:
        data = (self.www / f"{version}/Manifest.{name}").read_bytes()
        return parse(data, name=name, is_mom=name == "MoM")

    def snapshot(self) -> dict[str, bytes]:
        return {str(path.relative_to(self.www)): path.read_bytes() for path in self.www.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def mix(tmp_path_factory: pytest.TempPathFactory) -> Mix:
    """Versions 10 and 20, published."""
    top = tmp_path_factory.mktemp("tree-mix")
    mix = Mix(top)
    files = make_10(mix.trees)
    make_20(mix.trees, files)
    mix.build(10)
    mix.build(20)
    return mix


@pytest.fixture
def url(mix: Mix) -> Iterator[str]:
    argv = [PROGRAMS / "mixer", "--workspace", mix.path, "serve", "--port", "0"]
    with subprocess.Popen([str(a) for a in argv], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield process.stdout.readline().split()[-1]
        process.send_signal(signal.SIGTERM)
        process.stdout.read()
        assert process.wait(10) == 0


@pytest.mark.parametrize("version", [10, 20])
def test_every_entry_has_a_fullfile_that_unpacks_to_its_hash(mix: Mix, version: int) -> None:
    checked = set()
    for line in mix.manifest(version, "MoM").entries:
        for entry in mix.manifest(line.version, line.name).entries:
            name = f"{entry.version}/files/{entry.hash}.tar"
            if entry.is_present and name not in checked:
                with (mix.www / name).open("rb") as source:
                    member, chunks = archive.read_fullfile(source, entry.hash)
                    assert archive.object_hash(member, chunks) == entry.hash
                checked.add(name)
    assert len(checked) > 200


@pytest.mark.parametrize("version", [10, 20])
def test_every_zero_pack_has_exactly_the_present_entries(mix: Mix, version: int) -> None:
    for line in mix.manifest(version, "MoM").entries:
        present = {entry.hash for entry in mix.manifest(line.version, line.name).entries if entry.is_present}
        with (mix.www / f"{line.version}/pack-{line.name}-from-0.tar").open("rb") as source:
            found = {
                archive.object_hash(member, [data.read()])
                for member, data in archive.read_members(source, archive.PACK_LIMITS)
                if member.name.startswith("staged/")
            }
        assert found == present


@pytest.mark.parametrize("version", [10, 20])
def test_manifests_signatures_and_latest_files_fit_together(mix: Mix, version: int) -> None:
    trusted = signature.load_certificates((mix.path / "Swupd_Root.pem").read_bytes())
    mom = mix.www / f"{version}/Manifest.MoM"
    signature.verify(mom.read_bytes(), Path(f"{mom}.sig").read_bytes(), trusted)
    for name in ("latest_version", "format30/latest"):
        path = mix.www / "version" / name
        assert path.read_text() == "20"
        signature.verify(path.read_bytes(), Path(f"{path}.sig").read_bytes(), trusted)
    for line in mix.manifest(version, "MoM").entries:
        data = (mix.www / f"{line.version}/Manifest.{line.name}").read_bytes()
        assert filehash.hash_content(0o100644, 0, 0, data) == line.hash
        tar = (mix.www / f"{line.version}/Manifest.{line.name}.tar").read_bytes()
        assert archive.read_manifest_tar(tar, line.name) == {f"Manifest.{line.name}": data}


def test_stock_tools_read_what_is_published(mix: Mix) -> None:
    pack = mix.www / "20/pack-os-core-from-0.tar"
    listing = run("sh", "-c", f"zstd -dc < {pack} | tar -t").split()
    assert listing[:2] == ["delta/", "staged/"]
    mom = mix.www / "20/Manifest.MoM"
    verify = ("openssl", "smime", "-verify", "-binary", "-inform", "DER", "-purpose", "any", "-content", mom)
    run(*verify, "-in", f"{mom}.sig", "-CAfile", mix.path / "Swupd_Root.pem", "-out", "/dev/null")


def test_changes_have_the_new_version_and_the_rest_keeps_its_own(mix: Mix) -> None:
    documents = {entry.name: entry for entry in mix.manifest(20, "documents").entries}
    old = {entry.name: entry for entry in mix.manifest(10, "documents").entries}

    assert documents["/usr/share/odd/goes"].is_deleted
    assert documents["/usr/share/odd/tree/file"].is_deleted
    assert documents["/usr/share/odd/moves"].is_deleted
    assert documents["/usr/share/odd/becomes-a-link"].flags == "L..."
    assert documents["/usr/share/odd/tree"].flags == "F..."
    changed = {name for name, entry in documents.items() if entry.version == 20}
    assert len(changed) == 6
    assert all(documents[name] == old[name] for name in documents.keys() - changed)
    new = {entry.name for entry in mix.manifest(20, "new").entries}
    assert {"/usr/bin/new", "/usr/share/odd/moves"} <= new


def test_building_the_same_version_again_leaves_the_same_bytes(mix: Mix) -> None:
    before = mix.snapshot()

    output = mix.run("build", "all")

    assert mix.snapshot() == before
    assert "0 bytes of their content compressed now" in output


def test_a_build_from_nothing_has_the_same_content(mix: Mix, tmp_path: Path) -> None:
    other = Mix(tmp_path)
    other.trees.symlink_to(mix.trees)
    for name in ("Swupd_Root.pem", "private.pem"):
        shutil.copy(mix.path / name, other.path / name)
    other.build(10)
    other.build(20)

    def unsigned(snapshot: dict[str, bytes]) -> dict[str, bytes]:
        """What depends on the time of no signature."""
        signed = (".sig", "MoM.tar", "/checksums")
        return {name: data for name, data in snapshot.items() if not name.endswith(signed)}

    assert unsigned(other.snapshot()) == unsigned(mix.snapshot())


def assert_installed(root: Path, mix: Mix, version: int, bundles: set[str]) -> None:
    """Every path of these bundles is in the root as the tree has it, and nothing else of the mix is."""
    wanted: dict[str, str] = {}
    known: set[str] = set()
    for published in (10, 20):
        for line in mix.manifest(published, "MoM").entries:
            for entry in mix.manifest(line.version, line.name).entries:
                known.add(entry.name)
                if published == version and line.name in bundles and entry.is_present:
                    wanted[entry.name] = entry.hash
    for name, file_hash in wanted.items():
        assert filehash.hash_path(f"{root}{name}") == file_hash, name
        assert filehash.hash_path(f"{mix.trees}/{version}/full{name}") == file_hash, name
    left = {name for name in known - wanted.keys() if os.path.lexists(f"{root}{name}")}
    assert left == set()


def test_what_was_published_installs_and_updates(mix: Mix, url: str, tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    common = ["--statedir", tmp_path / "state", "--certpath", mix.path / "Swupd_Root.pem", "--path", root]
    common += ["--url", url, "--allow-insecure-http", "--ignore-time", "--format", "30", "--no-scripts"]

    def swupd(command: str, *arguments: str, expect: int = 0) -> str:
        return run(PROGRAMS / "swupd", command, *arguments, *common, expect=expect)

    swupd("os-install", "--version", "10", "--bundles", "documents")
    assert_installed(root, mix, 10, {"os-core", "libraries", "documents"})
    swupd("update")
    assert_installed(root, mix, 20, {"os-core", "libraries", "documents"})
    swupd("bundle-add", "new")
    assert_installed(root, mix, 20, {"os-core", "libraries", "documents", "new"})
    swupd("diagnose")
