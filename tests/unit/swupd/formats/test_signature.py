from __future__ import annotations

import random
import subprocess
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import pkcs7

from swupd.errors import SignatureError
from swupd.formats.certificate import CHAIN_LIMIT
from swupd.formats.signature import SigningKey, load_certificates, make_certificate, verify

DATA = b"MANIFEST\t30\nversion:\t20\r\n\nM...\n"
NOW = datetime(2026, 6, 1, tzinfo=UTC)
DAY = timedelta(days=1)
PEM = serialization.Encoding.PEM

Key = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey


@dataclass(frozen=True)
class Identity:
    certificate: x509.Certificate
    key: Key

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(PEM)

    @property
    def key_pem(self) -> bytes:
        return self.key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())


@cache
def rsa_key(number: int, size: int = 2048) -> rsa.RSAPrivateKey:
    """One of a few keys: making one takes a tenth of a second."""
    return rsa.generate_private_key(65537, size)


def issue(
    name: str,
    issuer: Identity | None = None,
    *,
    key: Key | None = None,
    ca: bool | None = None,
    path_length: int | None = None,
    begins: datetime = NOW - DAY,
    ends: datetime = NOW + 365 * DAY,
    usage: x509.KeyUsage | None = None,
    extra: tuple[x509.ExtensionType, bool] | None = None,
    digest: hashes.HashAlgorithm | None = None,
) -> Identity:
    key = key or ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.certificate.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begins)
        .not_valid_after(ends)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    if ca is not None:
        builder = builder.add_extension(x509.BasicConstraints(ca, path_length), critical=True)
    if usage is not None:
        builder = builder.add_extension(usage, critical=True)
    if extra is not None:
        builder = builder.add_extension(extra[0], critical=extra[1])
    return Identity(builder.sign(issuer.key if issuer else key, digest or hashes.SHA256()), key)


def key_usage(**allowed: bool) -> x509.KeyUsage:
    names = (
        "digital_signature content_commitment key_encipherment data_encipherment key_agreement "
        "key_cert_sign crl_sign encipher_only decipher_only"
    )
    return x509.KeyUsage(**{name: allowed.get(name, False) for name in names.split()})


@pytest.fixture(scope="module")
def root() -> Identity:
    return issue("root", key=rsa_key(1), ca=False)


def signed(by: Identity, *embedded: Identity, data: bytes = DATA) -> bytes:
    return SigningKey(b"".join(identity.pem for identity in (by, *embedded)), by.key_pem).sign(data)


def built(by: Identity, *options: pkcs7.PKCS7Options, digest: hashes.HashAlgorithm | None = None) -> bytes:
    builder = pkcs7.PKCS7SignatureBuilder().set_data(DATA)
    builder = builder.add_signer(by.certificate, by.key, digest or hashes.SHA256())  # type: ignore[arg-type]
    return builder.sign(serialization.Encoding.DER, list(options))


def check(der: bytes, *trusted: Identity, data: bytes = DATA, at: datetime = NOW) -> x509.Certificate:
    return verify(data, der, [identity.certificate for identity in trusted], at=at)


def refusal(der: bytes, *trusted: Identity, data: bytes = DATA, at: datetime = NOW) -> str:
    with pytest.raises(SignatureError) as caught:
        check(der, *trusted, data=data, at=at)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# -- what is accepted --------------------------------------------------------------------------------------------------


def test_what_was_signed_is_verified(root: Identity) -> None:
    assert check(signed(root), root) == root.certificate


def test_the_signer_is_found_among_several_trusted_certificates(root: Identity) -> None:
    other = issue("other")
    assert check(signed(root), other, root) == root.certificate
    assert check(signed(other), other, root) == other.certificate


def test_line_ends_are_signed_as_they_are(root: Identity) -> None:
    der = signed(root, data=b"a\r\nb\n")
    check(der, root, data=b"a\r\nb\n")
    refusal(der, root, data=b"a\r\nb\r\n")
    refusal(der, root, data=b"a\nb\n")


def test_empty_data_can_be_signed(root: Identity) -> None:
    check(signed(root, data=b""), root, data=b"")


@pytest.mark.parametrize("curve", [ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1()], ids=lambda curve: curve.name)
def test_elliptic_keys_are_accepted(curve: ec.EllipticCurve) -> None:
    identity = issue("elliptic", key=ec.generate_private_key(curve))
    assert check(signed(identity), identity) == identity.certificate


