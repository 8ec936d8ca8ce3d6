"""A machine with a system of its own, and publishers of 3rd-party repositories who sign what they publish."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from swupd.cli import main
from swupd.formats import layout
from swupd.formats.signature import SigningKey

Bundle = Any
Publisher = Any

SCRIPT = '#!/bin/sh\nprintf "%s\\n" "editor" "$PATH" "$LD_LIBRARY_PATH" "$XDG_DATA_DIRS" "$XDG_CONFIG_DIRS" "$@"\n'


class Repository:
    """What a 3rd-party publisher publishes: version 10 has os-core, editor (exported, needs lib), lib and tool."""

    def __init__(self, publisher: Publisher, certificate: str, bundle: Bundle) -> None:
        self.publisher = publisher
        self.certificate = certificate
        self.url: str = publisher.url
        self.bundles: dict[str, Any] = {
            "os-core": bundle({layout.CERTIFICATE: certificate, "/usr/share/core": "core"}),
            "lib": bundle({"/usr/lib64/lib.so": "lib"}, ["os-core"]),
            "editor": bundle(
                {"/usr/bin/edit": SCRIPT, "/usr/share/editor": "help"},
                ["os-core", "lib"],
                executable=["/usr/bin/edit"],
                exported=["/usr/bin/edit"],
            ),
            "tool": bundle({"/usr/lib/tool": "tool"}, ["os-core"]),
        }

    def publish(self, version: int) -> None:
        self.publisher.publish(version, self.bundles)


class Machine:
    """A root, its state directory, and `swupd 3rd-party` on it."""

    def __init__(self, directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.root = directory / "root"
        self.state = directory / "state"
        self.own = self.root / "opt/3rd-party"
        self.out = ""
        self.err = ""
        self._capsys = capsys
        (self.root / "usr").mkdir(parents=True)

    def argv(self, subcommand: str, *arguments: str) -> list[str]:
        where = ["--path", str(self.root), "--statedir", str(self.state)]
        return ["3rd-party", subcommand, *where, *arguments]

    def run(self, subcommand: str, *arguments: str, status: int = 0) -> None:
        """Run a subcommand; what it prints is in `out` and `err`."""
        found = main(self.argv(subcommand, *arguments))
        self.out, self.err = self._capsys.readouterr()
        assert found == status, self.out + self.err

    def add(self, name: str, repository: Repository, *bundles: str) -> None:
        """Add a repository, trusting it, with bundles of it."""
        self.run("add", name, repository.url, "--yes")
        if bundles:
            self.run("bundle-add", "--repo", name, "--yes", *bundles)

    @property
    def errors(self) -> list[str]:
        return [line for line in self.err.splitlines() if line.startswith("Error: ")]

    def prefix(self, name: str) -> Path:
        return self.own / "bundles" / name

    def wrapper(self, name: str) -> Path:
        return self.own / "bin" / name

    def installed(self, name: str) -> set[str]:
        return {path.name for path in (self.prefix(name) / layout.TRACKING[1:]).iterdir()}

    def files(self) -> set[str]:
        """All that lies outside of the log of what was done, without the lock and empty directories."""
        return {
            str(path.relative_to(self.root.parent))
            for top in (self.root, self.state)
            for path in top.rglob("*")
            if (path.is_symlink() or not path.is_dir()) and path.name not in ("swupd_lock", "history")
        }


@pytest.fixture
def machine(tmp_path: Path, capsys: pytest.CaptureFixture[str], no_sync: None) -> Machine:
    """A system without repositories."""
    if os.geteuid() != 0:
        pytest.skip("commands that change a system need root")
    return Machine(tmp_path, capsys)


@pytest.fixture
def repository(tmp_path: Path, published: Publisher, bundle: Bundle) -> Callable[[str], Repository]:
    """Makes a publisher of that name, with version 10."""

    def make(name: str) -> Repository:
        pem, key = certificate_of(name)
        publisher = type(published)(tmp_path / f"www-{name}", signer=SigningKey(pem, key))
        made = Repository(publisher, pem.decode(), bundle)
        made.publish(10)
        return made

    return make


@pytest.fixture
def mine(repository: Callable[[str], Repository]) -> Repository:
    return repository("mine")


@pytest.fixture
def other(repository: Callable[[str], Repository]) -> Repository:
    """Another one with other bundles and the same ones, but for the editor."""
    made = repository("other")
    del made.bundles["editor"]
    made.publish(20)
    return made


def certificate_of(name: str) -> tuple[bytes, bytes]:
    """A self-signed certificate and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    who = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, f"Publisher of {name}")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(who)
        .issuer_name(who)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(True, None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = certificate.public_bytes(serialization.Encoding.PEM)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return pem, private
