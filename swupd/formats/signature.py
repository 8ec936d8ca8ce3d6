"""Detached signatures of the MoM and of the version files: CMS SignedData in DER (swupd client specification, 5.4).

`verify` accepts what `openssl smime -verify -binary -purpose any -CAfile …` accepts of what signers of this field make,
and guarantees more:

* Strict DER of at most SIGNATURE_BYTES, detached, exactly one signer, content type "data".
* SHA-256 or longer, RSA (PKCS #1 v1.5 or PSS) or ECDSA.
* The signer is a trusted certificate, or one that such a certificate issued, directly or by way of embedded ones; what
  makes a certificate good enough is in `certificate`, whose public functions can be imported from here.
* Nothing but SignatureError is raised, whatever the bytes are.

What is signed is the data, not the signature file: its embedded certificates may be exchanged for others without notice
where they are not needed, so never take the bytes of a signature as an identity.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from asn1crypto import cms
from asn1crypto.core import Void
from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.serialization import pkcs7

from swupd.errors import SignatureError
from swupd.formats.certificate import (
    DIGESTS,
    RSA_BITS,
    check_chain,
    load_certificates,
    make_certificate,
    parse_pem,
    read_whole,
    strong_key,
)

__all__ = ["SigningKey", "load_certificates", "make_certificate", "verify"]

SIGNATURE_BYTES = 64 * 1024
"""Size of a signature file."""
EMBEDDED_LIMIT = 16
"""Certificates inside one signature."""

_NESTING_LIMIT = 24
_VERSIONS = {"issuer_and_serial_number": "v1", "subject_key_identifier": "v3"}
"""Of the structures, by how the signer is named (RFC 5652, sections 5.1 and 5.3)."""
_SIGNATURE_HINT = "the file was changed on its way, or it was signed by somebody else; do not install it"


class SigningKey:
    """A certificate and its private key, read once: checking a key of 4096 bits takes a quarter of a second."""

    def __init__(self, certificate_pem: bytes, key_pem: bytes) -> None:
        """The first certificate is the signer's. Raises SignatureError if the two cannot be read or do not belong
        together."""
        self._signer, *self._others = parse_pem(certificate_pem)
        try:
            key = serialization.load_pem_private_key(key_pem, password=None)
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise SignatureError(
                f"the private key cannot be read: {error}", hint="it must be a PEM file without passphrase"
            ) from error
        if not isinstance(key, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey):
            raise SignatureError("the private key is neither an RSA nor an elliptic key")
        if key.public_key() != self._signer.public_key():
            raise SignatureError(
                "the private key does not belong to the certificate",
                hint="use the key that the certificate was made with",
            )
        self._key = key

    def sign(self, data: bytes) -> bytes:
        """A detached signature over the exact bytes of `data`, in DER, with all certificates inside; original clients
        need the signer's there."""
        builder = pkcs7.PKCS7SignatureBuilder().set_data(data).add_signer(self._signer, self._key, hashes.SHA256())
        for certificate in self._others:
            builder = builder.add_certificate(certificate)
        options = [pkcs7.PKCS7Options.DetachedSignature, pkcs7.PKCS7Options.Binary, pkcs7.PKCS7Options.NoCapabilities]
        return builder.sign(serialization.Encoding.DER, options)


def verify(
    data: bytes,
    der: bytes,
    trusted: Sequence[x509.Certificate],
    *,
    at: datetime | None = None,
    tolerate_expired: bool = False,
) -> x509.Certificate:
    """The signer of `data`, if `der` is a valid signature that leads to one of the trusted certificates.

    `at` is the time that certificates must be valid at (aware; default now). With `tolerate_expired` they may have
    expired, but must have begun. Raises SignatureError.
    """
    signature = _parse_signature(der)
    moment = at or datetime.now(UTC)
    candidates = [*trusted, *(item for item in signature.certificates if item not in trusted)]
    signers = [certificate for certificate in candidates if signature.is_by(certificate)]
    if not signers:
        raise SignatureError("the signature does not contain the certificate of its signer", hint=_SIGNATURE_HINT)
    failure: SignatureError | None = None
    for signer in signers:
        try:
            signature.check(data, signer)
            check_chain(signer, trusted, candidates, moment, tolerate_expired=tolerate_expired)
        except SignatureError as error:
            failure = failure or error
        else:
            return signer
    raise failure or SignatureError("the signature cannot be verified")


