"""What diagnose and repair have in common: options, the manifests that count, and the findings (specification 5.12)."""

from __future__ import annotations

import re
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from swupd.commands.complaints import check_format, disagreement
from swupd.commands.global_options import bundle_list, version_number
from swupd.errors import BundleNotInstalledError, UnknownBundleError, UsageError
from swupd.formats.manifest import Manifest
from swupd.plan import FileList, consolidate
from swupd.session import Session
from swupd.verify import (
    DEFAULT_PICKY_TREE,
    DEFAULT_PICKY_WHITELIST,
    Extra,
    Findings,
    check,
    compile_whitelist,
    find_extra,
)


def add_verify_arguments(
    parser: ArgumentParser, *version_aliases: str, version_type: Callable[[str], int | str] = version_number
) -> None:
    """The options of diagnose and repair."""
    parser.add_argument(
        "-V",
        "--version",
        *version_aliases,
        type=version_type,
        metavar="N",
        help="compare with this version (default: the installed one)",
    )
    parser.add_argument(
        "-x", "--force", action="store_true", help="go on with another format, or with bundles that are unknown"
    )
    parser.add_argument("-q", "--quick", action="store_true", help="only look for missing files")
    parser.add_argument("-B", "--bundles", type=bundle_list, metavar="A,B", help="only these bundles and their needs")
    parser.add_argument("-Y", "--picky", action="store_true", help="look for files that no bundle knows, too")
    parser.add_argument(
        "-X",
        "--picky-tree",
        type=absolute_name,
        default=DEFAULT_PICKY_TREE,
        metavar="DIR",
        help=f"where to look for such files (default: {DEFAULT_PICKY_TREE})",
    )
    parser.add_argument(
        "-w",
        "--picky-whitelist",
        default=DEFAULT_PICKY_WHITELIST,
        metavar="REGEX",
        help=f"what to leave alone while looking (default: {DEFAULT_PICKY_WHITELIST})",
    )
    parser.add_argument("--extra-files-only", action="store_true", help="only look for files that no bundle knows")
    parser.add_argument("--file", type=absolute_name, metavar="PATH", help="only this path and what lies below it")


def absolute_name(text: str) -> str:
    """A name as manifests have it: absolute, without a slash at the end."""
    parts = [part for part in text.split("/") if part not in ("", ".")]
    if not text.startswith("/") or ".." in parts:
        raise ArgumentTypeError(f"'{text}' is not an absolute path without '..'")
    return "/" + "/".join(parts)


def check_options(args: Namespace) -> re.Pattern[str]:
    """Refuse what cannot be combined; returns the whitelist. Raises UsageError."""
    for condition, message in (
        (args.quick and (args.picky or args.extra_files_only), "--quick cannot look for extra files"),
        (args.picky and args.extra_files_only, "--picky and --extra-files-only cannot be used together"),
        (
            args.bundles and (args.picky or args.extra_files_only),
            "--bundles cannot be used with a search for extra files",
        ),
    ):
        if condition:
            raise UsageError(message, hint="leave out one of these options")
    return compile_whitelist(args.picky_whitelist)


@dataclass(frozen=True)
class Scope:
    """What a root is compared with."""

    version: int
    files: FileList
    """All that installed bundles say, conflicts ghosted."""
    chosen: FileList
    """The part that is to be checked."""
    mounts: frozenset[str]


def load_scope(args: Namespace, session: Session) -> Scope:
    """The files of the installed bundles, or of `--bundles`.

    Raises ManifestError for another format and UnknownBundleError for an installed bundle that the version does not
    have, both unless --force is given; UnknownBundleError and BundleNotInstalledError for wrong --bundles.
    """
    installed_version = session.system.installed_version()
    version = args.version or installed_version
    mom = session.server.mom(version)
    check_format(session, mom, force=args.force)
    available = {entry.name for entry in mom.entries if entry.is_present}
    installed = session.system.installed_bundles()
    for name in sorted(installed - available):
        message = f"bundle {name} is installed, but version {version} does not have it"
        if not args.force:
            raise UnknownBundleError(message, hint="with --force its files do not count as known")
        session.report.warning(message)
    manifests = session.server.closure(mom, sorted(installed & available), optional=False)
    files = consolidate(manifests.values(), on_conflict=disagreement(session))
    chosen = _of_bundles(args.bundles, session, mom, manifests, files) if args.bundles else files
    return Scope(version, files, chosen, session.system.mount_points())


def _of_bundles(
    names: Iterable[str], session: Session, mom: Manifest, manifests: dict[str, Manifest], files: FileList
) -> FileList:
    """The files of some bundles; what another installed bundle has is not deleted."""
    available = {entry.name for entry in mom.entries if entry.is_present}
    for name in names:
        if name not in available:
            raise UnknownBundleError(
                f"there is no bundle {name} in version {mom.version}", hint="list them with: swupd bundle-list --all"
            )
        if name not in manifests:
            raise BundleNotInstalledError(
                f"bundle {name} is not installed", hint=f"install it with: swupd bundle-add {name}"
            )
    chosen = consolidate(session.server.closure(mom, names, optional=False).values())
    return {name: files[name] for name in chosen if chosen[name].is_present or not files[name].is_present}


def check_files(args: Namespace, session: Session, scope: Scope) -> Findings:
    """Compare; nothing is looked at with --extra-files-only."""
    if args.extra_files_only:
        return Findings()
    return check(
        session.settings.root,
        scope.chosen,
        session.report,
        mounts=scope.mounts,
        quick=args.quick,
        below=args.file or "",
        snapshot=session.settings.is_snapshot,
    )


def check_extra(args: Namespace, session: Session, scope: Scope, whitelist: re.Pattern[str]) -> tuple[Extra, ...]:
    """Files that no bundle knows, if they were asked for, deepest first."""
    if not (args.picky or args.extra_files_only):
        return ()
    extra = find_extra(
        session.settings.root,
        scope.files,
        tree=args.picky_tree,
        whitelist=whitelist,
        mounts=scope.mounts,
        snapshot=session.settings.is_snapshot,
    )
    below = args.file
    return tuple(item for item in extra if not below or f"{item.name}/".startswith(f"{below.rstrip('/')}/"))


def is_unknown_path(args: Namespace, scope: Scope) -> bool:
    """Whether --file names something that no manifest has, so that there is nothing to check."""
    if not args.file or args.picky or args.extra_files_only:
        return False
    below = args.file.rstrip("/") + "/"
    return not any(f"{name}/".startswith(below) for name in scope.chosen)


def full_path(session: Session, name: str) -> str:
    """A name of a manifest as a path of this machine."""
    return str(session.settings.machine).rstrip("/") + name
