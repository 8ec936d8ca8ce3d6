"""`swupd repair`: put the system right where it differs from its manifests (specification section 5.12).

What is missing or changed is downloaded and verified before the first change. Files that should be gone are removed
only after all the rest succeeded. One path that cannot be put right does not keep the others from it.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Iterable, Mapping

from swupd.commands.applying import complete, effective, received, stager
from swupd.commands.nextboot import add_option, on_snapshot
from swupd.commands.recording import Record, recorded
from swupd.commands.steps import Steps
from swupd.commands.verifying import (
    Scope,
    add_verify_arguments,
    check_extra,
    check_files,
    check_options,
    full_path,
    is_unknown_path,
    load_scope,
)
from swupd.errors import ExitCode, UsageError
from swupd.formats.manifest import Entry
from swupd.fs import Directory
from swupd.report import Report, counted
from swupd.session import Session, exclusive
from swupd.transaction.install import Installer, InstallResult
from swupd.transaction.journal import Purpose
from swupd.transaction.recovery import forget_unfinished
from swupd.verify import Extra, Findings

HELP = "replace changed and missing files by those of the installed version"
EXAMPLES = """\
  swupd repair
  swupd repair --picky                         remove files that no bundle knows as well
  swupd repair --file /usr/bin/ls
  swupd repair --version 10 --picky --force    go back to version 10"""

STEPS = (
    "load_manifests",
    "check_files_hash",
    "validate_fullfiles",
    "download_fullfiles",
    "extract_fullfiles",
    "add_missing_files",
    "fix_files",
    "remove_extraneous_files",
    "remove_extra_files",
    "run_postupdate_scripts",
)


def add_arguments(parser: ArgumentParser) -> None:
    add_verify_arguments(parser, "-m", "--manifest")
    add_option(parser)


def run(args: Namespace, report: Report) -> int:
    check_options(args)
    return on_snapshot(args, report, _run)


def _run(args: Namespace, report: Report) -> int:
    whitelist = check_options(args)
    with exclusive(args, report, repairing=True) as session:
        picky = args.picky or args.extra_files_only
        _check_version(args, session)
        steps = Steps(report, STEPS if picky else [name for name in STEPS if name != "remove_extra_files"])
        steps("load_manifests", "Loading manifests")
        scope = load_scope(args, session)
        if is_unknown_path(args, scope):
            report.error(f"{args.file} is in no manifest of the installed bundles", "check the path given with --file")
            return ExitCode.NOT_IN_MANIFEST
        steps("check_files_hash", f"Comparing the system with version {scope.version}")
        findings = check_files(args, session, scope)
        purpose = Purpose("repair", session.system.installed_version(), scope.version, boot=True, keep=False)
        with recorded(session, purpose) as record:
            with Directory.open(session.settings.root) as root:
                repair = _Repair(session, root, scope, steps, record, purpose=purpose, quiet=args.quiet)
                repair.install(findings)
                if not repair.failed:
                    repair.remove_deleted(findings)
                if picky and not repair.failed:
                    steps("remove_extra_files", f"Looking for extra files in {full_path(session, args.picky_tree)}")
                    repair.remove_extra(check_extra(args, session, scope, whitelist))
            complete(session, steps, purpose)
            if not repair.failed:
                forget_unfinished(session.statedir.data_dir)
            else:
                record.failed(f"{counted(repair.failed, 'file')} could not be put right")
        _summarise(session, repair)
    return ExitCode.INCOMPLETE if repair.failed else ExitCode.OK


def _check_version(args: Namespace, session: Session) -> None:
    installed = session.system.installed_version()
    if args.version not in (None, installed) and not (args.force or args.picky):
        raise UsageError(
            f"version {installed} is installed, repairing it to version {args.version} may leave a mixture",
            hint="add --picky to remove what is not of that version, or --force",
        )


class _Repair:
    """Acts on findings, and counts the paths that were put right and those that were not."""

    def __init__(
        self,
        session: Session,
        root: Directory,
        scope: Scope,
        steps: Steps,
        record: Record,
        *,
        purpose: Purpose,
        quiet: bool,
    ) -> None:
        self._purpose = effective(purpose, session)
        self._session = session
        self._record = record
        self._root = root
        self._scope = scope
        self._steps = steps
        self._quiet = quiet
        self.done = 0
        self.failed = 0

    def install(self, findings: Findings) -> None:
        """Put what is missing or changed in place."""
        if not findings.to_install:
            return
        with stager(self._session, self._root, self._steps) as staging:
            staging.stage(findings.to_install, current=self._scope.files)
            if self._session.guard is not None:
                self._session.guard.before_install(findings.to_install, staging.staged)
            self._steps("add_missing_files", f"Installing {counted(len(findings.to_install), 'file')}")
            result = self._apply(staging.staged, findings.to_install, ())
            if not result.failures:
                staging.release(findings.to_install)
        for what, entries in (("Missing file", findings.missing), ("Changed file", findings.mismatched)):
            for entry in entries:
                failed = result.failed(entry.name)
                self._count(what, entry.name, "not fixed" if failed else "fixed", failed=failed)
        for path, reason in result.failures:
            self._session.report.warning(f"{full_path(self._session, path)}: {reason}")

    def remove_deleted(self, findings: Findings) -> None:
        """Remove what manifests say to be deleted."""
        if findings.extraneous:
            self._steps("remove_extraneous_files", "Removing files that should have been removed")
            self._remove("File that should be deleted", {name: name for name in findings.extraneous})

    def remove_extra(self, extra: Iterable[Extra]) -> None:
        """Remove what no bundle knows."""
        self._remove("Extra file", {item.name: item.shown for item in extra})

    def _remove(self, what: str, names: Mapping[str, str]) -> None:
        """Remove names; the values are how they are shown."""
        if not names:
            return
        with Directory.open(self._session.statedir.staged) as staged:
            result = self._apply(staged, (), tuple(names))
        reasons = dict(result.failures) | dict.fromkeys(result.kept, "not empty")
        for name, shown in names.items():
            reason = reasons.get(name)
            self._count(what, shown, f"not deleted ({reason})" if reason else "deleted", failed=reason is not None)

    def _apply(self, staged: Directory, entries: tuple[Entry, ...], remove: tuple[str, ...]) -> InstallResult:
        with Directory.open(self._session.statedir.data_dir) as data:
            installer = Installer(self._root, staged, data, self._session.report)
            result = installer.apply(entries, remove, self._scope.files, self._purpose)
        self._record.done(result)
        return result

    def _count(self, what: str, name: str, outcome: str, *, failed: bool) -> None:
        self.failed += failed
        self.done += not failed
        path = full_path(self._session, name)
        if self._quiet:
            self._session.report.answer(f"{path} -> {outcome}")
        else:
            self._session.report.info(f" -> {what}: {path} -> {outcome}")


def _summarise(session: Session, repair: _Repair) -> None:
    report = session.report
    if repair.failed:
        report.error(
            f"{counted(repair.failed, 'file')} could not be put right", "see the messages above; then run it again"
        )
    elif repair.done:
        report.info(f"{counted(repair.done, 'file')} put right in {session.seconds:.1f} s")
    else:
        report.info("There was nothing to repair")
    report.info(f"  downloaded: {received(session)}")
