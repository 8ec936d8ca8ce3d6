"""Which paths of a root belong to its administrator and its users, and which ones need something done when they change.

Specification: section 5.6 of the swupd client specification, with two differences that protect more. The directories
themselves are protected as well as everything below them: an update of the original once deleted users' /root, because
only "/root/" was on its list. And a rule is about whole components, so that /data does not stand for /database.

What the classes mean, for every command:

* protected (CONFIG, STATE, or a mount point): never changed and never removed. os-install and repair create whatever
  is missing there; update and bundle-add only what is new to the system, so that what an administrator deleted stays
  deleted. The rest is left out altogether, downloads included.
* BOOT: installed and updated like any other file, never deleted. The boot manager removes kernels when no boot entry
  needs them any more.
* ORDINARY: all the rest, which is the OS.

Pure functions over names as manifests have them (absolute, canonical, no trailing slash).
"""

from __future__ import annotations

from collections.abc import Set
from enum import Enum, auto


class PathClass(Enum):
    """To whom a path belongs."""

    ORDINARY = auto()
    CONFIG = auto()
    STATE = auto()
    BOOT = auto()


# A rule ends in a slash and is compared with the path and a slash: it holds for the directory and all below it.
_CONFIG = ("/etc/",)
_STATE = (
    "/data/",
    "/dev/",
    "/home/",
    "/lost+found/",
    "/proc/",
    "/root/",
    "/run/",
    "/sys/",
    "/tmp/",  # noqa: S108  a name in a rule
    "/var/",
)
_BOOT_MANAGER_INPUT = ("/usr/lib/kernel/", "/usr/lib/systemd/boot/")
_BOOT = ("/boot/", "/usr/lib/modules/", *_BOOT_MANAGER_INPUT)

# What administrators unpack below /usr/src is theirs, /usr/src itself and the kernel's sources are the OS's. So is the
# directory on which debug information is mounted, but not what appears below it.
_SOURCES = "/usr/src/"
_OS_SOURCES = ("/usr/src/kernel/",)
_OS_SOURCE_DIRECTORIES = frozenset({"/usr/src/", "/usr/src/debug/"})

_BOOT_MANAGERS = frozenset(
    {
        "/usr/bin/bootctl",
        "/usr/bin/clr-boot-manager",
        "/usr/bin/gummiboot",
        "/usr/lib/gummiboot",
        "/usr/share/syslinux/ldlinux.c32",
    }
)
_INIT = "/usr/lib/systemd/systemd"


def classify(path: str) -> PathClass:
    """To whom the path belongs, mount points apart."""
    path += "/"
    if path.startswith(_CONFIG):
        return PathClass.CONFIG
    if path.startswith(_STATE):
        return PathClass.STATE
    if path.startswith(_SOURCES) and path not in _OS_SOURCE_DIRECTORIES and not path.startswith(_OS_SOURCES):
        return PathClass.STATE
    if path.startswith(_BOOT):
        return PathClass.BOOT
    return PathClass.ORDINARY


def is_protected(path: str, mounts: Set[str] = frozenset()) -> bool:
    """May only os-install and repair put something here, and only where nothing is?

    `mounts` are the mount points below the root, by their names within it. A mount point's directory is protected; what
    lies below it is not, unless by its own name.
    """
    return path in mounts or classify(path) in {PathClass.CONFIG, PathClass.STATE}


def never_deleted(path: str) -> bool:
    """Is deleting this the boot manager's business?"""
    return classify(path) is PathClass.BOOT


def needs_boot_update(path: str) -> bool:
    """Has the boot manager to run after this changed?"""
    return path in _BOOT_MANAGERS or f"{path}/".startswith(_BOOT_MANAGER_INPUT)


def needs_reexec(path: str) -> bool:
    """Has the init system to execute itself again after this changed?"""
    return path == _INIT
