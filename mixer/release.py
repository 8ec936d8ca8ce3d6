"""Who signs a mix: the certificate that clients trust, its key, and the signatures made with them.

* The first build makes both if neither is there: RSA-4096, self-signed, valid for CERTIFICATE_DAYS. The certificate is
  public and ships in the update bundle; the key (mode 0600 from the moment it exists) stays on the build machine.
* A `Signer` that could be loaded works: key and certificate belong together and clients accept the certificate today.
  So a build fails before its work, not after it.
* A signature is kept while it is valid for the same data, because it contains the time of signing: building a version
  again leaves the same bytes.

Nothing that exists is ever overwritten. An expired certificate cannot be renewed by itself: clients only trust the one
they have, and get the next one with an update that the old one signed. That is why the end is far away and announced
EXPIRY_WARNING_DAYS before.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

from mixer.errors import BuildError
from swupd.errors import SignatureError
from swupd.formats import signature
from swupd.fs import replace_file
from swupd.report import Report

CERTIFICATE_DAYS = 3652
"""Ten years. The original's certificates end after one, and every fleet that nobody watches stops updating then."""
EXPIRY_WARNING_DAYS = 365
"""From then on every build says that clients need a new certificate."""
COMMON_NAME = "Mixer"
MAX_PEM_BYTES = 256 * 1024
"""A certificate or key file."""

_PROBE = b"probe"


class Signer:
    """Certificate and key that were found to work together."""

    def __init__(self, certificate_pem: bytes, key_pem: bytes) -> None:
        """Raises SignatureError if they do not, or if clients would refuse the certificate."""
        self._key = signature.SigningKey(certificate_pem, key_pem)
        self._trusted = signature.load_certificates(certificate_pem)
        signature.verify(_PROBE, self.sign(_PROBE), self._trusted)

    @property
    def valid_until(self) -> datetime:
        return self._trusted[0].not_valid_after_utc

    def sign(self, data: bytes) -> bytes:
        """A detached signature."""
        return self._key.sign(data)

    def sign_again(self, data: bytes, former: bytes | None) -> bytes:
        """The former signature if clients accept it for this data, else a new one."""
        if former is not None:
            try:
                signature.verify(data, former, self._trusted)
            except SignatureError:
                pass
            else:
                return former
        return self.sign(data)


def ensure_certificate(certificate: Path, key: Path, report: Report) -> None:
    """Make certificate and key if neither exists. Raises BuildError if only the key does."""
    if certificate.exists():
        return
    if key.exists():
        raise BuildError(
            f"there is a key {key} but no certificate {certificate}",
            hint="restore the certificate; or, for a new mix, remove the key to have both made",
        )
    certificate_pem, key_pem = signature.make_certificate(COMMON_NAME, CERTIFICATE_DAYS, datetime.now(UTC))
    try:
        for path in (key, certificate):
            path.parent.mkdir(parents=True, exist_ok=True)
        _write_key(key, key_pem)
        replace_file(certificate, certificate_pem)
    except OSError as error:
        raise BuildError(f"cannot write {error.filename or key}: {error.strerror}") from error
    report.info(f"Made the signing certificate {certificate}, valid for ten years, and its key {key}: keep that safe")


def load_signer(certificate: Path, key: Path, report: Report) -> Signer:
    """The signer of a mix; warns of an end that comes near. Raises BuildError if the two cannot sign for clients."""
    try:
        signer = Signer(read_pem(certificate, "certificate"), read_pem(key, "key"))
    except SignatureError as error:
        raise BuildError(
            f"cannot sign with {certificate} and {key}: {error}",
            hint=error.hint or "restore the two files that were made together",
        ) from error
    left = signer.valid_until - datetime.now(UTC)
    if left < timedelta(days=EXPIRY_WARNING_DAYS):
        report.warning(
            f"the signing certificate ends on {signer.valid_until:%Y-%m-%d}: give all clients a new one before that day"
        )
    return signer


def read_pem(path: Path, what: str) -> bytes:
    """A signing certificate or key, as `what` says. Raises BuildError."""
    try:
        with path.open("rb") as file:
            return file.read(MAX_PEM_BYTES)
    except FileNotFoundError as error:
        raise BuildError(
            f"the signing {what} {path} does not exist",
            hint="`mixer build bundles` makes certificate and key where neither exists",
        ) from error
    except OSError as error:
        raise BuildError(f"cannot read the signing {what} {path}: {error.strerror}") from error


def _write_key(path: Path, pem: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with open(descriptor, "wb") as file:
        file.write(pem)
        file.flush()
        os.fsync(file.fileno())
