"""What a person sees of a certificate before trusting it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from swupd.errors import SignatureError
from swupd.thirdparty.trust import describe


def certificate(name: str, *, end: int = 1) -> x509.Certificate:
    key = ec.generate_private_key(ec.SECP256R1())
    who = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(who)
        .issuer_name(who)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=2))
        .not_valid_after(now + timedelta(days=end))
        .add_extension(x509.BasicConstraints(True, None), critical=True)
        .sign(key, hashes.SHA256())
    )


def pem(*certificates: x509.Certificate) -> bytes:
    return b"".join(each.public_bytes(serialization.Encoding.PEM) for each in certificates)


def test_all_certificates_of_the_file_are_shown_because_all_are_trusted() -> None:
    one, two = certificate("one"), certificate("two")
    lines = describe(pem(one, two))
    for each in (one, two):
        fingerprint = each.fingerprint(hashes.SHA256()).hex(":").upper()
        assert f"fingerprint: SHA256 {fingerprint}" in lines
        assert set(pem(each).decode().splitlines()) <= set(lines)
    assert [line for line in lines if line.startswith("subject:")] == ["subject:     CN=one", "subject:     CN=two"]


@pytest.mark.parametrize("name", ["\033[2Jx", "a\u202eb", "a\rb", "a\u2028b"])
def test_a_name_cannot_move_the_cursor(name: str) -> None:
    for line in describe(pem(certificate(name))):
        assert line.isprintable()


def test_text_around_the_certificate_is_not_shown() -> None:
    assert "signed by somebody famous" not in "\n".join(
        describe(b"signed by somebody famous\n" + pem(certificate("x")))
    )


@pytest.mark.parametrize("data", [b"", b"nonsense", pem(certificate("old", end=-1))])
def test_what_cannot_be_used_is_an_error(data: bytes) -> None:
    with pytest.raises(SignatureError):
        describe(data)
