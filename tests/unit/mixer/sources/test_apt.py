"""Resolving and fetching with a real apt, from a small signed archive on this disk."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from mixer.config import AptSource, Mirror
from mixer.errors import SourceError, UnknownPackageError
from mixer.sources.apt import AptPackages, PrivateApt
from swupd.report import TextReport

pytestmark = [
    pytest.mark.skipif(not shutil.which("apt-get"), reason="needs apt"),
    pytest.mark.skipif(not shutil.which("gpg"), reason="needs gpg to sign a test archive"),
    pytest.mark.skipif(not shutil.which("mmdebstrap"), reason="needs mmdebstrap, whose version is in the key"),
]

PACKAGES = {
    "shell": "Essential: yes\nDepends: lib",
    "lib": "",
    "tool": "Depends: lib (>= 1), helper | other-helper",
    "helper": "",
    "other-helper": "Provides: assistant",
    "left": "Conflicts: right",
    "right": "",
    "broken": "Depends: lib (>= 2)",
}


class Archive:
    """An archive with one suite, signed by a key made for the test."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.keyring = path / "keyring.gpg"
        self._home = path / "gnupg"
        self._home.mkdir(parents=True, mode=0o700)
        self._gpg("--quick-gen-key", "--passphrase", "", "archive@example.org", "ed25519", "sign", "never")
        self._gpg("--output", str(self.keyring), "--export", "archive@example.org")
        self.lists = path / "dists/stable/main/binary-amd64"
        self.lists.mkdir(parents=True)

    def publish(self, packages: dict[str, str], version: str = "1.0") -> None:
        paragraphs = []
        for name, fields in packages.items():
            file = f"pool/{name}_{version.replace(':', '%3a')}_amd64.deb"
            tree = self.path / "build" / name
            (tree / "DEBIAN").mkdir(parents=True, exist_ok=True)
            control = (
                f"Package: {name}\nVersion: {version}\nArchitecture: amd64\nMaintainer: T <t@example.org>\n{fields}"
            )
            control = control.rstrip()
            (tree / "DEBIAN/control").write_text(f"{control}\nDescription: test\n")
            (self.path / "pool").mkdir(exist_ok=True)
            command = ["dpkg-deb", "-b", tree, self.path / file]
            subprocess.run(command, check=True, capture_output=True, env={**os.environ, "SOURCE_DATE_EPOCH": "1"})
            data = (self.path / file).read_bytes()
            digest = hashlib.sha256(data).hexdigest()
            paragraphs.append(f"{control}\nFilename: {file}\nSize: {len(data)}\nSHA256: {digest}\nDescription: test\n")
        text = "\n".join(paragraphs)
        (self.lists / "Packages").write_text(text)
        digest = hashlib.sha256(text.encode()).hexdigest()
        release = (
            "Suite: stable\nCodename: stable\nArchitectures: amd64\nComponents: main\n"
            f"Date: Sat, 01 Jan 2022 00:00:00 UTC\nSHA256:\n {digest} {len(text)} main/binary-amd64/Packages\n"
        )
        signed = self.path / "dists/stable/InRelease"
        signed.unlink(missing_ok=True)
        (self.path / "Release").write_text(release)
        self._gpg("--output", str(signed), "--clearsign", str(self.path / "Release"))

    def close(self) -> None:
        """End the agent that gpg started for its directory."""
        subprocess.run(["gpgconf", "--homedir", self._home, "--kill", "all"], check=True, capture_output=True)

    def config(self, ids: Path) -> AptSource:
        return AptSource(("stable",), ("main",), (Mirror(f"file:{self.path}"),), self.keyring, "amd64", (), ids)

    def _gpg(self, *arguments: str) -> None:
        command = ["gpg", "--batch", "--quiet", "--homedir", str(self._home), "--pinentry-mode", "loopback", *arguments]
        subprocess.run(command, check=True, capture_output=True)


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Archive]:
    with closing(Archive(tmp_path / "archive")) as archive:
        archive.publish(PACKAGES)
        yield archive


@pytest.fixture
def source(archive: Archive, tmp_path: Path) -> AptPackages:
    return AptPackages(archive.config(tmp_path / "ids.txt"), tmp_path / "cache")


