"""Checks of real published versions: as they were made, and damaged in every way that can be thought of."""

from __future__ import annotations

import dataclasses
import gzip
import io
import random
import shutil
import tarfile
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography.x509 import load_pem_x509_certificate

from mixer.check import content
from mixer.check.findings import CheckResult
from mixer.check.version import check_version
from mixer.deltamanifests import build_delta_manifests
from mixer.engine import InProcess, open_engine
from mixer.errors import BuildError
from mixer.manifests import manifest_hash
from mixer.places import LocalDirectory
from mixer.release import Signer
from mixer.store import PublishedTree
from mixer.updates import Span
from swupd.errors import SignatureError
from swupd.formats import archive, delta, gzipped, layout, signature, updateindex
from swupd.formats.archive import Member, ObjectType
from swupd.formats.filehash import hash_content
from swupd.formats.manifest import Entry, Manifest, parse, serialise
from swupd.report import TextReport

Mix = Any
Certificate = tuple[bytes, bytes]

EXAMPLE = Path(__file__).parents[3] / "interop" / "example.tar.xz"
NUMBERS = random.Random(7)
TEXT = " ".join(str(NUMBERS.randrange(1000)) for _ in range(2000))
EDITED = TEXT.replace(" 7", " seven ")
NOISE = NUMBERS.randbytes(3000)


@pytest.fixture(scope="module")
def built() -> dict[str, Path]:
    """The tree that all tests begin with, once the first one has built it."""
    return {}


@pytest.fixture
def www(mix: Mix, built: dict[str, Path], tmp_path_factory: pytest.TempPathFactory, tmp_path: Path) -> Path:
    """Versions 10 and 20 with packs and deltas of all kinds, to be damaged; bundle "same" is of version 10 in both."""
    if not built:
        old = {
            "os-core": {"/usr/bin/sh": TEXT, "/usr/share/doc/a.gz": gzip.compress(TEXT.encode(), 9, mtime=0)},
            "b": {"/usr/bin/b": f"b {TEXT}", "/usr/share/moved": f"moved {TEXT}", "/usr/share/same": "same"},
            "same": {"/usr/bin/same": f"same {TEXT}"},
        }
        new = {
            "os-core": {"/usr/bin/sh": EDITED, "/usr/share/doc/a.gz": gzip.compress(EDITED.encode(), 9, mtime=0)},
            "b": {"/usr/bin/b": f"b {EDITED}", "/usr/share/moved-2": f"moved {TEXT}", "/usr/share/same": "same"},
            "same": {"/usr/bin/same": f"same {TEXT}"},
            "new": {"/usr/bin/new": NOISE},
        }
        for version, bundles in ((10, old), (20, new)):
            mix.version(version, bundles)
            mix.build()
        mix.delta_packs()
        build_delta_manifests(mix.workspace, mix.config, TextReport(), Span(), workers=1, sign=True)
        built["www"] = tmp_path_factory.mktemp("built") / "www"
        shutil.copytree(mix.www, built["www"])
    return Path(shutil.copytree(built["www"], tmp_path / "www"))


@pytest.fixture
def unlisted(www: Path) -> Path:
    """The same without checksums, which would find everything."""
    for path in www.glob("*/checksums*"):
        path.unlink()
    return www


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, bytes]:
    """The tree that the original's tools have made, and its certificate; skips when that is not valid."""
    directory = tmp_path_factory.mktemp("example")
    with tarfile.open(EXAMPLE) as packed:
        for member in packed:
            if member.isfile():
                member.mode = 0o644
                packed.extract(member, directory, set_attrs=False)
    pem = (directory / "Swupd_Root.pem").read_bytes()
    certificate = load_pem_x509_certificate(pem)
    if not certificate.not_valid_before_utc <= datetime.now(UTC) <= certificate.not_valid_after_utc:
        pytest.skip("by this machine's clock the example's certificate is not valid")
    return directory / "web-dir", pem


def check(www: Path, certificate: bytes | None = None, version: int = 20) -> CheckResult:
    return check_version(PublishedTree(LocalDirectory(www)), version, certificate, InProcess(), TextReport(quiet=True))


def wrong(www: Path, certificate: bytes | None = None, version: int = 20) -> dict[str, str]:
    """File -> what is wrong with it."""
    return {problem.file: problem.what for problem in check(www, certificate, version).problems}


def flip(path: Path, position: int) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= 0xFF
    path.write_bytes(data)


def manifest(www: Path, version: int, bundle: str) -> Manifest:
    return parse((www / layout.manifest(version, bundle)).read_bytes(), name=bundle, is_mom=bundle == layout.MOM)


