"""Every URL and every file name of a published tree, and the names that both sides agree on below a root.

Pure string functions: nothing is opened or fetched here. A name is relative to the content URL or the version URL of
the swupd client specification, section 1.1 (the U numbers below are that table's), or it is an absolute path of an
installed system. Names of files in the state directory (section 5.2) that the wire format decides are here as well.

What the functions guarantee: the result has no empty, `.` or `..` component and no character that ends a path
component early. Arguments are values that were validated where they came in (versions by the manifest parser, formats
by the settings, bundle names by `manifest.is_bundle_name`); an argument that would break the guarantee is a bug of the
caller and raises ValueError, so that it never becomes a request or a file.
"""

from __future__ import annotations

import re

MOM = "MoM"
"""The manifest of manifests, where a bundle name is expected."""
FULL = "full"
"""The union of all bundles; published, never listed in a MoM."""
OS_CORE = "os-core"
"""The bundle that every system has."""
RESERVED_NAMES = frozenset({MOM, FULL})
"""What no bundle may be called (section 2.3)."""

STAGING_FORMAT = "staging"
"""The one format that is a word instead of a positive number."""

LATEST_OVERALL = "version/latest_version"

STAGED_DIRECTORY = "staged"
DELTA_DIRECTORY = "delta"
"""The two directories in a pack, and the directories of the state directory that they are unpacked to."""
GZIP_DIRECTORY = "gzip"
"""The third directory in an update pack: deltas between the contents of gzip files."""

DELTA_PREFIX = "10-20-"
"""The two meaningless version fields that every mixer writes in front of a delta's hashes (section 1.4)."""

TRACKING = "/usr/share/clear/bundles"
OS_RELEASE = "/usr/lib/os-release"
OS_RELEASE_FALLBACK = "/etc/os-release"
DEFAULTS = "/usr/share/defaults/swupd"
FORMAT_FILE = f"{DEFAULTS}/format"
CONTENT_URL_FILE = f"{DEFAULTS}/contenturl"
VERSION_URL_FILE = f"{DEFAULTS}/versionurl"
VERSION_FILE = "/usr/share/clear/version"
VERSION_STAMP = "/usr/share/clear/versionstamp"
CERTIFICATE = "/usr/share/clear/update-ca/Swupd_Root.pem"

_HASH = re.compile(r"[0-9a-f]{64}")
_DELTA_NAME = re.compile(r"(?:[^-/]*-[^-/]*-)?([0-9a-f]{64})-([0-9a-f]{64})")
_CACHE_NAME = str.maketrans({":": "_", "/": "_"})


def latest(format_name: str | int) -> str:
    """U1: the newest version within one format."""
    return f"version/format{_format(format_name)}/latest"


def latest_overall() -> str:
    """U3: the newest version over all formats."""
    return LATEST_OVERALL


def signature(name: str) -> str:
    """U2, U4, U7: the detached signature of a published file."""
    return f"{name}.sig"


def format_file(version: int) -> str:
    """U5: which format a version belongs to."""
    return f"{_version(version)}/format"


def manifest_name(bundle: str) -> str:
    """The file name of a manifest: on a server, inside its tar, and in the state directory."""
    return f"Manifest.{_component(bundle)}"


def manifest(version: int, bundle: str) -> str:
    """The plain manifest of `bundle` in the directory of `version`."""
    return f"{_version(version)}/{manifest_name(bundle)}"


def manifest_tar(version: int, bundle: str) -> str:
    """U6, U8: what a client downloads."""
    return f"{manifest(version, bundle)}.tar"


def manifest_signature(version: int) -> str:
    """U7: the signature of the MoM."""
    return signature(manifest(version, MOM))


def manifest_delta(version: int, bundle: str, from_version: int) -> str:
    """U9: makes the manifest of `version` from the one of `from_version`."""
    return f"{_version(version)}/Manifest-{_component(bundle)}-delta-from-{_version(from_version)}"


def pack_name(bundle: str, from_version: int) -> str:
    """The file name of a pack, without its directory."""
    return f"pack-{_component(bundle)}-from-{_version(from_version, zero=True)}.tar"


