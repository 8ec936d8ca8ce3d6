"""Building two versions of a real OS, and the way between them, beside the original builder and other systems.

The baselines were measured once on a machine like this with the same data. Where the original builder had a kernel
bundle more, its numbers stand there a second time, scaled to the content that we have.
"""

from __future__ import annotations

from operator import attrgetter
from pathlib import Path

from swupd.formats import layout
from swupd.formats.manifest import FileType, Manifest, parse
from tests.bench import stages, workspace
from tests.bench.measure import Finished, in_fresh_process, load_average, say, total_bytes
from tests.bench.pair import FIRST, SECOND
from tests.bench.rows import MB, Row, usage_rows
from tests.bench.stages import Stages
from tests.bench.workspace import linked_copy, mixer, published

GO_CPU = 2 + 233 + 312
"""CPU seconds of the original builder for manifests, fullfiles and zero packs of a first version."""
GO_MB = 437
"""Its content, with a kernel."""
GO_FULLFILES, GO_ZERO_PACKS = 135 * 2**20 / MB, 107 * 2**20 / MB
XZ_FULLFILES, XZ_CPU = 111.0, 82
"""Our fullfiles of the first version with `xz -6`."""
GO_DELTA_PACKS, GO_DELTA_CPU = 17.8, 258
OTHER_UPDATES = (("ostree static delta", 30.9), ("casync", 106), ("rsync", 203))
"""MB that a client fetches from the first to the second version."""
OSTREE_DELTA_CPU = 70

CHANGED_SHARE = 1 / 5
REBUILD_SECONDS = 5
PACKS_BYTES_SHARE, PACKS_CPU_SHARE = 0.90, 1 / 4
UPDATE_PACK_MB, UPDATE_PACK_CPU = 11, 45
TWO_WORKERS_SHARE = 0.6


def rows(data: Path) -> list[Row]:
    """Everything; leaves the complete workspace."""
    place = workspace.fresh(data)
    found = _first(place)
    workspace.go_on(place)
    found += _second(place, data / "pair")
    found += _unchanged(place)
    found += _delta_manifests(place)
    say("Making deltas and packs in this process, with one core")
    found += _stages(in_fresh_process(stages.stages, place))
    return found + _delta_command(place, data / "copy")


def _first(place: Path) -> list[Row]:
    done = mixer(place, "build", "all")
    usage = done.usage
    tree = published(place) / str(FIRST)
    content = _full(place, FIRST).contentsize / MB
    fullfiles = total_bytes(tree.glob("files/*")) / MB
    packs = total_bytes(tree.glob("pack-*-from-0.tar")) / MB
    scale = content / GO_MB
    scaled = f"Go mixer, scaled from {GO_MB} to our {content:.0f} MB"
    what = f"build {FIRST}"
    return [
        Row(f"{what}: wall time", usage.wall, "s", note=_steps(done)),
        Row(f"{what}: memory", usage.memory / MB, "MB"),
        Row(f"{what}: CPU", usage.cpu, "CPU s", GO_CPU, f"Go mixer, {GO_MB} MB with a kernel"),
        Row(f"{what}: CPU", usage.cpu, "CPU s", GO_CPU * scale, scaled),
        Row(f"{what}: fullfiles", fullfiles, "MB", GO_FULLFILES, f"Go mixer, {GO_MB} MB with a kernel"),
        Row(f"{what}: fullfiles", fullfiles, "MB", GO_FULLFILES * scale, scaled),
        Row(f"{what}: fullfiles", fullfiles, "MB", XZ_FULLFILES, "xz -6 of ours", f"xz needs {XZ_CPU} CPU s"),
        Row(f"{what}: zero packs", packs, "MB", GO_ZERO_PACKS, f"Go mixer, {GO_MB} MB with a kernel"),
        Row(f"{what}: zero packs", packs, "MB", GO_ZERO_PACKS * scale, scaled),
    ]


def _second(place: Path, pair: Path) -> list[Row]:
    done = mixer(place, "build", "all")
    changed = _changed_bytes(_full(place, SECOND), pair / str(SECOND) / "full") / MB
    goal = CHANGED_SHARE * GO_CPU / GO_MB
    what = f"build {SECOND} after {FIRST}"
    return [
        *usage_rows(what, done.usage, _steps(done)),
        Row(f"{what}: content that changed", changed, "MB"),
        Row(f"{what}: CPU per MB of it", done.usage.cpu / changed, "CPU s", goal, "goal: 1/5 of Go mixer's"),
    ]


