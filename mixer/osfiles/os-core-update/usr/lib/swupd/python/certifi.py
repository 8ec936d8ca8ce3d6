"""The module that requests asks for trusted certificates: here the operating system's own, kept by ca-certificates.

The library of this name brings a bundle of its own, which no administrator could change.
"""

from __future__ import annotations

_BUNDLE = "/etc/ssl/certs/ca-certificates.crt"


def where() -> str:
    """The path of the file with all certificates, PEM."""
    return _BUNDLE


def contents() -> str:
    """The content of that file."""
    with open(_BUNDLE, encoding="ascii") as stream:
        return stream.read()
