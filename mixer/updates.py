"""`mixer build delta-packs`: what makes the way from older versions to a published one short.

It adds files to a version and changes nothing that is there, so it can run at any time after the version was published,
be repeated, or never run: clients take zero packs and fullfiles instead. What it needs of older versions comes from the
content store, or from what was published if the store has lost it. It adds

    pack-<bundle>-from-<V>.tar  for each bundle that changed since the older version; V is the bundle's own version
    update-from-<V>.tar         one pack over all bundles since the OS version V, for our clients (docs/update-pack.md)
    update-index, .sig          what each of these ways costs

Everything is made first and added at the end: packs before the index that names them, checksums last. A pack lies in
the directory of its bundle's version, which may be older than the OS version. One that is there already is not made
again. The workspace's lock is held from beginning to end.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from mixer import checksums, deltapacks, release
from mixer.additions import Additions
from mixer.build import working
from mixer.config import Config
from mixer.content import ContentStore
from mixer.deltapacks import PackPlan
from mixer.deltas import TOO_COSTLY, DeltaKey, DeltaStore
from mixer.engine import Engine, open_engine
from mixer.errors import BuildError
from mixer.release import Signer
from mixer.store import PublishedTree, PublishedVersion, open_tree
from mixer.table import table
from mixer.transition import Step, bundle_steps, os_step
from mixer.workspace import Workspace
from swupd.errors import UpdateIndexError
from swupd.formats import layout, updateindex
from swupd.formats.updateindex import BundleCost, PackFile, Update, UpdateIndex
from swupd.report import Report, counted, human_size


@dataclass(frozen=True)
class Span:
    """Which versions the way is made short between."""

    to_version: int = 0
    """0: the newest."""
    from_version: int = 0
    """0: the `previous_versions` before it."""
    previous_versions: int = 1


@dataclass(frozen=True)
class Way:
    """From one version to another one."""

    old: PublishedVersion
    new: PublishedVersion
    steps: tuple[Step, ...]
    """One for each bundle that changed and has something to fetch."""

    @cached_property
    def whole(self) -> Step:
        """All of them together."""
        return os_step(self.steps, self.old.mom.version, self.new.mom.version)


@dataclass(frozen=True)
class MadePack:
    """A pack that a version has."""

    plan: PackPlan
    bytes: int
    is_new: bool


@dataclass(frozen=True)
class DeltaSummary:
    """What was added to a version."""

    version: int
    packs: tuple[MadePack, ...]
    pairs: int
    """Pairs of files that were compared now."""

    def table(self) -> str:
        """For people."""
        rows = [("pack", "deltas", "objects", "size", "")]
        for pack in self.packs:
            members = pack.plan.members
            whole = sum(member.key is None for member in members)
            note = "" if pack.is_new else "was there"
            rows.append((pack.plan.file, f"{len(members) - whole}", f"{whole}", human_size(pack.bytes), note))
        rows.append(("together", "", "", human_size(sum(pack.bytes for pack in self.packs)), ""))
        return table(rows)


def build_delta_packs(
    workspace: Workspace, config: Config, report: Report, span: Span, *, workers: int, sign: bool
) -> DeltaSummary:
    """Add the packs of a span to its newer version. Raises BuildError and WorkspaceError."""
    with working(workspace):
        tree = open_tree(config.published, workspace.www, report)
        signer = release.load_signer(config.certificate, config.key, report) if sign else None
        with open_engine(config.engine, workers=workers or config.workers) as engine:
            return _DeltaPacks(workspace, tree, engine, report, signer).run(ways(tree, span, report))


def ways(tree: PublishedTree, span: Span, report: Report) -> list[Way]:
    """The ways of a span, from the newest older version to the oldest. Raises BuildError if there is none."""
    new = tree.version(span.to_version or tree.latest())
    found = []
    for old in _older(tree, new, span, report):
        steps = tuple(step for step in bundle_steps(old, new) if step.needs)
        found.append(Way(old, new, steps))
    if not found:
        raise BuildError(
            f"there is no version before {new.mom.version} that it could be compared with",
            hint="deltas need two published versions of one format; build the next one first",
        )
    return found


def needed_objects(found: Iterable[Way], tree: PublishedTree, objects: ContentStore) -> int:
    """Have all that ways need in the content store; returns how many objects it had lost. Raises BuildError."""
    names: dict[str, str] = {}
    for way in found:
        for step in way.steps:
            for need in step.needs:
                for entry in (need.entry, need.source):
                    if entry is not None:
                        names[entry.hash] = layout.fullfile(entry.version, entry.hash)
    try:
        return objects.fetch(names, tree.open)
    except BuildError as error:
        hint = error.hint or "deltas need the fullfiles of both versions: build again without --skip-fullfiles"
        raise BuildError(str(error), hint=hint) from error


def pack_plans(way: Way, deltas: DeltaStore) -> list[PackPlan]:
    """The packs of a way, the update pack first. Needs all records. Raises BuildError."""
    plans = [deltapacks.plan(way.whole, _file(way), deltas, with_gzip=True)]
    for step in way.steps:
        plans.append(
            deltapacks.plan(step, layout.pack(step.to_version, step.bundle, step.from_version), deltas, with_gzip=False)
        )
    return [plan for plan in plans if plan.members]


def wanted_deltas(found: Iterable[Way]) -> list[DeltaKey]:
    """The records that `pack_plans` needs."""
    keys: dict[DeltaKey, None] = {}
    for way in found:
        keys |= dict.fromkeys(deltapacks.wanted_deltas([way.whole], with_gzip=True))
        keys |= dict.fromkeys(deltapacks.wanted_deltas(way.steps, with_gzip=False))
    return list(keys)


class _DeltaPacks:
    """One `build delta-packs`."""

    def __init__(
        self, workspace: Workspace, tree: PublishedTree, engine: Engine, report: Report, signer: Signer | None
    ) -> None:
        self._cache = workspace.cache
        self._objects = ContentStore(workspace.objects)
        self._deltas = DeltaStore(workspace.deltas, self._objects)
        self._tree = tree
        self._engine = engine
        self._report = report
        self._signer = signer

    def run(self, found: list[Way]) -> DeltaSummary:
        new = found[0].new
        there: dict[str, int] = {}
        for version in {new.mom.version, *(line.version for line in new.mom.entries)}:
            there |= self._tree.names(version)
        lost = needed_objects(found, self._tree, self._objects)
        if lost:
            self._report.info(f"Took {counted(lost, 'object')} from the published tree")
        keys = wanted_deltas(found)
        self._report.step("deltas", f"Comparing {counted(len(keys), 'pair')} of files", 1, 3)
        pairs = self._deltas.make(keys, self._engine, self._report)
        index = self._former_index(new.mom.version)
        plans = {plan.file: plan for way in found for plan in pack_plans(way, self._deltas)}
        self._warn(plans.values())
        lacking = [plan for plan in plans.values() if plan.file not in there or self._is_unknown(plan, there, index)]
        self._report.step("packs", f"Making {counted(len(lacking), 'pack')}", 2, 3)
        with self._room() as directory:
            made = deltapacks.compress(lacking, directory, self._deltas, self._engine, self._report)
            self._report.step("publish", f"Adding to version {new.mom.version}", 3, 3)
            sizes = there | {file: path.stat().st_size for file, path in made.items()}
            self._publish(made, self._index(found, index, sizes, made))
        packs = (MadePack(plan, sizes[file], file in made) for file, plan in plans.items())
        return DeltaSummary(new.mom.version, tuple(packs), pairs)

    @contextmanager
    def _room(self) -> Iterator[Path]:
        """A directory for packs until they are published, on the file system of the workspace."""
        directory = self._cache / "packs.new"
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(parents=True)
        try:
            yield directory
        finally:
            shutil.rmtree(directory, ignore_errors=True)

    def _warn(self, plans: Iterable[PackPlan]) -> None:
        """Say which files are packed whole because a delta would have been too much work."""
        costly = {
            member.need.entry.name: member.record.reason
            for plan in plans
            for member in plan.members
            if member.record.algorithm == TOO_COSTLY
        }
        if costly:
            name = min(costly)
            more = f" (and {counted(len(costly) - 1, 'more file')})" if len(costly) > 1 else ""
            self._report.warning(f"{name} is packed whole{more}: {costly[name]}")

    def _former_index(self, version: int) -> UpdateIndex:
        """The index that the version has; what others wrote there is nothing to build on."""
        data = self._tree.former(layout.update_index(version))
        if data is not None:
            try:
                return updateindex.parse(data)
            except UpdateIndexError as error:
                self._report.warning(f"{self._tree.shown}/{layout.update_index(version)} is written anew: {error}")
        return UpdateIndex(version, ())

    def _is_unknown(self, plan: PackPlan, there: Mapping[str, int], index: UpdateIndex) -> bool:
        """Whether an update pack that is there is another one than the index says."""
        if plan.step.bundle:
            return False
        known = index.update_from(plan.step.from_version)
        return known is None or known.pack is None or known.pack.bytes != there[plan.file]

    def _index(
        self, found: Iterable[Way], former: UpdateIndex, sizes: Mapping[str, int], made: Mapping[str, Path]
    ) -> UpdateIndex:
        updates = {update.from_version: update for update in former.updates}
        for way in found:
            number = way.old.mom.version
            known = updates.get(number)
            pack = known.pack if known is not None else None
            if _file(way) in made:
                path = made[_file(way)]
                pack = PackFile(path.stat().st_size, checksums.of(path))
            updates[number] = Update(number, pack, self._costs(way, sizes))
        return UpdateIndex(former.version, tuple(updates.values()))

    def _costs(self, way: Way, sizes: Mapping[str, int]) -> dict[str, BundleCost]:
        before = {entry.name: entry.version for entry in way.old.mom.entries if entry.is_present}
        steps = {step.bundle: step for step in way.steps}
        costs = {}
        for line in way.new.mom.entries:
            since = before.get(line.name, 0)
            if not line.is_present or line.version <= since:
                continue
            pack = sizes.get(layout.pack(line.version, line.name, since))
            step = steps.get(line.name)
            fullfiles = sum(self._objects.path(need.entry.hash).stat().st_size for need in step.needs) if step else 0
            costs[line.name] = BundleCost(since, pack, fullfiles)
        return costs

    def _publish(self, made: Mapping[str, Path], index: UpdateIndex) -> None:
        additions = Additions(self._tree, self._signer)
        # Packs of older directories first: the index comes with the newest one.
        for file, path in sorted(made.items(), key=lambda item: (item[0].startswith(f"{index.version}/"), item[0])):
            additions.put(file, path)
        additions.put_signed(layout.update_index(index.version), updateindex.serialise(index))
        additions.publish()


def _older(tree: PublishedTree, new: PublishedVersion, span: Span, report: Report) -> list[PublishedVersion]:
    """The versions that the span begins with."""
    number = new.mom.version
    if span.from_version:
        if span.from_version >= number:
            raise BuildError(f"version {span.from_version} is not older than version {number}")
        old = tree.version(span.from_version)
        if old.format != new.format:
            raise BuildError(
                f"version {span.from_version} has the format {old.format}, version {number} has {new.format}",
                hint="no update leads from one format to another; choose a version of the same format",
            )
        return [old]
    found: list[PublishedVersion] = []
    previous = new.mom.previous
    while previous and len(found) < span.previous_versions:
        old = tree.version(previous)
        if old.format != new.format:
            break
        if old.mom.previous >= previous:
            raise BuildError(f"version {previous} says that it comes after version {old.mom.previous}")
        found.append(old)
        previous = old.mom.previous
    if len(found) < span.previous_versions:
        report.verbose(f"Only {counted(len(found), 'version')} of the same format before {number}")
    return found


def _file(way: Way) -> str:
    return layout.update_pack(way.new.mom.version, way.old.mom.version)