def _unchanged(place: Path) -> list[Row]:
    usage = mixer(place, "build", "all").usage
    note = f"{usage.cpu:.1f} CPU s, {usage.memory / MB:.0f} MB"
    return [Row(f"build {SECOND} again, nothing changed", usage.wall, "s", REBUILD_SECONDS, "goal", note)]


def _stages(found: Stages) -> list[Row]:
    packs, update_pack = found.packs_bytes / MB, found.update_pack_bytes / MB
    packs_goal, cpu_goal = PACKS_BYTES_SHARE * GO_DELTA_PACKS, PACKS_CPU_SHARE * GO_DELTA_CPU
    return [
        *(Row(f"stage: {stage}", cpu, "CPU s") for stage, cpu in found.cpu.items()),
        Row("stages: memory", found.memory / MB, "MB", note=f"{found.pairs} pairs of files"),
        Row("delta packs", packs, "MB", packs_goal, f"goal: {PACKS_BYTES_SHARE} of Go mixer's {GO_DELTA_PACKS}"),
        Row("delta packs: CPU", found.packs_cpu, "CPU s", cpu_goal, f"goal: 1/4 of Go mixer's {GO_DELTA_CPU}"),
        Row("update pack", update_pack, "MB", UPDATE_PACK_MB, "goal"),
        *(Row("update pack", update_pack, "MB", size, name) for name, size in OTHER_UPDATES),
        Row("update pack: CPU", found.update_pack_cpu, "CPU s", UPDATE_PACK_CPU, "goal"),
        Row("update pack: CPU", found.update_pack_cpu, "CPU s", OSTREE_DELTA_CPU, OTHER_UPDATES[0][0]),
    ]


def _delta_command(place: Path, copy: Path) -> list[Row]:
    """One worker and two in turn, twice; the last time in the workspace itself, which needs the packs."""
    runs: dict[int, list[Finished]] = {1: [], 2: []}
    for workers in (1, 2, 1):
        with linked_copy(place, copy):
            runs[workers].append(_delta_packs(copy, workers))
    runs[2].append(_delta_packs(place, 2))
    alone, shared = (min(map(_delta_seconds, runs[workers])) for workers in (1, 2))
    usage = min((done.usage for done in runs[2]), key=attrgetter("wall"))
    source = f"goal: {TWO_WORKERS_SHARE} of one worker's {alone:.1f} s"
    return [
        *usage_rows("build delta-packs, 2 workers", usage, load_average()),
        Row(
            "its delta stage, 2 workers", shared, "s", TWO_WORKERS_SHARE * alone, source, f"{shared / alone:.2f} of it"
        ),
    ]


def _delta_packs(place: Path, workers: int) -> Finished:
    return mixer(place, "build", "delta-packs", "--workers", str(workers))


def _delta_seconds(done: Finished) -> float:
    """How long the command compared files."""
    return done.seconds_until("Making ") - done.seconds_until("Comparing ")


def _delta_manifests(place: Path) -> list[Row]:
    usage = mixer(place, "build", "delta-manifests").usage
    tree = published(place) / str(SECOND)
    deltas = list(tree.glob("Manifest-*-delta-from-*"))
    names = (path.name.removeprefix("Manifest-").rpartition("-delta-from-")[0] for path in deltas)
    archives = total_bytes(tree / f"{layout.manifest_name(name)}.tar" for name in names)
    note = f"{usage.wall:.1f} s, {usage.cpu:.1f} CPU s, {usage.memory / MB:.0f} MB"
    return [Row("delta manifests", total_bytes(deltas) / MB, "MB", archives / MB, "archives of the manifests", note)]


def _full(place: Path, version: int) -> Manifest:
    return parse((published(place) / layout.manifest(version, layout.FULL)).read_bytes(), name=layout.FULL)


def _steps(done: Finished) -> str:
    """How long each step of a build took, for a note."""
    summary = next((line for _, line in done.lines if line.startswith("seconds ")), "seconds ? ?")
    return f"{summary.split(maxsplit=2)[2]}; {load_average()}"


def _changed_bytes(full: Manifest, root: Path) -> int:
    """Content that the version has and none before it had, each object once."""
    entries = (entry for entry in full.entries if entry.is_present and entry.type is FileType.FILE)
    changed = {entry.hash: entry for entry in entries if entry.version == full.version}
    return total_bytes(root / entry.name.lstrip("/") for entry in changed.values())
