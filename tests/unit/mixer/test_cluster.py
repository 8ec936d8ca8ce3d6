"""What can be known of a cluster without one; the rest is in tests/system/test_cluster_engine.py."""

from __future__ import annotations

import pickle
import socket
import subprocess
import sys
import time

import pytest

from mixer import cluster
from mixer.cluster import open_cluster
from mixer.engine import open_engine
from mixer.errors import BuildError

QUICK = 0.5
"""Seconds for a scheduler to answer."""


def refused(address: str) -> BuildError:
    with pytest.raises(BuildError) as caught, open_cluster(address, connect_seconds=QUICK):
        pass
    return caught.value


def test_a_missing_library_is_an_error_that_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(BuildError, match="library") as caught, open_engine("tcp://127.0.0.1:8786"):
        pass
    assert "swupd-mixer[cluster]" in caught.value.hint


def test_a_scheduler_that_is_not_there_is_an_error_with_its_address() -> None:
    pytest.importorskip("distributed")
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"tcp://127.0.0.1:{free.getsockname()[1]}"
    assert str(refused(address)) == f"no Dask scheduler answers at {address}"


def test_a_scheme_without_certificates_is_an_error() -> None:
    pytest.importorskip("distributed")
    error = refused("tls://127.0.0.1:8786")
    assert "cannot use tls://127.0.0.1:8786" in str(error)
    assert "certificates" in error.hint


def test_something_that_never_speaks_is_an_error_and_nothing_else_is_shown() -> None:
    pytest.importorskip("distributed")
    program = (
        "import sys; from mixer.cluster import open_cluster; from mixer.errors import BuildError\n"
        "try: open_cluster(sys.argv[1], connect_seconds=0.5).__enter__()\n"
        "except BuildError as error: print(error)\n"
    )
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"tcp://127.0.0.1:{silent.getsockname()[1]}"
        start = time.monotonic()
        argv = [sys.executable, "-c", program, address]
        done = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=60)
        assert time.monotonic() - start < 30
    assert done.stdout == f"no Dask scheduler answers at {address}\n"
    assert done.stderr == ""


def test_loading_a_task_does_the_work() -> None:
    call = cluster._Call(cluster.fingerprint(), pickle.dumps((len, b"batch")))
    assert pickle.loads(pickle.dumps(call)) == 5


def test_the_fingerprint_names_what_makes_the_bytes() -> None:
    here = cluster.fingerprint()
    assert {"swupd-mixer", "Python", "zstd", "zlib", "zstandard", "bsdiff4", "hdiffpatch"} == set(here)
    assert all(version[0].isdigit() for version in here.values())
