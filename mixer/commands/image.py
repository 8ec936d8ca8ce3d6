"""`mixer build image`: a published version as an image of the type that is asked for."""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from mixer.commands.options import number
from mixer.errors import BuildError
from mixer.workspace import MAX_VERSION, Workspace
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


@dataclass(frozen=True)
class _Order:
    """What is to be made."""

    workspace: Workspace
    tree: ImageTree
    args: argparse.Namespace
    time: int
    """Of all files, in seconds since 1970."""
    report: Report

    @property
    def target(self) -> Path:
        target: Path = self.args.output.absolute()
        return target


def _disk(order: _Order) -> Made:
    from mixer.images import disk

    size = _size(order.args.size, disk.MAX_BYTES)
    return disk.build(order.tree, order.target, order.report, size=size, time=order.time)


def _guest(order: _Order) -> Made:
    from mixer.images import guest

    return guest.build(
        order.tree,
        order.target,
        order.report,
        system=guest.FileSystem(order.args.type.removeprefix("guest-")),
        time=order.time,
        with_dax=bool(order.args.dax),
        with_verity=bool(order.args.verity),
    )


def _initrd(order: _Order) -> Made:
    from mixer.images import archives

    return archives.build_initrd(order.tree, order.target, order.report, time=order.time)


def _tar(order: _Order) -> Made:
    from mixer.images import archives

    compression = order.args.compression or "none"
    return archives.build_tar(order.tree, order.target, order.report, time=order.time, compression=compression)


def _directory(order: _Order) -> Made:
    from mixer.images import directory

    return directory.build(order.tree, order.target, order.report, time=order.time, cache=order.workspace.plain_files)


def _kernel(order: _Order) -> Made:
    from mixer.images import kernel

    return kernel.build(order.tree, order.target, order.report, time=order.time)


def _oci(order: _Order) -> Made:
    from mixer.images import oci
    from mixer.images.ocilayers import Compression

    args = order.args
    if args.compression == "none":
        raise BuildError("the layers of a container image are always compressed", hint="gzip or zstd")
    settings = oci.Settings(
        entrypoint=tuple(args.entrypoint or ()),
        cmd=tuple(args.cmd or ()),
        env=dict(args.env or ()),
        workdir=args.workdir or "",
        user=args.user or "",
        labels=dict(args.label or ()),
    )
    return oci.build(
        order.tree,
        order.target,
        order.report,
        time=order.time,
        cache=order.workspace.layers,
        archive=args.type == "oci-archive",
        name=args.name or "",
        settings=settings,
        compression=Compression(args.compression or "gzip"),
    )


@dataclass(frozen=True)
class _Type:
    """A type of image."""

    make: Callable[[_Order], Made]
    what: str
    """For the help."""
    options: tuple[str, ...] = ()
    """Those that only some types have."""
    updates_itself: bool = False
    """Whether os-core always belongs to it, and what a machine needs to update itself should."""


_GUEST_OPTIONS = ("dax", "verity")
_OCI_OPTIONS = ("compression", "name", "entrypoint", "cmd", "env", "label", "workdir", "user")
TYPES: Mapping[str, _Type] = {
    "directory": _Type(_directory, "the files, linked to a cache of the workspace as far as that is possible"),
    "disk": _Type(
        _disk, "a raw disk that boots, and updates itself into another subvolume", ("size",), updates_itself=True
    ),
    "guest-erofs": _Type(_guest, "a read-only root file system that many virtual guests share", _GUEST_OPTIONS),
    "guest-ext4": _Type(_guest, "the same as ext4", _GUEST_OPTIONS),
    "initrd": _Type(_initrd, "a cpio archive that a kernel unpacks into memory (zstd)"),
    "kernel": _Type(_kernel, "a directory with what boots guests: vmlinuz, vmlinux and an initrd"),
    "oci": _Type(_oci, "an OCI image layout, with a layer for each bundle", _OCI_OPTIONS),
    "oci-archive": _Type(_oci, "the same as one tar file", _OCI_OPTIONS),
    "tar": _Type(_tar, "an archive of all files", ("compression",)),
}