def resolved(source: AptPackages, *packages: str) -> list[str]:
    return [file.name for file in source.resolve(packages, TextReport(quiet=True)).files]


def test_dependencies_and_essential_packages_come_along(source: AptPackages) -> None:
    assert resolved(source, "tool") == [f"{name}_1.0_amd64.deb" for name in ("helper", "lib", "shell", "tool")]


def test_an_alternative_that_is_asked_for_is_preferred(source: AptPackages) -> None:
    assert "helper_1.0_amd64.deb" not in resolved(source, "tool", "other-helper")


def test_all_unknown_packages_are_named_at_once(source: AptPackages) -> None:
    with pytest.raises(UnknownPackageError) as caught:
        resolved(source, "tol", "tool", "absent")
    assert caught.value.packages == ("absent", "tol")
    assert "tool" in caught.value.hint
    assert "stable" in caught.value.hint


@pytest.mark.parametrize("name", ["assistant", "too.", "tool-", "hel.*"])
def test_a_virtual_name_a_pattern_or_a_removal_is_no_package(source: AptPackages, name: str) -> None:
    with pytest.raises(UnknownPackageError):
        resolved(source, name)


def test_packages_that_exclude_each_other_are_named(source: AptPackages) -> None:
    with pytest.raises(SourceError, match=r"cannot be installed together: .*left : Conflicts: right"):
        resolved(source, "left", "right")


def test_a_package_that_cannot_be_installed_says_what_it_lacks(source: AptPackages) -> None:
    with pytest.raises(SourceError, match=r"broken : Depends: lib \(>= 2\)"):
        resolved(source, "broken")


def test_the_key_stands_for_the_package_files_alone(source: AptPackages, archive: Archive) -> None:
    report = TextReport(quiet=True)
    first = source.resolve(["tool"], report)
    archive.publish({name: fields for name, fields in PACKAGES.items() if name != "right"})
    assert source.resolve(["tool", "helper"], report).key == first.key
    archive.publish(PACKAGES, version="2:1.0-1")
    newer = source.resolve(["tool"], report)
    assert newer.key != first.key
    assert newer.files[0].name == "helper_2%3a1.0-1_amd64.deb"


def test_package_files_are_fetched_once(source: AptPackages, archive: Archive, tmp_path: Path) -> None:
    apt = PrivateApt(archive.config(tmp_path / "ids.txt"), tmp_path / "apt")
    apt.update()
    debs = tmp_path / "debs"
    apt.download(["tool"], debs)
    assert sorted(path.name for path in debs.glob("*.deb")) == resolved(source, "tool")
    shutil.rmtree(archive.path / "pool")
    apt.download(["tool"], debs)


def test_an_archive_that_is_not_there_is_one_clear_line(tmp_path: Path, archive: Archive) -> None:
    config = archive.config(tmp_path / "ids.txt")
    gone = AptSource(
        config.suites, config.components, (Mirror("file:/nowhere"),), config.keyring, "amd64", (), config.ids
    )
    with pytest.raises(SourceError, match=r"^cannot read the package lists of stable: .*/nowhere") as caught:
        AptPackages(gone, tmp_path / "cache").resolve(["tool"], TextReport(quiet=True))
    assert "\n" not in str(caught.value)


def test_an_archive_signed_by_another_key_is_refused(tmp_path: Path, archive: Archive) -> None:
    with closing(Archive(tmp_path / "other")) as other:
        pass
    config = archive.config(tmp_path / "ids.txt")
    wrong = AptSource(config.suites, config.components, config.mirrors, other.keyring, "amd64", (), config.ids)
    with pytest.raises(SourceError, match=r"cannot read the package lists of stable: .*sign"):
        AptPackages(wrong, tmp_path / "cache").resolve(["tool"], TextReport(quiet=True))


def test_lists_that_were_changed_after_signing_are_refused(source: AptPackages, archive: Archive) -> None:
    text = (archive.lists / "Packages").read_text()
    (archive.lists / "Packages").write_text(text.replace("Package: tool", "Package: evil"))
    with pytest.raises(SourceError, match="cannot read the package lists"):
        resolved(source, "tool")
