"""Whether a published file is signed by whom this machine trusts (swupd client specification, section 5.4).

* The certificate is read once, when the verifier is made; if it is missing or not valid nothing is downloaded at all.
* A second certificate beside it (`<certificate>.alt`) helps while keys are exchanged: where the first one does not
  verify a signature the second one is tried, and whichever succeeded last goes first the next time.
* With signature checking off nothing is read, and each file that goes unchecked is named in a warning and in the
  system's log.

Thread-safe.
"""

from __future__ import annotations

import syslog
from pathlib import Path
from typing import TYPE_CHECKING

from swupd.errors import SignatureError
from swupd.report import Report
from swupd.settings import Settings

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

CERTIFICATE_LIMIT = 1 << 20
"""Bytes of a certificate file."""
ALTERNATIVE_SUFFIX = ".alt"
_LOG_NAME = "swupd"


class Verifier:
    """Checks detached signatures against the certificate of the settings.

    Raises SignatureError when made, if checking is on and the certificate cannot be used.
    """

    def __init__(self, settings: Settings, report: Report) -> None:
        self._report = report
        self._path = settings.certificate
        self.enabled = settings.check_signatures
        self._trusted: list[list[Certificate]] = []
        if self.enabled:
            self._trusted = self._load()

    def verify(self, data: bytes, der: bytes, *, what: str, tolerate_expired: bool = False) -> None:
        """Check one signature; with checking off, only warn.

        what: the file and where it came from, for messages. tolerate_expired: accept a signer whose time is over.
        Raises SignatureError.
        """
        if not self.enabled:
            self.skip(what)
            return
        from swupd.formats.signature import verify

        failures: list[SignatureError] = []
        for certificates in list(self._trusted):
            try:
                verify(data, der, certificates, tolerate_expired=tolerate_expired)
            except SignatureError as error:
                failures.append(error)
                continue
            if failures:
                self._trusted = [certificates, *(other for other in self._trusted if other is not certificates)]
            return
        raise SignatureError(
            f"{what}: {failures[0]}",
            hint=f"nothing was changed; if the publisher's key is new, get its certificate and replace {self._path} "
            "(or give it with --certpath)",
        ) from failures[0]

    def skip(self, what: str) -> None:
        """Say that a file is used without a check of its signature."""
        self._report.warning(f"the signature of {what} is not checked")
        syslog.openlog(_LOG_NAME)
        syslog.syslog(syslog.LOG_ERR, f"the signature of {what} is not checked")

    def _load(self) -> list[list[Certificate]]:
        """The certificates, then the alternative ones; at least one of the files must be usable."""
        alternative = self._path.with_name(self._path.name + ALTERNATIVE_SUFFIX)
        paths = [self._path, alternative] if alternative.exists() else [self._path]
        loaded: list[list[Certificate]] = []
        failures: list[SignatureError] = []
        for path in paths:
            try:
                loaded.append(_certificates(path))
            except SignatureError as error:
                failures.append(error)
        if not loaded:
            raise failures[0]
        return loaded


def _certificates(path: Path) -> list[Certificate]:
    from swupd.formats.signature import load_certificates

    hint = "give the publisher's certificate with --certpath"
    try:
        with path.open("rb") as file:
            pem = file.read(CERTIFICATE_LIMIT)
    except OSError as error:
        raise SignatureError(f"cannot read the certificate {path}: {error.strerror}", hint=hint) from error
    try:
        return load_certificates(pem)
    except SignatureError as error:
        raise SignatureError(f"the certificate {path} cannot be used: {error}", hint=error.hint or hint) from error
