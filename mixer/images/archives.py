"""A version as one archive: the types `tar` and `initrd`.

* `tar` has the nodes of the tree and nothing else (mixer.images.tarball), compressed as it is asked for.
* `initrd` is what a kernel unpacks into its first root file system and starts by itself: cpio, compressed by zstd. What
  a kernel needs there and the tree does not have is added: /init, a link to the first program (mixer.images.init), and
  /dev/console, without which that program has no standard output.
* The same tree and time give the same bytes, as long as the compressing library is the same.
* It is written as mixer.images.output says. Content passes one file at a time.
"""

from __future__ import annotations

import gzip
import os
import stat
import time as clock
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

from mixer.errors import BuildError
from mixer.images import cpio, output, spdx, summary, tarball
from mixer.images.init import init_of
from mixer.images.summary import Summary
from mixer.images.tree import ImageTree, Node, Reader
from swupd.formats.manifest import FileType
from swupd.report import Report, human_size

COMPRESSIONS = ("none", "gzip", "zstd")
GZIP_LEVEL = 6
ZSTD_LEVEL = 12
"""40 MB of programs and texts, of an archive of 124 MB:

            gzip 6   gzip 9   zstd 9  zstd 12  zstd 15  zstd 17  zstd 19
    MB       10.6     10.4      8.3      8.2      8.1      7.6      7.3
    CPU s     1.0      5.7      0.6      1.3      5.8     13.5     24.6

An archive is made again as a whole for each version. What the higher levels save is nothing at a boot: to unpack takes
as long, and what was read is freed then."""
ZSTD_WINDOW_LOG = 23
"""Kernels take no frame of an initrd whose reader has to keep more than these 8 MiB."""
INIT = "/init"
CONSOLE = "/dev/console"

_TYPE_BITS = {FileType.FILE: stat.S_IFREG, FileType.DIRECTORY: stat.S_IFDIR, FileType.LINK: stat.S_IFLNK}


def build_tar(tree: ImageTree, target: Path, report: Report, *, compression: str, time: int) -> Summary:
    """Write a tar archive; `compression` is of COMPRESSIONS, `time`, that of all members, in seconds since 1970.

    Raises BuildError for content or a place that does not do.
    """

    def write(file: BinaryIO, content: Callable[[Node], bytes]) -> None:
        tarball.write(file, tree.nodes, content, time=time)

    about = {"type": "tar", "compression": compression}
    return _build(tree, target, report, write, about=about, time=time)


def build_initrd(tree: ImageTree, target: Path, report: Report, *, time: int) -> Summary:
    """Write an initrd; `time`, that of all members, in seconds since 1970.

    Raises BuildError for a tree without a program to start, a file of 4 GiB, and a place that does not do.
    """

    def write(file: BinaryIO, content: Callable[[Node], bytes]) -> None:
        try:
            for piece in cpio.pieces(_members(tree, content), time=time):
                file.write(piece)
        except ValueError as error:
            raise BuildError(
                f"the tree cannot be an initrd: {error}", hint="leave out its bundle, or make an image of another type"
            ) from error

    init = INIT if tree.find(INIT) else init_of(tree)
    about = {"type": "initrd", "compression": "zstd", "init": init, "kernel_command_line": f"rdinit={INIT}"}
    return _build(tree, target, report, write, about=about, time=time)


def _build(
    tree: ImageTree,
    target: Path,
    report: Report,
    write: Callable[[BinaryIO, Callable[[Node], bytes]], None],
    *,
    about: Mapping[str, str],
    time: int,
) -> Summary:
    start = clock.monotonic()
    reader = Reader(tree, report)
    report.step("image", f"Writing version {tree.version} to {target}")
    with output.writing(target) as unfinished:
        with unfinished.path.open("wb") as file, _compressed(file, about["compression"]) as archive:
            write(archive, reader.content)
        size = unfinished.path.stat().st_size
        unfinished.facts = {**tree.facts(about["type"]), **about, "bytes": size}
        unfinished.sbom = spdx.document(tree, reader, name=target.name, time=time)
    return summary.of(tree, target, human_size(size), start)


def _members(tree: ImageTree, content: Callable[[Node], bytes]) -> Iterator[cpio.Member]:
    for node in tree.nodes:
        if node.size > cpio.MAX_FILE_BYTES:
            raise ValueError(f"{node.path} has {node.size} bytes, and each file must have less than 4 GiB")
        data = content(node) if node.type is FileType.FILE else os.fsencode(node.target)
        yield cpio.Member(node.path[1:], _TYPE_BITS[node.type] | node.mode, data, uid=node.uid, gid=node.gid)
    if tree.find(INIT) is None:
        yield cpio.link(INIT[1:], init_of(tree))
    if tree.find("/dev") is None:
        yield cpio.directory("dev")
    yield cpio.character_device(CONSOLE[1:], 5, 1)


@contextmanager
def _compressed(file: BinaryIO, compression: str) -> Iterator[BinaryIO]:
    """What is written comes into the file compressed; the end of the block is that of the compressed stream."""
    if compression == "none":
        yield file
    elif compression == "gzip":
        # Neither a name nor a time in its header.
        with gzip.GzipFile("", "wb", GZIP_LEVEL, file, mtime=0) as stream:
            yield cast("BinaryIO", stream)
    else:
        import zstandard

        parameters = zstandard.ZstdCompressionParameters.from_level(
            ZSTD_LEVEL, window_log=ZSTD_WINDOW_LOG, write_checksum=True
        )
        with zstandard.ZstdCompressor(compression_params=parameters).stream_writer(file, closefd=False) as writer:
            yield cast("BinaryIO", writer)
