"""`swupd diagnose`: compare the system with its manifests and change nothing (specification section 5.12)."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Iterable

from swupd.commands.steps import Steps
from swupd.commands.verifying import (
    add_verify_arguments,
    check_extra,
    check_files,
    check_options,
    full_path,
    is_unknown_path,
    load_scope,
)
from swupd.errors import ExitCode
from swupd.report import Report
from swupd.session import Session, exclusive

HELP = "check whether all files are as the installed version has them"
EXAMPLES = """\
  swupd diagnose                     exit status: 0 all is well, 1 something was found
  swupd diagnose --quick             only look for missing files
  swupd diagnose --picky             show files that no bundle knows as well
  swupd diagnose --file /usr/lib     only look there"""

STEPS = ("load_manifests", "add_missing_files", "fix_files", "remove_extraneous_files", "remove_extra_files")


def add_arguments(parser: ArgumentParser) -> None:
    add_verify_arguments(parser)


def run(args: Namespace, report: Report) -> int:
    whitelist = check_options(args)
    with exclusive(args, report) as session:
        steps = Steps(report, STEPS if args.picky or args.extra_files_only else STEPS[:-1])
        steps("load_manifests", "Loading manifests")
        scope = load_scope(args, session)
        if is_unknown_path(args, scope):
            report.error(f"{args.file} is in no manifest of the installed bundles", "check the path given with --file")
            return ExitCode.NOT_IN_MANIFEST
        report.info(f"Diagnosing version {scope.version}")
        found = 0
        if not args.extra_files_only:
            steps("add_missing_files", "Checking files")
            findings = check_files(args, session, scope)
            found += _show(args, session, "Missing file", [entry.name for entry in findings.missing])
            if not args.quick:
                steps("fix_files", "Looking for changed files")
                found += _show(args, session, "Changed file", [entry.name for entry in findings.mismatched])
                steps("remove_extraneous_files", "Looking for files that should have been removed")
                found += _show(args, session, "File that should be deleted", findings.extraneous)
            report.info(f"Files checked: {findings.checked}")
        if args.picky or args.extra_files_only:
            steps("remove_extra_files", f"Looking for extra files in {full_path(session, args.picky_tree)}")
            extra = check_extra(args, session, scope, whitelist)
            found += _show(args, session, "Extra file", [item.shown for item in extra])
        if found:
            report.info(f"Problems found: {found}; 'swupd repair' with the same options corrects them")
            return ExitCode.NO
        report.info("No problems were found")
        return ExitCode.OK


def _show(args: Namespace, session: Session, what: str, names: Iterable[str]) -> int:
    count = 0
    for name in names:
        path = full_path(session, name)
        if args.quiet:
            session.report.answer(path)
        else:
            session.report.info(f" -> {what}: {path}")
        count += 1
    return count