@pytest.mark.parametrize("digest", [hashes.SHA256(), hashes.SHA384(), hashes.SHA512()], ids=lambda digest: digest.name)
def test_longer_digests_are_accepted(root: Identity, digest: hashes.HashAlgorithm) -> None:
    options = (pkcs7.PKCS7Options.DetachedSignature, pkcs7.PKCS7Options.Binary)
    check(built(root, *options, digest=digest), root)


def test_signatures_without_attributes_or_certificates_are_accepted(root: Identity) -> None:
    detached, binary = pkcs7.PKCS7Options.DetachedSignature, pkcs7.PKCS7Options.Binary
    check(built(root, detached, binary, pkcs7.PKCS7Options.NoAttributes), root)
    check(built(root, detached, binary, pkcs7.PKCS7Options.NoCerts), root)


def test_the_signer_may_be_issued_by_the_root() -> None:
    root = issue("root", ca=True)
    signer = issue("signer", root)
    assert check(signed(signer), root) == signer.certificate


def test_the_signer_may_be_issued_by_way_of_embedded_certificates() -> None:
    root = issue("root", ca=True, usage=key_usage(key_cert_sign=True))
    middle = issue("middle", root, ca=True, path_length=1, key=rsa_key(2))
    lower = issue("lower", middle, ca=True, path_length=0)
    signer = issue("signer", lower, usage=key_usage(digital_signature=True))
    assert check(signed(signer, middle, lower), root) == signer.certificate
    assert check(signed(signer, lower), middle) == signer.certificate


def test_the_purpose_of_a_certificate_does_not_matter() -> None:
    usage = x509.ExtendedKeyUsage([x509.ExtendedKeyUsageOID.SERVER_AUTH])
    identity = issue("purpose", extra=(usage, True))
    check(signed(identity), identity)


def test_an_expired_certificate_is_tolerated_only_on_request(root: Identity) -> None:
    der = signed(root)
    later = NOW + 400 * DAY
    assert "expired" in refusal(der, root, at=later)
    assert verify(DATA, der, [root.certificate], at=later, tolerate_expired=True) == root.certificate
    with pytest.raises(SignatureError, match="not valid before"):
        verify(DATA, der, [root.certificate], at=NOW - 2 * DAY, tolerate_expired=True)


# -- what is refused ---------------------------------------------------------------------------------------------------


def test_changed_data_is_refused_whatever_bit_it_is(root: Identity) -> None:
    for der in (signed(root), built(root, pkcs7.PKCS7Options.DetachedSignature, pkcs7.PKCS7Options.NoAttributes)):
        for position in range(0, 8 * len(DATA), 3):
            changed = bytearray(DATA)
            changed[position // 8] ^= 1 << position % 8
            refusal(der, root, data=bytes(changed))
        refusal(der, root, data=DATA + b"\n")
        refusal(der, root, data=DATA[:-1])


def test_a_foreign_signer_is_refused(root: Identity) -> None:
    foreign = issue("root", key=rsa_key(2), ca=False)
    assert "not issued by a trusted one" in refusal(signed(foreign), root)
    assert "not issued by a trusted one" in refusal(signed(foreign, root), root)


def test_nothing_is_trusted_without_trusted_certificates(root: Identity) -> None:
    refusal(signed(root))


def test_a_signer_with_the_name_and_number_of_the_root_but_another_key_is_refused(root: Identity) -> None:
    key = rsa_key(2)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(root.certificate.subject)
        .issuer_name(root.certificate.issuer)
        .public_key(key.public_key())
        .serial_number(root.certificate.serial_number)
        .not_valid_before(NOW - DAY)
        .not_valid_after(NOW + DAY)
        .sign(key, hashes.SHA256())
    )
    assert "does not fit" in refusal(signed(Identity(certificate, key)), root)


def test_a_certificate_that_is_no_authority_issues_nothing() -> None:
    for ca in (None, False):
        root = issue("root", ca=ca)
        assert "may not issue" in refusal(signed(issue("signer", root)), root)
    root = issue("root", ca=True)
    middle = issue("middle", root, ca=False)
    assert "may not issue" in refusal(signed(issue("signer", middle), middle), root)


def test_an_authority_that_may_not_sign_certificates_issues_nothing() -> None:
    root = issue("root", ca=True, usage=key_usage(digital_signature=True))
    assert "may not issue" in refusal(signed(issue("signer", root)), root)