# -- the signature -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Signature:
    """What matters of a SignedData structure with one signer."""

    digest: str
    scheme: str
    """rsassa_pkcs1v15, rsassa_pss or ecdsa."""
    salt_length: int
    """Bytes; of rsassa_pss only."""
    value: bytes
    attributes: bytes | None
    """The signed attributes as they were signed; without them the data itself was."""
    data_digest: bytes
    """What the attributes say about the data."""
    issuer: bytes | None
    serial: int
    key_identifier: bytes | None
    """Either issuer and serial number or this identifies the signer."""
    certificates: tuple[x509.Certificate, ...]

    def is_by(self, certificate: x509.Certificate) -> bool:
        if self.key_identifier is None:
            return certificate.serial_number == self.serial and certificate.issuer.public_bytes() == self.issuer
        try:
            extension = certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
        except x509.ExtensionNotFound:
            return False
        return extension.value.digest == self.key_identifier

    def check(self, data: bytes, signer: x509.Certificate) -> None:
        """Raise SignatureError unless the key of `signer` made this signature over `data`."""
        algorithm = DIGESTS[self.digest]
        signed = data
        if self.attributes is not None:
            digest = hashes.Hash(algorithm)
            digest.update(data)
            if digest.finalize() != self.data_digest:
                raise SignatureError("the signature is for other data", hint=_SIGNATURE_HINT)
            signed = self.attributes
        elif _is_der_set(data):
            # Without attributes the data is what was signed, and so are the attributes of all other signatures.
            raise SignatureError("the signature is for the attributes of another one", hint=_SIGNATURE_HINT)
        key = strong_key(signer)
        try:
            if isinstance(key, ec.EllipticCurvePublicKey) and self.scheme == "ecdsa":
                key.verify(self.value, signed, ec.ECDSA(algorithm))
            elif isinstance(key, rsa.RSAPublicKey) and self.scheme == "rsassa_pkcs1v15":
                key.verify(self.value, signed, padding.PKCS1v15(), algorithm)
            elif isinstance(key, rsa.RSAPublicKey) and self.scheme == "rsassa_pss":
                key.verify(self.value, signed, padding.PSS(padding.MGF1(algorithm), self.salt_length), algorithm)
            else:
                raise SignatureError(f"the signature claims to be {self.scheme}, which its key cannot make")
        except (InvalidSignature, ValueError, UnsupportedAlgorithm) as error:
            raise SignatureError("the signature does not fit the data and the signer", hint=_SIGNATURE_HINT) from error


def _parse_signature(der: bytes) -> _Signature:
    if len(der) > SIGNATURE_BYTES:
        raise SignatureError(f"the signature has more than {SIGNATURE_BYTES} bytes")
    _require_der(der)
    try:
        return _read_signed_data(der)
    except SignatureError:
        raise
    except Exception as error:  # two parsers in turn, each with many ways to say that it does not understand
        raise SignatureError("the signature is damaged", hint=_SIGNATURE_HINT) from error


