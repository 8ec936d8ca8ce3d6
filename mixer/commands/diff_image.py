"""`mixer diff-image`: what changed between two images."""

from __future__ import annotations

import argparse
from pathlib import Path

from mixer.workspace import Workspace
from swupd.report import Report

NAME = "diff-image"
HELP = "show what changed between two images"
DESCRIPTION = """\
Show what changed between two images that `mixer build image` has written: bundles and
packages with their versions, and how many files and bytes of each were added, removed
or changed. What is compared is FILE.spdx.json beside each image; the images themselves
are not read, and no workspace is needed. The types of the images may differ.

Exit status is 0 whether or not something changed, and 1 if a document cannot be used."""
EXAMPLES = """\
examples:
  mixer diff-image guest-10.img guest-20.img
  mixer diff-image guest-10.img.spdx.json guest-20.img --json"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("old", metavar="OLD", type=Path, help="an image, or its .spdx.json")
    parser.add_argument("new", metavar="NEW", type=Path, help="the image to compare it with")
    parser.add_argument("--json", action="store_true", help="print a JSON object with everything")


def run(_workspace: Workspace, args: argparse.Namespace, report: Report) -> int:
    from mixer.images import compare

    difference = compare.compare(compare.read(args.old), compare.read(args.new))
    report.answer(compare.as_json(difference) if args.json else compare.as_text(difference))
    return 0