def test_a_path_longer_than_an_authority_allows_is_refused() -> None:
    root = issue("root", ca=True, path_length=0)
    middle = issue("middle", root, ca=True)
    assert "may not issue" in refusal(signed(issue("signer", middle), middle), root)


def test_a_chain_that_is_too_long_is_refused() -> None:
    chain = [issue("root", ca=True)]
    for number in range(CHAIN_LIMIT - 2):
        chain.append(issue(f"middle {number}", chain[-1], ca=True))
    good = issue("signer", chain[-1])
    check(signed(good, *chain[1:]), chain[0])
    longer = issue("one more", chain[-1], ca=True)
    assert "not issued by a trusted one" in refusal(signed(issue("signer", longer), *chain[1:], longer), chain[0])


def test_an_expired_certificate_on_the_way_is_refused() -> None:
    root = issue("root", ca=True)
    middle = issue("middle", root, ca=True, ends=NOW - DAY / 2)
    der = signed(issue("signer", middle), middle)
    assert "'CN=middle' expired" in refusal(der, root)
    verify(DATA, der, [root.certificate], at=NOW, tolerate_expired=True)
    old_root = issue("root", ca=True, ends=NOW - DAY / 2)
    assert "'CN=root' expired" in refusal(signed(issue("signer", old_root)), old_root)


def test_a_critical_extension_that_is_not_understood_is_refused() -> None:
    access = x509.AuthorityInformationAccess(
        [
            x509.AccessDescription(
                x509.AuthorityInformationAccessOID.OCSP, x509.UniformResourceIdentifier("http://ocsp.example.org")
            )
        ]
    )
    critical = issue("critical", extra=(access, True))
    assert "1.3.6.1.5.5.7.1.1" in refusal(signed(critical), critical)
    with pytest.raises(SignatureError, match=r"1\.3\.6\.1\.5\.5\.7\.1\.1"):
        load_certificates(critical.pem, at=NOW)
    harmless = issue("harmless", extra=(access, False))
    check(signed(harmless), harmless)
    root = issue("root", ca=True, extra=(x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\0"), True))
    assert "1.2.3.4" in refusal(signed(issue("signer", root)), root)


def test_weak_keys_are_refused() -> None:
    for key in (rsa_key(3, 1024), ec.generate_private_key(ec.SECP224R1())):
        identity = issue("weak", key=key)
        assert "too weak" in refusal(signed(identity), identity)
        root = issue("root", key=key, ca=True)
        assert "too weak" in refusal(signed(issue("signer", root)), root)


def test_other_kinds_of_keys_are_not_trusted() -> None:
    key = ed25519.Ed25519PrivateKey.generate()
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "other")])
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(1).not_valid_before(NOW - DAY).not_valid_after(NOW + DAY)
    with pytest.raises(SignatureError, match="unknown kind"):
        load_certificates(builder.sign(key, None).public_bytes(PEM), at=NOW)


def test_more_than_one_signer_is_refused(root: Identity) -> None:
    other = issue("other")
    builder = pkcs7.PKCS7SignatureBuilder().set_data(DATA).add_signer(root.certificate, root.key, hashes.SHA256())
    builder = builder.add_signer(other.certificate, other.key, hashes.SHA256())
    der = builder.sign(serialization.Encoding.DER, [pkcs7.PKCS7Options.DetachedSignature])
    assert "2 signers" in refusal(der, root, other)


def test_a_signature_that_carries_its_own_data_is_refused(root: Identity) -> None:
    assert "detached" in refusal(built(root, pkcs7.PKCS7Options.Binary), root)


def test_the_attributes_of_a_signature_cannot_pass_as_signed_data(root: Identity) -> None:
    from asn1crypto import cms

    info = cms.ContentInfo.load(signed(root))
    signer = info["content"]["signer_infos"][0]
    attributes = b"\x31" + signer["signed_attrs"].dump()[1:]
    del signer["signed_attrs"]
    assert "attributes of another one" in refusal(info.dump(force=True), root, data=attributes)


def test_a_signature_without_its_signer_is_refused(root: Identity) -> None:
    der = built(root, pkcs7.PKCS7Options.DetachedSignature, pkcs7.PKCS7Options.NoCerts)
    assert "certificate of its signer" in refusal(der, issue("other"))


@pytest.mark.parametrize("der", [b"", b"\x30", b"\x30\x00", b"-----BEGIN PKCS7-----", b"\x30\x80\0\0", bytes(100)])
def test_what_is_no_signature_is_refused(der: bytes, root: Identity) -> None:
    refusal(der, root)