def pack(version: int, bundle: str, from_version: int) -> str:
    """U10: what `bundle` needs to get from one version to another; 0 is "from nothing"."""
    return f"{_version(version)}/{pack_name(bundle, from_version)}"


def update_pack(version: int, from_version: int) -> str:
    """What all bundles together need to get from one version to another; original clients do not know of it."""
    return f"{_version(version)}/update-from-{_version(from_version)}.tar"


def update_index(version: int) -> str:
    """What the ways to `version` cost, signed; original clients do not know of it."""
    return f"{_version(version)}/update-index"


def checksums(version: int) -> str:
    """The checksums of all files of a version, signed; for mirrors and publishers, no client reads them."""
    return f"{_version(version)}/checksums"


def packages(version: int) -> str:
    """What a version says about its packages, for the builder of images; no client reads it."""
    return f"{_version(version)}/packages.json.zst"


def fullfiles(version: int) -> str:
    """The directory of a version's fullfiles."""
    return f"{_version(version)}/files"


def fullfile(version: int, file_hash: str) -> str:
    """U11: one object on its own."""
    return f"{fullfiles(version)}/{_hash(file_hash)}.tar"


def staged_name(file_hash: str) -> str:
    """The pack member that is the object itself."""
    return f"{STAGED_DIRECTORY}/{_hash(file_hash)}"


def delta_name(from_hash: str, to_hash: str) -> str:
    """The base name of a file delta; the prefix is written because clients before September 2022 expect it."""
    return f"{DELTA_PREFIX}{_hash(from_hash)}-{_hash(to_hash)}"


def gzip_delta_name(from_hash: str, to_hash: str) -> str:
    """The base name of a delta between the contents of two gzip files."""
    return f"{_hash(from_hash)}-{_hash(to_hash)}"


def parse_delta_name(name: str) -> tuple[str, str] | None:
    """The hashes (from, to) in the base name of a file delta, with or without version fields; None for other names."""
    match = _DELTA_NAME.fullmatch(name)
    return (match[1], match[2]) if match else None


def marker(bundle: str) -> str:
    """The empty file that makes `bundle` an installed one."""
    return f"{TRACKING}/{_component(bundle)}"


def cache_name(content_url: str) -> str:
    """The directory of the state directory that belongs to a content URL: "https://a/b" -> "https___a_b".

    The original's rule, so that both clients find each other's files. It is not injective, which is harmless: every
    object and manifest is verified by its hash whatever directory it lies in.
    """
    name = content_url.rstrip("/").translate(_CACHE_NAME)
    return _component(name)


def cached_manifest_delta_name(bundle: str, from_version: int, version: int) -> str:
    """A manifest delta in the state directory."""
    return f"Manifest-{_component(bundle)}-delta-from-{_version(from_version)}-to-{_version(version)}"


def pack_marker(bundle: str, from_version: int, version: int) -> str:
    """The empty file of the state directory which says that a pack was unpacked."""
    return f"pack-{_component(bundle)}-from-{_version(from_version, zero=True)}-to-{_version(version)}.tar"


def update_pack_marker(from_version: int, version: int) -> str:
    """The same for an update pack. No bundle's marker has this name: no bundle's name begins with a hyphen."""
    return f"pack--update-from-{_version(from_version)}-to-{_version(version)}.tar"


def _version(version: int, *, zero: bool = False) -> str:
    if type(version) is not int or version < (0 if zero else 1):
        raise ValueError(f"not a version number: {version!r}")
    return str(version)


def _format(name: str | int) -> str:
    text = str(name)
    if text != STAGING_FORMAT and not (text.isascii() and text.isdigit() and int(text) > 0):
        raise ValueError(f"not a format: {name!r}")
    return text


def _component(name: str) -> str:
    if not name or name in {".", ".."} or "/" in name or not name.isprintable():
        raise ValueError(f"not a file name: {name!r}")
    return name


def _hash(file_hash: str) -> str:
    if not _HASH.fullmatch(file_hash):
        raise ValueError(f"not a hash: {file_hash!r}")
    return file_hash
