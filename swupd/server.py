"""A published OS: which versions there are, and their verified manifests (swupd client specification, 5.3 and 5.5).

What it guarantees:

* Nothing is returned that was not verified: version files and the MoM by their signature, every other manifest by the
  hash that the MoM gives, and each one is of the version that it was asked for.
* The cache is believed no more than the server: what lies there is verified each time, by hash and signature and not
  by the original's hard-link marks. A copy that fails is removed and fetched again exactly once.
* A manifest delta is only ever a shorter way: if anything about it fails, the manifest is fetched as a whole.
* An update index is used if its signature is right and not asked for twice: what it tells is never indispensable.
* Offline no server is asked; what the cache has is verified as ever.
* Manifests are fetched many at a time and parsed in the caller's thread while others still arrive.

An instance is for one thread.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from pathlib import Path
from weakref import WeakValueDictionary

from swupd.errors import (
    DownloadError,
    FormatError,
    ManifestError,
    MomError,
    NotOnServerError,
    ProjectError,
    ServerError,
    SignatureError,
    TlsError,
    UnknownBundleError,
)
from swupd.formats import archive, delta, filehash, layout, updateindex
from swupd.formats.manifest import BASE_LEVELS, MANIFEST_BYTES_LIMIT, Entry, Level, Manifest, parse
from swupd.formats.updateindex import UpdateIndex
from swupd.fs import Directory
from swupd.network.fetch import Download, Fetcher
from swupd.report import Report
from swupd.settings import Settings
from swupd.statedir import StateDir
from swupd.trust import Verifier
from swupd.versions import Versions

_MOM_FILE = layout.manifest_name(layout.MOM)
_MOM_SIGNATURE = layout.signature(_MOM_FILE)
_MANIFEST_MODE = 0o100644
"""Manifests are hashed as such a file of root, whatever their archive says."""
_COPY_DIRECTORY = "var/tmp"
_COPY_NAME = "swupd"


class Server:
    """The published tree of the settings. `settings.require_urls()` must have passed.

    levels: the CPU variants that manifests are read for, as `System.cpu_levels` says. statedir: where manifests are
    kept, if not where the settings say.
    """

    def __init__(
        self,
        settings: Settings,
        fetcher: Fetcher,
        verifier: Verifier,
        report: Report,
        *,
        levels: frozenset[Level] = BASE_LEVELS,
        statedir: StateDir | None = None,
    ) -> None:
        self._settings = settings
        self._fetcher = fetcher
        self._verifier = verifier
        self._report = report
        self._levels = levels
        self._statedir = statedir or StateDir(settings.cache_dir, settings.data_dir, settings.content_url)
        self._versions = Versions(settings, fetcher, verifier, report)
        self._parsed = WeakValueDictionary[str, Manifest]()
        """The last manifest of each bundle, while anybody has it: the next one shares what is equal."""

    # -- versions --------------------------------------------------------------------------------------------------

    def latest_version(self) -> int:
        """The newest version within our format; offline the newest one whose MoM is cached.

        Raises ServerError, SignatureError, TlsError.
        """
        return self._cached_latest() if self._settings.offline else self._versions.in_format()[0]

    def next_version(self, installed: int) -> int:
        """Of the versions that the server names in our format the smallest one above `installed`, or else the newest.

        Raises like `latest_version`, and is the same offline.
        """
        versions = [self._cached_latest()] if self._settings.offline else self._versions.in_format()
        return min((version for version in versions if version > installed), default=versions[0])

    def latest_overall(self) -> int:
        """The newest version of all formats, which offline nobody knows. Raises like `latest_version`."""
        return self._versions.overall()

    def format_of(self, version: int) -> str:
        """The format that a version belongs to; this is not signed and only for people. Raises ServerError."""
        return self._versions.format_of(version)

    def _cached_latest(self) -> int:
        for version in self._statedir.cached_versions():
            mom = self._cached_mom(version)
            if mom is not None and self._settings.format in (str(mom.format), layout.STAGING_FORMAT):
                return version
        raise ServerError(
            f"the cache has no version of format {self._settings.format}, and --offline forbids to ask the server",
            hint="run 'swupd update --download' when there is a network",
        )

    # -- the manifest of manifests ---------------------------------------------------------------------------------

    def mom(self, version: int) -> Manifest:
        """The MoM of a version. Raises MomError if it cannot be had or read, SignatureError, TlsError."""
        manifest = self._cached_mom(version)
        if manifest is not None:
            return manifest
        try:
            return self._fetched_mom(version, uncached=False)
        except (FormatError, MomError) as error:
            if isinstance(error.__cause__, DownloadError):
                raise
            self._report.warning(f"{error}; fetching it again")
        return self._fetched_mom(version, uncached=True)

    def _cached_mom(self, version: int) -> Manifest | None:
        data = self._statedir.read_manifest(version, _MOM_FILE)
        if data is None:
            return None
        der = self._statedir.read_manifest(version, _MOM_SIGNATURE)
        try:
            manifest = self._parse_mom(data, version)
            self._check_mom(version, data, der, known=der)
        except (FormatError, MomError) as error:
            self._report.warning(f"the cached manifest of version {version} is not used: {error}")
            self._statedir.drop_manifest(version, _MOM_FILE, _MOM_SIGNATURE)
            return None
        return manifest

    def _fetched_mom(self, version: int, *, uncached: bool) -> Manifest:
        url = self._content(layout.manifest_tar(version, layout.MOM))
        try:
            packed = self._fetcher.get(url, limit=self._fetcher.limits.manifest_bytes, uncached=uncached)
            files = archive.read_manifest_tar(packed, layout.MOM)
        except DownloadError as error:
            raise MomError(
                f"cannot load the manifest of version {version}: {error}",
                hint="check the version and the content URL" if isinstance(error, NotOnServerError) else error.hint,
            ) from error
        except FormatError as error:
            raise MomError(f"{url} cannot be read: {error}", hint="the server or its content is broken") from error
        data = files[_MOM_FILE]
        manifest = self._parse_mom(data, version)
        self._check_mom(version, data, files.get(_MOM_SIGNATURE), known=None)
        self._statedir.write_manifest(version, _MOM_FILE, data)
        return manifest

    def _parse_mom(self, data: bytes, version: int) -> Manifest:
        try:
            manifest = parse(data, name=layout.MOM, is_mom=True)
        except ManifestError as error:
            raise MomError(
                f"the manifest of version {version} cannot be read: {error}", hint="the server's content is broken"
            ) from error
        if manifest.version != version:
            raise MomError(
                f"the server has the manifest of version {manifest.version} where version {version} should be",
                hint="the server's content is broken",
            )
        return manifest

    def _check_mom(self, version: int, data: bytes, der: bytes | None, *, known: bytes | None) -> None:
        """Check the MoM's signature: with the one at hand, then with the server's; cache it unless it is `known`."""
        url = self._content(layout.manifest_signature(version))
        what = f"the manifest of version {version} ({self._content(layout.manifest_tar(version, layout.MOM))})"
        if not self._verifier.enabled:
            self._verifier.skip(what)
            return
        failure: SignatureError | None = None
        if der is not None:
            try:
                self._verifier.verify(data, der, what=what)
            except SignatureError as error:
                failure = error
        if der is None or failure is not None:
            try:
                der = self._fetcher.get(url, limit=self._fetcher.limits.signature_bytes, uncached=True)
            except TlsError:
                raise
            except DownloadError as error:
                missing = SignatureError(
                    f"{what} has no signature: {error}", hint="the server or its content is broken"
                )
                raise failure or missing from error
            self._verifier.verify(data, der, what=what)
        if der != known:
            self._statedir.write_manifest(version, _MOM_SIGNATURE, der)

    # -- the ways to a version -------------------------------------------------------------------------------------

    def update_index(self, version: int) -> UpdateIndex | None:
        """What the ways to a version cost; None, and a verbose message, if there is nothing that can be believed."""
        url = self._content(layout.update_index(version))
        try:
            data = self._fetcher.get(url, limit=updateindex.INDEX_BYTES_LIMIT)
            if self._verifier.enabled:
                der = self._fetcher.get(layout.signature(url), limit=self._fetcher.limits.signature_bytes)
                self._verifier.verify(data, der, what=url)
            else:
                self._verifier.skip(url)
            index = updateindex.parse(data)
        except (FormatError, ServerError) as error:
            self._report.verbose(f"there is no update index of version {version}: {error}")
            return None
        if index.version != version:
            self._report.verbose(f"{url} is not used: it is the one of version {index.version}")
            return None
        return index

    # -- bundles ---------------------------------------------------------------------------------------------------

    def bundle(self, mom: Manifest, name: str, *, previous: Manifest | None = None) -> Manifest:
        """The manifest of one bundle; see `bundles`."""
        return self.bundles(mom, [name], previous=previous)[name]

    def bundles(self, mom: Manifest, names: Iterable[str], *, previous: Manifest | None = None) -> dict[str, Manifest]:
        """The manifests of bundles, in the order of their names in `names`.

        previous: the MoM of an older version; where the cache has its manifest of a bundle, a delta is tried first.
        Raises UnknownBundleError, ManifestError for content that is wrong even when fetched again, DownloadError.
        """
        wanted = _chosen(mom, names)
        found: dict[str, Manifest] = {}
        failures = self._load(wanted, found.__setitem__, _entries(previous) if previous else {})
        if failures:
            raise _worst(failures.values())
        return {entry.name: found[entry.name] for entry in wanted}

    def each_bundle(
        self, mom: Manifest, names: Iterable[str], visit: Callable[[str, Manifest], None]
    ) -> dict[str, ProjectError]:
        """Give the manifests of bundles to `visit`, in no particular order and without keeping them: for a look at so
        many that they would need too much memory together.

        Returns the bundles whose manifest cannot be had, with the reason. Raises UnknownBundleError.
        """
        return self._load(_chosen(mom, names), visit, {})

    def _load(
        self, wanted: Iterable[Entry], visit: Callable[[str, Manifest], None], older: dict[str, Entry]
    ) -> dict[str, ProjectError]:
        """Visit manifests, those of the cache first; returns why the others cannot be had, by bundle."""
        missing: dict[str, Entry] = {}
        for entry in wanted:
            manifest = self._cached(entry)
            if manifest is None:
                missing[entry.name] = entry
            else:
                visit(entry.name, manifest)
        failures: dict[str, ProjectError] = {}
        if missing:

            def take(name: str, manifest: Manifest) -> None:
                del missing[name]
                visit(name, manifest)

            with Directory.open(self._statedir.download) as directory:
                self._fetch_deltas(list(missing.values()), older, directory, take)
                failures = self._fetch_whole(list(missing.values()), directory, take)
                # What arrived and is wrong may be right another time; what did not arrive was tried often enough.
                broken = [entry for name, entry in missing.items() if isinstance(failures[name], FormatError)]
                for entry in broken:
                    self._report.warning(f"{failures.pop(entry.name)}; fetching it again")
                failures |= self._fetch_whole(broken, directory, take, uncached=True)
        return failures

    def closure(
        self,
        mom: Manifest,
        names: Iterable[str],
        *,
        optional: bool,
        skip: Collection[str] = frozenset(),
        ignore_unknown: bool = False,
        previous: Manifest | None = None,
    ) -> dict[str, Manifest]:
        """The manifests of bundles and of all that they include, level by level (section 2.5).

        optional: follow also-add as well. skip: bundles that are neither returned nor followed, because they are there
        already. ignore_unknown: leave out what the MoM does not have, as an update does, instead of raising
        UnknownBundleError; optional bundles that do not exist are always left out. Otherwise like `bundles`.
        """
        known = {entry.name for entry in mom.entries if entry.is_present}
        found: dict[str, Manifest] = {}
        level = [name for name in dict.fromkeys(names) if name not in skip]
        while level:
            if ignore_unknown:
                level = [name for name in level if name in known]
            loaded = self.bundles(mom, level, previous=previous)
            found |= loaded
            following: dict[str, None] = {}
            for manifest in loaded.values():
                following |= dict.fromkeys(manifest.includes)
                if optional:
                    following |= dict.fromkeys(name for name in manifest.also_add if name in known)
            level = [name for name in following if name not in found and name not in skip]
        return found

    def _cached(self, entry: Entry) -> Manifest | None:
        file = layout.manifest_name(entry.name)
        data = self._statedir.read_manifest(entry.version, file)
        if data is None:
            return None
        try:
            return self._verified(entry, data)
        except ManifestError as error:
            self._report.verbose(f"the cached {file} of version {entry.version} is not used: {error}")
            self._statedir.drop_manifest(entry.version, file)
            return None

    def _fetch_deltas(
        self,
        missing: list[Entry],
        older: dict[str, Entry],
        directory: Directory,
        visit: Callable[[str, Manifest], None],
    ) -> None:
        """Make manifests from cached older ones as far as that is possible."""
        downloads = []
        for entry in missing:
            old = older.get(entry.name)
            if old is None or not old.version < entry.version:
                continue
            if self._statedir.read_manifest(old.version, layout.manifest_name(entry.name)) is None:
                continue
            downloads.append(
                Download(
                    self._content(layout.manifest_delta(entry.version, entry.name, old.version)),
                    layout.cached_manifest_delta_name(entry.name, old.version, entry.version),
                    self._fetcher.limits.manifest_bytes,
                    (old, entry),
                )
            )

        def on_file(download: Download) -> None:
            old, entry = download.key
            try:
                before = self._statedir.read_manifest(old.version, layout.manifest_name(entry.name)) or b""
                with directory.open_file(download.name) as file:
                    data, _ = delta.apply(before, file.read(), limit=MANIFEST_BYTES_LIMIT)
                manifest = self._accept(entry, data)
            except FormatError as error:
                self._report.verbose(f"{download.url} is not used: {error}")
            else:
                visit(entry.name, manifest)
            finally:
                directory.unlink(download.name)

        for failure in self._fetcher.get_all(downloads, directory, on_file=on_file, retry=False):
            self._report.debug(f"no manifest delta: {failure.error}")

    def _fetch_whole(
        self,
        missing: list[Entry],
        directory: Directory,
        visit: Callable[[str, Manifest], None],
        *,
        uncached: bool = False,
    ) -> dict[str, ProjectError]:
        """Fetch and visit manifests; returns why some could not be had: a FormatError if the content is wrong."""
        downloads = [
            Download(
                self._content(layout.manifest_tar(entry.version, entry.name)),
                f"{entry.version}-{layout.manifest_name(entry.name)}.tar",
                self._fetcher.limits.manifest_bytes,
                entry,
                uncached,
            )
            for entry in missing
        ]
        failures: dict[str, ProjectError] = {}

        def on_file(download: Download) -> None:
            entry: Entry = download.key
            try:
                with directory.open_file(download.name) as file:
                    data = archive.read_manifest_tar(file, entry.name)[layout.manifest_name(entry.name)]
                manifest = self._accept(entry, data)
            except FormatError as error:
                failures[entry.name] = ManifestError(
                    f"the manifest of bundle {entry.name} ({download.url}) cannot be used: {error}",
                    hint="the server's content is broken; nothing was changed",
                )
            else:
                visit(entry.name, manifest)
            finally:
                directory.unlink(download.name)

        for failure in self._fetcher.get_all(downloads, directory, on_file=on_file):
            failures[failure.download.key.name] = failure.error
        return failures

    def _accept(self, entry: Entry, data: bytes) -> Manifest:
        manifest = self._verified(entry, data)
        self._statedir.write_manifest(entry.version, layout.manifest_name(entry.name), data)
        return manifest

    def _verified(self, entry: Entry, data: bytes) -> Manifest:
        if filehash.hash_content(_MANIFEST_MODE, 0, 0, data) != entry.hash:
            raise ManifestError(f"it does not have the hash {entry.hash} that the signed manifest gives")
        former = self._parsed.get(entry.name)
        manifest = parse(data, name=entry.name, levels=self._levels, former=former)
        if manifest.version != entry.version:
            raise ManifestError(f"it is of version {manifest.version} instead of {entry.version}")
        self._parsed[entry.name] = manifest
        return manifest

    def _content(self, name: str) -> str:
        return f"{self._settings.content_url}/{name}"

    # -- for others ------------------------------------------------------------------------------------------------

    def copy_mom(self, version: int, root: Path) -> None:
        """Leave a copy of a cached MoM where the shell completion of ordinary users finds it (section 5.2).

        /var/tmp is everybody's: only a directory of our own is written to. Nobody depends on the copy, so that it
        cannot be made is no error.
        """
        data = self._statedir.read_manifest(version, _MOM_FILE)
        if data is None:
            return
        try:
            with Directory.open(root) as top, top.descend(_COPY_DIRECTORY) as parent:
                with suppress(FileExistsError):
                    parent.make_directory(_COPY_NAME, mode=0o755)
                with parent.descend(_COPY_NAME) as directory:
                    status = os.fstat(directory.fd)
                    if status.st_uid != os.geteuid() or status.st_mode & 0o022:
                        return
                    temporary = f".{_MOM_FILE}.new"
                    directory.remove_tree(temporary)
                    directory.write_file(temporary, [data], mode=0o644)
                    directory.rename(temporary, _MOM_FILE)
        except (OSError, ProjectError) as error:
            self._report.debug(f"no copy of the manifest in {root}/{_COPY_DIRECTORY}: {error}")


def _entries(mom: Manifest) -> dict[str, Entry]:
    return {entry.name: entry for entry in mom.entries if entry.is_present}


def _chosen(mom: Manifest, names: Iterable[str]) -> list[Entry]:
    """What the MoM says of some bundles, each once; UnknownBundleError for one that it does not have."""
    entries = _entries(mom)
    chosen: dict[str, Entry] = {}
    for name in names:
        if name not in entries:
            raise _unknown(name, mom)
        chosen[name] = entries[name]
    return list(chosen.values())


def _unknown(name: str, mom: Manifest) -> UnknownBundleError:
    return UnknownBundleError(
        f"there is no bundle {name} in version {mom.version}", hint="list them with: swupd bundle-list --all"
    )


def _worst(errors: Iterable[ProjectError]) -> ProjectError:
    """Of several errors the one that says most: what a server does not have says least."""
    collected = list(errors)
    return next((error for error in collected if not isinstance(error, NotOnServerError)), collected[0])
