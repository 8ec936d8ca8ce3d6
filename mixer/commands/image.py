"""`mixer build image`: a published version as an image of the type that is asked for."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from mixer.commands.options import number
from mixer.errors import BuildError
from mixer.workspace import MAX_VERSION, Workspace
from swupd.formats.manifest import TIMESTAMP_LIMIT
from swupd.report import Report

if TYPE_CHECKING:
    from mixer.images.tree import ImageTree

NAME = "image"
_SIZE = re.compile(r"([1-9][0-9]{0,8})([MGT])")
_UNITS = {"M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


class Made(Protocol):
    """What was made."""

    def table(self) -> str:
        """The summary for people."""


def _disk(tree: ImageTree, args: argparse.Namespace, time: int, report: Report) -> Made:
    from mixer.images import disk

    return disk.build(tree, args.output.absolute(), report, size=_size(args.size, disk.MAX_BYTES), time=time)


TYPES: Mapping[str, Callable[[ImageTree, argparse.Namespace, int, Report], Made]] = {"disk": _disk}


def add_image(steps: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """The parser of the step."""
    image = steps.add_parser(
        NAME,
        help="make an image of a published version",
        description="""\
Make an image of a published version with the bundles that are named, what they include,
and os-core. Nothing is installed or mounted, so root is not needed.

--type disk: a raw disk with a boot loader and a btrfs, which updates itself into another
subvolume. It needs a kernel with its initrd and the boot loader among the bundles.

The same version and bundles give the same bytes. The time of all files is that of the
version, or SOURCE_DATE_EPOCH. FILE.json says what is in the image.""",
        epilog="""\
example:
  mixer build image --type disk --bundles kernel,os-core-update -o disk.img""",
    )
    image.add_argument("--type", choices=sorted(TYPES), required=True, help="what is made")
    image.add_argument(
        "--bundles",
        metavar="NAME,…",
        type=lambda text: [name.strip() for name in text.split(",") if name.strip()],
        default=[],
        help="bundles of the image besides os-core",
    )
    image.add_argument(
        "--version", type=int, metavar="V", dest="image_version", help="version of the OS (default: the newest one)"
    )
    image.add_argument(
        "--size",
        metavar="SIZE",
        help="size of a disk, such as 8G (default: with room for three versions and user data, at least 4G)",
    )
    image.add_argument("-o", "--output", metavar="FILE", type=Path, required=True, help="the file to write")
    image.add_argument("--no-signing", action="store_true", help="do not check the signature of the version")


def run_image(workspace: Workspace, args: argparse.Namespace, report: Report) -> int:
    from mixer.build import working
    from mixer.config import load
    from mixer.images import tree

    config = load(workspace, os.environ)
    version = number("--version", args.image_version, 1, MAX_VERSION)
    with working(workspace):
        report.step("tree", "Reading the version")
        found = tree.load(workspace, config, report, version=version, bundles=args.bundles, signed=not args.no_signing)
        if config.update_bundle not in found.bundles:
            report.warning(
                f"without the bundle {config.update_bundle} the image does not have what it needs to update itself"
            )
        made = TYPES[args.type](found, args, _time(os.environ, found.timestamp), report)
    report.info(made.table())
    return 0


def _size(text: str | None, limit: int) -> int:
    """Bytes; 0 if nothing was said."""
    if text is None:
        return 0
    found = _SIZE.fullmatch(text)
    size = int(found[1]) * _UNITS[found[2]] if found else 0
    if not 0 < size <= limit:
        raise BuildError(f"--size {text!r} is not a size", hint=f"such as 500M or 8G, up to {limit >> 40}T")
    return size


def _time(environ: Mapping[str, str], timestamp: int) -> int:
    text = environ.get("SOURCE_DATE_EPOCH", "")
    if not text:
        return timestamp
    if not (text.isascii() and text.isdigit() and len(text) < 13 and int(text) <= TIMESTAMP_LIMIT):
        raise BuildError(
            f"SOURCE_DATE_EPOCH is {text!r}, not a time in seconds since 1970",
            hint="unset it, and the files get the time of the version",
        )
    return int(text)
