"""`mixer report delta`: what an update costs, bundle by bundle and file by file, and why each costs what it costs.

Nothing is published; what is reported is what `mixer build delta-packs` has done, or would do now. For that it needs to
know about every pair of files: pairs that nobody compared yet are compared, and objects that the content store has lost
are taken from the published tree, as `build delta-packs` does. The workspace's lock is held meanwhile.

Sizes are bytes. A pack's size is that of the published file, if there is one. What a single file adds to it is an
estimate: a pack is one compressed stream, in which no member has a size of its own. A member's `estimate` is its size
compressed alone; its `share` is that, scaled so that the shares of all members make the size of the pack.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from itertools import pairwise

from mixer.build import working
from mixer.config import Config
from mixer.content import ContentStore
from mixer.deltapacks import PackPlan, Planned
from mixer.deltas import SAME, DeltaStore
from mixer.engine import open_engine
from mixer.errors import BuildError
from mixer.located import did_you_mean
from mixer.store import PublishedTree, PublishedVersion, open_tree
from mixer.table import table
from mixer.transition import Step
from mixer.updates import DeltaSummary, Span, Way, needed_objects, pack_plans, wanted_deltas, ways
from mixer.workspace import Workspace
from swupd.formats import layout
from swupd.formats.manifest import Entry, FileType
from swupd.report import Report, counted, human_size


class Kind(StrEnum):
    """How an object is in a pack."""

    DELTA = "delta"
    GZIP_DELTA = "gzip delta"
    """Between the contents of two gzip files; only update packs have it."""
    FULL = "full"


@dataclass(frozen=True, slots=True)
class Member:
    """One object of a pack."""

    path: str
    """The first one that it has in the newer version."""
    bundles: tuple[str, ...]
    """Those whose packs have it, in the order of the MoM."""
    kind: Kind
    algorithm: str
    """Of a delta: hdiffpatch, bsdiff, or same if only path, mode or owner are new. Empty for a full object."""
    reason: str
    """Why it is a full object; empty for a delta."""
    old_path: str | None
    """The file of the older version that it is or could have been made from; another path than its own is a rename."""
    size: int
    """Of the content."""
    estimate: int
    share: int

    @property
    def why(self) -> str:
        """The cost in words."""
        if self.kind is Kind.FULL:
            return self.reason
        what = "the same content" if self.algorithm == SAME else self.algorithm
        return what if self.old_path in (None, self.path) else f"{what}, from {self.old_path}"


@dataclass(frozen=True)
class Pack:
    """One file that clients fetch."""

    file: str
    """Its name in the published tree."""
    bytes: int
    is_published: bool
    """If not, `bytes` is the sum of the estimates; the pack will be somewhat smaller."""
    members: tuple[Member, ...]
    """The most expensive one first."""

    @property
    def deltas(self) -> int:
        return sum(member.kind is not Kind.FULL for member in self.members)


@dataclass(frozen=True)
class BundleReport:
    """The way of one bundle; the versions are its own."""

    bundle: str
    from_version: int
    to_version: int
    pack: Pack
    fullfiles: int
    """The same objects one by one."""
    zero_pack: int | None
    """All of the bundle; None if that pack was not published."""


@dataclass(frozen=True)
class NewBundle:
    """A bundle that the older version does not have: no update leads to it."""

    bundle: str
    version: int
    zero_pack: int | None


@dataclass(frozen=True)
class UpdateReport:
    """From one version to another one."""

    from_version: int
    to_version: int
    update_pack: Pack | None
    """None if there is nothing to fetch, or if one bundle was asked for."""
    bundle_packs: int
    """Sum of all bundles' packs."""
    all_packs_published: bool
    """Of the bundles; if not, `bundle_packs` has estimates in it."""
    fullfiles: int
    """All objects that any of the bundles needs, each once."""
    bundles: tuple[BundleReport, ...]
    """Those that have something to fetch, the most expensive one first."""
    new_bundles: tuple[NewBundle, ...]

    @property
    def pack(self) -> Pack | None:
        """The pack whose members tell where the bytes come from."""
        return self.update_pack or (self.bundles[0].pack if self.bundles else None)


