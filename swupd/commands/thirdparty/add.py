"""`swupd 3rd-party add`: trust and install a repository (specification section 7.3).

A transaction: all is decided before anything is made, `repo.ini` is written last, and after a failure or a refusal
nothing is left. What a kill leaves is removed by the next command.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from swupd.commands import os_install
from swupd.commands.thirdparty.choosing import arguments_for
from swupd.errors import ExitCode, RepositoryError
from swupd.report import Report
from swupd.settings import check_url
from swupd.thirdparty.host import Host, check_unused, working
from swupd.thirdparty.repositories import Repository, check_name

HELP = "add a repository and install its os-core"
EXAMPLES = """\
  swupd 3rd-party add mine https://example.org/update
  swupd 3rd-party add mine https://example.org/update --certpath their.pem"""


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="what to call it: letters, digits and '-_.'")
    parser.add_argument("location", metavar="URL", help="URL of its published tree")
    parser.add_argument("-x", "--force", action="store_true", help="remove what lies in its directory")


def run(args: Namespace, report: Report) -> int:
    repository = Repository(check_name(args.name, "NAME"), check_url(args.location, "URL"))
    with working(args, report) as host:
        check_unused(host, repository)
        place = host.place(repository)
        if not place.is_empty() and not args.force:
            raise RepositoryError(
                f"{place.prefix} is not empty", hint="it belongs to no repository; remove it, or let --force remove it"
            )
        place.check_removable()
        certificate = _accepted(host, args, repository)
        with host.settling(repository.name):
            place.note()
            place.wipe()
            place.make()
            _install(host, repository, certificate)
            host.register(repository)
    report.info(f"Repository {repository.name} is added; see its bundles with: swupd 3rd-party bundle-list --all")
    return ExitCode.OK


def _accepted(host: Host, args: Namespace, repository: Repository) -> bytes | None:
    """The certificate that a person has accepted; None if another one is named, or none is wanted."""
    if args.certpath or not host.settings.check_signatures:
        return None
    from swupd.network.fetch import Fetcher
    from swupd.thirdparty.trust import accept_certificate

    settings = host.place(repository).settings(repository.url)
    with Fetcher(settings, host.report) as fetcher:
        return accept_certificate(settings, fetcher, host.report, assume=host.settings.assume)


def _install(host: Host, repository: Repository, certificate: bytes | None) -> None:
    """Install os-core of the newest version, verified with the accepted certificate or the one of the command line."""
    place = host.place(repository)
    path = place.keep_certificate(repository.url, certificate) if certificate is not None else None
    given = host.arguments(repository, certificate=path, new_commands=True)
    os_install.run(arguments_for(os_install, given, path=None, target=place.prefix, force=False), host.report)
    place.drop_certificate()
