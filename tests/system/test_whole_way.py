"""Build real packages, host them with nginx by the shipped configuration, install, update, damage, repair.

Two versions of a small mix: 10 from bookworm as released, 20 with updates and security, one bundle more and one less.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
PROGRAMS = Path(sys.executable).parent
DEFINITIONS = {
    "os-core": "ca-certificates\n",
    "os-core-update": "include(os-core)\nopenssl\n",
    "shell-tools": "include(os-core)\nless\nbash-completion\n",
    "old-tools": "include(os-core)\ntree\n",
    "new-tools": "include(os-core)\nfile\n",
}
BUILDER = """\
certificate: Swupd_Root.pem
key: private.pem
content_url: {url}
version_url: {url}
update_bundle: os-core-update
bundles: [definitions]
source:
  type: apt
  suites: [{suites}]
  components: [main]
"""

pytestmark = [
    pytest.mark.system,
    pytest.mark.timeout(900),
    pytest.mark.skipif(os.geteuid() != 0, reason="file owners are part of an OS: needs root"),
    pytest.mark.skipif(not shutil.which("mmdebstrap"), reason="needs mmdebstrap"),
    pytest.mark.skipif(not Path("/usr/sbin/nginx").exists(), reason="needs nginx"),
]


def run(*argv: str | Path, expect: int = 0) -> str:
    done = subprocess.run([str(a) for a in argv], capture_output=True, text=True, check=False)
    assert done.returncode == expect, f"{argv}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def nginx(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """Debian's nginx with contrib/nginx.conf, its paths and port replaced; the base URL and the workspace it serves."""
    top = tmp_path_factory.mktemp("nginx")
    mix = top / "mix"
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    shipped = (REPOSITORY / "contrib/nginx.conf").read_text()
    site = shipped.replace("listen 80;", f"listen 127.0.0.1:{port};").replace("/srv/mix", str(mix))
    assert site.count(str(mix)) == 2
    (top / "nginx.conf").write_text(
        f"daemon off; user root; pid {top}/pid; error_log {top}/error.log; events {{}}\n"
        f"http {{ access_log {top}/access.log; {site} }}\n"
    )
    top.chmod(0o755)
    server = subprocess.Popen(["/usr/sbin/nginx", "-c", top / "nginx.conf", "-p", top])
    try:
        for _ in range(100):
            with socket.socket() as client:
                if client.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}/update", mix
    finally:
        server.terminate()
        server.wait(10)


@pytest.fixture(scope="module")
def mix(nginx: tuple[str, Path]) -> Path:
    """A workspace with version 10 built."""
    url, mix = nginx
    mixer = [PROGRAMS / "mixer", "--workspace", mix]
    (mix / "definitions").mkdir(parents=True)
    for name, text in DEFINITIONS.items():
        (mix / "definitions" / name).write_text(text)
    run(*mixer, "init", "--mix-version", "10", "--bundles", mix / "definitions")
    (mix / "builder.yaml").write_text(BUILDER.format(url=url, suites="bookworm"))
    (mix / "mixbundles").write_text("os-core\nos-core-update\nshell-tools\nold-tools\n")
    run(*mixer, "build", "all")
    return mix


def release_20(mix: Path, url: str) -> None:
    mixer = [PROGRAMS / "mixer", "--workspace", mix]
    suites = "bookworm, bookworm-updates, bookworm-security"
    (mix / "builder.yaml").write_text(BUILDER.format(url=url, suites=suites))
    run(*mixer, "versions", "update", "--mix-version", "20")
    run(*mixer, "bundle", "add", "new-tools")
    run(*mixer, "bundle", "remove", "old-tools")
    run(*mixer, "build", "all")
    run(*mixer, "build", "delta-packs")
    run(*mixer, "build", "delta-manifests")
    run(*mixer, "check", "20")


def test_a_mix_of_real_packages_is_installed_updated_and_repaired(
    nginx: tuple[str, Path], mix: Path, tmp_path: Path
) -> None:
    url, _ = nginx
    root = tmp_path / "root"
    root.mkdir()
    common = ["--path", root, "--statedir", tmp_path / "state", "--certpath", mix / "Swupd_Root.pem"]
    common += ["--url", url, "--allow-insecure-http"]

    def swupd(command: str, *arguments: str | Path, expect: int = 0) -> str:
        return run(PROGRAMS / "swupd", command, *arguments, *common, expect=expect)

    swupd("os-install", "--bundles", "shell-tools,old-tools")
    swupd("diagnose")
    assert swupd("bundle-list", "--quiet").split() == ["old-tools", "os-core", "shell-tools"]
    assert (
        run("chroot", root, "/bin/sh", "-c", "tree --version; less --version | head -1; id -un").split()[-1] == "root"
    )
    assert swupd("check-update", "--quiet", expect=1) == ""

    (root / "home/ann").mkdir()
    (root / "home/ann/diary").write_text("mine")
    (root / "etc/hostname").write_text("ann\n")
    release_20(mix, url)
    assert swupd("check-update", "--quiet").strip() == "20"
    swupd("update")
    swupd("diagnose")
    assert re.search(r"^VERSION_ID=.?20", (root / "usr/lib/os-release").read_text(), re.MULTILINE)
    assert swupd("bundle-list", "--quiet").split() == ["os-core", "shell-tools"]
    assert not (root / "usr/bin/tree").exists()
    assert (root / "home/ann/diary").read_text() == "mine"
    assert (root / "etc/hostname").read_text() == "ann\n"

    swupd("bundle-add", "new-tools")
    run("chroot", root, "/usr/bin/file", "/bin/sh")
    less = root / "usr/bin/less"
    less.write_bytes(b"#!/bin/false\n")
    assert "/usr/bin/less" in swupd("diagnose", "--quiet", expect=1)
    swupd("repair")
    swupd("diagnose")
    swupd("bundle-remove", "shell-tools")
    assert not less.exists()
    swupd("diagnose")


def cache_control(url: str) -> str:
    with urllib.request.urlopen(url) as response:
        return str(response.headers["Cache-Control"])


def test_what_may_change_is_not_cached_and_what_may_not_is(nginx: tuple[str, Path], mix: Path) -> None:
    url, _ = nginx
    for name in ("20/update-index", "20/update-index.sig", "20/checksums", "version/latest_version"):
        assert cache_control(f"{url}/{name}") == "no-cache"
    for name in ("20/update-from-10.tar", "20/Manifest.MoM.tar"):
        assert cache_control(f"{url}/{name}") == "max-age=315360000"


def test_an_update_takes_one_pack_asks_for_no_file_twice_and_never_for_a_head(
    nginx: tuple[str, Path], mix: Path
) -> None:
    _, workspace = nginx
    lines = (workspace.parent / "access.log").read_text().splitlines()
    requests = [line.split('"')[1] for line in lines]
    assert requests
    assert not [r for r in requests if r.startswith("HEAD")]
    by_client = [request for line, request in zip(lines, requests, strict=True) if "Python-urllib" not in line]
    packs = [r.split()[1] for r in by_client if re.search(r"/(update|pack-[^/]*)-from-[1-9]", r)]
    assert packs == ["/update/20/update-from-10.tar"]
    assert [r for r in by_client if "/Manifest-os-core-delta-from-10" in r]
    objects = [r for r in requests if "/files/" in r]
    assert len(objects) == len(set(objects))
