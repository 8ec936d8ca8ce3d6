"""A machine with every bundle of version 10, updated to version 20 over HTTP in three ways, by the real `swupd`.

The three ways differ only in what the server has. Each one begins with a copy of the same root and with an empty state
directory, and must leave a root in which `swupd diagnose` finds nothing.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from mixer.serve import TreeServer
from swupd.formats import layout
from swupd.formats.manifest import parse
from tests.bench import measure, workspace
from tests.bench.measure import BenchError, Finished, load_average, say
from tests.bench.pair import FIRST, SECOND
from tests.bench.rows import MB, Row, usage_rows
from tests.bench.workspace import linked_copy, published

GOAL_CPU, GOAL_MB = 3, 120
"""Of an update with packs."""
C_CLIENT = "C client"
OTHERS = (("ostree", 3.0, 160), (C_CLIENT, 3.4, 74))
"""CPU seconds and MB of memory for the same update."""
C_CLIENT_FETCHED = 25.0

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
        found = _measured(f"os-install {FIRST}", machine.swupd(url, "os-install", *_all_bundles(place)))
    for way, lacking in WAYS.items():
        updated = Machine(top / "updated", top / "updated-cache", machine.certificate)
        measure.run(["cp", "--archive", machine.root, updated.root])
        with linked_copy(published(place), top / "www") as www:
            _remove(www / str(SECOND), lacking)
            found += _way(f"update by {way}", updated, www, top)
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

    def swupd(self, url: str, command: str, *arguments: str) -> Finished:
        """Run a command of the client. Raises CommandError if it fails."""
        options = ["--url", url, "--allow-insecure-http", "--no-scripts", "--no-progress"]
        for option, path in (("--path", self.root), ("--cachedir", self.cache), ("--certpath", self.certificate)):
            options += [option, str(path)]
        return measure.run(["swupd", command, *arguments, *options])


def _way(what: str, machine: Machine, www: Path, top: Path) -> list[Row]:
    with serving(www, top) as url:
        done = machine.swupd(url, "update")
        machine.swupd(url, "diagnose")
    if what.endswith(SINGLE_FILES):
        return _measured(what, done)
    usage = done.usage
    others = [("goal", GOAL_CPU, GOAL_MB), *OTHERS]
    return [
        Row(f"{what}: wall time", usage.wall, "s", note=load_average()),
        *(Row(f"{what}: CPU", usage.cpu, "CPU s", cpu, whose) for whose, cpu, _ in others),
        *(Row(f"{what}: memory", usage.memory / MB, "MB", memory, whose) for whose, _, memory in others),
        Row(f"{what}: fetched", _fetched(done) / MB, "MB", C_CLIENT_FETCHED, C_CLIENT),
    ]


def _measured(what: str, done: Finished) -> list[Row]:
    fetched = Row(f"{what}: fetched", _fetched(done) / MB, "MB")
    return [*usage_rows(what, done.usage, load_average()), fetched]


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
