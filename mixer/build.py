"""The steps of `mixer build` put together (mixer specification, sections 6, 7, 9, 10.2 and 13).

    build bundles   definitions + packages → image/<V>          (a prepared tree: nothing but a check of it)
    build update    image/<V> + the previous version → www/<V>  (manifests, fullfiles, zero packs, signatures)
    build all       both

Each function holds the workspace's lock from beginning to end. Whatever is wrong is found before anything is published,
and a failed or interrupted build leaves the published tree as it was; what it has compressed by then is kept.

Building a version again is safe and gives the same bytes: its time stamp is the one that the root carries, the objects
and packs come from the content store, and signatures that are valid stay. Only the newest version can be built again.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from mixer import checksums, composition, packagelist, release
from mixer.composition import Composition
from mixer.config import OFF, AptSource, Config
from mixer.content import ContentStore, Stored, Wanted
from mixer.engine import Engine, open_engine
from mixer.errors import BuildError
from mixer.manifests import BuiltManifest, BuiltManifests, build_manifests
from mixer.packs import FrameStore, Pack, zero_pack
from mixer.scan import Record, scan
from mixer.sourcedate import source_date
from mixer.sources import tree
from mixer.store import Draft, NothingPublished, PublishedVersion, open_tree, total_size
from mixer.table import table
from mixer.workspace import State, Workspace
from swupd import __version__
from swupd.errors import is_disk_full
from swupd.formats import archive, layout
from swupd.formats.manifest import TIMESTAMP_LIMIT
from swupd.report import Report, counted, human_size

MANIFEST_LEVEL = 17
"""zstd level of a manifest's archive. A Manifest.full of 13,000 entries (1.5 MB) has 501 kB at level 3, 482 kB from 9
to 15, 444 kB in 0.26 s at 17, and 443 kB in 0.45 s at 19."""
MAX_STAMP_BYTES = 64
"""Content of the version stamp."""
SHOWN_PATHS = 3
"""How many paths a warning names."""

STEPS = 5


@dataclass(frozen=True)
class BuildOptions:
    """What a single build does differently."""

    workers: int = 0
    """Processes for compressing, threads for hashing; 0 is one per core."""
    format: int = 0
    """Format of the version instead of the one in mixer.state; 0 keeps that."""
    min_version: int = 0
    """No file gets a lower version; 0 keeps what the previous version said."""
    sign: bool = True
    fullfiles: bool = True
    packs: bool = True
    increment: int = 0
    """Afterwards: this version becomes the previous one, and the next is so much later."""


@dataclass(frozen=True)
class Summary:
    """What a build published."""

    version: int
    previous: int
    bundles: int
    changed_bundles: int
    files: int
    """Paths in the root."""
    changed_files: int
    """Those that have the number of this version."""
    stored: Stored
    packs: int
    """Zero packs."""
    packed_bytes: int
    """What was compressed for them now, not found in the cache."""
    published_files: int
    published_bytes: int
    seconds: Mapping[str, float] = field(default_factory=dict)
    """Step -> how long it took."""

    def table(self) -> str:
        """The summary for people."""
        steps = ", ".join(f"{name} {seconds:.1f}" for name, seconds in self.seconds.items())
        rows = [
            ("version", f"{self.version}", f"after {self.previous}" if self.previous else "the first one"),
            ("bundles", f"{self.bundles}", f"{self.changed_bundles} with a new manifest"),
            ("files", f"{self.files}", f"{self.changed_files} new or changed"),
            ("new objects", f"{self.stored.objects}", _compressed(self.stored)),
            ("packs", f"{self.packs}", f"{human_size(self.packed_bytes)} of their content compressed now"),
            ("published", f"{self.published_files}", f"files, {human_size(self.published_bytes)}"),
            ("seconds", f"{sum(self.seconds.values()):.1f}", steps),
        ]
        return table(rows)


def build_bundles(workspace: Workspace, config: Config, report: Report, options: BuildOptions) -> Composition:
    """Compose the bundles of the version that is next. Raises MixError of every kind."""
    with working(workspace):
        return _bundles(workspace, config, report, options)


def build_update(workspace: Workspace, config: Config, report: Report, options: BuildOptions) -> Summary:
    """Publish the version that is next from what was composed. Raises BuildError and WorkspaceError."""
    with working(workspace):
        return _Update(workspace, config, report, options).run(_loaded(workspace, config))


def build_all(workspace: Workspace, config: Config, report: Report, options: BuildOptions) -> Summary:
    """Both steps."""
    with working(workspace):
        composed = _bundles(workspace, config, report, options)
        return _Update(workspace, config, report, options).run(composed)


@contextmanager
def working(workspace: Workspace) -> Iterator[None]:
    """Hold the workspace; what the system refuses meanwhile becomes one line."""
    with workspace.lock():
        try:
            yield
        except OSError as error:
            place = f" ({error.filename})" if error.filename else ""
            raise BuildError(
                f"the build could not go on: {error.strerror or error}{place}",
                hint="free some space and build again: what is compressed already is kept"
                if is_disk_full(error)
                else "repair the cause and build again",
            ) from error


def _bundles(workspace: Workspace, config: Config, report: Report, options: BuildOptions) -> Composition:
    version = workspace.mix_version()
    open_tree(config.published, workspace.www, report).check_follows(version)
    if options.sign:
        # The certificate is content of the update bundle.
        release.ensure_certificate(config.certificate, config.key, report)
    if not isinstance(config.source, AptSource):
        report.step("check", f"Reading the prepared tree of version {version}")
        return _loaded(workspace, config)
    from mixer.bundles import BundleSet
    from mixer.compose import compose
    from mixer.sources.apt import AptPackages

    report.step("compose", f"Composing the bundles of version {version}")
    composed = compose(
        workspace,
        config,
        BundleSet.load(workspace, config),
        AptPackages(config.source, workspace.cache),
        report,
        version=version,
        format_number=options.format or workspace.state().format,
    )
    _require_stateless(config, composed)
    return composed


def _loaded(workspace: Workspace, config: Config) -> Composition:
    composed = load_composition(workspace, config, workspace.mix_version())
    _require_stateless(config, composed)
    return composed


def load_composition(workspace: Workspace, config: Config, version: int) -> Composition:
    """What was composed, or prepared by others, as this version. Raises BuildError if there is nothing."""
    if not isinstance(config.source, AptSource):
        return tree.load(config.source.path, version)
    if not workspace.full(version).is_dir():
        raise BuildError(f"version {version} was not composed yet", hint="run `mixer build bundles` first")
    return composition.load(workspace.image(version), version, shared=workspace.update)


def _require_stateless(config: Config, composed: Composition) -> None:
    """Raises BuildError if builder.yaml wants a stateless OS and this is none. It stays for `mixer lint` to look at."""
    if config.stateless == OFF:
        return
    from mixer.lint import lint

    findings = lint(composed, config.setuid)
    if findings:
        raise BuildError(
            f"version {composed.version} breaks the rules of a stateless OS {counted(len(findings), 'time')}, "
            f"first with {findings[0].path} of the bundle {findings[0].bundle}: {findings[0].rule}",
            hint=f"`mixer lint --version {composed.version}` names each place with its mend",
        )


class _Update:
    """One `build update`."""

    def __init__(self, workspace: Workspace, config: Config, report: Report, options: BuildOptions) -> None:
        self._workspace = workspace
        self._config = config
        self._report = report
        self._options = options
        self._workers = options.workers or config.workers
        self._version = workspace.mix_version()
        self._state = workspace.state()
        self._format = options.format or self._state.format
        self._tree = open_tree(config.published, workspace.www, report)
        self._store = ContentStore(workspace.objects)
        self._frames = FrameStore(workspace.frames)
        self._source_date = source_date(os.environ)
        self._seconds: dict[str, float] = {}

    def run(self, composed: Composition) -> Summary:
        self._tree.check_follows(self._version)
        previous = self._previous()
        signer = None
        if self._options.sign:
            release.ensure_certificate(self._config.certificate, self._config.key, self._report)
            signer = release.load_signer(self._config.certificate, self._config.key, self._report)
        with self._step("hash", f"Reading and hashing the root of version {self._version}"):
            records = scan(composed, self._report, workers=self._workers)
        minversion = self._options.min_version
        if previous.mom is not None and previous.format != self._format:
            # Clients of another format begin with this version, so nothing may lead them to an earlier one.
            self._report.info(f"Format {previous.format} becomes {self._format}: everything gets a new number")
            minversion = self._version
        with self._step("manifests", f"Making the manifests of {counted(len(composed.bundles), 'bundle')}"):
            built = build_manifests(
                composed,
                records,
                previous,
                format=self._format,
                timestamp=self._timestamp(composed),
                minversion=minversion,
                progress=self._report.progress,
            )
            self._warn(built)
        fullfiles = self._fullfiles(built)
        packs = self._zero_packs(built, records)
        places = _places(composed, records)
        with open_engine(self._config.engine, workers=self._workers) as engine:
            stored, packed = self._compress(fullfiles, packs, places, engine)
        with self._step("publish", f"Publishing version {self._version}"), self._tree.draft(self._version) as draft:
            self._write_content(draft, fullfiles, packs)
            self._write_manifests(draft, built, signer)
            draft.write("format", str(self._format).encode())
            draft.write("mixer-src-version", f"{__version__}\n".encode())
            if composed.packages is not None:
                draft.write(Path(layout.packages(self._version)).name, packagelist.compressed(composed.packages))
            self._write_checksums(draft, signer)
            files, size = total_size(draft.directory)
            self._tree.publish(draft, self._format, signer)
        self._finish()
        return Summary(
            version=self._version,
            previous=previous.mom.version if previous.mom else 0,
            bundles=len(composed.bundles),
            changed_bundles=len(built.bundles),
            files=len(records),
            changed_files=sum(entry.version == self._version for entry in built.full.manifest.entries),
            stored=stored,
            packs=len(packs),
            packed_bytes=packed,
            published_files=files,
            published_bytes=size,
            seconds=self._seconds,
        )

    # -- before ----------------------------------------------------------------------------------------------------

    def _previous(self) -> PublishedVersion | NothingPublished:
        """The version that this one is compared with, which clients have."""
        newest = self._tree.latest()
        if newest not in (self._state.previous, self._version):
            self._report.warning(
                f"version {self._version} is compared with version {self._state.previous}, although {newest} is the "
                f"newest published one; `mixer versions update` sets that right"
            )
        if not self._state.previous:
            return NothingPublished()
        if not self._tree.has(layout.manifest(self._state.previous, layout.MOM)):
            raise BuildError(
                f"version {self._state.previous}, which version {self._version} is compared with, is not in "
                f"{self._tree.shown}",
                hint="restore it, or set PREVIOUS_MIX_VERSION in mixer.state",
            )
        previous = self._tree.version(self._state.previous)
        if not self._tree.has(layout.manifest(previous.mom.version, layout.FULL)):
            self._report.warning(f"version {previous.mom.version} has no Manifest.full: all fullfiles are made again")
        return previous

    def _timestamp(self, composed: Composition) -> int:
        """One time for all manifests: of the root, of the environment, of the same version when it was built before."""
        text = _content(Path(composed.locate(layout.VERSION_STAMP)))
        if text.isascii() and text.isdigit() and 0 < int(text) <= TIMESTAMP_LIMIT:
            return int(text)
        if self._source_date is not None:
            return max(1, self._source_date)
        if self._tree.latest() == self._version:
            return self._tree.version(self._version).mom.timestamp
        return int(time.time())

    def _warn(self, built: BuiltManifests) -> None:
        """Say what is unusual."""
        for name, count in sorted(built.missing.items()):
            self._report.verbose(f"{count} paths listed by bundle {name} are not in the root")
        for paths, what in (
            (built.through_links, "listed path(s) lead through a symbolic link, so no bundle has them"),
            (built.type_changes, "director(ies) became something else; the original's client may need help there"),
        ):
            if paths:
                more = ", …" if len(paths) > SHOWN_PATHS else ""
                self._report.warning(f"{len(paths)} {what}: {', '.join(paths[:SHOWN_PATHS])}{more}")
        for name in built.unmarked:
            self._report.warning(
                f"bundle {name} does not have the file {layout.marker(name)}: clients cannot see that it is installed"
            )
        former = self._tree.former(layout.manifest(self._version, layout.MOM))
        if former is not None and former != built.mom.data:
            self._report.warning(
                f"version {self._version} was published before with other content: who has it already will not notice"
            )

    # -- content ---------------------------------------------------------------------------------------------------

    def _fullfiles(self, built: BuiltManifests) -> list[str]:
        """The hashes that have a fullfile in the directory of this version."""
        if not self._options.fullfiles:
            return []
        entries = built.full.manifest.entries
        return sorted({entry.hash for entry in entries if entry.is_present and entry.version == self._version})

    def _zero_packs(self, built: BuiltManifests, records: Mapping[str, Record]) -> list[Pack]:
        """A zero pack for each bundle with a new manifest that has any content."""
        if not self._options.packs:
            return []
        sizes = {path: record.size for path, record in records.items()}
        packs = (zero_pack(name, bundle.manifest.entries, sizes) for name, bundle in built.bundles.items())
        return [pack for pack in packs if pack.runs]

    def _compress(
        self, fullfiles: list[str], packs: list[Pack], places: Mapping[str, Wanted], engine: Engine
    ) -> tuple[Stored, int]:
        """What was stored, and how many bytes of packs were compressed."""
        with self._step("objects", "Compressing new content"):
            stored = self._store.add({file_hash: places[file_hash] for file_hash in fullfiles}, engine, self._report)
        with self._step("packs", f"Making {counted(len(packs), 'pack')}"):
            packed = self._frames.make(self._frames.missing(packs), places, engine, self._report)
        return stored, packed

    def _write_content(self, draft: Draft, fullfiles: list[str], packs: list[Pack]) -> None:
        for file_hash in fullfiles:
            self._store.link(file_hash, draft.directory / "files" / f"{file_hash}.tar")
        for pack in packs:
            self._frames.write(pack, draft.directory / layout.pack_name(pack.bundle, 0))

    def _write_checksums(self, draft: Draft, signer: release.Signer | None) -> None:
        """The list of what is in the draft, and of what was added to this version when it was published before."""
        sums = checksums.of_files(draft.directory)
        name = layout.checksums(self._version)
        mom = layout.manifest(self._version, layout.MOM)
        former = self._tree.former(name)
        if (
            former is not None
            and self._tree.former(mom) == (draft.directory / layout.manifest_name(layout.MOM)).read_bytes()
        ):
            sums = checksums.parse(former, f"{self._tree.shown}/{name}") | sums
        data = checksums.serialise(sums)
        draft.write(Path(name).name, data)
        if signer is not None:
            signature = layout.signature(name)
            draft.write(Path(signature).name, signer.sign_again(data, self._tree.former(signature)))

    def _write_manifests(self, draft: Draft, built: BuiltManifests, signer: release.Signer | None) -> None:
        """Manifests and their archives; the MoM with its signature inside and beside."""
        manifests = {**built.bundles, layout.FULL: built.full}
        for name, manifest in manifests.items():
            draft.write(layout.manifest_name(name), manifest.data)
        with ThreadPoolExecutor(self._workers or os.cpu_count() or 1, thread_name_prefix="manifests") as pool:
            for name, data in pool.map(_archived, manifests.items()):
                draft.write(f"{layout.manifest_name(name)}.tar", data)
        name = layout.manifest_name(layout.MOM)
        files = {name: built.mom.data}
        if signer is not None:
            former = layout.manifest_signature(self._version)
            files[layout.signature(name)] = signer.sign_again(built.mom.data, self._tree.former(former))
        for file, data in files.items():
            draft.write(file, data)
        draft.write(f"{name}.tar", _compress(files, built.mom.manifest.timestamp))

    # -- after -----------------------------------------------------------------------------------------------------

    def _finish(self) -> None:
        self._workspace.set_last_version(self._version)
        if self._options.increment:
            self._workspace.set_state(State(self._state.format, self._version))
            self._workspace.set_mix_version(self._version + self._options.increment)

    @contextmanager
    def _step(self, name: str, text: str) -> Iterator[None]:
        self._report.step(name, text, len(self._seconds) + 1, STEPS)
        start = time.monotonic()
        yield
        self._seconds[name] = time.monotonic() - start


def _places(composed: Composition, records: Mapping[str, Record]) -> dict[str, Wanted]:
    """Where each object of a version lies: at the first path that has it."""
    places: dict[str, Wanted] = {}
    for path, record in records.items():
        if record.hash not in places:
            places[record.hash] = Wanted(composed.locate(path), record.size)
    return places


def _archived(item: tuple[str, BuiltManifest]) -> tuple[str, bytes]:
    name, built = item
    return name, _compress({layout.manifest_name(name): built.data}, built.manifest.timestamp)


def _compress(files: Mapping[str, bytes], mtime: int) -> bytes:
    return archive.compress(archive.manifest_tar(files, mtime), MANIFEST_LEVEL)


def _content(path: Path) -> str:
    """The first bytes of a small file as text, "" if there is none."""
    try:
        with path.open("rb") as file:
            return file.read(MAX_STAMP_BYTES).decode("ascii", "replace").strip()
    except OSError:
        return ""


def _compressed(stored: Stored) -> str:
    return f"{human_size(stored.content_bytes)} compressed to {human_size(stored.stored_bytes)}"
