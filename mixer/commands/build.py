"""`mixer build all|bundles|update|delta-packs|delta-manifests|image`: thin calls of the modules that do it."""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING

from mixer.commands import image
from mixer.commands.options import add_span, number, span
from mixer.workspace import MAX_FORMAT, MAX_VERSION, Workspace
from swupd.errors import NotRootError
from swupd.report import Report

if TYPE_CHECKING:
    from mixer.config import Config

NAME = "build"
HELP = "build the next version"
DESCRIPTION = """\
Build the version that `mixer versions` shows. It has two steps that talk through
files in update/image: `build bundles` composes a root from packages and notes which
bundle has which path; `build update` makes signed manifests and compressed content
of it and publishes them in one step, in update/www or where builder.yaml says:
clients never see a part of a version. Building the same version again replaces it.

`build delta-packs` and `build delta-manifests` add to a published version what makes
updates to it small. Without them clients fetch whole files and whole manifests.

`build image` makes a disk, a guest's root file system or a container image of a
published version.

A mix of packages needs root, because only root can set owners and modes."""
EXAMPLES = """\
examples:
  sudo mixer build all
  sudo mixer build all --increment      # and go on to the next version
  mixer build update --workers 4
  mixer build delta-packs               # from the version before to the newest one
  mixer build delta-manifests --previous-versions 3
  mixer build image --type disk --bundles kernel,os-core-update -o disk.img"""

DEFAULT_INCREMENT = 10
DELTA_PACKS = "delta-packs"
DELTA_MANIFESTS = "delta-manifests"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    steps = parser.add_subparsers(title="commands", dest="step", metavar="COMMAND", required=True)
    every = steps.add_parser(
        "all",
        help="both steps: from packages to a published version",
        description="""\
Compose the bundles, then publish them as a version. It has the time of
SOURCE_DATE_EPOCH, else that of its first composition.""",
        epilog="example:\n  sudo mixer build all --increment",
    )
    bundles = steps.add_parser(
        "bundles",
        help="the first step: compose a root from packages",
        description="Install the packages of all bundles into one root and note which bundle has which path.",
        epilog="example:\n  sudo mixer build bundles",
    )
    update = steps.add_parser(
        "update",
        help="the second step: publish what was composed",
        description="Make manifests, content and signatures of the composed bundles and publish them.",
        epilog="example:\n  mixer build update --min-version 100",
    )
    packs = steps.add_parser(
        DELTA_PACKS,
        help="add packs that lead from older versions to a published one",
        description="""\
Compare the files of two published versions and add, for each bundle that changed, a
pack with the differences; besides one update pack over all bundles, and an index that
tells clients which way is the shortest for them. A difference is found out once.""",
        epilog="examples:\n  mixer build delta-packs\n  mixer build delta-packs --from 10 --to 30 --report",
    )
    manifests = steps.add_parser(
        DELTA_MANIFESTS,
        help="add manifests as differences from older ones",
        description="Add, for each bundle that changed, the difference between its manifests of two versions.",
        epilog="example:\n  mixer build delta-manifests --previous-versions 3",
    )
    image.add_image(steps)
    for step in (packs, manifests):
        add_span(step)
    packs.add_argument(
        "--report", action="store_true", help="list each file of each pack, and why it is there as it is"
    )
    for step in (every, bundles, update, packs, manifests):
        step.add_argument(
            "--workers", type=int, metavar="N", help="work on so many cores (default: builder.yaml, else all)"
        )
        step.add_argument("--no-signing", action="store_true", help="publish without certificate and signatures")
    for step in (every, bundles, update):
        step.add_argument("--format", type=int, metavar="F", help="format of this version instead of the mix's")
    for step in (every, update):
        step.add_argument(
            "--increment",
            type=int,
            metavar="N",
            nargs="?",
            const=DEFAULT_INCREMENT,
            help=f"afterwards add N to the mix version (without N: {DEFAULT_INCREMENT})",
        )
        step.add_argument(
            "--min-version",
            type=int,
            metavar="V",
            help="no file gets a lower version than V: clients fetch everything older again",
        )
        step.add_argument("--skip-fullfiles", action="store_true", help="publish no single files")
        step.add_argument("--skip-packs", action="store_true", help="publish no packs of whole bundles")


def run(workspace: Workspace, args: argparse.Namespace, report: Report) -> int:
    if args.step == image.NAME:
        return image.run_image(workspace, args, report)
    from mixer import build
    from mixer.config import MAX_WORKERS, AptSource, load

    config = load(workspace, os.environ)
    if args.step in (DELTA_PACKS, DELTA_MANIFESTS):
        return _deltas(workspace, config, args, report)
    if isinstance(config.source, AptSource) and os.geteuid() != 0:
        raise NotRootError(
            f"`mixer build {args.step}` must be run as root",
            hint="run it with sudo; only root can give files their owners",
        )
    bundles_only = args.step == "bundles"
    workers = number("--workers", args.workers, 0, MAX_WORKERS)
    options = build.BuildOptions(
        workers=config.workers if workers is None else workers,
        format=number("--format", args.format, 1, MAX_FORMAT) or 0,
        sign=not args.no_signing,
        min_version=0 if bundles_only else number("--min-version", args.min_version, 0, MAX_VERSION) or 0,
        increment=0 if bundles_only else number("--increment", args.increment, 1, MAX_VERSION) or 0,
        fullfiles=bundles_only or not args.skip_fullfiles,
        packs=bundles_only or not args.skip_packs,
    )
    if bundles_only:
        build.build_bundles(workspace, config, report, options)
        return 0
    step = build.build_update if args.step == "update" else build.build_all
    report.info(step(workspace, config, report, options).table())
    return 0


def _deltas(workspace: Workspace, config: Config, args: argparse.Namespace, report: Report) -> int:
    from mixer.config import MAX_WORKERS
    from mixer.deltamanifests import build_delta_manifests
    from mixer.updates import build_delta_packs

    between = span(args)
    workers = number("--workers", args.workers, 0, MAX_WORKERS) or 0
    if args.step == DELTA_MANIFESTS:
        manifests = build_delta_manifests(workspace, config, report, between, workers=workers, sign=not args.no_signing)
        report.info(manifests.line())
        return 0
    packs = build_delta_packs(workspace, config, report, between, workers=workers, sign=not args.no_signing)
    report.info(packs.table())
    if args.report:
        from mixer.content import ContentStore
        from mixer.deltareport import made_packs

        report.info(f"\n{made_packs(packs, ContentStore(workspace.objects))}")
    return 0
