"""`swupd bundle-info`: what is known about one bundle (specification section 6.2).

The system's own version is described unless another one is asked for. Whether there is something newer is asked of the
server; a server that does not answer is no reason not to tell the rest.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Mapping
from dataclasses import dataclass

from swupd.commands import labels
from swupd.commands.dependencies import needs, reachable
from swupd.commands.global_options import LATEST, version_or_latest
from swupd.commands.steps import Steps
from swupd.errors import ExitCode, ProjectError
from swupd.formats.manifest import Entry, Manifest
from swupd.report import Report, human_size
from swupd.session import Session, browsing

HELP = "show status, size, dependencies and files of a bundle"
EXAMPLES = """\
  swupd bundle-info editors
  swupd bundle-info editors --version latest
  swupd bundle-info editors --dependencies --files     with the files of all that it needs"""

STEPS = ("load_manifests", "show_bundle")
_INSTALLED = 0
"""The version that is meant if none is given."""


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("bundle", metavar="BUNDLE", help="name of the bundle")
    parser.add_argument(
        "-V",
        "--version",
        type=version_or_latest,
        default=_INSTALLED,
        metavar="N",
        help=f"the version to describe, or '{LATEST}' (default: the installed one)",
    )
    parser.add_argument("--dependencies", action="store_true", help="list the bundles that it depends on")
    parser.add_argument(
        "--files", action="store_true", help="list its files; with --dependencies those of all that it needs as well"
    )


def run(args: Namespace, report: Report) -> int:
    with browsing(args, report) as session:
        steps = Steps(report, STEPS)
        steps("load_manifests", "Loading manifests")
        bundle = _load(args, session)
        steps("show_bundle", f"Bundle {bundle.name} of version {bundle.mom.version}")
        if not args.quiet:
            _show_state(session, bundle)
        else:
            report.answer(bundle.state)
        if args.dependencies:
            _show_dependencies(args, report, bundle)
        if args.files:
            _show_files(args, session, bundle)
    return ExitCode.OK


@dataclass(frozen=True)
class _Bundle:
    """What the manifests of one version and the system say about a bundle."""

    name: str
    mom: Manifest
    entry: Entry
    """Its line in the MoM."""
    closure: Mapping[str, Manifest]
    """The headers of the bundle and of all that it depends on, optionally as well."""
    status: labels.Status

    @property
    def is_installed(self) -> bool:
        return self.name in self.status.installed

    @property
    def state(self) -> str:
        """As scripts read it (section 6.6)."""
        label = (self.status.of(self.name) or labels.NOT_INSTALLED).capitalize()
        return f"{label}, {labels.EXPERIMENTAL}" if self.entry.is_experimental else label


def _load(args: Namespace, session: Session) -> _Bundle:
    from swupd import metadata

    # None stands for the newest version, see `version_or_latest`.
    version = session.server.latest_version() if args.version is None else args.version
    mom = session.server.mom(version or session.system.installed_version())
    closure = metadata.closure(session.server, mom, args.bundle)
    entry = next(entry for entry in mom.entries if entry.name == args.bundle)
    return _Bundle(args.bundle, mom, entry, closure, labels.status(session))


def _entry(mom: Manifest, bundle: str) -> Entry | None:
    """The line of a bundle in a MoM; None if it does not have it."""
    return next((entry for entry in mom.entries if entry.name == bundle and entry.is_present), None)


def _show_state(session: Session, bundle: _Bundle) -> None:
    report = session.report
    report.info(f"Status:       {bundle.state}")
    report.info(f"Last changed: in version {bundle.entry.version}")
    report.info(f"Newest:       {_newest(session, bundle)}")
    sizes = {name: manifest.contentsize for name, manifest in bundle.closure.items()}
    report.info(f"Size:         {human_size(sizes[bundle.name])}")
    if bundle.is_installed:
        total = sum(size for name, size in sizes.items() if name in bundle.status.installed)
        report.info(f"On the disk:  {human_size(total)} with the dependencies that are installed")
    else:
        total = sum(size for name, size in sizes.items() if name not in bundle.status.installed)
        report.info(f"To install:   {human_size(total)} at most, with the dependencies that are not installed")


def _newest(session: Session, bundle: _Bundle) -> str:
    """How the bundle of the server's newest version relates to the one of the system."""
    try:
        version = session.server.latest_version()
        newest = _entry(session.server.mom(version), bundle.name)
        current = bundle.entry
        if bundle.is_installed and bundle.mom.version != session.system.installed_version():
            current = _entry(session.server.mom(session.system.installed_version()), bundle.name) or bundle.entry
    except ProjectError as error:
        return f"not known ({error})"
    if newest is None:
        return f"version {version} does not have this bundle"
    if not bundle.is_installed:
        return f"last changed in version {newest.version}"
    if newest.hash == current.hash:
        return "the installed one is up to date"
    return f"there is an update, last changed in version {newest.version} (installed: {current.version})"


def _show_dependencies(args: Namespace, report: Report, bundle: _Bundle) -> None:
    every = reachable(bundle.closure, [bundle.name], optional=True) - {bundle.name}
    if args.quiet:
        report.answer("")
        for name in sorted(every):
            report.answer(name)
        return
    direct = needs(bundle.closure)[bundle.name]
    firm = reachable(bundle.closure, [bundle.name], optional=False)
    for title, names in (("Direct", every & set(direct)), ("Indirect", every - set(direct))):
        report.info(f"{title} dependencies ({len(names)}):")
        for name in sorted(names):
            words = [] if name in firm else ["optional"]
            words += [] if name in bundle.status.installed else [labels.NOT_INSTALLED]
            report.info(f" - {name} ({', '.join(words)})" if words else f" - {name}")


def _show_files(args: Namespace, session: Session, bundle: _Bundle) -> None:
    from swupd import metadata

    names = bundle.closure if args.dependencies else [bundle.name]
    paths = metadata.paths(session.server, bundle.mom, names)
    if args.quiet:
        session.report.answer("")
    else:
        session.report.info(f"Files{', with those of its dependencies' if args.dependencies else ''} ({len(paths)}):")
    for path in paths:
        session.report.answer(path if args.quiet else f" - {path}")