def entry(www: Path, bundle: str, path: str, version: int = 20) -> Entry:
    return next(entry for entry in manifest(www, version, bundle).entries if entry.name == path and entry.is_present)


def write_manifest(www: Path, version: int, bundle: str, changed: Manifest) -> None:
    """Publish another manifest, with an archive and a MoM that fit to it; no signatures do."""
    file, name = www / layout.manifest(version, bundle), layout.manifest_name(bundle)
    data = serialise(changed, name=bundle)
    file.write_bytes(data)
    contents = {name: data}
    if bundle == layout.MOM:
        contents[f"{name}.sig"] = file.with_name(f"{name}.sig").read_bytes()
    file.with_name(f"{name}.tar").write_bytes(archive.manifest_tar(contents, 0))
    if bundle not in layout.RESERVED_NAMES:
        mom = manifest(www, version, layout.MOM)
        lines = (line._replace(hash=manifest_hash(data)) if line.name == bundle else line for line in mom.entries)
        write_manifest(www, version, layout.MOM, dataclasses.replace(mom, entries=tuple(lines)))


def change_entry(www: Path, bundle: str, old: Entry, *new: Entry) -> None:
    before = manifest(www, 20, bundle)
    entries = tuple(each for entry in before.entries for each in (new if entry == old else (entry,)))
    write_manifest(www, 20, bundle, dataclasses.replace(before, entries=entries))


def members(pack: Path) -> dict[str, tuple[Member, bytes]]:
    with pack.open("rb") as source:
        return {
            member.name: (member, data.read())
            for member, data in archive.read_members(source, archive.PACK_LIMITS)
            if "/" in member.name
        }


def write_pack(pack: Path, contents: Mapping[str, tuple[Member, bytes]]) -> None:
    with pack.open("wb") as target:
        archive.write_pack(target, [(member, [data] if data else []) for member, data in contents.values()])


def write_signed(path: Path, data: bytes, certificate: Certificate) -> None:
    path.write_bytes(data)
    path.with_name(f"{path.name}.sig").write_bytes(Signer(*certificate).sign(data))


def hard_links(contents: Mapping[str, tuple[Member, bytes]]) -> bytes:
    """A pack as tarfile writes it, which knows hard links."""
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w") as pack:
        for name, (member, data) in contents.items():
            header = tarfile.TarInfo(name)
            header.size, header.mode = len(data), member.mode & 0o7777
            if member.link_to is not None:
                header.type, header.linkname, header.size = tarfile.LNKTYPE, member.link_to, 0
            elif member.type is ObjectType.DIRECTORY:
                header.type = tarfile.DIRTYPE
            pack.addfile(header, io.BytesIO(data))
    return target.getvalue()


def file_member(name: str, data: bytes, mode: int = 0o100644) -> tuple[Member, bytes]:
    return Member(name, ObjectType.FILE, mode, 0, 0, len(data)), data


def delta_to(old: bytes, new: bytes, mode: int = 0o100644) -> bytes:
    """A sound container: nothing of the old file is used."""
    return delta.encode(len(old), [(0, len(new), 0)], b"", new, mode=mode, uid=0, gid=0)


# -- versions as they were made ----------------------------------------------------------------------------------------


def test_a_version_as_it_was_built_has_no_problem_and_no_note(www: Path, certificate: Certificate) -> None:
    result = check(www, certificate[0])

    assert (result.problems, result.notes) == ((), ())
    fullfiles = {
        (entry.version, entry.hash)
        for line in manifest(www, 20, layout.MOM).entries
        for entry in manifest(www, line.version, line.name).entries
        if entry.is_present
    }
    packs = [path for path in (www / "20").glob("*.tar") if "-from-" in path.name]
    assert result.checked.fullfiles == len(fullfiles)
    assert result.checked.packs == len(packs) == 6
    assert result.checked.members == sum(len(members(path)) for path in packs)
    assert result.checked.manifests == 2 * len(("MoM", "full", "os-core", "b", "same", "new"))
    assert result.checked.signatures == len(("MoM", "in its archive", "latest", "latest_version", "index", "checksums"))
    deltas = {name: data for path in packs for name, data in members(path).items() if not name.startswith("staged/")}
    delta_manifests = list((www / "20").glob("Manifest-*"))
    assert any(name.startswith("gzip/") for name in deltas)
    assert delta_manifests
    assert result.checked.deltas == len(deltas) + len(delta_manifests)
    assert result.checked.checksums == sum(path.is_file() for path in (www / "20").rglob("*")) - 2


def test_the_version_before_is_checked_as_well(www: Path, certificate: Certificate) -> None:
    result = check(www, certificate[0], version=10)

    assert (result.problems, result.notes) == ((), ())
    assert result.checked.packs == 3