def test_a_signature_that_is_too_large_is_refused(root: Identity) -> None:
    assert "more than 65536 bytes" in refusal(bytes(65537), root)


def test_a_signature_cut_off_anywhere_or_with_something_behind_is_refused(root: Identity) -> None:
    der = signed(root)
    for length in range(0, len(der), 7):
        refusal(der[:length], root)
    assert "followed" in refusal(der + b"\0", root)


def test_only_the_shortest_definite_lengths_are_accepted(root: Identity) -> None:
    der = signed(root)
    assert der[:2] == b"\x30\x82"
    assert "DER" in refusal(b"\x30\x83\x00" + der[2:], root)
    assert "DER" in refusal(b"\x30\x80" + der[4:] + b"\0\0", root)


def test_deep_nesting_is_refused(root: Identity) -> None:
    der = b""
    for _ in range(100):
        der = b"\x30" + (bytes([len(der)]) if len(der) < 128 else b"\x81" + bytes([len(der)])) + der
        if len(der) > 240:
            break
    assert "nested" in refusal(der, root)


def test_a_damaged_signature_raises_nothing_but_signature_errors(root: Identity) -> None:
    numbers = random.Random(8)
    original = signed(root)
    for _ in range(1000):
        der = bytearray(original)
        for _ in range(numbers.randint(1, 2)):
            der[numbers.randrange(len(der))] = numbers.randrange(256)
        with suppress(SignatureError):
            # Changes within the embedded certificate do no harm: it is the trusted one, which is at hand anyway.
            assert check(bytes(der), root) == root.certificate


# -- files -------------------------------------------------------------------------------------------------------------


def test_a_certificate_that_was_made_signs_and_is_trusted() -> None:
    certificate, key = make_certificate("example mix", 30, NOW)
    trusted = load_certificates(certificate, at=NOW)
    assert verify(DATA, SigningKey(certificate, key).sign(DATA), trusted, at=NOW) == trusted[0]
    assert trusted[0].subject.rfc4514_string() == "CN=example mix"
    assert trusted[0].not_valid_after_utc == NOW + 30 * DAY
    assert key.startswith(b"-----BEGIN PRIVATE KEY-----")


def test_all_certificates_of_a_file_are_trusted(root: Identity) -> None:
    other = issue("other", ends=NOW - DAY / 2)
    assert load_certificates(root.pem + other.pem, at=NOW) == [root.certificate, other.certificate]


def test_a_first_certificate_that_is_not_valid_is_refused(root: Identity) -> None:
    with pytest.raises(SignatureError, match="expired"):
        load_certificates(root.pem, at=NOW + 500 * DAY)
    with pytest.raises(SignatureError, match="not valid before"):
        load_certificates(root.pem, at=NOW - 2 * DAY)


def test_a_first_certificate_needs_its_issuer_in_the_file() -> None:
    root = issue("root", ca=True)
    signer = issue("signer", root)
    assert len(load_certificates(signer.pem + root.pem, at=NOW)) == 2
    with pytest.raises(SignatureError, match="not issued by a trusted one"):
        load_certificates(signer.pem, at=NOW)


@pytest.mark.parametrize(
    "pem", [b"", b"hello", b"-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n", b"\x30\x82"]
)
def test_a_file_without_certificates_is_refused(pem: bytes) -> None:
    with pytest.raises(SignatureError, match="no readable certificate"):
        load_certificates(pem)


def test_a_key_that_does_not_belong_to_the_certificate_is_refused(root: Identity) -> None:
    with pytest.raises(SignatureError, match="does not belong"):
        SigningKey(root.pem, issue("other").key_pem)


