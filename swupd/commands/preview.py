"""What a command is going to do and what it will take, before anything of it is done.

For update, bundle-add and os-install: nothing is changed and nothing fetched here but the update index.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from swupd import cost, history, reboot, space
from swupd.commands.applying import Wish, file_systems, stager
from swupd.commands.steps import Steps
from swupd.cost import Changes, Download
from swupd.formats.manifest import Manifest
from swupd.fs import Directory
from swupd.report import counted, human_size
from swupd.route import Chooser, all_packs
from swupd.session import Session
from swupd.space import Need, Room

SHOWN_NAMES = 6
"""How many bundles of a list are named."""


@dataclass(frozen=True)
class Preview:
    """A definite plan in numbers."""

    changes: Changes
    download: Download
    rooms: Sequence[Room]
    """File systems that get fuller."""
    seconds: float
    """Predicted, for all of it."""
    reboot: Sequence[str]
    """What a reboot will bring into use."""

    def check_space(self) -> None:
        """Raise DiskSpaceError unless there is room for all of it."""
        space.check(self.rooms)

    def lines(self) -> list[str]:
        """For people."""
        changes, download = self.changes, self.download
        files = f"{changes.added} added; {changes.changed} changed; {changes.removed} removed"
        if changes.left_alone:
            files += f"; {changes.left_alone} left to the administrator"
        about = "" if download.is_known else "about "
        size = f"{about}{human_size(download.bytes)} for {counted(download.objects, 'object')}"
        lines = [f"files:    {files}", f"download: {size}"]
        lines += [f"disk:     {room}{'' if room.is_enough else ', TOO LITTLE'}" for room in self.rooms]
        lines.append(f"time:     about {max(1, round(self.seconds))} s")
        if self.reboot:
            lines.append(f"reboot:   {reboot.sentence(self.reboot)}")
        return lines


def foresee(
    session: Session,
    wish: Wish,
    steps: Steps,
    manifests: Iterable[Manifest],
    *,
    download_only: bool = False,
    choose: Chooser = all_packs,
) -> Preview:
    """Look ahead. The plan of `wish` is definite (`swupd.verify.settle`); `manifests` are those of its entries."""
    settings, plan, system = session.settings, wish.plan, session.system
    going = [name for name, entry in wish.current.items() if entry.is_present and name not in wish.wanted]
    replaced = [entry.name for entry in plan.install if entry.name in wish.current]
    there = space.disk_sizes(settings.root, [*going, *replaced])
    with Directory.open(settings.root) as root, stager(session, root, steps) as staging:
        forecast = staging.forecast(plan.install, packs=plan.packs, choose=choose)
        missing = [entry for entry in plan.install if entry.hash in forecast.missing]
        sizes = cost.sizes_of(missing, there, manifests)
        download = cost.download_of(forecast.missing, forecast.way, sizes)
        needs = [Need("cache", session.statedir.content, download.bytes + download.staged)]
        if not download_only:
            systems = file_systems(session)
            sizes |= space.staged_sizes(staging.staged, (e for e in plan.install if e.hash not in forecast.missing))
            needs += space.system_needs(systems, staging.staged, plan.install, sizes)
            names = space.changed_names(plan)
            needs += space.keeping_needs(systems, session.statedir.data_dir, names)
    changes = cost.changes_of(plan, wish.current)
    return Preview(
        changes=changes,
        download=download,
        rooms=space.rooms(needs, factor=space.ESTIMATE_FACTOR),
        seconds=cost.seconds_of(download.bytes, changes.total, history.read(session.statedir.data_dir)),
        # What changes in a root that does not run matters when it is started.
        reboot=reboot.reasons((e.name for e in plan.install), os.uname().release) if system.is_host else (),
    )


def listed(names: Iterable[str]) -> str:
    """Names in brackets behind their number: "" for none, and not too many of them."""
    chosen = sorted(names)
    more = len(chosen) - SHOWN_NAMES
    shown = ", ".join(chosen[:SHOWN_NAMES]) + (f" and {more} more" if more > 0 else "")
    return f" ({shown})" if chosen else ""
