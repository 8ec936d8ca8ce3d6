"""`mixer build delta-manifests`: manifests as differences from older ones (mixer specification, section 12).

A manifest of a large bundle is many times as large as what an update changes in it. For each bundle that changed with
the newer version, `Manifest-<bundle>-delta-from-<V>` makes its manifest from the one that the older version has. It
stands alone on the server, so its blocks are compressed. Clients check the result by the hash in the MoM; here each
delta was applied, and one that is not smaller than the archive of the manifest is not published.

It adds files to a version and changes nothing that is there. The workspace's lock is held from beginning to end.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from mixer import release
from mixer.additions import Additions
from mixer.build import working
from mixer.config import Config
from mixer.engine import open_engine
from mixer.manifests import MANIFEST_MODE
from mixer.matching import by_bsdiff, by_hdiffpatch, proved
from mixer.store import PublishedTree, open_tree
from mixer.updates import Span, Way, ways
from mixer.workspace import Workspace
from swupd.formats import layout
from swupd.report import Report, counted, human_size

BSDIFF_BYTES = 4 << 20
"""Manifests up to this size are given to bsdiff, larger ones to hdiffpatch."""


@dataclass(frozen=True, slots=True)
class ManifestTask:
    """A manifest and the older one that it is to be made from."""

    file: str
    """Name of the delta in the published tree."""
    old: bytes
    new: bytes
    limit: int
    """Bytes from which on the delta is of no use."""


@dataclass(frozen=True)
class ManifestSummary:
    """What was added to a version."""

    version: int
    deltas: int
    bytes: int
    whole_bytes: int
    """Archives of the same manifests."""

    def line(self) -> str:
        """For people."""
        sizes = f"{human_size(self.bytes)} instead of {human_size(self.whole_bytes)}"
        return f"Version {self.version} has {counted(self.deltas, 'new delta manifest')}, {sizes}"


def build_delta_manifests(
    workspace: Workspace, config: Config, report: Report, span: Span, *, workers: int, sign: bool
) -> ManifestSummary:
    """Add the delta manifests of a span to its newer version. Raises BuildError and WorkspaceError."""
    with working(workspace):
        tree = open_tree(config.published, workspace.www, report)
        signer = release.load_signer(config.certificate, config.key, report) if sign else None
        found = ways(tree, span, report)
        version = found[0].new.mom.version
        additions = Additions(tree, signer)
        tasks = list(_tasks(tree, found))
        report.step("deltas", f"Comparing {counted(len(tasks), 'manifest')} with older ones", 1, 1)
        size = whole = count = 0
        with open_engine(config.engine, workers=workers or config.workers) as engine:
            for file, limit, data in sorted(engine.map(make_manifest_delta, tasks)):
                if data:
                    additions.put(file, data)
                    count, size, whole = count + 1, size + len(data), whole + limit
        if count:
            additions.publish()
        return ManifestSummary(version, count, size, whole)


def make_manifest_delta(task: ManifestTask) -> tuple[str, int, bytes]:
    """The engine's function: file, limit and delta; empty if the archive of the manifest is the better choice."""
    match = (by_bsdiff if max(len(task.old), len(task.new)) <= BSDIFF_BYTES else by_hdiffpatch)(task.old, task.new)
    data = proved(task.old, task.new, match, mode=MANIFEST_MODE, uid=0, gid=0, compressed=True)
    return task.file, task.limit, data if data is not None and len(data) < task.limit else b""


def _tasks(tree: PublishedTree, found: Sequence[Way]) -> Iterator[ManifestTask]:
    """The manifests of the newer version that have no delta yet."""
    there = tree.names(found[0].new.mom.version)
    seen: set[str] = set()
    for way in found:
        version = way.new.mom.version
        before = {entry.name: entry for entry in way.old.mom.entries if entry.is_present}
        for line in way.new.mom.entries:
            former = before.get(line.name)
            if former is None or not line.is_present or not former.version < line.version == version:
                continue
            file = layout.manifest_delta(version, line.name, former.version)
            if file not in there and file not in seen:
                seen.add(file)
                archive = there.get(layout.manifest_tar(version, line.name), 0)
                yield ManifestTask(file, way.old.text(line.name), way.new.text(line.name), archive)
