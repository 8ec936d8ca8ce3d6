"""The cache of libraries ships with the version."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

LIBRARY = next(Path("/usr/lib").glob("*-linux-gnu/libz.so.1.*"), None)

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="ldconfig changes its root: needs root"),
    pytest.mark.skipif(LIBRARY is None, reason="needs a library to look for"),
]


def test_a_directory_of_a_package_for_its_libraries_is_known(system: Any) -> None:
    assert LIBRARY is not None
    system.file("/etc/ld.so.conf", "include /etc/ld.so.conf.d/*.conf\n")
    system.file("/etc/ld.so.conf.d/web.conf", "/usr/lib/web\n", bundle="web")
    system.directory("/usr/lib/web", bundle="web")
    shutil.copy(LIBRARY, system.place("/usr/lib/web/libz.so.1"))
    files = system.convert()["os-core"].files
    assert b"/usr/lib/web/libz.so.1" in system.place("/usr/share/factory/etc/ld.so.cache").read_bytes()
    assert "/usr/share/factory/etc/ld.so.cache" in files
    assert not system.place("/var/cache").exists()


def test_a_root_without_dynamic_libraries_has_no_cache(system: Any) -> None:
    files = system.convert()["os-core"].files
    assert "/usr/share/factory/etc/ld.so.cache" not in files
