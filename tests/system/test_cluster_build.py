"""A whole build on a real Dask cluster that loses a worker in the middle, against the same build on this machine."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("distributed")

MIXER = Path(sys.executable).parent / "mixer"
DEADLINE_SECONDS = 120

Running = Any

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]


def prepare(directory: Path) -> None:
    """Two versions of real files of this machine: libraries that change a little, and texts."""
    libraries = [path for path in sorted(Path("/usr/lib/x86_64-linux-gnu").glob("*.so*")) if not path.is_symlink()]
    numbers = random.Random(11)
    for version in (10, 20):
        full = directory / str(version) / "full"
        files = {
            "/usr/share/clear/bundles/os-core": b"",
            "/usr/share/clear/versionstamp": b"%d" % (1700000000 + version),
        }
        total = 0
        for path in libraries:
            data = path.read_bytes()
            total += len(data)
            if total > 20_000_000:
                break
            if version == 20:
                at = numbers.randrange(len(data))
                data = data[:at] + b"changed" + data[at:]
            files[f"/usr/lib/{path.name}"] = data
        for number in range(50):
            files[f"/usr/share/doc/{number}"] = f"{number} of {version // (1 + number % 20)}\n".encode() * 200
        for name, data in files.items():
            target = full / name[1:]
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(data)
            os.utime(target, (1700000000, 1700000000))
        paths = {str(parent) for name in files for parent in Path(name).parents} - {"/"} | files.keys()
        info = {"Files": dict.fromkeys(sorted(paths), False)}
        (full.parent / "os-core-info").write_text(json.dumps(info))
        (full.parent / "groups.ini").write_text("[os-core]\n")


def mixer(workspace: Path, *argv: str) -> None:
    done = subprocess.run(
        [str(MIXER), "--workspace", str(workspace), "--no-progress", *argv], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def workspace(path: Path, content: Path, *, engine: str = "") -> Path:
    mixer(path, "init")
    lines = [f"source: {{type: tree, path: {content}}}", engine]
    (path / "builder.yaml").write_text("\n".join(lines) + "\n")
    return path


def build(path: Path) -> dict[str, bytes]:
    """Versions 10 and 20 with all that can be added; unsigned, because a signature contains its time."""
    for version in ("10", "20"):
        mixer(path, "versions", "update", "--mix-version", version)
        mixer(path, "build", "all", "--no-signing")
    mixer(path, "build", "delta-packs", "--no-signing")
    mixer(path, "build", "delta-manifests", "--no-signing")
    www = path / "update/www"
    return {str(file.relative_to(www)): file.read_bytes() for file in www.rglob("*") if file.is_file()}


def test_a_build_on_a_cluster_that_loses_a_worker_publishes_the_bytes_of_a_local_one(
    running: Running, tmp_path: Path
) -> None:
    content = tmp_path / "content"
    prepare(content)
    local = build(workspace(tmp_path / "local", content))
    (tmp_path / "dask").mkdir()
    with running(tmp_path / "dask") as dask:
        victim, survivor = dask.worker(), dask.worker()
        dask.await_workers(2)
        remote = workspace(tmp_path / "remote", content, engine=f"engine: {{dask: '{dask.address}'}}")
        objects = remote / "cache/objects"
        killed = threading.Event()

        def kill_in_the_middle() -> None:
            """As soon as the first finished objects lie there and others are still worked on."""
            deadline = time.monotonic() + DEADLINE_SECONDS
            while time.monotonic() < deadline:
                if (objects / ".new").is_dir() and os.listdir(objects / ".new"):
                    victim.kill()
                    killed.set()
                    return
                time.sleep(0.002)

        killer = threading.Thread(target=kill_in_the_middle)
        killer.start()
        published = build(remote)
        killer.join()
        assert killed.is_set()
        assert victim.wait(10) != 0
        assert survivor.poll() is None

    assert published.keys() == local.keys()
    assert [name for name in local if published[name] != local[name]] == []
    assert {"20/update-from-10.tar", "20/pack-os-core-from-10.tar", "20/update-index"} <= local.keys()
