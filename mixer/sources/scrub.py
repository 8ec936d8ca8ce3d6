"""What an installed root has and a published one must not have.

* Secrets and identities, which every machine makes for itself: private keys made by maintainer scripts, the names of
  the build host, the contents of machine-id.
* State of the package manager, and whatever else of /var is state rather than content: below /var only the directories
  and links of packages remain (and a few that base-files makes), and no file in /var/lib, /var/cache and /var/log.
* What the builder put there, what belongs to a running kernel (/dev, /proc, /run, /sys, /tmp), links for boot loaders
  that we do not use, start-up links of System V, backup copies, and ld.so.cache, which depends on all that is installed
  on a machine: clients run ldconfig, and a stateless version has one of its own.

Alternatives are flattened: /usr/bin/vi -> /etc/alternatives/vi -> /usr/bin/vim.tiny becomes /usr/bin/vi -> vim.tiny,
which needs no state in /etc. A choice whose target is not there loses its link.

File capabilities are an attribute that manifests cannot express. Where the package's own script falls back to a setuid
bit when a capability cannot be set (ping), that is done; elsewhere the capability is lost and the result says so.

All decisions depend only on names, owners and contents, so equal roots are scrubbed equally.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
from collections.abc import Container, Mapping
from contextlib import suppress
from fnmatch import fnmatchcase
from pathlib import Path

from mixer.sources.dpkg import STATE, Canonical
from swupd.formats import filehash

ALTERNATIVES = "/etc/alternatives"
CERTIFICATES = "/etc/ssl/certs"

EMPTIED = ("/dev", "/proc", "/run", "/sys", "/tmp", "/var/backups", "/var/tmp")  # noqa: S108 (names in the root)
"""Directories that are kept without what is in them."""

STATE_TREES = (
    "/var/cache/apt",
    "/var/cache/debconf",
    "/var/cache/ldconfig",
    "/var/lib/apt",
    "/var/lib/dpkg",
    "/var/lib/pam",
    "/var/lib/python",
    "/var/lib/ucf",
    "/var/log/apt",
)
"""State of the package manager and its helpers; goes as a whole."""

NO_FILES = ("/var/cache", "/var/lib", "/var/log")
"""Below these only directories and links are kept."""

ONLY_OWNED = ("/etc/apt", "/etc/dpkg/dpkg.cfg.d", "/var")
"""Below these only what packages list is kept, and KEPT."""

KEPT = ("/var/log/journal", "/var/mail", "/var/opt", "/var/spool/mail")
"""Made by scripts of essential packages and wanted on every system."""

OF_ONE_MACHINE = (
    ".pwd.lock",
    "group-",
    "gshadow-",
    "hostname",
    "passwd-",
    "rc[0-6S].d/*",
    "resolv.conf",
    "shadow-",
    "ssh/ssh_host_*",
    "subgid-",
    "subuid-",
)
"""Patterns of names below /etc."""

UNWANTED = (
    *(f"/etc/{name}" for name in OF_ONE_MACHINE),
    "/etc/ld.so.cache",
    "/etc/ssl/certs/ssl-cert-snakeoil.pem",
    "/etc/ssl/private/ssl-cert-snakeoil.key",
    "/etc/systemd/system/*.wants/apt-daily*",
    "/etc/systemd/system/*.wants/dpkg-db-backup.*",
    "/initrd.img",
    "/initrd.img.old",
    "/lost+found",
    "/vmlinuz",
    "/vmlinuz.old",
)
"""Patterns of single paths."""

_LEFTOVER = re.compile(r"/etc/.*\.(?:dpkg|ucf)-(?:new|dist|old|tmp)")
_PRIVATE_KEY = re.compile(rb"-----BEGIN [A-Z ]*PRIVATE KEY-----")
_KEY_SCAN_BYTES = 4096
"""How much of a file is searched for the beginning of a key."""
_MERGED = ("/lib32", "/lib64", "/libo32", "/libx32")
"""Links of a merged /usr that only some systems need."""
_CAPABILITY = "security.capability"
_SETUID_FALLBACK = re.compile(r"^[^#\n]*\bchmod\s+(?:[a-z]*\+[a-z]*s|4[0-7]{3})\b", re.MULTILINE)


def is_unwanted(path: str, *, is_file: bool, owned: Container[str]) -> bool:
    """True if a path never ships, going by its name; `owned` are the paths that packages list."""
    if any(fnmatchcase(path, pattern) for pattern in UNWANTED) or _LEFTOVER.fullmatch(path):
        return True
    if _is_below(path, EMPTIED) or path in STATE_TREES or _is_below(path, STATE_TREES):
        return True
    if is_file and _is_below(path, NO_FILES):
        return True
    return _is_below(path, ONLY_OWNED) and path not in owned and path not in KEPT


def scrub(root: Path, owned: Container[str]) -> list[str]:
    """Remove all that never ships; the private keys that were found besides those expected, for the record.

    Alternatives must be flattened before: their links count as owned by nobody.
    """
    keys = []
    for found in list(filehash.walk(str(root))):
        path, mode = found.name, found.status.st_mode
        if is_unwanted(path, is_file=not stat.S_ISDIR(mode) and not stat.S_ISLNK(mode), owned=owned):
            _remove(found.path)
        elif path not in owned and path.startswith("/etc/") and stat.S_ISREG(mode) and holds_private_key(found.path):
            keys.append(path)
            _remove(found.path)
    _drop_dangling(root, CERTIFICATES)
    _drop_unused_merged_links(root)
    machine_id = root / "etc/machine-id"
    if machine_id.is_file() and not machine_id.is_symlink():
        machine_id.write_bytes(b"")
    return keys


def flatten_alternatives(root: Path) -> int:
    """Make every link that leads through /etc/alternatives lead to the choice itself; how many there were."""
    canonical = Canonical(str(root))
    flattened = 0
    for found in list(filehash.walk(str(root))):
        if not stat.S_ISLNK(found.status.st_mode) or found.name.startswith(f"{ALTERNATIVES}/"):
            continue
        if not os.readlink(found.path).startswith(f"{ALTERNATIVES}/"):
            continue
        target = canonical.target(found.name)
        os.unlink(found.path)
        if target is not None:
            os.symlink(os.path.relpath(target, found.name.rpartition("/")[0] or "/"), found.path)
        flattened += 1
    _remove(f"{root}{ALTERNATIVES}")
    return flattened


def convert_capabilities(root: Path, owners: Mapping[str, tuple[str, ...]]) -> list[str]:
    """Take away all file capabilities; what was done about each, in words."""
    notes = []
    for found in filehash.walk(str(root)):
        mode = found.status.st_mode
        if not stat.S_ISREG(mode) or _CAPABILITY not in os.listxattr(found.path, follow_symlinks=False):
            continue
        os.removexattr(found.path, _CAPABILITY, follow_symlinks=False)
        if any(_falls_back_to_setuid(root, package) for package in owners.get(found.name, ())):
            os.chmod(found.path, stat.S_IMODE(mode) | stat.S_ISUID)
            notes.append(f"{found.name} is setuid instead of having a file capability, as its package provides for")
        else:
            notes.append(f"{found.name} loses its file capability, which no manifest can express")
    return notes


def _falls_back_to_setuid(root: Path, package: str) -> bool:
    script = root / STATE / "info" / f"{package}.postinst"
    try:
        return bool(_SETUID_FALLBACK.search(script.read_text(errors="replace")))
    except OSError:
        return False


def holds_private_key(path: str) -> bool:
    """True if a private key begins in the first bytes of a file."""
    with open(path, "rb") as stream:
        return bool(_PRIVATE_KEY.search(stream.read(_KEY_SCAN_BYTES)))


def _is_below(path: str, directories: tuple[str, ...]) -> bool:
    return any(path.startswith(directory + "/") for directory in directories)


def _drop_dangling(root: Path, directory: str) -> None:
    """Drop links of a directory whose target was removed."""
    canonical = Canonical(str(root))
    place = f"{root}{directory}"
    if not os.path.isdir(place):
        return
    for name in os.listdir(place):
        if os.path.islink(f"{place}/{name}") and canonical.target(f"{directory}/{name}") is None:
            os.unlink(f"{place}/{name}")


def _drop_unused_merged_links(root: Path) -> None:
    for path in _MERGED:
        link, directory = root / path[1:], root / "usr" / path[1:]
        if link.is_symlink() and directory.is_dir() and not any(directory.iterdir()):
            link.unlink()
            directory.rmdir()


def _remove(path: str) -> None:
    """Remove an object with all below it; a parent that was unwanted has taken it along already."""
    with suppress(FileNotFoundError, NotADirectoryError):
        if stat.S_ISDIR(os.lstat(path).st_mode):
            shutil.rmtree(path)
        else:
            os.unlink(path)
