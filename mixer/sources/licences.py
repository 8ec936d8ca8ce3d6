"""Under which licences Debian's packages are, as SPDX expressions, from the copyright files that they install.

* A file in the machine-readable format names a licence for each group of files; a package is under all of them. Names
  become SPDX identifiers where these exist, and "LicenseRef-<name>" where they do not. The expression names all
  licences or is empty: one that leaves out what cannot be read would be wrong.
* What is no such file, or has no licence in the form of a name, says nothing: an empty expression, never an error.
* A mix may leave out documentation (path_excludes). Then INCLUDED is installed all the same, to be read, and
  `drop_excluded` removes what came with it, so that the root is the one which was asked for.
"""

from __future__ import annotations

import fnmatch
import os
import re
import stat
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from debian.deb822 import Deb822

from mixer.packagelist import canonical_licence
from mixer.sources.dpkg import Canonical

DIRECTORY = "/usr/share/doc"
INCLUDED = f"{DIRECTORY}/*/copyright"
"""Pattern of dpkg for the files that are read."""
MAX_BYTES = 8 << 20
"""A copyright file; the largest of Debian have 2 MB."""
MAX_CHARACTERS = 10_000
"""An expression; a longer one tells nobody anything."""

_NAMES = {
    "artistic": "Artistic-1.0",
    "artistic-1": "Artistic-1.0",
    "artistic-2": "Artistic-2.0",
    "apache-2": "Apache-2.0",
    "cc0": "CC0-1.0",
    "expat": "MIT",
    "fsf-unlimited-permission": "FSFULLR",
    "gfdl-niv-1.2": "GFDL-1.2-no-invariants-only",
    "gfdl-niv-1.2+": "GFDL-1.2-no-invariants-or-later",
    "gfdl-niv-1.3": "GFDL-1.3-no-invariants-only",
    "gfdl-niv-1.3+": "GFDL-1.3-no-invariants-or-later",
    "gpl": "GPL-1.0-or-later",
    "lgpl": "LGPL-2.0-or-later",
    "mpl-2": "MPL-2.0",
}
"""Names of Debian (in lower case) that SPDX has another one for. Where the version is left open, any is meant."""
_EXCEPTIONS = {
    "autoconf": "Autoconf-exception-generic",
    "bison": "Bison-exception-2.2",
    "font": "Font-exception-2.0",
    "gcc": "GCC-exception-3.1",
    "libtool": "Libtool-exception",
    "linux-syscall-note": "Linux-syscall-note",
    "texinfo": "Texinfo-exception",
}
_GNU = re.compile(r"([AL]?GPL|GFDL)-(\d(?:\.\d)?)(?:\.0)?(\+|-only|-or-later)?", re.IGNORECASE)
_TERM = re.compile(r"([^\s,]{1,80})(?: with (?:the )?([^,]{1,80}?)[- ]exception)?", re.IGNORECASE)
_COMMA = re.compile(r"\s*,\s+(and|or)\s+", re.IGNORECASE)
_OR, _AND = re.compile(r"\s+or\s+", re.IGNORECASE), re.compile(r"\s+and\s+", re.IGNORECASE)
_NO_ID = re.compile(r"[^A-Za-z0-9.]+")


def read(root: Path, packages: Iterable[str]) -> dict[str, str]:
    """Package -> SPDX expression, for those of the installed packages that say one."""
    canonical = Canonical(str(root))
    found = {}
    for name in packages:
        path = canonical.target(f"{DIRECTORY}/{name}/copyright")
        data = _content(f"{root}{path}") if path else b""
        if text := expression(data):
            found[name] = text
    return found


def drop_excluded(root: Path, path_excludes: Sequence[str]) -> None:
    """Remove what is in the documentation only for the sake of INCLUDED. Raises OSError."""
    matches = [re.compile(fnmatch.translate(pattern)).match for pattern in path_excludes]

    def drop(path: str) -> None:
        place = f"{root}{path}"
        is_directory = stat.S_ISDIR(os.lstat(place).st_mode)
        if is_directory:
            for name in os.listdir(place):
                drop(f"{path}/{name}")
        if any(match(path) for match in matches):
            if not is_directory:
                os.unlink(place)
            elif not os.listdir(place):
                os.rmdir(place)

    if matches and os.path.isdir(f"{root}{DIRECTORY}"):
        drop(DIRECTORY)


def expression(data: bytes) -> str:
    """The SPDX expression of a copyright file; empty if it does not say one."""
    found: set[str] = set()
    try:
        for synopsis in _synopses(data):
            found |= _demands(synopsis)
    except _UnclearError:
        return ""
    text = _joined("AND", found)
    return text if len(text) <= MAX_CHARACTERS else ""


class _UnclearError(Exception):
    """Something else than names of licences."""


def _synopses(data: bytes) -> list[str]:
    """What names the licences of a file in the machine-readable format: those of all its groups of files."""
    if not data.lstrip().startswith((b"Format", b"format")):
        return []
    text = data.decode(errors="replace")
    paragraphs: list[Mapping[str, str]] = list(Deb822.iter_paragraphs(text.splitlines(), use_apt_pkg=False))
    groups = [paragraph for paragraph in paragraphs if "Files" in paragraph]
    return [str(group.get("License", "")).partition("\n")[0].strip() for group in groups or paragraphs[:1]]


def _demands(synopsis: str) -> set[str]:
    """Expressions that hold all together. Of the operators, "and" binds before "or", and a comma last."""
    first, *rest = _COMMA.split(synopsis)
    found = _group(first)
    for operator, text in zip(rest[::2], rest[1::2], strict=True):
        group = _group(text)
        both = found | group
        found = both if operator.lower() == "and" else {_joined("OR", {_joined("AND", found), _joined("AND", group)})}
    return found


def _group(text: str) -> set[str]:
    alternatives = [{_term(term) for term in _AND.split(alternative)} for alternative in _OR.split(text)]
    if len(alternatives) == 1:
        return alternatives[0]
    return {_joined("OR", {_joined("AND", terms) for terms in alternatives})}


def _joined(operator: str, parts: set[str]) -> str:
    if len(parts) == 1:
        return next(iter(parts))
    return f" {operator} ".join(
        f"({part})" if _AND.search(part) or _OR.search(part) else part for part in sorted(parts)
    )


def _term(text: str) -> str:
    """One licence, perhaps with an exception."""
    match = _TERM.fullmatch(text.strip())
    if match is None:
        raise _UnclearError
    known = _known(match[1])
    if match[2] is not None and known:
        known = canonical_licence(f"{known} WITH {_EXCEPTIONS.get(match[2].lower(), '')}")
    return known or _reference(match[0])


def _known(name: str) -> str:
    """The SPDX identifier of a name, empty if there is none."""
    gnu = _GNU.fullmatch(name)
    if gnu is None:
        return canonical_licence(_NAMES.get(name.lower(), name))
    version = gnu[2] if "." in gnu[2] else f"{gnu[2]}.0"
    later = "or-later" if gnu[3] in ("+", "-or-later") else "only"
    return canonical_licence(f"{gnu[1].upper()}-{version}-{later}")


def _reference(name: str) -> str:
    plain = _NO_ID.sub("-", name.replace("+", "-or-later")).strip("-")
    if not plain:
        raise _UnclearError
    return f"LicenseRef-{plain}"


def _content(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError:
        return b""
    return data if len(data) <= MAX_BYTES else b""
