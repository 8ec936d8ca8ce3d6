"""`mixer lint`: whether a composed version is stateless and safe."""

from __future__ import annotations

import argparse
import json
import os

from mixer.commands.options import number
from mixer.table import table
from mixer.workspace import MAX_VERSION, Workspace
from swupd.report import Report, counted

NAME = "lint"
HELP = "check whether a composed version is stateless"
DESCRIPTION = """\
Check a version that was composed (`mixer build bundles`), or prepared by other tools: paths
outside of /usr and /boot, files that belong to one machine alone, keys, setuid files that are
not on the list, files that everybody can write, links that lead out of the OS, owners that
nobody knows, and users of tmpfiles.d and sysusers.d that contradict the lists of users.

Each violation is a line: bundle, path, rule, and how it is mended. The exit status is 0 if
there is none, else 1. With `stateless: convert` or `reject` in builder.yaml a build with
violations is refused. Reading private files needs root."""
EXAMPLES = """\
examples:
  sudo mixer lint
  sudo mixer lint --version 20 --json"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--version", type=int, metavar="N", help="default: the version that is built next")
    parser.add_argument("--json", action="store_true", help="print a JSON object")


def run(workspace: Workspace, args: argparse.Namespace, report: Report) -> int:
    from mixer.build import load_composition
    from mixer.config import OFF, AptSource, load
    from mixer.lint import lint

    config = load(workspace, os.environ)
    version = number("--version", args.version, 1, MAX_VERSION) or workspace.mix_version()
    findings = lint(load_composition(workspace, config, version), config.setuid)
    rows = [(found.bundle, found.path, found.rule, found.detail, found.mend) for found in findings]
    if args.json:
        keys = ("bundle", "path", "rule", "detail", "mend")
        answer = {"version": version, "findings": [dict(zip(keys, row, strict=True)) for row in rows]}
        report.answer(json.dumps(answer, indent=2))
    else:
        if rows:
            report.answer(table([("bundle", "path", "rule", "detail", "mend"), *rows]))
        convertible = config.stateless == OFF and isinstance(config.source, AptSource)
        if convertible and any(found.rule == "outside-usr" for found in findings):
            report.info("`stateless: convert` in builder.yaml lets a build convert what packages have in /etc and /var")
        report.info(f"version {version}: {counted(len(rows), 'violation') if rows else 'no violation'}")
    return 1 if findings else 0
