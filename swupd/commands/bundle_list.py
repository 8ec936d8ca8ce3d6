"""`swupd bundle-list`: bundles, their status, and who needs whom (specification section 6.2).

The installed bundles are listed without the network; all other lists read manifests of the installed version, which may
have to be downloaded first. None of them needs root.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Iterable

from swupd.commands import labels
from swupd.commands.dependencies import Edges, dependants, needs, orphans, reachable, tree, users
from swupd.errors import ExitCode, ProjectError, UnknownBundleError, UsageError
from swupd.formats import layout
from swupd.formats.manifest import Manifest, parse
from swupd.report import Report
from swupd.session import Session, browsing, reading

HELP = "list installed or available bundles"
EXAMPLES = """\
  swupd bundle-list                       installed bundles
  swupd bundle-list --all --status        all bundles, and which of them are installed
  swupd bundle-list --deps editors        what the bundle editors needs; with --verbose as a tree
  swupd bundle-list --has-dep libs        which installed bundles need libs
  swupd bundle-list --orphans             bundles that nothing needs any more"""

_STEPS = 2


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("-a", "--all", action="store_true", help="all bundles of the installed version")
    parser.add_argument("-D", "--has-dep", metavar="BUNDLE", help="bundles that depend on BUNDLE")
    parser.add_argument("--deps", metavar="BUNDLE", help="bundles that BUNDLE depends on")
    parser.add_argument("--status", action="store_true", help="show whether and why a bundle is installed")
    parser.add_argument("--orphans", action="store_true", help="installed dependencies that nothing needs any more")


def run(args: Namespace, report: Report) -> int:
    _check(args)
    if not (args.all or args.has_dep or args.deps or args.orphans):
        with reading(args, report) as session:
            _list_installed(args, session)
        return ExitCode.OK
    with browsing(args, report) as session:
        report.step("load_manifests", "Loading manifests", 1, _STEPS)
        mom = session.server.mom(session.system.installed_version())
        if args.deps:
            _list_dependencies(args, session, mom)
        elif args.has_dep:
            _list_dependants(args, session, mom)
        elif args.orphans:
            _list_orphans(args, session, mom)
        else:
            _list_all(args, session, mom)
    return ExitCode.OK


def _check(args: Namespace) -> None:
    for condition, message in (
        (args.status and (args.deps or args.has_dep), "--status cannot be used with --deps or --has-dep"),
        (args.orphans and (args.all or args.deps or args.has_dep), "--orphans cannot be used with another list"),
        (args.deps and args.has_dep, "--deps and --has-dep cannot be used together"),
    ):
        if condition:
            raise UsageError(message, hint="ask for one list at a time")


def _list_installed(args: Namespace, session: Session) -> None:
    names = session.system.installed_bundles()
    labels = _labels(args, session, names, _experimental(session))
    _show(args, session.report, "Installed bundles", names, labels)


def _list_all(args: Namespace, session: Session, mom: Manifest) -> None:
    names = {entry.name for entry in mom.entries}
    experimental = {entry.name for entry in mom.entries if entry.is_experimental}
    _show(args, session.report, "All bundles", names, _labels(args, session, names, experimental))


def _list_dependencies(args: Namespace, session: Session, mom: Manifest) -> None:
    from swupd import metadata

    manifests = metadata.closure(session.server, mom, args.deps)
    firm = reachable(manifests, [args.deps], optional=False) - {args.deps}
    every = reachable(manifests, [args.deps], optional=True) - {args.deps}
    title = f"Bundles that {args.deps} depends on"
    _show(args, session.report, title, every, _optional_labels(every - firm), graph=(args.deps, needs(manifests)))


def _list_dependants(args: Namespace, session: Session, mom: Manifest) -> None:
    from swupd import metadata

    available = {entry.name for entry in mom.entries if entry.is_present}
    if args.has_dep not in available:
        raise UnknownBundleError(
            f"there is no bundle {args.has_dep} in version {mom.version}",
            hint="list them with: swupd bundle-list --all",
        )
    names = available if args.all else available & session.system.installed_bundles()
    manifests = metadata.headers(session.server, mom, names)
    firm = dependants(manifests, [args.has_dep])
    every = dependants(manifests, [args.has_dep], optional=True)
    title = f"{'All' if args.all else 'Installed'} bundles that depend on {args.has_dep}"
    optional = _optional_labels(every - firm)
    _show(args, session.report, title, every, optional, graph=(args.has_dep, users(manifests)))


def _list_orphans(args: Namespace, session: Session, mom: Manifest) -> None:
    from swupd import metadata

    available = {entry.name for entry in mom.entries if entry.is_present}
    installed = session.system.installed_bundles() & available
    manifests = metadata.headers(session.server, mom, installed)
    names = orphans(manifests, labels.asked_for(session))
    _show(args, session.report, "Bundles that nothing needs any more", names, {})
    if names:
        session.report.info("Remove them with: swupd bundle-remove --orphans")


def _labels(args: Namespace, session: Session, names: Iterable[str], experimental: set[str]) -> dict[str, str]:
    status = labels.status(session) if args.status else labels.Status()
    words = {name: [status.of(name), labels.EXPERIMENTAL if name in experimental else ""] for name in names}
    return {name: ", ".join(filter(None, both)) for name, both in words.items()}


def _optional_labels(names: Iterable[str]) -> dict[str, str]:
    return dict.fromkeys(names, "as optional")


def _experimental(session: Session) -> set[str]:
    """The experimental bundles of the installed version as far as the cache knows: a label is not worth a download."""
    try:
        version = session.system.installed_version()
        data = session.statedir.read_manifest(version, layout.manifest_name(layout.MOM))
        return (
            {entry.name for entry in parse(data, name=layout.MOM, is_mom=True).entries if entry.is_experimental}
            if data
            else set()
        )
    except ProjectError:
        return set()


def _show(
    args: Namespace,
    report: Report,
    title: str,
    names: Iterable[str],
    label_of: dict[str, str],
    *,
    graph: tuple[str, Edges] | None = None,
) -> None:
    """Show names in order, with labels; with --verbose as a tree where there is one: its top, and what leads where."""
    report.step("list_bundles", f"{title}:", _STEPS, _STEPS)
    ordered = sorted(names)
    if graph is not None and args.verbose:
        _show_tree(report, *graph)
    else:
        for name in ordered:
            label = label_of.get(name, "")
            if args.quiet:
                report.answer(f"{name}: {label}" if label else name)
            else:
                report.info(f" - {name} ({label})" if label else f" - {name}")
    report.info(f"Total: {len(ordered)}")


def _show_tree(report: Report, top: str, edges: Edges) -> None:
    for branch in tree(edges, top):
        optional = " (as optional)" if branch.optional else ""
        repeated = " (see above)" if branch.is_repeated else ""
        report.info(f"{'   ' * branch.depth} - {branch.bundle}{optional}{repeated}")
