"""What a running command holds: settings, system, state directory, lock, network (specification section 5.1).

Three kinds of sessions:

* *reading*: needs no root and changes nothing (but puts an interrupted installation right if it is root's); for what
  can be answered from an installed system and the version files of the server;
* *exclusive*: needs root; checks the clock, makes the state directories, takes the lock, puts an interrupted
  installation right, seeds the tracking files and loads the certificate, in this order, so that a system that cannot
  be changed is told before anything is downloaded;
* *browsing*: for what can be answered from manifests; like an exclusive one for root, while an ordinary user, or root
  while another swupd runs, keeps manifests in a cache of his own (`swupd/usercache.py`) and reads the system's as well.

The network is opened when first used, and with it the libraries that it needs. Leaving the session closes everything;
if something was downloaded, the cache is trimmed to its limits before.

A command works on a 3rd-party repository as on a system of its own: `args.settings`, if there are any, are the
repository's and taken as they are, and `args.guard` is asked before anything is installed (`swupd/thirdparty`).
"""

from __future__ import annotations

import os
import time
from argparse import Namespace
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from swupd import statedir
from swupd.errors import LockedError, NotRootError, ProjectError, VersionUnknownError
from swupd.formats import layout
from swupd.memory import give_back_what_is_free
from swupd.report import Report
from swupd.settings import Settings, resolve
from swupd.statedir import StateDir
from swupd.system import System
from swupd.transaction import journal
from swupd.usercache import is_ours, make, place

if TYPE_CHECKING:
    from swupd.formats.manifest import Entry
    from swupd.fs import Directory
    from swupd.network.fetch import Fetcher
    from swupd.server import Server
    from swupd.trust import Verifier

CACHE_LOCK_SECONDS = 30
_LOCK_PAUSE_SECONDS = 0.1


class Guard(Protocol):
    """Who may prevent an installation, by raising a ProjectError."""

    def before_staging(self, entries: Iterable[Entry]) -> None:
        """These entries will be downloaded and installed."""

    def before_install(self, entries: Iterable[Entry], staged: Directory) -> None:
        """They are in `staged`, verified, by their hashes; the root is changed next. Without entries: only removals."""


class Session:
    """The surroundings of one command. Made by `reading`, `exclusive` and `browsing`.

    own_cache: a directory of the user's, which this session works in instead of the system's state directory.
    """

    def __init__(
        self, settings: Settings, report: Report, resources: ExitStack, *, own_cache: Path | None = None
    ) -> None:
        self.settings = settings
        self.report = report
        self.statedir = StateDir(settings.cache_dir, settings.data_dir, settings.content_url)
        self.system = System(settings.root, self.statedir, machine=settings.machine)
        if own_cache is not None:
            shared = settings.cache_dir
            self.statedir = StateDir(own_cache, own_cache, settings.content_url, shared_cache=shared)
        self.guard: Guard | None = None
        self._resources = resources
        self._begun_at = time.monotonic()

    @cached_property
    def fetcher(self) -> Fetcher:
        from swupd.network.fetch import Fetcher

        return self._resources.enter_context(Fetcher(self.settings, self.report))

    @cached_property
    def verifier(self) -> Verifier:
        """Raises SignatureError if the certificate cannot be used."""
        from swupd.trust import Verifier

        return Verifier(self.settings, self.report)

    @cached_property
    def server(self) -> Server:
        """Raises UsageError if no URL is known, SignatureError if the certificate cannot be used."""
        from swupd.server import Server

        self.settings.require_urls()
        return Server(
            self.settings,
            self.fetcher,
            self.verifier,
            self.report,
            levels=self.system.cpu_levels(),
            statedir=self.statedir,
        )

    def current_mom(self) -> bytes | None:
        """The cached MoM of the installed version as it is; None if there is none, or the version is unknown."""
        try:
            version = self.system.installed_version()
        except VersionUnknownError:
            return None
        return self.statedir.read_manifest(version, layout.manifest_name(layout.MOM))

    @property
    def seconds(self) -> float:
        """Since the session began."""
        return time.monotonic() - self._begun_at


@contextmanager
def reading(args: Namespace, report: Report) -> Iterator[Session]:
    """A session that changes nothing."""
    with ExitStack() as resources:
        session = Session(_settings(args, report), report, resources)
        _recover_if_possible(session)
        yield session