def delta_reports(
    workspace: Workspace, config: Config, report: Report, span: Span, *, bundle: str = ""
) -> list[UpdateReport]:
    """The ways of a span, from the newest older version to the oldest; of one bundle, or of all.

    Raises BuildError (no older version, no such bundle, a damaged store) and WorkspaceError.
    """
    with working(workspace):
        tree = open_tree(config.published, workspace.www, report)
        found = ways(tree, span, report)
        if bundle:
            _require_bundle(bundle, found[0].new)
        wanted = [replace(way, steps=tuple(step for step in way.steps if bundle in ("", step.bundle))) for way in found]
        objects = ContentStore(workspace.objects)
        deltas = DeltaStore(workspace.deltas, objects)
        lost = needed_objects(wanted, tree, objects)
        if lost:
            report.info(f"Took {counted(lost, 'object')} from the published tree")
        keys = wanted_deltas(wanted)
        report.step("deltas", f"Looking up {counted(len(keys), 'pair')} of files; those not known yet are compared")
        with open_engine(config.engine, workers=config.workers) as engine:
            made = deltas.make(keys, engine, report)
        if made:
            report.info(f"Compared {counted(made, 'pair')} of files")
        published = _published(found, tree)
        reader = _Reader(objects, _owners(step for way in found for step in way.steps))
        return [_update(way, pack_plans(way, deltas), published, reader, bundle) for way in wanted]


def made_packs(summary: DeltaSummary, objects: ContentStore) -> str:
    """For people: each file of the packs of a version. Raises BuildError if the content store is damaged."""
    reader = _Reader(objects, _owners(pack.plan.step for pack in summary.packs if pack.plan.step.bundle))
    return "\n\n".join(
        f"{pack.plan.file}\n{_files(reader.pack(pack.plan, pack.bytes).members)}" for pack in summary.packs
    )


def as_json(updates: Sequence[UpdateReport]) -> str:
    """For scripts: one object, whose keys docs/delta-report.md describes."""
    return json.dumps({"updates": [asdict(update) for update in updates]}, indent=1)


def as_text(update: UpdateReport, limit: int) -> str:
    """For people: the totals, the bundles, and the `limit` most expensive files; 0 for all of them."""
    title = f"From version {update.from_version} to version {update.to_version}"
    parts = [f"{title}: nothing to fetch"]
    if update.pack is not None:
        bundles = [("bundle", "pack", "deltas", "objects", "fullfiles", "zero pack"), *bundle_rows(update)]
        parts = [f"{title}\n{table(total_rows(update))}", table(bundles)]
    if update.new_bundles:
        new = (f"{new.bundle} ({shown_size(new.zero_pack)})" for new in update.new_bundles)
        parts.append(f"New bundles, and the size of their zero packs: {', '.join(new)}")
    if update.pack is not None:
        parts.append(f"{files_title(update.pack, limit)}\n{_files(update.pack.members[: limit or None])}")
    return "\n\n".join(parts)


def total_rows(update: UpdateReport) -> list[tuple[str, str]]:
    """What clients of all the bundles fetch, way by way."""
    rows = [("bundle packs", shown_size(update.bundle_packs, is_exact=update.all_packs_published))]
    if update.update_pack is not None:
        rows.insert(0, ("update pack", shown_size(update.update_pack.bytes, is_exact=update.update_pack.is_published)))
    return [*rows, ("fullfiles", shown_size(update.fullfiles))]


def bundle_rows(update: UpdateReport) -> list[tuple[str, ...]]:
    """Bundle, pack, deltas, objects, fullfiles, zero pack."""
    return [
        (
            bundle.bundle,
            shown_size(bundle.pack.bytes, is_exact=bundle.pack.is_published),
            f"{bundle.pack.deltas}",
            f"{len(bundle.pack.members) - bundle.pack.deltas}",
            shown_size(bundle.fullfiles),
            shown_size(bundle.zero_pack),
        )
        for bundle in update.bundles
    ]


def files_title(pack: Pack, limit: int) -> str:
    """What a list of files is about that has `limit` of them at most, or all."""
    listed = f"{counted(len(pack.members), 'file')} in {pack.file}"
    return f"The {limit} most expensive of {listed}" if 0 < limit < len(pack.members) else listed


def file_rows(members: Iterable[Member]) -> list[tuple[str, ...]]:
    """Cost, content, kind, bundle, path, why."""
    return [
        (
            human_size(member.share),
            human_size(member.size),
            member.kind,
            shown_bundles(member.bundles),
            member.path,
            member.why,
        )
        for member in members
    ]


def shown_bundles(bundles: Sequence[str]) -> str:
    """The first one, and how many more."""
    return " ".join([*bundles[:1], *([f"+{len(bundles) - 1}"] if len(bundles) > 1 else [])])


def shown_size(size: int | None, *, is_exact: bool = True) -> str:
    """A size that may be unknown, or an estimate."""
    if size is None:
        return "none"
    return human_size(size) if is_exact else f"about {human_size(size)}"


def _files(members: Iterable[Member]) -> str:
    return table([("cost", "content", "kind", "bundle", "path", "why"), *file_rows(members)])


