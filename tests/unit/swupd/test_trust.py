"""Signatures are checked against the certificate of the settings, or loudly not at all."""

from __future__ import annotations

import io
import syslog
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from swupd.errors import SignatureError
from swupd.formats import signature
from swupd.report import TextReport
from swupd.settings import Settings
from swupd.trust import Verifier

DATA = b"20\n"


class Publisher:
    """A key with its self-signed certificate."""

    def __init__(self, name: str, *, begin: int = -1, end: int = 1) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        who = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        now = datetime.now(UTC)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(who)
            .issuer_name(who)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + timedelta(days=begin))
            .not_valid_after(now + timedelta(days=end))
            .add_extension(x509.BasicConstraints(True, None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .sign(key, hashes.SHA256())
        )
        self.certificate = certificate.public_bytes(serialization.Encoding.PEM)
        self._key = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )

    def sign(self, data: bytes) -> bytes:
        return signature.SigningKey(self.certificate, self._key).sign(data)


@pytest.fixture(scope="module")
def publisher() -> Publisher:
    return Publisher("Example OS")


@pytest.fixture(scope="module")
def successor() -> Publisher:
    return Publisher("Example OS, next key")


def verifier(directory: Path, *, check: bool = True, err: io.StringIO | None = None) -> Verifier:
    settings = Settings(
        root=directory,
        cache_dir=directory,
        data_dir=directory,
        content_url="",
        version_url="",
        format="1",
        certificate=directory / "root.pem",
        check_signatures=check,
    )
    return Verifier(settings, TextReport(out=io.StringIO(), err=err or io.StringIO()))


def test_a_signature_of_the_publisher_verifies(tmp_path: Path, publisher: Publisher) -> None:
    (tmp_path / "root.pem").write_bytes(publisher.certificate)
    verifier(tmp_path).verify(DATA, publisher.sign(DATA), what="latest")


def test_changed_data_does_not_verify(tmp_path: Path, publisher: Publisher) -> None:
    (tmp_path / "root.pem").write_bytes(publisher.certificate)
    with pytest.raises(SignatureError, match=r"^latest of example: ") as caught:
        verifier(tmp_path).verify(b"30\n", publisher.sign(DATA), what="latest of example")
    assert str(tmp_path / "root.pem") in caught.value.hint
    assert caught.value.exit_code == 21


def test_a_signature_of_somebody_else_does_not_verify(
    tmp_path: Path, publisher: Publisher, successor: Publisher
) -> None:
    (tmp_path / "root.pem").write_bytes(publisher.certificate)
    with pytest.raises(SignatureError):
        verifier(tmp_path).verify(DATA, successor.sign(DATA), what="latest")


def test_an_alternative_certificate_verifies_too(tmp_path: Path, publisher: Publisher, successor: Publisher) -> None:
    (tmp_path / "root.pem").write_bytes(publisher.certificate)
    (tmp_path / "root.pem.alt").write_bytes(successor.certificate)
    both = verifier(tmp_path)
    for signer in (successor, publisher, successor):
        both.verify(DATA, signer.sign(DATA), what="latest")


def test_an_alternative_certificate_stands_in_for_one_that_has_expired(tmp_path: Path, successor: Publisher) -> None:
    (tmp_path / "root.pem").write_bytes(Publisher("old", begin=-10, end=-1).certificate)
    (tmp_path / "root.pem.alt").write_bytes(successor.certificate)
    verifier(tmp_path).verify(DATA, successor.sign(DATA), what="latest")


def test_an_alternative_certificate_that_cannot_be_read_does_not_matter(tmp_path: Path, publisher: Publisher) -> None:
    (tmp_path / "root.pem").write_bytes(publisher.certificate)
    (tmp_path / "root.pem.alt").write_bytes(b"nonsense")
    verifier(tmp_path).verify(DATA, publisher.sign(DATA), what="latest")


def test_a_missing_certificate_is_an_error_before_anything_is_downloaded(tmp_path: Path) -> None:
    with pytest.raises(SignatureError, match=str(tmp_path / "root.pem")) as caught:
        verifier(tmp_path)
    assert "--certpath" in caught.value.hint


@pytest.mark.parametrize(
    "content", [b"", b"nonsense", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"]
)
def test_a_file_that_is_no_certificate_is_an_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "root.pem").write_bytes(content)
    with pytest.raises(SignatureError, match=str(tmp_path / "root.pem")):
        verifier(tmp_path)


def test_an_expired_certificate_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "root.pem").write_bytes(Publisher("old", begin=-10, end=-1).certificate)
    with pytest.raises(SignatureError, match="cannot be used"):
        verifier(tmp_path)


def test_without_checks_nothing_is_read_but_each_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    logged: list[str] = []
    monkeypatch.setattr(syslog, "syslog", lambda level, text: logged.append(text))
    err = io.StringIO()
    unchecked = verifier(tmp_path, check=False, err=err)
    unchecked.verify(DATA, b"no signature at all", what="https://example.org/latest")
    assert not unchecked.enabled
    assert "https://example.org/latest is not checked" in err.getvalue()
    assert logged == ["the signature of https://example.org/latest is not checked"]