@contextmanager
def exclusive(args: Namespace, report: Report, *, network: bool = True, repairing: bool = False) -> Iterator[Session]:
    """A session that may change the system; no other one can begin meanwhile.

    network: False for a command that needs no server and so no certificate. repairing: an installation that was
    interrupted and cannot be put right is no obstacle. Raises InstallError for such a one, NotRootError, ClockError,
    StateDirectoryError, LockedError, and with `network` UsageError for an unknown URL and SignatureError.
    """
    give_back_what_is_free()
    with ExitStack() as resources:
        session = Session(_settings(args, report), report, resources)
        session.guard = getattr(args, "guard", None)
        if os.geteuid() != 0:
            raise NotRootError("this command must be run as root", hint="run it with sudo or in a root shell")
        moved_to = session.system.check_clock(ignore=session.settings.ignore_time)
        if moved_to is not None:
            report.warning(f"the clock was far behind; it was set to {time.ctime(moved_to)}")
        session.statedir.prepare()
        resources.enter_context(statedir.lock(session.statedir))
        _recover(session, repairing=repairing)
        if session.guard is None:
            _settle_repositories(session, args)
        session.system.seed_tracking()
        if network:
            session.settings.require_urls()
            _ = session.verifier
        try:
            yield session
        finally:
            _trim(session)


@contextmanager
def browsing(args: Namespace, report: Report) -> Iterator[Session]:
    """A session that reads manifests and changes nothing of the system.

    Raises what `exclusive` with the network raises, except NotRootError; LockedError only if another program of the
    same user keeps his own cache for longer than `CACHE_LOCK_SECONDS`.
    """
    with ExitStack() as resources:
        if os.geteuid() == 0:
            try:
                session = resources.enter_context(exclusive(args, report))
            except LockedError as error:
                report.verbose(f"{error}; the manifests that are missing in the system's cache go to root's own")
                session = resources.enter_context(_with_own_cache(_resolve(args), report))
        else:
            session = resources.enter_context(_with_own_cache(_settings(args, report), report))
            _recover_if_possible(session)
        yield session


@contextmanager
def _with_own_cache(settings: Settings, report: Report) -> Iterator[Session]:
    give_back_what_is_free()
    settings.require_urls()
    is_user = os.geteuid() != 0
    own_cache = settings.cache_dir if is_user and is_ours(settings.cache_dir) else place(os.environ)
    with ExitStack() as resources:
        session = Session(settings, report, resources, own_cache=own_cache)
        session.system.check_clock(ignore=settings.ignore_time)
        make(own_cache)
        session.statedir.prepare()
        _wait_for_lock(session.statedir, resources)
        _ = session.verifier
        try:
            yield session
        finally:
            _trim(session)


def _recover(session: Session, *, repairing: bool = False, looking: bool = False) -> None:
    """Finish or undo an installation that was interrupted, before anything else is looked at."""
    if journal.exists(session.settings.data_dir):
        from swupd.transaction.recovery import recover

        recover(session, repairing=repairing, looking=looking)


def _settle_repositories(session: Session, args: Namespace) -> None:
    """Finish or undo what an interrupted run has begun with 3rd-party repositories."""
    from swupd.thirdparty.place import noted

    if noted(session.settings):
        from swupd.thirdparty.host import Host

        Host(session, args).settle_all()


def _recover_if_possible(session: Session) -> None:
    """The same for a command that changes nothing: it needs root, and whoever has the lock is at work."""
    if not journal.exists(session.settings.data_dir):
        return
    if os.geteuid() != 0:
        session.report.warning("an installation was interrupted, or is running; any swupd command as root finishes it")
        return
    try:
        statedir.check_owner(session.settings.data_dir)
        with statedir.lock(session.statedir):
            _recover(session, looking=True)
    except LockedError:
        return
    except ProjectError as error:
        session.report.warning(str(error))


def _wait_for_lock(own: StateDir, resources: ExitStack) -> None:
    """Two commands of one user come one after the other: each of them is a matter of seconds."""
    end = time.monotonic() + CACHE_LOCK_SECONDS
    while True:
        try:
            resources.enter_context(statedir.lock(own))
        except LockedError:
            if time.monotonic() > end:
                raise
            time.sleep(_LOCK_PAUSE_SECONDS)
        else:
            return


def _trim(session: Session) -> None:
    """Keep the cache within its limits after whatever may have been downloaded."""
    if "fetcher" not in vars(session) or not session.fetcher.requests:
        return
    from swupd.cleaning import DEFAULT_DAYS, DEFAULT_LIMIT, trim

    settings = session.settings
    limit = DEFAULT_LIMIT if settings.cache_limit is None else settings.cache_limit
    days = DEFAULT_DAYS if settings.cache_days is None else settings.cache_days
    try:
        done = trim(session.statedir, session.current_mom(), limit=limit, days=days)
    except ProjectError as error:
        session.report.warning(f"{error}: the cache may exceed its limits")
    else:
        session.report.debug(f"trimming the cache: {done.files} files, {done.bytes} bytes")


def _settings(args: Namespace, report: Report) -> Settings:
    settings = _resolve(args)
    for warning in settings.warnings:
        report.warning(warning)
    return settings


def _resolve(args: Namespace) -> Settings:
    given: Settings | None = getattr(args, "settings", None)
    return given or resolve(vars(args), os.environ)