def test_a_key_that_cannot_be_used_is_refused(root: Identity) -> None:
    encrypted = root.key.private_bytes(
        PEM, serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"secret")
    )
    foreign = ed25519.Ed25519PrivateKey.generate().private_bytes(
        PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    for key in (b"", b"hello", encrypted, foreign):
        with pytest.raises(SignatureError, match="private key"):
            SigningKey(root.pem, key)


# -- openssl -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def files(tmp_path: Path, root: Identity) -> Path:
    (tmp_path / "data").write_bytes(DATA)
    (tmp_path / "root.pem").write_bytes(root.pem)
    (tmp_path / "root.key").write_bytes(root.key_pem)
    return tmp_path


def openssl(directory: Path, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(["openssl", *arguments], cwd=directory, capture_output=True, check=False)


SIGNERS: dict[str, tuple[str, ...]] = {
    "smime": ("smime",),
    "cms": ("cms",),
    "cms with a key identifier": ("cms", "-keyid"),
    "smime without certificates": ("smime", "-nocerts"),
    "smime without attributes": ("smime", "-noattr"),
    "cms with SHA-512": ("cms", "-md", "sha512"),
    "cms with PSS": ("cms", "-keyopt", "rsa_padding_mode:pss"),
    "cms with PSS and a short salt": ("cms", "-keyopt", "rsa_padding_mode:pss", "-keyopt", "rsa_pss_saltlen:20"),
}


@pytest.mark.parametrize("command", SIGNERS.values(), ids=SIGNERS)
def test_what_openssl_signs_is_accepted(command: tuple[str, ...], files: Path, root: Identity) -> None:
    program, *options = command
    key = ["-signer", "root.pem", "-inkey", "root.key"]
    made = openssl(
        files, program, "-sign", "-binary", "-in", "data", *key, *options, "-outform", "DER", "-out", "data.sig"
    )
    assert made.returncode == 0, made.stderr
    der = (files / "data.sig").read_bytes()
    assert check(der, root) == root.certificate
    refusal(der, root, data=DATA + b"x")


def test_what_openssl_signs_with_a_weak_digest_is_refused(files: Path, root: Identity) -> None:
    for digest in ("sha1", "md5"):
        key = ["-signer", "root.pem", "-inkey", "root.key", "-md", digest]
        made = openssl(files, "cms", "-sign", "-binary", "-in", "data", *key, "-outform", "DER", "-out", "data.sig")
        assert made.returncode == 0, made.stderr
        assert digest in refusal((files / "data.sig").read_bytes(), root)


@pytest.mark.parametrize("program", ["smime", "cms"])
@pytest.mark.parametrize(
    "make", [lambda: issue("rsa", key=rsa_key(1)), lambda: issue("elliptic")], ids=["rsa", "elliptic"]
)
def test_openssl_accepts_what_is_signed_here(program: str, make: Callable[[], Identity], tmp_path: Path) -> None:
    now = datetime.now(UTC)
    identity = issue("signer", key=make().key, begins=now - DAY, ends=now + DAY)
    (tmp_path / "data").write_bytes(DATA)
    (tmp_path / "data.sig").write_bytes(signed(identity))
    (tmp_path / "root.pem").write_bytes(identity.pem)
    command = [program, "-verify", "-binary", "-inform", "DER", "-in", "data.sig", "-content", "data"]
    trust = ["-purpose", "any", "-CAfile", "root.pem"]
    accepted = openssl(tmp_path, *command, *trust)
    assert accepted.returncode == 0, accepted.stderr
    assert accepted.stdout == DATA
    (tmp_path / "data").write_bytes(DATA + b"x")
    assert openssl(tmp_path, *command, *trust).returncode != 0


def test_openssl_accepts_a_chain_that_is_signed_here(tmp_path: Path) -> None:
    now = datetime.now(UTC)
    span = {"begins": now - DAY, "ends": now + DAY}
    root = issue("root", ca=True, **span)  # type: ignore[arg-type]
    middle = issue("middle", root, ca=True, **span)  # type: ignore[arg-type]
    signer = issue("signer", middle, **span)  # type: ignore[arg-type]
    (tmp_path / "data").write_bytes(DATA)
    (tmp_path / "data.sig").write_bytes(signed(signer, middle))
    (tmp_path / "root.pem").write_bytes(root.pem)
    check(signed(signer, middle), root, at=now)
    command = ["smime", "-verify", "-binary", "-inform", "DER", "-in", "data.sig", "-content", "data"]
    accepted = openssl(tmp_path, *command, "-purpose", "any", "-CAfile", "root.pem")
    assert accepted.returncode == 0, accepted.stderr


def test_every_byte_of_a_signature_matters() -> None:
    certificate, key = make_certificate("Mixer", 1000, NOW)
    trusted = load_certificates(certificate, at=NOW)
    der = SigningKey(certificate, key).sign(DATA)
    embedded = trusted[0].public_bytes(serialization.Encoding.DER)
    start = der.index(embedded)
    # The tag and the length of the list of certificates stand before it; without the list the signature is still good.
    outside = [*range(start - 4), *range(start + len(embedded), len(der))]

    for position in outside:
        damaged = der[:position] + bytes([der[position] ^ 1]) + der[position + 1 :]
        with pytest.raises(SignatureError):
            verify(DATA, damaged, trusted, at=NOW)
