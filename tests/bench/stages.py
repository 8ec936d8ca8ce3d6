"""What delta packs and the update pack cost, each without the other, measured in the library.

`mixer build delta-packs` makes both in one go, and they share most of the work. Alone they would need

    delta packs   the plain deltas, and compressing the packs of bundles
    update pack   the plain deltas, the gzip deltas, and compressing the update pack

Nothing is published, and what the workspace has of deltas is not used.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from mixer import deltapacks, updates
from mixer.content import ContentStore
from mixer.deltas import DeltaStore
from mixer.engine import InProcess
from mixer.store import open_tree
from mixer.updates import Span
from mixer.workspace import Workspace
from swupd.report import TextReport
from tests.bench.measure import cpu_seconds, peak_memory, total_bytes

PLAIN, GZIP, PACKS, UPDATE_PACK = "plain deltas", "gzip deltas", "compressing the packs", "compressing the update pack"


@dataclass(frozen=True)
class Stages:
    """The whole way from the older version to the newest one."""

    cpu: dict[str, float]
    """Stage -> seconds."""
    packs_bytes: int
    update_pack_bytes: int
    pairs: int
    """Records that were made, plain and gzip."""
    memory: int
    """Bytes."""

    @property
    def packs_cpu(self) -> float:
        return self.cpu[PLAIN] + self.cpu[PACKS]

    @property
    def update_pack_cpu(self) -> float:
        return self.cpu[PLAIN] + self.cpu[GZIP] + self.cpu[UPDATE_PACK]


def stages(directory: Path) -> Stages:
    """Those of the workspace there. Needs a process of its own (tests.bench.measure)."""
    workspace = Workspace(directory)
    report = TextReport(quiet=True)
    tree = open_tree("", workspace.www, report)
    objects = ContentStore(workspace.objects)
    (way,) = updates.ways(tree, Span(), report)
    updates.needed_objects([way], tree, objects)
    keys = updates.wanted_deltas([way])
    engine = InProcess()
    cpu: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="stages-", dir=workspace.cache) as temporary:
        place = Path(temporary)
        deltas = DeltaStore(place / "deltas", objects)
        with _measured(cpu, PLAIN):
            deltas.make([key for key in keys if not key.is_gzip], engine, report)
        with _measured(cpu, GZIP):
            deltas.make([key for key in keys if key.is_gzip], engine, report)
        plans = updates.pack_plans(way, deltas)
        with _measured(cpu, PACKS):
            packs = deltapacks.compress([plan for plan in plans if plan.step.bundle], place, deltas, engine, report)
        with _measured(cpu, UPDATE_PACK):
            whole = deltapacks.compress([plan for plan in plans if not plan.step.bundle], place, deltas, engine, report)
        return Stages(cpu, total_bytes(packs.values()), total_bytes(whole.values()), len(keys), peak_memory())


@contextmanager
def _measured(cpu: dict[str, float], stage: str) -> Iterator[None]:
    start = cpu_seconds()
    yield
    cpu[stage] = cpu_seconds() - start
