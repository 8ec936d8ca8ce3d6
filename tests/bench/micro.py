"""Small measurements: what matters to users, beside its goal or beside a bare loop that does the same work.

Wall seconds, best of several runs.
"""

from __future__ import annotations

import hmac
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from swupd.formats import filehash, manifest
from swupd.formats.manifest import Entry, FileType, Manifest
from tests.bench.measure import PROGRAMS
from tests.bench.rows import Row

ENTRIES = 450_000
RUNS = 3
TREE = Path(sys.prefix)
"""A real tree of many files: the virtual environment that this runs in."""

PARSE_SECONDS = 2
START_SECONDS = 0.15


def rows(data: Path) -> list[Row]:
    """Everything."""
    return [*_manifests(), *_hashing(), _start()]


def _manifests() -> list[Row]:
    entries = tuple(
        Entry.present(FileType.FILE, f"{i:064x}", 10 + i % 50 * 10, f"/usr/share/package{i // 100}/file{i}")
        for i in range(1, ENTRIES + 1)
    )
    whole = Manifest(30, 500, 490, 1_700_000_000, 10**9, includes=("os-core",), entries=entries)
    data = manifest.serialise(whole)

    def parse() -> None:
        manifest.parse(data, name="big")

    def serialise() -> None:
        manifest.serialise(whole)

    parsing, parsing_cpu = _best(parse)
    serialising, serialising_cpu = _best(serialise)
    return [
        Row(f"parse a manifest of {ENTRIES:,} entries", parsing, "s", PARSE_SECONDS, "goal", _cpu(parsing_cpu)),
        Row("serialise it", serialising, "s", note=_cpu(serialising_cpu)),
    ]


def _hashing() -> list[Row]:
    paths = [str(p) for p in TREE.rglob("*") if p.is_file() and not p.is_symlink()]
    size = sum(os.stat(p).st_size for p in paths)

    def bare() -> None:
        for path in paths:
            fd = os.open(path, os.O_RDONLY)
            hmac.digest(b"k", os.read(fd, 1 << 30), "sha256")
            os.close(fd)

    def ours() -> None:
        filehash.hash_paths(paths)

    loop, _ = _best(bare)
    hashing, cpu = _best(ours)
    what = f"swupd hash of {len(paths):,} files, {size / 1e6:.0f} MB"
    return [Row(what, hashing, "s", loop, "a bare loop that reads and hashes", _cpu(cpu))]


def _start() -> Row:
    with tempfile.TemporaryDirectory() as root:
        release = Path(root, "usr/lib/os-release")
        release.parent.mkdir(parents=True)
        release.write_text("VERSION_ID=10\n")
        command = [f"{PROGRAMS}/swupd", "info", "--path", root, "--statedir", f"{root}/state"]

        def info() -> None:
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)

        return Row("swupd info", _best(info)[0], "s", START_SECONDS, "goal")


def _best(work: Callable[[], object]) -> tuple[float, float]:
    """Smallest wall and CPU seconds of several runs."""
    times = []
    for _ in range(RUNS):
        wall, cpu = time.perf_counter(), time.process_time()
        work()
        times.append((time.perf_counter() - wall, time.process_time() - cpu))
    return min(t[0] for t in times), min(t[1] for t in times)


def _cpu(seconds: float) -> str:
    return f"{seconds:.3f} CPU s"
