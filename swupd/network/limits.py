"""What a server may ask of us: every size, count and time of a download has its limit here."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class FetchLimits:
    """Seconds, bytes, counts."""

    connect_seconds: float = 30
    read_seconds: float = 120
    """Without a single byte."""
    minimum_rate: int = 256
    """Bytes per second, on average after `grace_seconds`: so an answer of n bytes ends after grace + n / rate."""
    grace_seconds: float = 120
    object_seconds: float = 24 * 3600
    """One object, with all attempts and the waits between them; what --limit-rate holds back does not count."""
    redirections: int = 5
    backoff_seconds: float = 60
    """The longest wait before a retry..."""
    asked_seconds: float = 120
    """... unless the server asks for one, up to this."""
    mirror_failures: int = 3
    """So many failures of a server in a row are a reason to ask its mirrors first."""
    mirror_rest_seconds: float = 60
    """So long a server that was not reached is left alone if it has mirrors."""
    failures_in_a_row: int = 20
    """So many downloads that fail one after the other are a server that is gone."""
    chunk_bytes: int = 1 << 17
    drained_bytes: int = 1 << 16
    """A body that nobody wants is read up to here, to keep its connection."""
    resume_bytes: int = 1 << 16
    """Smaller objects are not worth a note for a later run."""
    version_bytes: int = 1 << 16
    """U1: one version per line."""
    latest_bytes: int = 11
    """U3."""
    format_bytes: int = 64
    """U5."""
    signature_bytes: int = 1 << 16
    manifest_bytes: int = 256 << 20
    """Compressed; so are the next two."""
    object_bytes: int = 8 << 30
    pack_bytes: int = 64 << 30
    unannounced_bytes: int = 1 << 30
    """Content of which the server does not say how long it is: it may have no end."""
