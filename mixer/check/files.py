"""The published files that a check reads, and their signatures (a part of mixer.check).

A signature is good if clients accept it, and if the certificate of its signer is in it, where clients of the original
look for it. What is missing, cannot be read or has no good signature is a problem, and `None` or false here; only a
place that cannot be listed is a BuildError. Not thread-safe.
"""

from __future__ import annotations

from collections.abc import Mapping

from cryptography.hazmat.primitives.serialization import Encoding

from mixer.check.findings import Findings
from mixer.store import PublishedTree
from swupd.errors import SignatureError
from swupd.formats import layout, signature
from swupd.formats.manifest import MANIFEST_BYTES_LIMIT


class Files:
    """The files of a tree."""

    def __init__(self, tree: PublishedTree, certificate_pem: bytes | None, findings: Findings) -> None:
        """`certificate_pem` is what clients have; with None every signature is taken as good, and none has to be there.

        Raises SignatureError if it cannot be used.
        """
        self.tree = tree
        self.asked: set[str] = set()
        """All files that were asked for."""
        self._trusted = None if certificate_pem is None else signature.load_certificates(certificate_pem)
        self._findings = findings
        self._sizes: dict[int, Mapping[str, int]] = {}

    def sizes(self, version: int) -> Mapping[str, int]:
        """All files in a version's directory with their sizes in bytes."""
        if version not in self._sizes:
            self._sizes[version] = self.tree.names(version)
        return self._sizes[version]

    def size(self, file: str) -> int | None:
        """The size of a file in a version's directory; None if it is not there, which is no problem yet."""
        return self.sizes(int(file.partition("/")[0])).get(file)

    def read(self, file: str, *, limit: int = MANIFEST_BYTES_LIMIT) -> bytes | None:
        """The content of a file that has to be there."""
        self.asked.add(file)
        if not self.tree.has(file):
            self._findings.problem(file, "is missing")
            return None
        with self._findings.about(file):
            data = self.tree.read(file, limit=limit)
            self._findings.checked.bytes += len(data)
            return data
        return None

    def read_signature(self, file: str) -> bytes | None:
        """The signature of a file, which lies beside it."""
        name = layout.signature(file)
        if self._trusted is None and not self.tree.has(name):
            return None
        return self.read(name, limit=signature.SIGNATURE_BYTES)

    def read_signed(
        self, file: str, *, limit: int = MANIFEST_BYTES_LIMIT, tolerate_expired: bool = False
    ) -> tuple[bytes | None, bool]:
        """The content of a file that has to be there, and whether it has a good signature."""
        data, der = self.read(file, limit=limit), self.read_signature(file)
        if data is None:
            return None, False
        return data, self.verify(layout.signature(file), der, file, data, tolerate_expired=tolerate_expired)

    def verify(self, shown: str, der: bytes | None, what: str, data: bytes, *, tolerate_expired: bool = False) -> bool:
        """Whether `der` signs `data`. If not, it is a problem of the file `shown`; `what` names the data.

        None stands for a missing signature, which is a problem already.
        """
        if self._trusted is None:
            return True
        if der is None:
            return False
        self._findings.checked.signatures += 1
        try:
            signer = signature.verify(data, der, self._trusted, tolerate_expired=tolerate_expired)
            if signer.public_bytes(Encoding.DER) not in der:
                raise SignatureError("it does not hold the certificate of its signer")
        except SignatureError as error:
            self._findings.problem(shown, f"the signature of {what} is not good: {error}")
            return False
        return True
