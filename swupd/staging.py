"""Objects that a plan needs -> verified objects in the state directory, by the cheapest way (specification, 4.4, 5.7).

The order: what an earlier run left, packs (whole objects, and deltas against files of the root), fullfiles.

What it guarantees:

* After `stage` every object that the entries need is `staged/<hash>`, with its owner, mode and content, and its hash
  was computed in this run: before it was written, or anew if it was there already. Nothing else gets that name.
* Nothing of the root changes. Its files are read for deltas, through directory descriptors without following links.
* Packs, deltas and what an earlier run left are opportunities: whatever is wrong with one of them is told, and the
  objects come by the next way. Of a damaged pack everything up to the damage is used; of an update pack that is not the
  one of the signed index nothing is.
* A fullfile that is not what it should be is fetched once more past all caches; if it is still wrong or cannot be had,
  DownloadError names path, hash and URL. A full disk is a DiskSpaceError. What was staged stays for the next run.

Crash rules: an object may be half written under its name after a crash, which the next run finds by its hash. A pack's
marker (`pack-…tar`, empty) says that its objects are staged; so `release`, which takes objects away after they were
installed, removes the markers first.

Downloads run in the threads of the fetcher, packs are unpacked while others arrive, on all cores.
"""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import BinaryIO

from swupd.closing import Closing
from swupd.errors import (
    ArchiveError,
    DiskSpaceError,
    DownloadError,
    NotOnServerError,
    NotRootError,
    OfflineError,
    ProjectError,
    StateDirectoryError,
    is_disk_full,
)
from swupd.formats import layout
from swupd.formats.archive import read_fullfile
from swupd.formats.filehash import hash_paths
from swupd.formats.manifest import Entry
from swupd.fs import Directory
from swupd.network.fetch import Download, Fetcher
from swupd.plan import FileList, PackNeed
from swupd.report import Report, counted
from swupd.route import Chooser, UpdatePack, Way, all_packs
from swupd.statedir import StateDir
from swupd.unpack import UNFINISHED, Unpacker, write_object

_PACK_PREFIX = "pack-"
_PIECE_BYTES = 1 << 20


@dataclass(frozen=True)
class Forecast:
    """What `Stager.stage` would have to do."""

    missing: frozenset[str]
    """Objects that have to be fetched."""
    way: Way
    """How it would try that first."""


@dataclass
class StageResult:
    """Where the objects came from; numbers of objects, except `packs`."""

    reused: int = 0
    packs: int = 0
    from_packs: int = 0
    from_deltas: int = 0
    fullfiles: int = 0

    @property
    def objects(self) -> int:
        return self.reused + self.from_packs + self.from_deltas + self.fullfiles


