"""Certificates that updates are trusted by: loading, making, and the way from a signer to a trusted one.

The rules of the swupd client specification, section 5.4, and the stricter ones of this project:

* Every certificate on the way from the signer to a trusted one, both included, is in its validity period, has a key of
  sufficient size (RSA of 2048 bits, elliptic of 256) and no critical extension that is not understood here; so no
  critical authority information access, which would ask for OCSP. Revocation lists and extended key usage ("purpose
  any") do not matter.
* Every one but the signer is an authority (basic constraints, path length, key usage), and issued the one before it
  with SHA-256 or longer.
* A trusted certificate ends the way, self-signed or not. It may be the signer itself, and need not be one then.

Everything that is wrong with a certificate is a SignatureError.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from swupd.errors import SignatureError

CHAIN_LIMIT = 6
"""Certificates from the signer to the trusted one, both included."""
RSA_BITS = 2048
"""Size of an RSA key at least."""
CURVE_BITS = 256
"""Size of an elliptic key at least."""
MADE_RSA_BITS = 4096
"""Size of the keys that `make_certificate` makes."""
DIGESTS: dict[str, hashes.HashAlgorithm] = {
    "sha256": hashes.SHA256(),
    "sha384": hashes.SHA384(),
    "sha512": hashes.SHA512(),
}
"""What may be signed with, in certificates and elsewhere."""

_UNDERSTOOD = frozenset(
    {
        x509.BasicConstraints.oid,
        x509.KeyUsage.oid,
        x509.ExtendedKeyUsage.oid,
        x509.SubjectKeyIdentifier.oid,
        x509.AuthorityKeyIdentifier.oid,
        x509.SubjectAlternativeName.oid,
        x509.IssuerAlternativeName.oid,
    }
)
_CERTIFICATE_ERRORS = (
    x509.InvalidVersion,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
    UnsupportedAlgorithm,
)
_FOREIGN_HINT = "somebody else signed it, or the signer has changed; do not install it before you know which"
_CERTIFICATE_HINT = "the certificate has to be replaced by whoever publishes the updates"


def load_certificates(pem: bytes, *, at: datetime | None = None) -> list[x509.Certificate]:
    """All certificates of a PEM file, to be trusted.

    The first one must be usable at `at` (aware; default now): signed by itself or by way of the others, valid, strong.
    Raises SignatureError.
    """
    certificates = parse_pem(pem)
    first = certificates[0]
    roots = [certificate for certificate in certificates if _is_issued_by(certificate, certificate)]
    check_chain(first, roots, certificates, at or datetime.now(UTC), tolerate_expired=False)
    return certificates


def make_certificate(common_name: str, days: int, now: datetime) -> tuple[bytes, bytes]:
    """A new self-signed certificate, valid for `days` from `now` (aware), and its RSA key; both PEM, the key PKCS #8.

    It may issue certificates, so that its key can be kept away from the machine that signs.
    """
    key = rsa.generate_private_key(public_exponent=65537, key_size=MADE_RSA_BITS)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, common_name)])
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    usage = x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=True,
        crl_sign=True,
        encipher_only=False,
        decipher_only=False,
    )
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now)
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(identifier, critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), critical=False)
        .sign(key, hashes.SHA256())
    )
    key_pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return certificate.public_bytes(serialization.Encoding.PEM), key_pem


def parse_pem(pem: bytes) -> list[x509.Certificate]:
    """The certificates of a PEM file, one at least; raises SignatureError."""
    try:
        certificates = x509.load_pem_x509_certificates(pem)
        for certificate in certificates:
            read_whole(certificate)
    except (ValueError, *_CERTIFICATE_ERRORS) as error:
        raise SignatureError(
            f"there is no readable certificate: {error}", hint="it must be a PEM file with an X.509 certificate"
        ) from error
    return certificates


def read_whole(certificate: x509.Certificate) -> None:
    """Make the parser read now what it would complain about later, in its own words and types."""
    certificate.subject.rfc4514_string()
    certificate.issuer.rfc4514_string()
    list(certificate.extensions)


def check_chain(
    signer: x509.Certificate,
    trusted: Sequence[x509.Certificate],
    candidates: Sequence[x509.Certificate],
    at: datetime,
    *,
    tolerate_expired: bool,
) -> None:
    """Raise SignatureError unless a way of good certificates leads from `signer` to a trusted one.

    Issuers are looked for level by level, so that each candidate is looked at once, by its shortest way.
    """
    failure: SignatureError | None = None
    seen = {signer}
    level = [signer]
    for distance in range(CHAIN_LIMIT):
        issuers: list[x509.Certificate] = []
        for certificate in level:
            try:
                _check_certificate(certificate, at, tolerate_expired=tolerate_expired)
                if distance:
                    _check_authority(certificate, intermediates=distance - 1)
            except SignatureError as error:
                failure = failure or error
                continue
            if certificate in trusted:
                return
            issuers += [other for other in candidates if other not in seen and _is_issued_by(certificate, other)]
            seen.update(issuers)
        level = issuers
    name = signer.subject.rfc4514_string()
    raise failure or SignatureError(f"the certificate {name!r} was not issued by a trusted one", hint=_FOREIGN_HINT)


def _check_certificate(certificate: x509.Certificate, at: datetime, *, tolerate_expired: bool) -> None:
    """Raise SignatureError unless a certificate is valid at that time, strong, and understood as a whole."""
    name = certificate.subject.rfc4514_string()
    if at < certificate.not_valid_before_utc:
        raise SignatureError(
            f"the certificate {name!r} is not valid before {certificate.not_valid_before_utc:%Y-%m-%d %H:%M} UTC",
            hint="check the clock of this machine",
        )
    if at > certificate.not_valid_after_utc and not tolerate_expired:
        raise SignatureError(
            f"the certificate {name!r} expired on {certificate.not_valid_after_utc:%Y-%m-%d %H:%M} UTC",
            hint=f"check the clock of this machine; {_CERTIFICATE_HINT}",
        )
    critical = {extension.oid for extension in certificate.extensions if extension.critical}
    for oid in sorted(critical - _UNDERSTOOD, key=lambda item: item.dotted_string):
        raise SignatureError(
            f"the certificate {name!r} has the critical extension {oid.dotted_string}, which is not supported",
            hint=_CERTIFICATE_HINT,
        )
    strong_key(certificate)


def _check_authority(issuer: x509.Certificate, *, intermediates: int) -> None:
    """Raise SignatureError unless a certificate may issue others, with that many intermediate ones below it."""
    found = {type(extension.value): extension.value for extension in issuer.extensions}
    constraints = found.get(x509.BasicConstraints)
    usage = found.get(x509.KeyUsage)
    if (
        not isinstance(constraints, x509.BasicConstraints)
        or not constraints.ca
        or (constraints.path_length is not None and constraints.path_length < intermediates)
        or (isinstance(usage, x509.KeyUsage) and not usage.key_cert_sign)
    ):
        name = issuer.subject.rfc4514_string()
        raise SignatureError(f"the certificate {name!r} may not issue the one that it issued", hint=_CERTIFICATE_HINT)


def _is_issued_by(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    """Whether name, key and an acceptable signature algorithm fit."""
    if certificate.issuer != issuer.subject:
        return False
    try:
        digest = certificate.signature_hash_algorithm
        if digest is None or digest.name not in DIGESTS:
            return False
        certificate.verify_directly_issued_by(issuer)
    except (InvalidSignature, ValueError, TypeError, UnsupportedAlgorithm):
        return False
    return True


def strong_key(certificate: x509.Certificate) -> rsa.RSAPublicKey | ec.EllipticCurvePublicKey:
    """The key of a certificate, of an accepted kind and size; raises SignatureError."""
    try:
        key = certificate.public_key()
    except (ValueError, UnsupportedAlgorithm) as error:
        raise SignatureError("the key of the certificate cannot be read", hint=_CERTIFICATE_HINT) from error
    if isinstance(key, rsa.RSAPublicKey) and key.key_size >= RSA_BITS:
        return key
    if isinstance(key, ec.EllipticCurvePublicKey) and key.curve.key_size >= CURVE_BITS:
        return key
    raise SignatureError(
        f"the key of the certificate {certificate.subject.rfc4514_string()!r} is too weak or of an unknown kind",
        hint=_CERTIFICATE_HINT,
    )
