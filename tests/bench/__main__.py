"""`make bench`: what matters to users in numbers, beside its goal or beside a bare loop that does the same work.

Wall and CPU seconds of this machine, best of several runs; compare ratios, not runs on different machines.
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

ENTRIES = 450_000
RUNS = 3
TREE = Path(sys.prefix)
"""A real tree of many files: the virtual environment that this runs in."""


def best(work: Callable[[], object]) -> tuple[float, float]:
    """Smallest wall and CPU seconds of several runs."""
    times = []
    for _ in range(RUNS):
        wall, cpu = time.perf_counter(), time.process_time()
        work()
        times.append((time.perf_counter() - wall, time.process_time() - cpu))
    return min(t[0] for t in times), min(t[1] for t in times)


def row(what: str, times: tuple[float, float], note: str) -> None:
    print(f"{what:44}{times[0]:9.3f}{times[1]:9.3f}  {note}")


def manifests() -> None:
    entries = tuple(
        Entry.present(FileType.FILE, f"{i:064x}", 10 + i % 50 * 10, f"/usr/share/package{i // 100}/file{i}")
        for i in range(1, ENTRIES + 1)
    )
    whole = Manifest(30, 500, 490, 1_700_000_000, 10**9, includes=("os-core",), entries=entries)
    data = manifest.serialise(whole)
    row(f"parse a manifest of {ENTRIES:,} entries", best(lambda: manifest.parse(data, name="big")), "goal: < 2 s")
    row("serialise it", best(lambda: manifest.serialise(whole)), "")


def hashing() -> None:
    paths = [str(p) for p in TREE.rglob("*") if p.is_file() and not p.is_symlink()]
    size = sum(os.stat(p).st_size for p in paths)

    def bare() -> None:
        for path in paths:
            fd = os.open(path, os.O_RDONLY)
            hmac.digest(b"k", os.read(fd, 1 << 30), "sha256")
            os.close(fd)

    loop, ours = best(bare), best(lambda: filehash.hash_paths(paths))
    row(f"bare loop over {len(paths):,} files, {size / 1e6:.0f} MB", loop, "")
    row("swupd hash of the same files", ours, f"{ours[0] / loop[0]:.2f} of the loop's wall time")


def start() -> None:
    with tempfile.TemporaryDirectory() as root:
        release = Path(root, "usr/lib/os-release")
        release.parent.mkdir(parents=True)
        release.write_text("VERSION_ID=10\n")
        command = [str(Path(sys.executable).parent / "swupd"), "info", "--path", root, "--statedir", f"{root}/state"]
        times = best(lambda: subprocess.run(command, check=True, stdout=subprocess.DEVNULL))
        row("swupd info", times, "goal: < 0.15 s")


def main() -> None:
    print(f"{'':44}{'wall s':>9}{'cpu s':>9}")
    manifests()
    hashing()
    start()


if __name__ == "__main__":
    main()