def _require_bundle(bundle: str, version: PublishedVersion) -> None:
    known = [line.name for line in version.mom.entries if line.is_present]
    if bundle not in known:
        raise BuildError(
            f"version {version.mom.version} has no bundle {bundle}",
            hint=did_you_mean(bundle, known) or "without --bundle all bundles that changed are listed",
        )


def _published(found: Iterable[Way], tree: PublishedTree) -> dict[str, int]:
    """The files that lie where packs of these ways would, with their sizes."""
    versions = {step.to_version for way in found for step in way.steps}
    versions |= {line.version for way in found for line in _new_bundles(way)}
    versions |= {way.new.mom.version for way in found}
    files: dict[str, int] = {}
    for version in versions:
        files |= tree.names(version)
    return files


def _new_bundles(way: Way) -> list[Entry]:
    before = {line.name for line in way.old.mom.entries if line.is_present}
    return [line for line in way.new.mom.entries if line.is_present and line.name not in before]


def _owners(steps: Iterable[Step]) -> dict[str, tuple[str, ...]]:
    """Object -> the bundles that need it."""
    owners: dict[str, dict[str, None]] = {}
    for step in steps:
        for need in step.needs:
            owners.setdefault(need.entry.hash, {})[step.bundle] = None
    return {file_hash: tuple(bundles) for file_hash, bundles in owners.items()}


def _update(
    way: Way, plans: Iterable[PackPlan], published: Mapping[str, int], reader: _Reader, bundle: str
) -> UpdateReport:
    packs = {plan.step.bundle: reader.pack(plan, published.get(plan.file)) for plan in plans}
    bundles = [
        BundleReport(
            step.bundle,
            step.from_version,
            step.to_version,
            packs[step.bundle],
            reader.fullfiles(step),
            published.get(layout.pack(step.to_version, step.bundle, 0)),
        )
        for step in way.steps
    ]
    return UpdateReport(
        way.old.mom.version,
        way.new.mom.version,
        None if bundle else packs.get(""),
        sum(report.pack.bytes for report in bundles),
        all(report.pack.is_published for report in bundles),
        reader.fullfiles(way.whole),
        tuple(sorted(bundles, key=lambda report: (-report.pack.bytes, report.bundle))),
        tuple(
            NewBundle(line.name, line.version, published.get(layout.pack(line.version, line.name, 0)))
            for line in _new_bundles(way)
            if bundle in ("", line.name)
        ),
    )


class _Reader:
    """Sizes of objects, each looked up once."""

    def __init__(self, objects: ContentStore, owners: Mapping[str, tuple[str, ...]]) -> None:
        self._objects = objects
        self._owners = owners
        self._contents: dict[str, int] = {}

    def pack(self, plan: PackPlan, published: int | None) -> Pack:
        members = [self._member(planned) for planned in plan.members]
        estimates = [member.estimate for member in members]
        size = sum(estimates) if published is None else published
        scaled = (replace(member, share=share) for member, share in zip(members, shares(estimates, size), strict=True))
        order = sorted(scaled, key=lambda member: (-member.share, member.path))
        return Pack(plan.file, size, published is not None, tuple(order))

    def fullfiles(self, step: Step) -> int:
        return sum(self._fullfile(need.entry.hash) for need in step.needs)

    def _member(self, planned: Planned) -> Member:
        entry, source, key = planned.need.entry, planned.need.source, planned.key
        kind = Kind.FULL if key is None else Kind.GZIP_DELTA if key.is_gzip else Kind.DELTA
        reason = planned.record.reason if entry.type is FileType.FILE else "not a regular file"
        return Member(
            path=entry.name,
            bundles=self._owners[entry.hash],
            kind=kind,
            algorithm="" if key is None else planned.record.algorithm.removeprefix("gzip "),
            reason=reason if key is None else "",
            old_path=None if source is None else source.name,
            size=self._content(entry.hash),
            # Of an object that was compared with nothing, only the size of its fullfile is known.
            estimate=planned.estimate or self._fullfile(entry.hash),
            share=0,
        )

    def _content(self, file_hash: str) -> int:
        if file_hash not in self._contents:
            with self._objects.open(file_hash) as (member, _):
                self._contents[file_hash] = member.size
        return self._contents[file_hash]

    def _fullfile(self, file_hash: str) -> int:
        return self._objects.path(file_hash).stat().st_size


def shares(estimates: Sequence[int], total: int) -> list[int]:
    """Parts of `total` in the proportion of the estimates: each right to a byte, their sum exactly `total`."""
    everything = sum(estimates)
    done = 0
    edges = [0]
    for estimate in estimates:
        done += estimate
        edges.append(total * done // everything)
    return [end - start for start, end in pairwise(edges)]
