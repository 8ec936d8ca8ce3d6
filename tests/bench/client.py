"""A machine with every bundle of version 10: installed, checked, and updated to version 20 over HTTP in three ways.

All by the real `swupd`. The three ways differ only in what the server has. Each one begins with a copy of the same root
and with an empty state directory, and must leave a root in which `swupd diagnose` finds nothing.

Beside it stands what the original's client in C needs: measured in the same run if the variable SWUPD_C names that
program, otherwise as it was measured once, on a quiet machine and with a kernel bundle besides, scaled to our size.
"""

from __future__ import annotations

import hmac
import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from mixer.serve import TreeServer
from swupd.formats import layout
from swupd.formats.manifest import parse
from tests.bench import measure, workspace
from tests.bench.measure import BenchError, Finished, Usage, load_average, say
from tests.bench.pair import FIRST, SECOND
from tests.bench.rows import MB, Row, usage_rows
from tests.bench.workspace import linked_copy, published

C_PROGRAM = os.environ.get("SWUPD_C", "")
SCALE = 357 / 437
"""Of the installed MB: ours, and those of the measurements below."""
INSTALL, DIAGNOSE, UPDATE = "os-install", "diagnose", "update"
C_CLIENT = {
    INSTALL: Usage(7.7 * SCALE, 7.4 * SCALE, 44 * 10**6),
    DIAGNOSE: Usage(0.62 * SCALE, 0.60 * SCALE, 33 * 10**6),
    UPDATE: Usage(3.8 * SCALE, 3.4 * SCALE, 74 * 10**6),
}
C_CLIENT_FETCHED = 25.0 * SCALE
GOAL_WALL = {INSTALL: 0.5, DIAGNOSE: 1.0, UPDATE: 0.8}
GOAL_CPU = 1.5
"""Of what the C client needs."""
GOAL_MB = 120
GOAL_OF_LOOP = 1.3
"""Of a bare loop, for diagnose."""
RUNS = 3
"""Of what changes nothing; the quickest one counts."""

SINGLE_FILES = "single files"
WAYS: dict[str, tuple[str, ...]] = {
    "update pack": (),
    "packs of bundles": ("update-index*", "update-from-*"),
    SINGLE_FILES: ("update-index*", "update-from-*", f"pack-*-from-{FIRST}.tar"),
}
"""Way -> what the server does not have for it, in the directory of the second version."""

NGINX = """\
daemon off; user root; worker_processes 1; pid {top}/pid; error_log {top}/error.log;
events {{}}
http {{
  access_log {top}/access.log;
  client_body_temp_path {top}/temporary;
  proxy_temp_path {top}/temporary;
  fastcgi_temp_path {top}/temporary;
  uwsgi_temp_path {top}/temporary;
  scgi_temp_path {top}/temporary;
  server {{ listen {host}:{port}; root {www}; }}
}}
"""
HOST = "127.0.0.1"
START_SECONDS = 10
_UNITS = {"bytes": 1, "kB": 1e3, "MB": 1e6, "GB": 1e9}


def rows(data: Path) -> list[Row]:
    """Installing, and updating each way."""
    place = workspace.complete(data)
    top = data / "client"
    shutil.rmtree(top, ignore_errors=True)
    top.mkdir()
    machine = Machine(top / "root", top / "cache", place / "Swupd_Root.pem")
    with serving(published(place), top) as url:
        done = machine.swupd(url, INSTALL, *_all_bundles(place))
        original = _original(top, place, url)
        found = [
            *_compared(INSTALL, INSTALL, done.usage, original),
            Row(f"{INSTALL}: fetched", _fetched(done) / MB, "MB"),
        ]
        checks = [machine.swupd(url, DIAGNOSE).usage for _ in range(RUNS)]
        check = min(checks, key=lambda usage: usage.wall)
    loop = min((measure.in_fresh_process(_bare_loop, machine.root) for _ in range(RUNS)), key=lambda usage: usage.wall)
    found += [
        *_compared(DIAGNOSE, DIAGNOSE, check, original),
        Row(f"{DIAGNOSE}: wall time", check.wall, "s", loop.wall * GOAL_OF_LOOP, f"{GOAL_OF_LOOP} of a bare loop"),
        Row(f"{DIAGNOSE}: CPU", check.cpu, "CPU s", loop.cpu * GOAL_OF_LOOP, f"{GOAL_OF_LOOP} of a bare loop"),
    ]
    for way, lacking in WAYS.items():
        updated = Machine(top / "updated", top / "updated-cache", machine.certificate)
        measure.run(["cp", "--archive", machine.root, updated.root])
        with linked_copy(published(place), top / "www") as www:
            _remove(www / str(SECOND), lacking)
            found += _way(f"update by {way}", updated, www, top, original)
        shutil.rmtree(updated.root)
        shutil.rmtree(updated.cache)
    shutil.rmtree(top)
    return found


