"""`swupd 3rd-party remove`: remove a repository with everything that came from it (specification section 7.2).

It is out of `repo.ini` first; its wrappers, content and state follow. What a kill leaves goes with the next command.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from swupd.errors import ExitCode, RepositoryError
from swupd.report import Report
from swupd.thirdparty.host import working
from swupd.thirdparty.repositories import Repository, check_name, find

HELP = "remove a repository with all that was installed from it"
EXAMPLES = """\
  swupd 3rd-party remove mine
  swupd 3rd-party remove mine --force        even if it is not in repo.ini but has left files"""


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="name of the repository")
    parser.add_argument(
        "-x", "--force", action="store_true", help="remove its files even if there is no such repository"
    )


def run(args: Namespace, report: Report) -> int:
    name = check_name(args.name, "NAME")
    with working(args, report) as host:
        try:
            repository = find(host.repositories, name)
        except RepositoryError:
            if not args.force:
                raise
            repository = Repository(name, "")
        place = host.place(repository)
        place.check_removable()
        with host.settling(name):
            place.note()
            host.unregister(repository)
    report.info(f"Repository {name} is removed")
    return ExitCode.OK