def add_image(steps: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """The parser of the step."""
    types = "\n".join(f"  {name:12} {kind.what}" for name, kind in TYPES.items())
    image = steps.add_parser(
        NAME,
        help="make an image of a published version",
        description=f"""\
Make an image of a published version with the bundles that are named and what they
include. Nothing is installed or mounted, so root is not needed. The types:

{types}

A disk always has os-core. The others are without it if all of their bundles are made for
that, as guest-minimal is.

The same version, bundles and options give the same bytes. The time of all files is that
of the version, or SOURCE_DATE_EPOCH. FILE.json says what is in the image, and
FILE.spdx.json is its bill of materials.""",
        epilog="""\
examples:
  mixer build image --type disk --bundles kernel,os-core-update -o disk.img
  mixer build image --type guest-erofs --bundles guest-minimal -o guest.img
  mixer run-guest guest.img -- uname -a
  mixer build image --type oci --bundles web-server --entrypoint nginx -o oci""",
    )
    image.add_argument("--type", choices=sorted(TYPES), required=True, help="what is made", metavar="TYPE")
    image.add_argument(
        "--bundles",
        metavar="NAME,…",
        type=lambda text: [name.strip() for name in text.split(",") if name.strip()],
        default=[],
        help="bundles of the image (default: os-core)",
    )
    image.add_argument(
        "--version", type=int, metavar="V", dest="image_version", help="version of the OS (default: the newest one)"
    )
    image.add_argument(
        "-o", "--output", metavar="FILE", type=Path, required=True, help="the file or directory to write"
    )
    image.add_argument("--no-signing", action="store_true", help="do not check the signature of the version")
    disk = image.add_argument_group("disk")
    disk.add_argument(
        "--size",
        metavar="SIZE",
        help="size of the disk, such as 8G (default: with room for three versions and user data, at least 4G)",
    )
    guest = image.add_argument_group("guest-erofs, guest-ext4")
    guest.add_argument(
        "--dax",
        action="store_const",
        const=True,
        help="with the header and partition tables that Kata Containers expects for DAX",
    )
    guest.add_argument("--verity", action="store_const", const=True, help="with a hash tree; its root hash is printed")
    oci = image.add_argument_group("oci, oci-archive; --compression also tar")
    oci.add_argument(
        "--compression",
        choices=("none", "gzip", "zstd"),
        help="of the layers (default: gzip), or of the archive (default: none)",
    )
    oci.add_argument("--name", help="name of the image in the layout (default: the version)")
    oci.add_argument(
        "--entrypoint", type=_command, metavar="COMMAND", help='words as in a shell, or JSON such as ["nginx", "-g"]'
    )
    oci.add_argument("--cmd", type=_command, metavar="COMMAND", help="arguments of the entry point, in the same form")
    oci.add_argument("--env", type=_pair, action="append", metavar="NAME=TEXT", help="environment; may be repeated")
    oci.add_argument("--label", type=_pair, action="append", metavar="NAME=TEXT", help="label; may be repeated")
    oci.add_argument("--workdir", metavar="DIR", help="working directory")
    oci.add_argument("--user", metavar="USER[:GROUP]", help="who runs the command (default: root)")


def run_image(workspace: Workspace, args: argparse.Namespace, report: Report) -> int:
    from mixer.build import working
    from mixer.config import load
    from mixer.images import tree
    from mixer.sourcedate import source_date

    kind = TYPES[args.type]
    _check_options(args)
    config = load(workspace, os.environ)
    version = number("--version", args.image_version, 1, MAX_VERSION)
    time = source_date(os.environ)
    with working(workspace):
        report.step("tree", "Reading the version")
        found = tree.load(
            workspace,
            config,
            report,
            version=version,
            bundles=args.bundles,
            signed=not args.no_signing,
            whole=kind.updates_itself,
        )
        if kind.updates_itself and config.update_bundle not in found.bundles:
            report.warning(
                f"without the bundle {config.update_bundle} the image does not have what it needs to update itself"
            )
        made = kind.make(_Order(workspace, found, args, found.timestamp if time is None else time, report))
    report.info(made.table())
    return 0


def _check_options(args: argparse.Namespace) -> None:
    for option in sorted({option for kind in TYPES.values() for option in kind.options}):
        if getattr(args, option) is not None and option not in TYPES[args.type].options:
            having = [name for name, kind in TYPES.items() if option in kind.options]
            raise BuildError(
                f"an image of the type {args.type} has no --{option}", hint=f"it is for {', '.join(having)}"
            )


def _command(text: str) -> list[str]:
    """The words of a command."""
    try:
        words = json.loads(text) if text.lstrip().startswith("[") else shlex.split(text)
    except (ValueError, RecursionError) as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not a command: {error}") from error
    if not all(isinstance(word, str) for word in words):
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of words")
    return list(words)


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=TEXT")
    return name, value


def _size(text: str | None, limit: int) -> int:
    """Bytes; 0 if nothing was said."""
    if text is None:
        return 0
    found = _SIZE.fullmatch(text)
    size = int(found[1]) * _UNITS[found[2]] if found else 0
    if not 0 < size <= limit:
        raise BuildError(f"--size {text!r} is not a size", hint=f"such as 500M or 8G, up to {limit >> 40}T")
    return size