@dataclass(frozen=True)
class Machine:
    """An installed OS in a directory."""

    root: Path
    cache: Path
    certificate: Path
    program: str = "swupd"

    def swupd(self, url: str, command: str, *arguments: str) -> Finished:
        """Run a command of the client. Raises CommandError if it fails."""
        options = ["--url", url, "--allow-insecure-http", "--no-scripts", "--no-progress"]
        for option, path in (("--path", self.root), ("--cachedir", self.cache), ("--certpath", self.certificate)):
            options += [option, str(path)]
        return measure.run([self.program, command, *arguments, *options])


def _way(what: str, machine: Machine, www: Path, top: Path, original: Mapping[str, Usage]) -> list[Row]:
    with serving(www, top) as url:
        done = machine.swupd(url, UPDATE)
        machine.swupd(url, DIAGNOSE)
    fetched = _fetched(done) / MB
    if what.endswith(SINGLE_FILES):
        return [*usage_rows(what, done.usage, load_average()), Row(f"{what}: fetched", fetched, "MB")]
    return [
        *_compared(what, UPDATE, done.usage, original),
        Row(f"{what}: fetched", fetched, "MB", C_CLIENT_FETCHED, "C client"),
    ]


def _compared(what: str, command: str, ours: Usage, original: Mapping[str, Usage]) -> list[Row]:
    """A command beside its goals, which are parts of what the original's client needs."""
    theirs, whose = original[command], "of the C client"
    return [
        Row(
            f"{what}: wall time",
            ours.wall,
            "s",
            theirs.wall * GOAL_WALL[command],
            f"{GOAL_WALL[command]} {whose}",
            load_average(),
        ),
        Row(f"{what}: CPU", ours.cpu, "CPU s", theirs.cpu * GOAL_CPU, f"{GOAL_CPU} {whose}"),
        Row(f"{what}: memory", ours.memory / MB, "MB", GOAL_MB, "goal"),
    ]


def _original(top: Path, place: Path, url: str) -> Mapping[str, Usage]:
    """What the original's client needs: measured now if there is one, then with a root and a cache of its own."""
    if not C_PROGRAM:
        return C_CLIENT
    machine = Machine(top / "c-root", top / "c-cache", place / "Swupd_Root.pem", C_PROGRAM)
    found = {INSTALL: machine.swupd(url, INSTALL, *_all_bundles(place)).usage}
    checks = [machine.swupd(url, DIAGNOSE).usage for _ in range(RUNS)]
    found[DIAGNOSE] = min(checks, key=lambda usage: usage.wall)
    shutil.rmtree(machine.cache)
    found[UPDATE] = machine.swupd(url, UPDATE).usage
    return found


def _bare_loop(root: Path) -> Usage:
    """Reading and hashing all files of a root, and nothing else. Needs a process of its own."""
    paths = [entry.path for entry in _files(root)]
    wall, cpu = time.perf_counter(), time.process_time()
    for path in paths:
        fd = os.open(path, os.O_RDONLY)
        hmac.digest(b"key", os.read(fd, 1 << 30), "sha256")
        os.close(fd)
    return Usage(time.perf_counter() - wall, time.process_time() - cpu, measure.peak_memory())


def _files(directory: Path | str) -> Iterator[os.DirEntry[str]]:
    with os.scandir(directory) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield from _files(entry.path)
            elif entry.is_file(follow_symlinks=False):
                yield entry


def _fetched(done: Finished) -> float:
    """Bytes, as the client counted them."""
    for _, line in done.lines:
        if found := re.search(r"downloaded: +([0-9.]+) (\w+) in", line):
            return float(found[1]) * _UNITS[found[2]]
    raise BenchError("swupd does not say how much it downloaded")


def _all_bundles(place: Path) -> list[str]:
    """The options that install every bundle of the first version."""
    path = published(place) / layout.manifest(FIRST, layout.MOM)
    mom = parse(path.read_bytes(), name=layout.MOM, is_mom=True)
    return ["--version", str(FIRST), "--bundles", ",".join(entry.name for entry in mom.entries)]


def _remove(directory: Path, patterns: Iterable[str]) -> None:
    for pattern in patterns:
        for path in directory.glob(pattern):
            path.unlink()


# -- the server --------------------------------------------------------------------------------------------------------


@contextmanager
def serving(www: Path, top: Path) -> Iterator[str]:
    """The URL of nginx in front of a tree; where there is no nginx, of what `mixer serve` runs."""
    nginx = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
    if nginx is None:
        say("There is no nginx: the builder's own web server takes its place")
        with TreeServer(www) as server:
            yield server.url
        return
    port = _free_port()
    (top / "nginx.conf").write_text(NGINX.format(top=top, www=www, host=HOST, port=port))
    process = subprocess.Popen([nginx, "-c", top / "nginx.conf", "-p", top, "-e", top / "error.log"])
    try:
        _wait_for(port)
        yield f"http://{HOST}:{port}"
    finally:
        process.terminate()
        process.wait(START_SECONDS)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


def _wait_for(port: int) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex((HOST, port)) == 0:
                return
        time.sleep(0.05)
    raise BenchError(f"nginx does not answer on port {port} after {START_SECONDS} s")