def _read_signed_data(der: bytes) -> _Signature:
    info = cms.ContentInfo.load(der, strict=True)
    if info["content_type"].native != "signed_data":
        raise SignatureError("the signature is some other kind of message")
    signed = info["content"]
    content = signed["encap_content_info"]
    if content["content_type"].native != "data" or content["content"].native is not None:
        raise SignatureError("the signature is not a detached one")
    if len(signed["signer_infos"]) != 1:
        raise SignatureError(f"the signature has {len(signed['signer_infos'])} signers instead of one")
    signer = signed["signer_infos"][0]

    digest = signer["digest_algorithm"]["algorithm"].native
    if digest not in DIGESTS:
        raise SignatureError(f"the signature uses {digest}, which is not accepted")
    announced = [item.native for item in (*signed["digest_algorithms"], signer["digest_algorithm"])]
    versions = [signed["version"].native, signer["version"].native]
    if announced != 2 * [{"algorithm": digest, "parameters": None}] or versions != 2 * [_VERSIONS[signer["sid"].name]]:
        raise SignatureError("the signature contradicts itself", hint=_SIGNATURE_HINT)
    algorithm = signer["signature_algorithm"]
    scheme = algorithm.signature_algo
    salt_length = 0
    if scheme == "rsassa_pss":
        parameters = algorithm["parameters"]
        mask = parameters["mask_gen_algorithm"]
        used = {parameters["hash_algorithm"]["algorithm"].native, mask["parameters"]["algorithm"].native}
        if used != {digest} or mask["algorithm"].native != "mgf1":
            raise SignatureError("the signature uses different digests in one place")
        salt_length = parameters["salt_length"].native
        if not 0 <= salt_length <= RSA_BITS // 8:
            raise SignatureError("the signature has an impossible salt length")
    elif algorithm["algorithm"].native not in ("rsassa_pkcs1v15", f"{digest}_rsa", f"{digest}_ecdsa"):
        raise SignatureError(f"the signature uses {algorithm['algorithm'].native}, which is not accepted")
    elif algorithm["parameters"].native is not None:
        raise SignatureError("the signature contradicts itself", hint=_SIGNATURE_HINT)

    attributes, data_digest = _read_attributes(signer["signed_attrs"])
    by_name = signer["sid"].name == "issuer_and_serial_number"
    sid = signer["sid"].chosen
    return _Signature(
        digest=digest,
        scheme=scheme,
        salt_length=salt_length,
        value=signer["signature"].native,
        attributes=attributes,
        data_digest=data_digest,
        issuer=sid["issuer"].dump() if by_name else None,
        serial=sid["serial_number"].native if by_name else 0,
        key_identifier=None if by_name else sid.native,
        certificates=tuple(_embedded_certificates(signed["certificates"])),
    )


def _read_attributes(attributes: cms.CMSAttributes) -> tuple[bytes | None, bytes]:
    """The signed bytes of the attributes and the digest of the data that they name; (None, b"") without attributes."""
    if isinstance(attributes, Void):
        return None, b""
    values = {}
    for attribute in attributes:
        kind = attribute["type"].native
        if kind in values:
            raise SignatureError(f"the signature has two attributes {kind}")
        values[kind] = attribute["values"]
    if "content_type" not in values or values["content_type"].native != ["data"]:
        raise SignatureError("the signature is for another type of content")
    digests = values["message_digest"].native if "message_digest" in values else []
    if len(digests) != 1:
        raise SignatureError("the signature does not name exactly one digest of the data")
    # Signed as a SET OF, sent with the tag [0] in its place.
    return b"\x31" + attributes.dump()[1:], digests[0]


def _embedded_certificates(certificates: cms.CertificateSet) -> Iterator[x509.Certificate]:
    if isinstance(certificates, Void):
        return
    if len(certificates) > EMBEDDED_LIMIT:
        raise SignatureError(f"the signature holds more than {EMBEDDED_LIMIT} certificates")
    for choice in certificates:
        if choice.name == "certificate":
            certificate = x509.load_der_x509_certificate(choice.chosen.dump())
            read_whole(certificate)
            yield certificate


def _require_der(data: bytes, depth: int = 0) -> None:
    """Definite lengths in their shortest form all the way down, and nothing behind the end.

    Parsers accept more than that, and two readings of one signature are one too many.
    """
    if depth > _NESTING_LIMIT:
        raise SignatureError("the signature is nested too deeply")
    position = 0
    while position < len(data):
        tag = data[position]
        header = data[position : position + 6]
        if tag & 0x1F == 0x1F or len(header) < 2:
            raise SignatureError("the signature is not in DER")
        length, position = header[1], position + 2
        if length >= 0x80:
            count = length & 0x7F
            length = int.from_bytes(header[2 : 2 + count], "big")
            if not 1 <= count <= 4 or length < 0x80 or length >> (8 * (count - 1)) == 0:
                raise SignatureError("the signature is not in DER")
            position += count
        if position + length > len(data) or (depth == 0 and position + length != len(data)):
            raise SignatureError("the signature is cut off or followed by something else")
        if tag & 0x20:
            _require_der(data[position : position + length], depth + 1)
        position += length


def _is_der_set(data: bytes) -> bool:
    if data[:1] != b"\x31" or len(data) > SIGNATURE_BYTES:
        return False
    try:
        _require_der(data)
    except SignatureError:
        return False
    return True
