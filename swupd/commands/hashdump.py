"""`swupd hashdump`: the swupd hash of one path, as manifests have it (specification sections 3 and 6.2)."""

from __future__ import annotations

import os
from argparse import ArgumentParser, Namespace

from swupd.errors import ExitCode
from swupd.formats.filehash import ZERO_HASH, UnsupportedTypeError, hash_path
from swupd.report import Report

HELP = "print the hash of a file, directory or link as manifests contain it"
EXAMPLES = """\
  swupd hashdump /usr/bin/ls
  swupd hashdump --path /mnt/root /usr/lib/os-release"""


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE", help="what to hash; a link is not followed")
    parser.add_argument("-p", "--path", default="", metavar="DIR", help="directory that FILE is relative to")
    parser.add_argument(
        "-n", "--no-xattrs", action="store_true", help="accepted for old scripts: extended attributes never count"
    )
    parser.add_argument("--quiet", action="store_true", help="print the hash only")
    parser.add_argument("--debug", action="store_true", help="print everything, with times")
    parser.add_argument("-h", "--help", action="help", help="show this help")
    parser.set_defaults(json_output=False, verbose=False, no_progress=True, time=False)


def run(args: Namespace, report: Report) -> int:
    path = os.path.join(args.path, args.file.lstrip("/")) if args.path else args.file
    report.info(f"Calculating hash without xattrs for: {path}")
    try:
        found = hash_path(path)
    except (OSError, UnsupportedTypeError) as error:
        report.error(f"{path} has no hash: {getattr(error, 'strerror', None) or error}")
        return ExitCode.HASH
    if found == ZERO_HASH:
        report.warning(f"{path} does not exist")
    report.answer(found)
    return ExitCode.OK
