"""`mixer run-guest`: runs a command in a virtual machine whose root is an image."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Mapping
from pathlib import Path

from mixer.commands.options import number
from mixer.errors import BuildError
from mixer.guest.machine import MACHINES, kvm_works
from mixer.workspace import Workspace
from swupd.report import Report, TextReport

NAME = "run-guest"
HELP = "run a command in a virtual machine with an image"
DESCRIPTION = """\
Boot an image in a virtual machine, run a command in it, and end with its exit status. Standard
input, output and error are those of the command. Without a command, and on a terminal, there is
a shell; Ctrl-] leaves it when the guest does not answer any more.

Types of images: guest-erofs, guest-ext4 and initrd, with the bundle guest-minimal or
guest-systemd. Nothing that the guest does changes the image. All guests of one image share its
memory (DAX), unless the machine is microvm, which starts sooner."""
EXAMPLES = """\
examples:
  mixer run-guest guest.img -- uname -a
  mixer run-guest guest.img --share src --memory 1G -- sh -c 'cd /mnt && ls'"""

MAX_CPUS = 64
MIN_MEMORY = 64 << 20
MAX_MEMORY = 1 << 40
MAX_SECONDS = 10**7
_SIZE = re.compile(r"([1-9][0-9]{0,6})([MG])")
_UNITS = {"M": 1 << 20, "G": 1 << 30}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.usage = f"mixer {NAME} [OPTION…] IMAGE [-- COMMAND ARG…]"
    parser.add_argument("image", metavar="IMAGE", type=Path, help="the image; IMAGE.json has to be beside it")
    parser.add_argument(
        "--kernel",
        metavar="DIR",
        type=Path,
        help="what `mixer build image --type kernel` made (default: the kernel of the image's version)",
    )
    parser.add_argument("--memory", metavar="SIZE", default="256M", help="memory of the guest (default: %(default)s)")
    parser.add_argument("--cpus", metavar="N", type=int, default=1, help="processors of the guest (default: 1)")
    parser.add_argument("--timeout", metavar="SECONDS", type=int, help="end the guest then, with the exit status 124")
    parser.add_argument("--share", metavar="DIR", type=Path, help="a directory that the guest has as /mnt; needs root")
    parser.add_argument("--machine", choices=MACHINES, default=MACHINES[0], help="kind of machine (default: q35)")
    parser.add_argument("--no-dax", action="store_true", help="let the image be a disk, not memory")
    parser.add_argument("--no-kvm", action="store_true", help="emulate the processor, even where /dev/kvm can be used")
    # What stands behind "--" on the command line; the command line puts it here.
    parser.set_defaults(command_words=())


def run(workspace: Workspace, args: argparse.Namespace, report: Report) -> int:
    from mixer.guest.run import Wish, facts_of
    from mixer.guest.run import run as run_guest

    facts = facts_of(args.image)
    wish = Wish(
        image=args.image.absolute(),
        kernel=(args.kernel or _kernel(workspace, facts)).absolute(),
        command=args.command_words,
        model=args.machine,
        memory=_memory(args.memory),
        cpus=number("--cpus", args.cpus, 1, MAX_CPUS) or 1,
        kvm=not args.no_kvm and kvm_works(),
        dax=not args.no_dax,
        timeout=number("--timeout", args.timeout, 1, MAX_SECONDS),
        share=args.share,
    )
    return run_guest(wish, report)


def _kernel(workspace: Workspace, facts: Mapping[str, object]) -> Path:
    from mixer.config import load
    from mixer.guest import kernels

    # Standard output is the command's.
    return kernels.kept(workspace, load(workspace, os.environ), facts, TextReport(quiet=True))


def _memory(text: str) -> int:
    """Bytes."""
    found = _SIZE.fullmatch(text)
    size = int(found[1]) * _UNITS[found[2]] if found else 0
    if not MIN_MEMORY <= size <= MAX_MEMORY:
        raise BuildError(f"--memory {text!r} is not a size", hint="such as 256M or 1G, from 64M to 1024G")
    return size
