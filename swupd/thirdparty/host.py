"""A system with its 3rd-party repositories, while nobody else works on it (specification section 7).

* What was begun with a repository is noted before the first change and *settled* after the last one: if it is in
  `repo.ini` its wrappers are made to be those of its installed bundles, otherwise all that is left of it is removed.
  A run that was killed left its note; the next swupd with the lock of the system settles it before it does anything
  else.
* So adding a repository writes `repo.ini` last, and removing one begins there. At each moment it is either there as a
  whole or on its way out.
* Nothing is written but the prefix of a repository, its state, the wrappers, `repo.ini` and `script.template`.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from swupd.errors import ProjectError, RefusedFilesError, UsageError
from swupd.faces.prompt import ask
from swupd.formats.manifest import Entry
from swupd.fs import Directory
from swupd.plan import consolidate
from swupd.report import Report
from swupd.session import Session, exclusive, reading
from swupd.settings import Settings
from swupd.thirdparty import repositories
from swupd.thirdparty.exports import check_exports, dangerous, exported, programs
from swupd.thirdparty.place import Place, noted
from swupd.thirdparty.repositories import Repository
from swupd.thirdparty.wrappers import refresh, synchronise


class Host:
    """Made by `working` and `looking`."""

    def __init__(self, session: Session, args: Namespace) -> None:
        self.settings = session.settings
        self.report = session.report
        self._args = args

    @property
    def repositories(self) -> tuple[Repository, ...]:
        return repositories.read(self.settings.root)

    def place(self, repository: Repository) -> Place:
        return Place(self.settings, repository.name)

    def arguments(
        self, repository: Repository, *, certificate: Path | None = None, new_commands: bool = False
    ) -> Namespace:
        """The arguments of this run for a command that is to work on a repository.

        certificate: another one than the repository's own or the one of the command line. new_commands: refuse an
        installation whose commands are there already.
        """
        given = certificate or (self.settings.certificate if self._args.certpath else None)
        settings = self.place(repository).settings(repository.url, certificate=given)
        guard = RepositoryGuard(self, repository, settings, new_commands=new_commands)
        return Namespace(**vars(self._args) | {"settings": settings, "guard": guard, "format": settings.format})

    def register(self, repository: Repository) -> None:
        """Write a repository into `repo.ini`."""
        repositories.write(self.settings.root, (*self.repositories, repository))

    def unregister(self, repository: Repository) -> None:
        """Take a repository out of `repo.ini`, if it is there."""
        remaining = [each for each in self.repositories if each.name != repository.name]
        if len(remaining) < len(self.repositories):
            repositories.write(self.settings.root, remaining)

    def settle(self, name: str) -> None:
        """Finish or undo what was begun with a repository; raises what loading its manifests raises."""
        root = self.settings.root
        repository = self._registered(name)
        if repository is None:
            synchronise(root, name, {}, self.report)
            Place(self.settings, name).wipe()
        else:
            synchronise(root, name, self._programs(repository), self.report)
        Place(self.settings, name).forget_note()

    def settle_all(self) -> None:
        """Settle whatever an interrupted run has begun."""
        for name in noted(self.settings):
            self.report.info(f"A change of repository {name} was interrupted; it is finished or undone now")
            self._try_to_settle(name)

    @contextmanager
    def settling(self, name: str) -> Iterator[None]:
        """Settle a repository, if something was begun with it, when the block is left in whatever way.

        After an interruption only what is quick is done: removing what was not there before.
        """
        try:
            yield
        except BaseException as error:
            if Place(self.settings, name).is_noted() and (isinstance(error, Exception) or not self._registered(name)):
                self._try_to_settle(name)
            raise
        if Place(self.settings, name).is_noted():
            self.settle(name)

    def _try_to_settle(self, name: str) -> None:
        """What cannot be settled now is a warning and stays noted."""
        try:
            self.settle(name)
        except ProjectError as error:
            self.report.warning(f"a change of repository {name} that was begun cannot be finished yet: {error}")

    def _registered(self, name: str) -> Repository | None:
        return next((each for each in self.repositories if each.name == name), None)

    def _programs(self, repository: Repository) -> dict[str, str]:
        """What the installed bundles of a repository export, by the name of the command."""
        with exclusive(self.arguments(repository), self.report) as session:
            mom = session.server.mom(session.system.installed_version())
            available = {entry.name for entry in mom.entries if entry.is_present}
            manifests = session.server.bundles(mom, sorted(session.system.installed_bundles() & available))
            return programs(session.settings.root, exported(consolidate(manifests.values()).values()))


class RepositoryGuard:
    """Sees what a repository is about to install; see `swupd.session.Guard`."""

    def __init__(self, host: Host, repository: Repository, settings: Settings, *, new_commands: bool) -> None:
        self._host = host
        self._repository = repository
        self._settings = settings
        self._new_commands = new_commands

    def before_staging(self, entries: Iterable[Entry]) -> None:
        """Raises ExportError if this would bring commands that are there already."""
        if self._new_commands:
            check_exports(self._host.settings.root, self._repository.name, exported(entries))

    def before_install(self, entries: Iterable[Entry], staged: Directory) -> None:
        """Raises RefusedFilesError if somebody does not want files with special bits; notes that a change begins."""
        found = dangerous(entries, staged, self._settings.root)
        if found:
            report, name = self._host.report, self._repository.name
            report.warning(f"repository {name} wants to install files with special rights:")
            for line in found:
                report.warning(f"  {line}")
            if not ask(report, "Install them?", assume=self._host.settings.assume):
                raise RefusedFilesError(
                    f"the files of repository {name} with setuid, setgid or sticky bits are not wanted: "
                    f"{', '.join(found)}; nothing was changed",
                    hint="answer yes (--yes) if you trust it with these rights",
                )
        self._host.place(self._repository).note()


@contextmanager
def working(args: Namespace, report: Report) -> Iterator[Host]:
    """The host of a command that changes something: with the lock of the system, and everything settled before.

    Wrappers are written anew if the program has another template now.
    """
    with exclusive(args, report, network=False) as session:
        refresh(session.settings.root)
        yield Host(session, args)


@contextmanager
def looking(args: Namespace, report: Report) -> Iterator[Host]:
    """The host of a command that only looks: needs no root and no lock."""
    with reading(args, report) as session:
        yield Host(session, args)


def check_unused(host: Host, repository: Repository) -> None:
    """Raise UsageError if name or URL of a new repository are taken, or its URL needs a permission."""
    for other in host.repositories:
        if other.name == repository.name:
            raise UsageError(
                f"there is a 3rd-party repository '{other.name}' already: {other.url}", hint="choose another name"
            )
        if other.url == repository.url:
            raise UsageError(
                f"{repository.url} is the 3rd-party repository '{other.name}' already", hint="use that repository"
            )
    if repository.url.startswith("http://") and not host.settings.allow_insecure_http:
        raise UsageError(
            f"{repository.url} is not encrypted", hint="use a https:// URL, or permit it with --allow-insecure-http"
        )
