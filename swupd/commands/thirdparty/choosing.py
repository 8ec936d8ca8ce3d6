"""What the subcommands of `swupd 3rd-party` share: which repositories, and an ordinary command on each of them.

Most subcommands hand an ordinary command the settings of a repository, which has it work there as on a system of its
own. Without --repo that is done for all repositories, one after the other, each below a line `[name]`; one that fails
does not keep the others from their turn.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from swupd.errors import ExitCode, ProjectError, UnknownBundleError, UsageError
from swupd.report import show_error
from swupd.thirdparty.host import Host
from swupd.thirdparty.repositories import Repository, find

if TYPE_CHECKING:
    from swupd.cli import Command


def add_repo_option(parser: ArgumentParser, *flags: str) -> None:
    """The option that chooses a repository; `flags` are other ones than the usual."""
    parser.add_argument(*(flags or ("-R", "--repo")), dest="repo", metavar="NAME", help="only this repository")


def arguments_for(command: Command, args: Namespace, **changes: Any) -> Namespace:
    """`args` for an ordinary command: what it knows and we have not been asked for gets its default."""
    parser = ArgumentParser(add_help=False)
    command.add_arguments(parser)
    return Namespace(**{action.dest: action.default for action in parser._actions} | vars(args) | changes)


def chosen(host: Host, args: Namespace) -> Sequence[Repository]:
    """The repository of --repo, or all; RepositoryError if there is none of that name."""
    if args.repo is not None:
        return (find(host.repositories, args.repo),)
    if not host.repositories:
        host.report.info("There are no 3rd-party repositories; add one with: swupd 3rd-party add NAME URL")
    return host.repositories


def for_each(host: Host, args: Namespace, work: Callable[[Repository], int]) -> list[int]:
    """Work on the chosen repositories; the exit status of each. An error of one is shown, and raised if it is alone."""
    if args.repo is not None:
        return [work(repository) for repository in chosen(host, args)]
    statuses = []
    for repository in chosen(host, args):
        host.report.answer(f"[{repository.name}]")
        try:
            statuses.append(work(repository))
        except ProjectError as error:
            show_error(host.report, error)
            statuses.append(int(error.exit_code))
    return statuses


def worst(statuses: Iterable[int]) -> int:
    """The exit status of a command on several repositories."""
    return max(statuses, default=ExitCode.OK)


def settled(host: Host, work: Callable[[Repository], int]) -> Callable[[Repository], int]:
    """`work`, and afterwards the wrappers as they have to be, whether it succeeded or not."""

    def both(repository: Repository) -> int:
        with host.settling(repository.name):
            return work(repository)

    return both


def with_bundle(
    host: Host, args: Namespace, name: str, bundles_of: Callable[[Repository], Iterable[str]]
) -> Repository:
    """The chosen repository that has a bundle: UnknownBundleError if none has it, UsageError if several have.

    A repository whose bundles cannot be known is left out with a warning.
    """
    if args.repo is not None:
        return find(host.repositories, args.repo)
    having = []
    for repository in host.repositories:
        try:
            if name in bundles_of(repository):
                having.append(repository)
        except ProjectError as error:
            host.report.warning(f"repository {repository.name} is left out: {error}")
    if not having:
        raise UnknownBundleError(
            f"no 3rd-party repository has a bundle {name}", hint="list them with: swupd 3rd-party bundle-list --all"
        )
    if len(having) > 1:
        raise UsageError(
            f"several repositories have a bundle {name}: {', '.join(each.name for each in having)}",
            hint="specify the repository with --repo",
        )
    return having[0]


def available(repository: Repository, host: Host) -> set[str]:
    """The bundles of the installed version of a repository."""
    from swupd.session import browsing

    with browsing(host.arguments(repository), host.report) as session:
        mom = session.server.mom(session.system.installed_version())
    return {entry.name for entry in mom.entries if entry.is_present}


def installed(repository: Repository, host: Host) -> set[str]:
    """The installed bundles of a repository."""
    from swupd.session import reading

    with reading(host.arguments(repository), host.report) as session:
        return session.system.installed_bundles()
