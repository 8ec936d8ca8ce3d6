"""Who gets the paths that no package lists: what maintainer scripts, triggers and the linking of alternatives made.

The first rule that names an installed package decides:

1. a rule by hand (`BY_HAND`), for files that several packages' directories could claim;
2. a compiled Python file belongs to the owner of its source;
3. a symbolic link belongs to the owner of the object that it finally leads to, followed inside the root;
4. a file for local additions to a profile (/etc/apparmor.d/local/NAME) belongs to the owner of that profile;
5. everything else belongs to the owner of the nearest directory above that has an owner, if that is a single package.

What is left belongs to nobody (the caller gives it to os-core). A directory without an owner that has content follows
its content: bundles list the parents of all their paths anyhow. Nothing is changed on disk.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Container, Mapping
from dataclasses import dataclass

from mixer.sources.dpkg import Canonical
from swupd.formats import filehash

BY_HAND = {
    "/etc/ca-certificates.conf": "ca-certificates",
    "/etc/initramfs-tools/modules": "initramfs-tools-core",
    "/etc/python3/debian_config": "python3-minimal",
    "/etc/ssh/sshd_config": "openssh-server",
    "/etc/ssl/certs/ca-certificates.crt": "ca-certificates",
    "/etc/ssl/certs/java/cacerts": "ca-certificates-java",
    "/usr/lib/udev/hwdb.bin": "udev",
}

_LOCAL_ADDITIONS = re.compile(r"(/etc/apparmor\.d)/local/([^/]+)")
_COMPILED = re.compile(r"(.*)/__pycache__/([^/]+?)\.[a-z]+-\d+(?:\.opt-\d)?\.pyc")


@dataclass(frozen=True, slots=True)
class Adoption:
    """The result."""

    owner: Mapping[str, str]
    """Path -> package, for every path that found one."""
    unowned: tuple[str, ...]
    """The others, sorted."""


def adopt(root: str, owners: Mapping[str, tuple[str, ...]]) -> Adoption:
    """Decide about every path in `root` that is not in `owners` (canonical path -> the packages that list it)."""
    canonical = Canonical(root)
    installed = {package for packages in owners.values() for package in packages}
    found: dict[str, str] = {}
    left = []
    busy: set[str] = set()
    waiting = []
    for entry in filehash.walk(root):
        path = entry.name
        parent = path.rpartition("/")[0]
        busy.add(parent)
        if path not in owners:
            waiting.append((path, entry.status.st_mode))
    for path, mode in waiting:
        if stat.S_ISDIR(mode) and path in busy:
            continue
        package = _decide(path, mode, owners, installed, canonical)
        if package:
            found[path] = package
        else:
            left.append(path)
    return Adoption(found, tuple(sorted(left, key=os.fsencode)))


def _decide(
    path: str, mode: int, owners: Mapping[str, tuple[str, ...]], installed: Container[str], canonical: Canonical
) -> str | None:
    by_hand = BY_HAND.get(path, "")
    if by_hand in installed:
        return by_hand
    if compiled := _COMPILED.fullmatch(path):
        owner = _single(owners.get(f"{compiled[1]}/{compiled[2]}.py"))
        if owner:
            return owner
    if stat.S_ISLNK(mode):
        target = canonical.target(path)
        owner = _single(owners.get(target)) if target else None
        if owner:
            return owner
    if local := _LOCAL_ADDITIONS.fullmatch(path):
        owner = _single(owners.get(f"{local[1]}/{local[2]}"))
        if owner:
            return owner
    parent = path.rpartition("/")[0]
    while parent and parent not in owners:
        parent = parent.rpartition("/")[0]
    return _single(owners.get(parent))


def _single(packages: tuple[str, ...] | None) -> str | None:
    return packages[0] if packages and len(packages) == 1 else None
