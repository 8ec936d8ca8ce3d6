"""What a running command holds: settings, system, state directory, lock, network (specification section 5.1).

Two kinds of sessions:

* *reading*: needs no root, makes nothing, takes no lock; for what can be answered from an installed system and the
  version files of the server;
* *exclusive*: needs root; checks the clock, makes the state directories, takes the lock, seeds the tracking files and
  loads the certificate, in this order, so that a system that cannot be changed is told before anything is downloaded.

The network is opened when first used, and with it the libraries that it needs. Leaving the session closes everything.
"""

from __future__ import annotations

import os
import time
from argparse import Namespace
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cached_property
from typing import TYPE_CHECKING

from swupd import statedir
from swupd.errors import NotRootError
from swupd.memory import give_back_what_is_free
from swupd.report import Report
from swupd.settings import Settings, resolve
from swupd.statedir import StateDir
from swupd.system import System

if TYPE_CHECKING:
    from swupd.fetch import Fetcher
    from swupd.server import Server
    from swupd.trust import Verifier


class Session:
    """The surroundings of one command. Made by `reading` and `exclusive`."""

    def __init__(self, settings: Settings, report: Report, resources: ExitStack) -> None:
        self.settings = settings
        self.report = report
        self.statedir = StateDir(settings.cache_dir, settings.data_dir, settings.content_url)
        self.system = System(settings.root, self.statedir)
        self._resources = resources
        self._begun_at = time.monotonic()

    @cached_property
    def fetcher(self) -> Fetcher:
        from swupd.fetch import Fetcher

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
        return Server(self.settings, self.fetcher, self.verifier, self.report, levels=self.system.cpu_levels())

    @property
    def seconds(self) -> float:
        """Since the session began."""
        return time.monotonic() - self._begun_at


@contextmanager
def reading(args: Namespace, report: Report) -> Iterator[Session]:
    """A session that changes nothing."""
    with ExitStack() as resources:
        yield Session(_settings(args, report), report, resources)


@contextmanager
def exclusive(args: Namespace, report: Report, *, network: bool = True) -> Iterator[Session]:
    """A session that may change the system; no other one can begin meanwhile.

    network: False for a command that needs no server and so no certificate. Raises NotRootError, ClockError,
    StateDirectoryError, LockedError, and with `network` UsageError for an unknown URL and SignatureError.
    """
    give_back_what_is_free()
    with ExitStack() as resources:
        session = Session(_settings(args, report), report, resources)
        if os.geteuid() != 0:
            raise NotRootError("this command must be run as root", hint="run it with sudo or in a root shell")
        moved_to = session.system.check_clock(ignore=session.settings.ignore_time)
        if moved_to is not None:
            report.warning(f"the clock was far behind; it was set to {time.ctime(moved_to)}")
        session.statedir.prepare()
        resources.enter_context(statedir.lock(session.statedir))
        session.system.seed_tracking()
        if network:
            session.settings.require_urls()
            _ = session.verifier
        yield session


def _settings(args: Namespace, report: Report) -> Settings:
    settings = resolve(vars(args), os.environ)
    for warning in settings.warnings:
        report.warning(warning)
    return settings