def test_worker_processes_find_the_same(www: Path) -> None:
    flip(next((www / "20/files").iterdir()), -9)
    with open_engine("", workers=2) as engine:
        tree = PublishedTree(LocalDirectory(www))
        assert check_version(tree, 20, None, engine, TextReport(quiet=True)) == check(www)


def test_large_fullfiles_are_streamed(www: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(content, "LARGE_BYTES", 200)
    clean = check(www)
    broken = max((www / "20/files").iterdir(), key=lambda path: path.stat().st_size)
    broken.write_bytes(broken.read_bytes()[:-5])

    assert clean.problems == ()
    assert f"20/files/{broken.name}: the zstd data ends in the middle" in map(str, check(www).problems)


@pytest.mark.parametrize("version", [10, 20])
def test_what_the_original_has_made_has_no_problem(example: tuple[Path, bytes], version: int) -> None:
    www, pem = example

    result = check(www, pem, version)

    assert result.problems == ()
    assert [note.file for note in result.notes] == [f"{version}/Manifest.full", f"{version}/files"]
    assert result.checked.deltas == {10: 0, 20: 58}[version]


def test_damage_to_what_the_original_has_made_is_found(example: tuple[Path, bytes], tmp_path: Path) -> None:
    www, pem = Path(shutil.copytree(example[0], tmp_path / "www")), example[1]
    damaged = ["Manifest.libs", "Manifest.docs.tar", "pack-libs-from-0.tar", "pack-docs-from-10.tar"]
    damaged += ["Manifest-editors-delta-from-10", f"delta/{min(path.name for path in (www / '20/delta').iterdir())}"]
    damaged += [f"files/{path.name}" for path in sorted((www / "20/files").glob("*.tar"))[:3]]
    for name in damaged:
        flip(www / "20" / name, (www / "20" / name).stat().st_size // 2)

    assert {f"20/{name}" for name in damaged} <= wrong(www, pem).keys()


# -- any byte ----------------------------------------------------------------------------------------------------------


def named(www: Path, certificate: bytes, file: str) -> bool:
    return any(file == problem.file or file in problem.what for problem in check(www, certificate).problems)


KINDS = [
    *("version/latest_version", "version/latest_version.sig", "version/format30/first"),
    *("version/format30/latest", "version/format30/latest.sig"),
    *("20/checksums", "20/checksums.sig", "20/format", "20/mixer-src-version"),
    *("20/Manifest.MoM", "20/Manifest.MoM.sig", "20/Manifest.MoM.tar"),
    *("20/Manifest.full", "20/Manifest.full.tar", "20/Manifest.b", "20/Manifest.b.tar"),
    *("10/Manifest.same", "10/Manifest.same.tar"),
    *("20/pack-b-from-0.tar", "20/pack-b-from-10.tar", "20/update-from-10.tar"),
    *("20/update-index", "20/update-index.sig", "20/Manifest-os-core-delta-from-10"),
]


@pytest.mark.parametrize("file", [*KINDS, "the fullfile of b", "the fullfile of same"])
def test_one_changed_byte_names_the_file(www: Path, certificate: Certificate, file: str) -> None:
    if file.startswith("the fullfile"):
        bundle = file.rpartition(" ")[2]
        version = {"b": 20, "same": 10}[bundle]
        file = layout.fullfile(version, entry(www, bundle, f"/usr/bin/{bundle}", version).hash)
    size = (www / file).stat().st_size
    for position in sorted({0, min(20, size - 1), size // 2, size - 1}):
        flip(www / file, position)
        assert named(www, certificate[0], file), position
        flip(www / file, position)


def test_a_changed_byte_anywhere_in_the_directory_names_the_file(www: Path, certificate: Certificate) -> None:
    numbers = random.Random(1)
    files = [path for path in sorted((www / "20").rglob("*")) if path.is_file() and path.name != "checksums.sig"]
    for _ in range(100):
        path = numbers.choice(files)
        position = numbers.randrange(path.stat().st_size)
        flip(path, position)
        assert named(www, certificate[0], str(path.relative_to(www))), (path, position)
        flip(path, position)


def test_a_file_that_is_cut_off_or_missing_is_named(www: Path, certificate: Certificate) -> None:
    for path in sorted(www.glob("20/*")) + sorted(www.glob("version/**/*")):
        if not path.is_file() or path.name == "first":
            continue
        data = path.read_bytes()
        file = str(path.relative_to(www))
        path.write_bytes(data[: len(data) // 2])
        assert named(www, certificate[0], file), file
        path.unlink()
        assert named(www, certificate[0], file), file
        path.write_bytes(data)
    assert check(www, certificate[0]).problems == ()


def test_everything_that_is_wrong_is_listed_at_once(unlisted: Path, certificate: Certificate) -> None:
    damaged = ["20/Manifest.b", "20/pack-new-from-0.tar", "10/Manifest.same.tar", "20/format", "20/update-index"]
    for file in damaged:
        flip(unlisted / file, 1)
    removed = layout.fullfile(20, entry(unlisted, "new", "/usr/bin/new").hash)
    (unlisted / removed).unlink()

    assert {*damaged, removed} <= wrong(unlisted, certificate[0]).keys()


# -- meaning: nothing here has checksums -------------------------------------------------------------------------------


def test_a_manifest_that_the_mom_does_not_name_is_found_in_either_copy(unlisted: Path) -> None:
    other = serialise(dataclasses.replace(manifest(unlisted, 20, "b"), timestamp=5), name="b")
    plain, tar = unlisted / "20/Manifest.b", unlisted / "20/Manifest.b.tar"
    before = plain.read_bytes()

    plain.write_bytes(other)
    assert wrong(unlisted) == {"20/Manifest.b": "is not the one that Manifest.MoM of version 20 names"}
    plain.write_bytes(before)
    tar.write_bytes(archive.manifest_tar({"Manifest.b": other}, 0))
    assert wrong(unlisted) == {"20/Manifest.b.tar": "is not the one that Manifest.MoM of version 20 names"}


def test_the_check_goes_on_with_the_copy_that_is_right(unlisted: Path, certificate: Certificate) -> None:
    clean = check(unlisted, certificate[0])
    flip(unlisted / "20/Manifest.b", 100)
    flip(unlisted / "20/Manifest.MoM", 100)

    result = check(unlisted, certificate[0])

    assert {problem.file for problem in result.problems} == {"20/Manifest.b", "20/Manifest.MoM.sig", "20/Manifest.MoM"}
    assert dataclasses.replace(result.checked, bytes=0) == dataclasses.replace(clean.checked, bytes=0)


def test_a_mom_of_another_version_is_refused(unlisted: Path, certificate: Certificate) -> None:
    for path in (unlisted / "10").glob("Manifest.MoM*"):
        shutil.copy(path, unlisted / "20")

    found = wrong(unlisted, certificate[0])

    assert found == dict.fromkeys(["20/Manifest.MoM", "20/Manifest.MoM.tar"], "belongs to version 10")


def test_two_moms_that_differ_are_a_problem_also_without_signatures(unlisted: Path) -> None:
    changed = serialise(dataclasses.replace(manifest(unlisted, 20, layout.MOM), timestamp=5))
    (unlisted / "20/Manifest.MoM").write_bytes(changed)

    assert "does not hold the same" in wrong(unlisted)["20/Manifest.MoM.tar"]


def test_a_stale_signature_is_a_problem(unlisted: Path, certificate: Certificate) -> None:
    for file in ("20/Manifest.MoM", "20/update-index", "version/latest_version"):
        before = (unlisted / file).read_bytes()
        write_signed(unlisted / file, b"other", certificate)
        (unlisted / file).write_bytes(before)

    found = wrong(unlisted, certificate[0])

    assert found.keys() == {"20/Manifest.MoM.sig", "20/update-index.sig", "version/latest_version.sig"}
    assert "the signature is for other data" in found["version/latest_version.sig"]


def test_a_signature_without_its_certificate_is_a_problem(unlisted: Path, certificate: Certificate) -> None:
    # Somebody's subject is changed in the certificate that the signature carries.
    path = unlisted / "version/latest_version.sig"
    data = path.read_bytes()
    at = data.index(b"Test", data.index(b"Test") + 4)
    path.write_bytes(data[:at] + b"Best" + data[at + 4 :])

    assert "certificate of its signer" in wrong(unlisted, certificate[0])["version/latest_version.sig"]


def test_another_publishers_signatures_are_problems(unlisted: Path) -> None:
    stranger = signature.make_certificate("Stranger", 10, datetime.now(UTC))[0]

    found = wrong(unlisted, stranger)

    assert {file for file in found if file.endswith(".sig")} == found.keys() - {"20/Manifest.MoM.tar"}
    assert len(found) == 5


def test_without_a_certificate_signatures_are_left_out(unlisted: Path) -> None:
    flip(unlisted / "version/latest_version.sig", 0)
    (unlisted / "20/update-index.sig").unlink()

    result = check(unlisted)

    assert (result.problems, result.notes, result.checked.signatures) == ((), (), 0)


def test_an_unsigned_version_lacks_signatures_if_there_is_a_certificate(mix: Mix, certificate: Certificate) -> None:
    mix.build(sign=False)

    assert check(mix.www, version=10).problems == ()
    found = wrong(mix.www, certificate[0], version=10)
    assert found["10/Manifest.MoM.sig"] == "is missing"
    assert found["version/latest_version.sig"] == "is missing"


@pytest.mark.parametrize(
    ("number", "what"), [("30", "a version that is not there"), ("10", "no client finds"), ("x", "not a number")]
)
def test_the_latest_files_lead_to_the_version(unlisted: Path, certificate: Certificate, number: str, what: str) -> None:
    for file in ("version/latest_version", "version/format30/latest"):
        write_signed(unlisted / file, number.encode(), certificate)

    found = wrong(unlisted, certificate[0])

    assert found.keys() == {"version/latest_version", "version/format30/latest"}
    assert what in found["version/format30/latest"]


def test_an_older_version_need_not_be_the_latest(www: Path, certificate: Certificate) -> None:
    assert "version/latest_version" not in wrong(www, certificate[0], version=10)


def test_another_format_is_a_problem(unlisted: Path) -> None:
    (unlisted / "20/format").write_text("29")

    assert wrong(unlisted) == {"20/format": "is not the format of the version, 30"}


def test_an_included_bundle_has_to_be_there(unlisted: Path) -> None:
    changed = dataclasses.replace(manifest(unlisted, 20, "b"), includes=("os-core", "gone"))
    write_manifest(unlisted, 20, "b", changed)

    assert wrong(unlisted)["20/Manifest.b"] == "includes bundle gone, which version 20 does not have"


def test_nothing_is_of_a_later_version(unlisted: Path) -> None:
    old = entry(unlisted, "b", "/usr/bin/b")
    change_entry(unlisted, "b", old, old._replace(version=30))
    mom = manifest(unlisted, 20, layout.MOM)
    later = tuple(line._replace(version=40) if line.name == "new" else line for line in mom.entries)
    write_manifest(unlisted, 20, layout.MOM, dataclasses.replace(mom, entries=later))

    found = wrong(unlisted)

    assert found["20/Manifest.b"] == "has 1 path of later versions, such as /usr/bin/b"
    assert found["20/Manifest.MoM"] == "has bundle new in the later version 40"


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda entry: (), "lacks 1 path"),
        (lambda entry: (entry._replace(hash="5" * 64),), "has other objects at 1 path"),
        (lambda entry: (entry._replace(flags="L..."),), "has other objects at 1 path"),
        (lambda entry: (entry._replace(version=10),), "has old versions of 1 path"),
    ],
)
def test_the_full_manifest_has_what_bundles_have(
    unlisted: Path, change: Callable[[Entry], tuple[Entry, ...]], what: str
) -> None:
    old = entry(unlisted, layout.FULL, "/usr/bin/b")
    change_entry(unlisted, layout.FULL, old, *change(old))

    assert wrong(unlisted)["20/Manifest.full"] == f"{what} of bundle b, such as /usr/bin/b"


def test_both_copies_of_the_full_manifest_are_the_same(unlisted: Path) -> None:
    shutil.copy(unlisted / "10/Manifest.full.tar", unlisted / "20/Manifest.full.tar")

    assert wrong(unlisted) == {"20/Manifest.full.tar": "does not hold the same as 20/Manifest.full"}


def test_a_missing_fullfile_is_a_problem_in_whatever_version(unlisted: Path) -> None:
    new, old = entry(unlisted, "b", "/usr/bin/b"), entry(unlisted, "same", "/usr/bin/same", version=10)
    for each in (new, old):
        (unlisted / layout.fullfile(each.version, each.hash)).unlink()

    found = wrong(unlisted)

    assert found[layout.fullfile(20, new.hash)] == "is missing: /usr/bin/b of bundle b"
    assert found[layout.fullfile(10, old.hash)] == "is missing: /usr/bin/same of bundle same"


def test_a_fullfile_of_other_content_is_a_problem(unlisted: Path) -> None:
    one, other = entry(unlisted, "b", "/usr/bin/b"), entry(unlisted, "new", "/usr/bin/new")
    forged = unlisted / layout.fullfile(20, one.hash)
    forged.write_bytes(archive.fullfile(*file_member(one.hash, b"forged")))
    shutil.copy(forged, unlisted / layout.fullfile(20, other.hash))

    found = wrong(unlisted)

    assert f"has the hash {hash_content(0o100644, 0, 0, b'forged')}" in found[layout.fullfile(20, one.hash)]
    assert "which the archive is for" in found[layout.fullfile(20, other.hash)]


def test_fullfiles_for_other_processors_are_needed_as_well(unlisted: Path) -> None:
    old = entry(unlisted, "b", "/usr/bin/b")
    change_entry(unlisted, "b", old, old._replace(flags="F.a."), old._replace(flags="F.e.", hash="5" * 64))

    assert wrong(unlisted)[layout.fullfile(20, "5" * 64)] == "is missing: /usr/bin/b of bundle b"


def test_files_that_nobody_asks_for_are_notes(unlisted: Path) -> None:
    hash_of_stranger = hash_content(0o100644, 0, 0, b"stranger")
    stranger = unlisted / layout.fullfile(20, hash_of_stranger)
    stranger.write_bytes(archive.fullfile(*file_member(hash_of_stranger, b"stranger")))
    for name in ("pack-same-from-10.tar", "pack-gone-from-0.tar", "update-from-0.tar", "Manifest-b-delta-from-010"):
        (unlisted / "20" / name).write_text("not looked at")

    result = check(unlisted)

    assert result.problems == ()
    assert [str(note) for note in result.notes] == [
        "20: 4 files that no client of this version asks for, such as 'Manifest-b-delta-from-010'",
        f"20/files: 1 file that no client of this version asks for, such as '{stranger.name}'",
    ]

    stranger.write_bytes(archive.fullfile(*file_member(hash_of_stranger, b"else")))
    assert wrong(unlisted).keys() == {f"20/files/{stranger.name}"}


def test_a_zero_pack_has_each_object_of_its_bundle_and_nothing_else(unlisted: Path) -> None:
    pack = unlisted / "20/pack-b-from-0.tar"
    file_hash = entry(unlisted, "b", "/usr/bin/b").hash
    contents = members(pack)
    taken = contents.pop(f"staged/{file_hash}")
    stranger = hash_content(0o100644, 0, 0, b"stranger")
    contents["stranger"] = file_member(f"staged/{stranger}", b"stranger")
    contents["delta"] = file_member(f"delta/{layout.delta_name(stranger, file_hash)}", b"delta")
    contents["other"] = file_member("other/file", b"file")
    write_pack(pack, contents)

    what = {problem.what for problem in check(unlisted).problems}

    assert taken[1] == f"b {EDITED}".encode()
    assert what == {
        "lacks 1 object, such as that of /usr/bin/b",
        f"'staged/{stranger}' does not belong into this pack",
        f"'delta/{layout.delta_name(stranger, file_hash)}' does not belong into this pack",
        "'other/file' does not belong into this pack",
    }


def test_an_object_in_a_pack_has_the_hash_of_its_name(unlisted: Path) -> None:
    contents = members(unlisted / "20/pack-b-from-0.tar")
    name = f"staged/{entry(unlisted, 'b', '/usr/bin/b').hash}"
    contents[name] = file_member(name, b"forged")
    write_pack(unlisted / "20/pack-b-from-0.tar", contents)

    forged = hash_content(0o100644, 0, 0, b"forged")
    assert wrong(unlisted) == {"20/pack-b-from-0.tar": f"{name} has the hash {forged}"}


def test_a_pack_is_read_to_its_end(unlisted: Path) -> None:
    pack = unlisted / "20/pack-new-from-0.tar"
    pack.write_bytes(pack.read_bytes()[:-4])

    assert "data ends in the middle" in wrong(unlisted)["20/pack-new-from-0.tar"]


def test_the_pack_of_another_bundle_is_refused(unlisted: Path) -> None:
    shutil.copy(unlisted / "20/pack-os-core-from-10.tar", unlisted / "20/pack-b-from-10.tar")

    assert "does not belong into this pack" in wrong(unlisted)["20/pack-b-from-10.tar"]


def test_a_delta_with_a_second_name_is_taken_as_old_servers_made_it(unlisted: Path) -> None:
    old, new = entry(unlisted, "b", "/usr/bin/b", 10).hash, entry(unlisted, "b", "/usr/bin/b").hash
    other = entry(unlisted, "b", "/usr/share/moved-2").hash
    contents = members(unlisted / "20/pack-b-from-10.tar")
    name = f"delta/{layout.delta_name(old, new)}"
    for second in (f"delta/{old}-{new}", f"delta/{old}-{other}", f"staged/{new}"):
        contents[second] = Member(second, ObjectType.FILE, 0o100600, 0, 0, link_to=name), b""
    pack = unlisted / "20/pack-b-from-10.tar"
    pack.write_bytes(hard_links(contents))

    found = {problem.what for problem in check(unlisted).problems if problem.file == "20/pack-b-from-10.tar"}

    assert {what.split(" ")[0] for what in found} == {f"delta/{old}-{other}", f"staged/{new}"}


def test_a_delta_pack_that_lacks_objects_is_no_problem_but_an_update_pack_is(
    unlisted: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    new = entry(unlisted, "b", "/usr/bin/b").hash
    for file in ("20/pack-b-from-10.tar", "20/update-from-10.tar"):
        contents = members(unlisted / file)
        write_pack(unlisted / file, {name: value for name, value in contents.items() if not name.endswith(new)})

    tree = PublishedTree(LocalDirectory(unlisted))
    result = check_version(tree, 20, None, InProcess(), TextReport(verbose=True))

    what = "lacks 1 object, such as that of /usr/bin/b"
    assert ("20/update-from-10.tar", what) in {(problem.file, problem.what) for problem in result.problems}
    assert "20/pack-b-from-10.tar" not in {problem.file for problem in result.problems}
    assert f"20/pack-b-from-10.tar {what}; clients take fullfiles" in capsys.readouterr().out


def test_a_delta_gives_the_object_of_its_name(unlisted: Path) -> None:
    old, new = entry(unlisted, "b", "/usr/bin/b", 10).hash, entry(unlisted, "b", "/usr/bin/b").hash
    contents = members(unlisted / "20/pack-b-from-10.tar")
    name = f"delta/{layout.delta_name(old, new)}"
    contents[name] = file_member(name, delta_to(f"b {TEXT}".encode(), b"forged"))
    write_pack(unlisted / "20/pack-b-from-10.tar", contents)

    forged = hash_content(0o100644, 0, 0, b"forged")
    assert wrong(unlisted)["20/pack-b-from-10.tar"] == f"{name}: gives an object with the hash {forged}"


def test_a_delta_gives_the_mode_of_its_object(unlisted: Path) -> None:
    old, new = entry(unlisted, "b", "/usr/bin/b", 10).hash, entry(unlisted, "b", "/usr/bin/b").hash
    contents = members(unlisted / "20/pack-b-from-10.tar")
    name = f"delta/{layout.delta_name(old, new)}"
    contents[name] = file_member(name, delta_to(f"b {TEXT}".encode(), f"b {EDITED}".encode(), mode=0o104755))
    write_pack(unlisted / "20/pack-b-from-10.tar", contents)

    assert f"{name}: gives an object" in wrong(unlisted)["20/pack-b-from-10.tar"]


def test_a_wrong_delta_is_named_in_each_pack_that_has_it(unlisted: Path) -> None:
    old, new = entry(unlisted, "b", "/usr/bin/b", 10).hash, entry(unlisted, "b", "/usr/bin/b").hash
    name = f"delta/{layout.delta_name(old, new)}"
    for file in ("20/pack-b-from-10.tar", "20/update-from-10.tar"):
        write_pack(unlisted / file, members(unlisted / file) | {name: file_member(name, b"no delta")})

    problems = {(problem.file, problem.what) for problem in check(unlisted).problems}

    assert {
        (file, f"{name}: this is not a delta") for file in ("20/pack-b-from-10.tar", "20/update-from-10.tar")
    } <= problems


def test_a_gzip_delta_gives_the_file_of_its_name(unlisted: Path) -> None:
    contents = members(unlisted / "20/update-from-10.tar")
    name = next(name for name in contents if name.startswith("gzip/"))
    recipe, _ = gzipped.decode(contents[name][1])
    data = gzipped.encode(recipe, delta_to(TEXT.encode(), b"forged"))
    contents[name] = file_member(name, data)
    write_pack(unlisted / "20/update-from-10.tar", contents)

    problems = check(unlisted).problems

    assert any(problem.what.startswith(f"{name}: gives an object with the hash") for problem in problems)


def test_a_delta_from_a_damaged_object_names_the_object(unlisted: Path) -> None:
    old = layout.fullfile(10, entry(unlisted, "b", "/usr/bin/b", 10).hash)
    flip(unlisted / old, -30)

    assert wrong(unlisted).keys() == {old}


def test_deltas_from_a_version_that_is_gone_are_noted(unlisted: Path) -> None:
    for path in (unlisted / "10").glob("Manifest.[!s]*"):
        path.unlink()

    result = check(unlisted)

    assert result.problems == ()
    assert result.checked.deltas == 0
    notes = {note.file: note.what for note in result.notes}
    assert notes["20/Manifest-os-core-delta-from-10"] == "not applied: the old manifest is not in the tree"
    assert "not applied: the old files are not in the tree" in notes["20/update-from-10.tar"]


def test_a_delta_manifest_gives_the_manifest(unlisted: Path) -> None:
    old = (unlisted / "10/Manifest.os-core").read_bytes()
    file = unlisted / "20/Manifest-os-core-delta-from-10"
    new = (unlisted / "20/Manifest.os-core").read_bytes()

    file.write_bytes(delta_to(old, new))
    assert wrong(unlisted) == {}
    file.write_bytes(delta_to(old, new.replace(b"30", b"31", 1)))
    assert wrong(unlisted) == {"20/Manifest-os-core-delta-from-10": "gives another manifest than that of the version"}
    file.write_bytes(delta_to(old, new, mode=0o100600))
    assert "20/Manifest-os-core-delta-from-10" in wrong(unlisted)


Change = Callable[[updateindex.Update], updateindex.Update]


def pack_bytes(update: updateindex.Update) -> int:
    assert update.pack is not None
    return update.pack.bytes


def with_cost(update: updateindex.Update, **values: Any) -> updateindex.Update:
    cost = dataclasses.replace(update.bundles["b"], **values)
    return dataclasses.replace(update, bundles={**update.bundles, "b": cost})


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (
            lambda update: dataclasses.replace(update, pack=updateindex.PackFile(pack_bytes(update), "5" * 64)),
            "20/update-from-10.tar has another SHA-256 than it should have",
        ),
        (lambda update: dataclasses.replace(update, pack=None), "bytes, not no bytes at all"),
        (
            lambda update: dataclasses.replace(update, pack=updateindex.PackFile(1, "5" * 64)),
            "bytes, not 1 byte",
        ),
        (lambda update: with_cost(update, pack=7), "bytes, not 7 bytes"),
        (lambda update: with_cost(update, pack=None), "bytes, not no bytes at all"),
        (
            lambda update: with_cost(update, from_version=9, pack=None),
            "its bundles and their versions are not those that changed",
        ),
        (
            lambda update: dataclasses.replace(update, bundles={**update.bundles, "gone": update.bundles["b"]}),
            "20/pack-gone-from-10.tar has no bytes at all",
        ),
    ],
)
def test_the_index_is_right_about_packs_and_versions(
    unlisted: Path, certificate: Certificate, change: Change, what: str
) -> None:
    index = updateindex.parse((unlisted / "20/update-index").read_bytes())
    changed = dataclasses.replace(index, updates=tuple(map(change, index.updates)))
    write_signed(unlisted / "20/update-index", updateindex.serialise(changed), certificate)

    result = check(unlisted, certificate[0])

    assert {problem.file for problem in result.problems} == {"20/update-index"}
    assert any(what in problem.what for problem in result.problems)


def test_an_index_is_for_its_version(unlisted: Path, certificate: Certificate) -> None:
    index = updateindex.parse((unlisted / "20/update-index").read_bytes())
    write_signed(
        unlisted / "20/update-index", updateindex.serialise(dataclasses.replace(index, version=30)), certificate
    )

    assert wrong(unlisted, certificate[0]) == {"20/update-index": "is of version 30"}


# -- checksums ---------------------------------------------------------------------------------------------------------


def test_checksums_name_exactly_the_files_that_are_there(www: Path, certificate: Certificate) -> None:
    (www / "20/stranger").write_text("stranger")
    (www / "20/mixer-src-version").unlink()

    assert wrong(www, certificate[0]) == {
        "20/stranger": "is not in the checksums",
        "20/mixer-src-version": "is missing, but in the checksums",
    }


def test_unsigned_checksums_blame_nobody(www: Path, certificate: Certificate) -> None:
    path = www / "20/checksums"
    path.write_bytes(path.read_bytes().replace(b"a", b"b"))

    assert wrong(www, certificate[0]).keys() == {"20/checksums.sig"}
    assert "20/checksums" in wrong(www, certificate[0])["20/checksums.sig"]


def test_checksums_that_nobody_can_read_are_a_problem(www: Path) -> None:
    (www / "20/checksums").write_text("not a line\n")

    assert wrong(www) == {"20/checksums": "line 1 is not a checksum"}


# -- what ends a check -------------------------------------------------------------------------------------------------


def test_only_a_version_that_is_there_is_checked(www: Path) -> None:
    with pytest.raises(BuildError, match=f"version 30 is not in {www}"):
        check(www, version=30)
    with pytest.raises(BuildError, match="nothing is published in"):
        check(www / "10", version=0)


def test_a_certificate_that_is_none_is_refused(www: Path) -> None:
    with pytest.raises(SignatureError):
        check(www, b"no certificate")


def test_without_any_mom_what_can_be_is_still_checked(www: Path, certificate: Certificate) -> None:
    for path in (www / "20").glob("Manifest.MoM*"):
        path.unlink()
    flip(www / "20/pack-b-from-0.tar", 30)

    found = wrong(www, certificate[0])

    assert {"20/Manifest.MoM", "20/Manifest.MoM.tar", "20/Manifest.MoM.sig", "20/pack-b-from-0.tar"} <= found.keys()
