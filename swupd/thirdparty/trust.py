"""The certificate of a repository that nobody knows yet: trust on first use (specification section 7.3).

What a repository's newest `os-core` says its certificate is, is shown to a person, who decides. Until then nothing is
verified but the way from the manifest of manifests to the certificate, by hashes, and nothing is written. The person's
yes is about exactly the bytes that were shown; everything that is used of the repository is fetched and verified anew
with them.
"""

from __future__ import annotations

import io
import re
from typing import TYPE_CHECKING

from swupd.errors import DownloadError, FormatError, RefusedCertificateError, ServerError, SignatureError
from swupd.faces.prompt import ask
from swupd.formats import archive, filehash, layout
from swupd.formats.manifest import Entry, FileType, Manifest, parse
from swupd.report import Report
from swupd.versions import parse_versions

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

    from swupd.network.fetch import Fetcher
    from swupd.settings import Settings

CERTIFICATE_LIMIT = 1 << 20
"""Bytes of a certificate file."""
_MANIFEST_MODE = 0o100644


def accept_certificate(settings: Settings, fetcher: Fetcher, report: Report, *, assume: bool | None) -> bytes:
    """The certificate (PEM) of the repository of `settings`, which a person, or `assume`, has accepted.

    Raises RefusedCertificateError if there is none that could be used or the answer is no, and what fetching raises.
    """
    url = settings.content_url
    pem = offered_certificate(settings, fetcher)
    try:
        lines = describe(pem)
    except SignatureError as error:
        raise RefusedCertificateError(
            f"the certificate of {url} cannot be used: {error}", hint="give another one with --certpath"
        ) from error
    report.info(f"{url} has this certificate:")
    for line in lines:
        report.info(f"  {line}")
    if not ask(report, "Compare it with what its publisher says. Trust it?", assume=assume):
        raise RefusedCertificateError(
            f"the certificate of {url} is not trusted; nothing was changed",
            hint="answer yes (--yes) if it is the right one, or give the right one with --certpath",
        )
    return pem


def offered_certificate(settings: Settings, fetcher: Fetcher) -> bytes:
    """The certificate that the newest version of a repository has, unverified."""
    url, limits = settings.content_url, fetcher.limits
    latest = f"{settings.version_url}/{layout.latest(settings.format)}"
    try:
        version = parse_versions(fetcher.get(latest, limit=limits.version_bytes, uncached=True), latest)[0]
    except DownloadError as error:
        raise ServerError(
            str(error), hint=f"check the URL, and whether it has content of format {settings.format}"
        ) from error
    try:
        mom, _ = _manifest(url, version, layout.MOM, fetcher)
        os_core = _entry(mom, layout.OS_CORE, FileType.MANIFEST)
        manifest, file_hash = _manifest(url, os_core.version, layout.OS_CORE, fetcher)
        if file_hash != os_core.hash:
            raise FormatError(f"the manifest of {layout.OS_CORE} is not the one of version {version}")
        entry = _entry(manifest, layout.CERTIFICATE, FileType.FILE)
        packed = fetcher.get(f"{url}/{layout.fullfile(entry.version, entry.hash)}", limit=limits.object_bytes)
        member, chunks = archive.read_fullfile(io.BytesIO(packed), entry.hash)
        if member.size > CERTIFICATE_LIMIT:
            raise FormatError(f"{layout.CERTIFICATE} has {member.size} bytes")
        return b"".join(chunks)
    except (FormatError, DownloadError) as error:
        raise RefusedCertificateError(
            f"the certificate of {url} cannot be had: {error}",
            hint="check the URL, or give the publisher's certificate with --certpath",
        ) from error


def describe(pem: bytes) -> list[str]:
    """All certificates of a file for people; SignatureError if they cannot be used."""
    from swupd.formats.signature import load_certificates

    lines: list[str] = []
    for certificate in load_certificates(pem):
        lines += _describe(certificate)
    return lines


def _describe(certificate: Certificate) -> list[str]:
    from cryptography.hazmat.primitives import hashes, serialization

    return [
        f"issuer:      {_printable(certificate.issuer.rfc4514_string())}",
        f"subject:     {_printable(certificate.subject.rfc4514_string())}",
        f"valid:       {certificate.not_valid_before_utc:%Y-%m-%d} to {certificate.not_valid_after_utc:%Y-%m-%d}",
        f"fingerprint: SHA256 {certificate.fingerprint(hashes.SHA256()).hex(':').upper()}",
        *certificate.public_bytes(serialization.Encoding.PEM).decode().splitlines(),
    ]


def _manifest(url: str, version: int, bundle: str, fetcher: Fetcher) -> tuple[Manifest, str]:
    """A manifest and its hash."""
    packed = fetcher.get(f"{url}/{layout.manifest_tar(version, bundle)}", limit=fetcher.limits.manifest_bytes)
    data = archive.read_manifest_tar(packed, bundle)[layout.manifest_name(bundle)]
    manifest = parse(data, name=bundle, is_mom=bundle == layout.MOM)
    return manifest, filehash.hash_content(_MANIFEST_MODE, 0, 0, data)


def _entry(manifest: Manifest, name: str, kind: FileType) -> Entry:
    for entry in manifest.entries:
        if entry.name == name and entry.type is kind and entry.is_present:
            return entry
    raise FormatError(f"version {manifest.version} has no {name}")


def _printable(text: str) -> str:
    """Names in certificates are from outside: what could move a terminal's cursor is not shown."""
    return re.sub(r"[^ -~\u00a0-\U0010ffff]|[\u2028-\u202e\u2066-\u2069]", "?", text)