class Stager(Closing):
    """Fills the staged directory of one state directory. Close it, or use it in a `with` statement.

    step: told the name (as in the JSON stream, section 6.7) and a text for people when a part of the work begins.
    """

    def __init__(
        self,
        statedir: StateDir,
        content_url: str,
        fetcher: Fetcher,
        root: Directory,
        report: Report,
        *,
        step: Callable[[str, str], None] | None = None,
    ) -> None:
        self._statedir = statedir
        self._content_url = content_url.rstrip("/")
        self._fetcher = fetcher
        self._root = root
        self._report = report
        self._step = step or report.step
        self._missing: dict[str, Entry] = {}
        self._result = StageResult()
        self.staged = Directory.open(statedir.staged)
        """What the installer reads from."""
        try:
            self._download = Directory.open(statedir.download)
        except BaseException:
            self.staged.close()
            raise

    def close(self) -> None:
        self.staged.close()
        self._download.close()

    def stage(
        self,
        entries: Iterable[Entry],
        *,
        packs: Sequence[PackNeed] = (),
        current: FileList | None = None,
        choose: Chooser = all_packs,
    ) -> StageResult:
        """Get the objects of all `entries`. `current` are the files that the root has now, for deltas.

        choose: is asked for the way, unless none of `packs` has anything that is missing.

        Raises DownloadError, DiskSpaceError, NotRootError and StateDirectoryError.
        """
        self._result = StageResult()
        wanted = tuple(entries)
        self._missing = {}
        for entry in wanted:
            self._missing.setdefault(entry.hash, entry)
        try:
            self._reuse()
            self._unpack_packs(packs, current or {}, choose)
            self._fetch_fullfiles(wanted)
        except OSError as error:
            raise _failure(error, self._statedir) from error
        return self._result

    def forecast(
        self, entries: Iterable[Entry], *, packs: Sequence[PackNeed] = (), choose: Chooser = all_packs
    ) -> Forecast:
        """What `stage` would fetch for these entries if all that is staged already is as it should be.

        Nothing is changed, and nothing fetched unless `choose` does. Raises StateDirectoryError.
        """
        try:
            missing = frozenset(entry.hash for entry in entries).difference(self.staged.names())
        except OSError as error:
            raise _failure(error, self._statedir) from error
        needs = [need for need in packs if not need.hashes.isdisjoint(missing) and not self._is_unpacked(need)]
        ways = choose(missing, needs) if needs else (Way(single_files=len(missing), unpriced=missing),)
        return Forecast(missing, ways[0])

    def release(self, entries: Iterable[Entry]) -> None:
        """The root has these objects now; take them away here, so that it shares no inode with the cache."""
        try:
            with Directory.open(self._statedir.content) as content:
                for name in content.names():
                    if name.startswith(_PACK_PREFIX):
                        content.unlink(name)
            for file_hash in {entry.hash for entry in entries}:
                self.staged.remove_tree(file_hash)
        except OSError as error:
            raise _failure(error, self._statedir) from error

    # -- what an earlier run left ----------------------------------------------------------------------------------

    def _reuse(self) -> None:
        self._step("validate_fullfiles", "Looking for objects that are staged already")
        names = self.staged.names()
        for name in names:
            if name.endswith(UNFINISHED):
                self.staged.remove_tree(name)
        there = [name for name in names if name in self._missing]
        for name, found in zip(there, hash_paths([f"{self._statedir.staged}/{n}" for n in there]), strict=True):
            if found == name:
                del self._missing[name]
                self._result.reused += 1
            else:
                self._report.verbose(f"the staged object {name} is damaged; it is fetched again")
                self.staged.remove_tree(name)

    # -- packs and deltas ------------------------------------------------------------------------------------------

    def _unpack_packs(self, packs: Sequence[PackNeed], current: FileList, choose: Chooser) -> None:
        needs = [need for need in packs if self._is_wanted(need)]
        if not needs:
            return
        with Unpacker(self.staged, self._missing, self._root, current, self._report) as unpacker:
            for way in choose(frozenset(self._missing), needs):
                self._fetch_packs(way, unpacker)
                if way.update_pack is None or self._is_unpacked(way.update_pack):
                    break
        self._result.from_packs = unpacker.from_packs
        self._result.from_deltas = unpacker.from_deltas

    def _fetch_packs(self, way: Way, unpacker: Unpacker) -> None:
        """Fetch and unpack the packs of one way."""
        packs: list[PackNeed | UpdatePack] = [*way.packs] if way.update_pack is None else [way.update_pack, *way.packs]
        downloads = [
            Download(self._url(pack.path), pack.marker, self._limit(pack), pack)
            for pack in packs
            if self._is_wanted(pack)
        ]
        if not downloads:
            return
        self._step("download_packs", f"Downloading {counted(len(downloads), 'pack')}")

        def arrived(download: Download) -> None:
            pack: PackNeed | UpdatePack = download.key
            with self._download.open_file(download.name) as source:
                whole = self._is_announced(source, pack) and unpacker.unpack(source, pack.title)
            self._download.unlink(download.name)
            if whole:
                self._result.packs += 1
                with Directory.open(self._statedir.content) as content:
                    content.remove_tree(pack.marker)
                    content.write_file(pack.marker, [])

        for failure in self._fetcher.get_all(downloads, self._download, on_file=arrived):
            title = failure.download.key.title
            if isinstance(failure.error, NotOnServerError | OfflineError):
                self._report.verbose(f"{title} is not to be had: {failure.error}")
            else:
                self._report.warning(f"{title} could not be downloaded: {failure.error}")

    def _is_wanted(self, pack: PackNeed | UpdatePack) -> bool:
        return not pack.hashes.isdisjoint(self._missing) and not self._is_unpacked(pack)

    def _is_unpacked(self, pack: PackNeed | UpdatePack) -> bool:
        return (self._statedir.content / pack.marker).exists()

    def _is_announced(self, source: BinaryIO, pack: PackNeed | UpdatePack) -> bool:
        """Whether an update pack is the one of the index, which is signed; of other packs nothing is known before."""
        if isinstance(pack, PackNeed):
            return True
        digest = hashlib.sha256()
        while piece := source.read(_PIECE_BYTES):
            digest.update(piece)
        source.seek(0)
        if digest.hexdigest() == pack.file.sha256:
            return True
        self._report.warning(f"{pack.title} is not the one that the publisher has signed for; it is not used")
        return False

    def _limit(self, pack: PackNeed | UpdatePack) -> int:
        limit = self._fetcher.limits.pack_bytes
        return min(limit, pack.file.bytes) if isinstance(pack, UpdatePack) else limit

    # -- fullfiles -------------------------------------------------------------------------------------------------

    def _fetch_fullfiles(self, entries: Iterable[Entry]) -> None:
        """Download what is still missing; an object that several versions have may come from any of them."""
        if not self._missing:
            return
        versions = {file_hash: sorted(found) for file_hash, found in self._versions(entries).items()}
        self._step("download_fullfiles", f"Downloading {counted(len(self._missing), 'single file')}")
        attempt, limit = 0, self._fetcher.limits.object_bytes
        problems: dict[str, Download] = {}
        reasons: dict[str, ProjectError] = {}

        def arrived(download: Download) -> None:
            try:
                with self._download.open_file(download.name) as source:
                    self._write_fullfile(source, download.key)
            except ArchiveError as error:
                problems[download.key] = download
                reasons[download.key] = error
            self._download.unlink(download.name)

        while True:
            downloads = [
                Download(self._url(layout.fullfile(versions[name][attempt], name)), f"{name}.tar", limit, name)
                for name in self._missing
                if attempt < len(versions[name])
            ]
            if not downloads:
                break
            for failure in self._fetcher.get_all(downloads, self._download, on_file=arrived):
                problems[failure.download.key] = failure.download
                reasons[failure.download.key] = failure.error
            attempt += 1
        # A damaged object may come from a damaged cache on the way: once more past all of them.
        damaged = [
            replace(problems[name], uncached=True) for name in self._missing if isinstance(reasons[name], ArchiveError)
        ]
        for download in damaged:
            self._report.verbose(f"{download.url} is damaged, trying once more: {reasons[download.key]}")
        for failure in self._fetcher.get_all(damaged, self._download, on_file=arrived):
            reasons[failure.download.key] = failure.error
        if self._missing:
            raise self._not_to_be_had(problems, reasons)

    def _versions(self, entries: Iterable[Entry]) -> dict[str, set[int]]:
        """In which versions' directories the missing objects are."""
        found: dict[str, set[int]] = {file_hash: set() for file_hash in self._missing}
        for entry in entries:
            if entry.hash in found:
                found[entry.hash].add(entry.version)
        return found

    def _write_fullfile(self, source: BinaryIO, file_hash: str) -> None:
        write_object(self.staged, file_hash, *read_fullfile(source, file_hash))
        del self._missing[file_hash]
        self._result.fullfiles += 1

    def _not_to_be_had(self, problems: dict[str, Download], reasons: dict[str, ProjectError]) -> DownloadError:
        file_hash, entry = next(iter(self._missing.items()))
        reason = reasons[file_hash]
        more = f" (and {counted(len(self._missing) - 1, 'more file')})" if len(self._missing) > 1 else ""
        damaged = "the content on the server is damaged: tell its publisher"
        return DownloadError(
            f"cannot get {entry.name} ({file_hash}) from {problems[file_hash].url}: {reason}{more}",
            hint=damaged if isinstance(reason, ArchiveError) else reason.hint or "try again later",
        )

    def _url(self, name: str) -> str:
        return f"{self._content_url}/{name}"


def _failure(error: OSError, statedir: StateDir) -> ProjectError:
    """What the system refused while objects were written."""
    if is_disk_full(error):
        return DiskSpaceError(
            f"no space left in {statedir.content} while staging; nothing on the system was changed",
            hint="make room on that file system and run the command again: what was downloaded is kept",
        )
    if error.errno == errno.EPERM and os.geteuid() != 0:
        return NotRootError("staged files cannot be given their owners", hint="run this as root")
    return StateDirectoryError(
        f"cannot stage files in {statedir.content}: {error.strerror or error}",
        hint="check the directory and its file system; nothing on the system was changed",
    )
