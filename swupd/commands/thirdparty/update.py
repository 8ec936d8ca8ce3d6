"""`swupd 3rd-party update`: bring the repositories to their newest versions (specification section 7.4).

The repositories keep the system's format. A version that brings files with new setuid, setgid or sticky bits is
installed only if somebody says so; otherwise that repository stays as it is.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from swupd.commands import update
from swupd.commands.global_options import LATEST, version_or_latest
from swupd.commands.thirdparty.check_update import together
from swupd.commands.thirdparty.choosing import add_repo_option, arguments_for, for_each, settled, worst
from swupd.errors import UsageError
from swupd.report import Report
from swupd.space import SKIP_OPTION
from swupd.thirdparty.host import looking, working
from swupd.thirdparty.repositories import Repository

HELP = "update the repositories to newer versions"
EXAMPLES = """\
  swupd 3rd-party update                         all of them
  swupd 3rd-party update --repo mine --version 20
  swupd 3rd-party update --assume=no             leave out what brings files with special rights"""


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "-V",
        "--version",
        "-m",
        "--manifest",
        type=version_or_latest,
        metavar="N",
        help=f"with --repo: the version to update to, or '{LATEST}' (default)",
    )
    parser.add_argument("-s", "--status", action="store_true", help="only tell whether there are newer versions")
    parser.add_argument("-k", "--keepcache", action="store_true", help="do not clean the caches afterwards")
    parser.add_argument("--download", action="store_true", help="download everything, change nothing")
    parser.add_argument("--dry-run", action="store_true", help="only tell what would happen and what it would take")
    parser.add_argument(SKIP_OPTION, action="store_true", help="do not check the free space before")
    add_repo_option(parser)


def run(args: Namespace, report: Report) -> int:
    if args.version is not None and args.repo is None:
        raise UsageError(
            "--version needs --repo: each repository has version numbers of its own", hint="name one with --repo"
        )
    if args.status:
        with looking(args, report) as host:
            return together(
                for_each(host, args, lambda each: update.run(arguments_for(update, host.arguments(each)), report))
            )
    with working(args, report) as host:

        def work(repository: Repository) -> int:
            return update.run(arguments_for(update, host.arguments(repository)), report)

        return worst(for_each(host, args, settled(host, work)))


def update_all(args: Namespace, report: Report) -> int:
    """`swupd update --3rd-party`, after the system itself: `args` are those of the ordinary command.

    To be called when no session is open any more: it takes the system's lock itself.
    """
    for_the_system = {"version": None, "status": False, "third_party": False, "incremental": False}
    for_the_system |= {"update_search_file_index": False}
    return run(Namespace(**vars(args) | for_the_system | {"repo": None}), report)
