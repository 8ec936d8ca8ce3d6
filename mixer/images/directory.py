"""A version as a directory of this machine: the type `directory`, for a chroot, systemd-nspawn or virtiofs.

Files come from the file cache (mixer.filecache), so that a second directory costs neither time nor room. In this order,
whichever works first:

    reflink      shares the room of the cached file, and is a file of its own (btrfs, XFS)
    hard link    is the cached file itself. So whoever changes it in place changes it in the cache and in every other
                 directory. The cache notices that and makes the file again for the next directory; those that are there
                 stay changed. Files with the same content, mode and owner are one file.
    copy         where the cache is on another file system

* Mode, owner and time of all are as the tree has them and as they are given; what has hard links has the time of the
  directory that was made last. Without root everything belongs to the caller (mixer.filecache), and a warning says so.
* It is written as mixer.images.output says: DIR is replaced as a whole, if it was made by us.
"""

from __future__ import annotations

import errno
import fcntl
import os
import time as clock
from collections import defaultdict
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path

from mixer.filecache import FileCache, attributes
from mixer.images import output, spdx, summary
from mixer.images.summary import Summary
from mixer.images.tree import ImageTree, Node, Reader
from swupd.formats.manifest import FileType
from swupd.fs import Directory
from swupd.report import Report

KIND = "directory"

_FICLONE = 0x40049409
"""The request of ioctl_ficlone(2)."""
_TRIAL = ".trial"
_ROOT = Node("", FileType.DIRECTORY, 0o755, 0, 0, 0, "", "")


class Way(StrEnum):
    """How files get from the cache into the directory."""

    REFLINK = "reflink"
    HARD_LINK = "hard link"
    COPY = "copy"


def build(tree: ImageTree, target: Path, report: Report, *, cache: Path, time: int) -> Summary:
    """Make the directory; `cache` is that of the file cache, `time`, that of all files, in seconds since 1970.

    Raises BuildError for content or a place that does not do.
    """
    start = clock.monotonic()
    owners = os.geteuid() == 0
    if not owners:
        report.warning(
            f"without root all files of {target} belong to you, and none has a setuid or setgid bit: "
            "other types of images have the owners of the version"
        )
    reader = Reader(tree, report)
    report.step("image", f"Writing version {tree.version} to {target}")
    with output.filling(target, KIND) as unfinished:
        files = FileCache(cache, owners=owners)
        with output.explained(cache):
            files.fill((node for node in tree.nodes if node.type is FileType.FILE), reader.content)
        way = _place(tree.nodes, files, unfinished.path, owners=owners, time=time)
        unfinished.facts = tree.facts(KIND) | {"files_by": way, "owners": owners}
        unfinished.sbom = spdx.document(tree, reader, name=target.name, time=time)
    return summary.of(tree, target, f"each file by {way}", start)


def _place(nodes: Sequence[Node], files: FileCache, top: Path, *, owners: bool, time: int) -> Way:
    """Fill an empty directory with nodes, whose files are in the cache."""
    below: dict[str, list[Node]] = defaultdict(list)
    for node in nodes:
        below[node.path.rpartition("/")[0]].append(node)
    directories = [_ROOT, *(node for node in nodes if node.type is FileType.DIRECTORY)]
    first = next((node for node in nodes if node.type is FileType.FILE), None)
    way = _way(files.path(first), top / _TRIAL) if first else Way.COPY
    with Directory.open(top) as root:
        for node in directories:
            with root.descend(node.path) as directory:
                for child in below[node.path]:
                    _make(directory, child, files, way, owners=owners, time=time)
        # What is made in a directory changes its time, and its mode may forbid it.
        for node in reversed(directories):
            mode, owner = attributes(node, owners=owners)
            with root.descend(node.path) as directory:
                directory.set_attributes(".", mode=mode, owner=owner)
                os.utime(directory.fd, (time, time))
    return way


def _make(directory: Directory, node: Node, files: FileCache, way: Way, *, owners: bool, time: int) -> None:
    name = node.path.rpartition("/")[2]
    mode, owner = attributes(node, owners=owners)
    if node.type is FileType.DIRECTORY:
        directory.make_directory(name, mode=0o700)
        return
    if node.type is FileType.LINK:
        directory.make_link(name, node.target, owner=owner)
    elif way is not Way.HARD_LINK or not _hard_link(directory, name, files.path(node)):
        with files.path(node).open("rb") as file:
            directory.copy_content(file, name, mode=mode, owner=owner)
    os.utime(name, (time, time), dir_fd=directory.fd, follow_symlinks=False)


def _hard_link(directory: Directory, name: str, source: Path) -> bool:
    """Returns whether the file could have one more name."""
    try:
        with Directory.open(source.parent) as cached:
            directory.hard_link(cached, source.name, name)
    except OSError as error:
        if error.errno != errno.EMLINK:
            raise
        return False
    return True


def _way(cached: Path, trial: Path) -> Way:
    """Which way works, tried with one cached file."""
    with cached.open("rb") as source, trial.open("xb") as target:
        try:
            fcntl.ioctl(target.fileno(), _FICLONE, source.fileno())
            return Way.REFLINK
        except OSError:
            pass
        finally:
            trial.unlink()
    try:
        os.link(cached, trial)
    except OSError as error:
        # One that has all the names it can have tells as much.
        return Way.HARD_LINK if error.errno == errno.EMLINK else Way.COPY
    trial.unlink()
    return Way.HARD_LINK
