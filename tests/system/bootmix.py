"""The shipped mix with four versions, for machines that are really booted.

10   the shipped os-core, os-core-update, kernel, editors and guests, and a bundle of files of our own
20   other files, a new factory file of /etc, a user more
30   with a health check that fails
40   without an init
"""

from __future__ import annotations

import os
import random
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
PROGRAMS = Path(sys.executable).parent
BUNDLES = ["editors", "guest-minimal", "guest-systemd", "kernel", "os-core", "os-core-update", "site"]
INSTALLED = "kernel,os-core-update,site"
PASSWORD = "root"
FIRST, SECOND, UNHEALTHY, DEAD = 10, 20, 30, 40

BUILDER = """\
certificate: Swupd_Root.pem
key: private.pem
content_url: {url}
version_url: {url}
update_bundle: os-core-update
bundles: [{bundles}]
stateless: convert
updater: true
root_password: root.hash
source:
  type: apt
  suites: [bookworm]
  components: [main]
  path_excludes: [/usr/share/doc/*, /usr/share/man/*, /usr/share/locale/*, /usr/share/info/*]
os_release:
  NAME: Example OS
  ID: example
  PRETTY_NAME: Example OS
"""
SITE = """\
# [TITLE]: site
# [DESCRIPTION]: files that differ between the versions
# [STATUS]: Active
# [CAPABILITIES]: Shows what an update does
# [MAINTAINER]: The project
include(os-core)
content(site)
"""
NOISE = random.Random(SECOND).randbytes(400_000).hex()
"""What takes a while to download."""
_FILES = {
    FIRST: {"usr/share/site/page": "ten\n" * 1000, "etc/site.conf": "color = red\n", "etc/site.d/old": "old\n"},
    SECOND: {
        "usr/share/site/page": "ten\n" * 999 + "twenty\n",
        "usr/share/site/new": "new\n",
        "usr/share/site/noise": NOISE,
        "etc/site.conf": "color = blue\n",
        "etc/site.d/new": "new\n",
    },
    UNHEALTHY: {
        "usr/share/site/page": "thirty\n",
        "usr/lib/swupd/health.d/site": "#!/bin/sh\necho the site is down\nexit 1\n",
        "usr/lib/kernel/tries": "1\n",
    },
    DEAD: {"usr/share/site/page": "forty\n", "usr/lib/kernel/tries": "2\n"},
}
"""What the bundle site has in each of them."""


class BootMix:
    """A workspace, and the URL at which guests find what it publishes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.url = ""

    def mixer(self, *arguments: str | Path) -> str:
        argv = [str(PROGRAMS / "mixer"), "--workspace", str(self.path), *map(str, arguments)]
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{argv}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    @contextmanager
    def serving(self, port: int = 0) -> Iterator[None]:
        """Serve it on the loopback address, which guests reach as 10.0.2.2."""
        argv = [str(PROGRAMS / "mixer"), "--workspace", str(self.path), "serve", "--port", str(port)]
        with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as server:
            try:
                assert server.stdout is not None
                for line in server.stdout:
                    if found := re.search(r"http://127\.0\.0\.1:(\d+)(\S*)", line):
                        self.url = f"http://10.0.2.2:{found[1]}{found[2].rstrip('/')}"
                        break
                else:
                    raise AssertionError("the server has ended")
                yield
            finally:
                server.terminate()
                server.wait(10)

    def clear(self) -> None:
        """Forget what was built before, but for the caches and the time stamps of the versions."""
        shutil.rmtree(self.path / "update/www", ignore_errors=True)
        for name in ("mixversion", "mixer.state", "mixbundles", "builder.yaml", "update/image/LAST_VER"):
            (self.path / name).unlink(missing_ok=True)

    def prepare(self) -> None:
        """A workspace without any version."""
        self.path.mkdir(parents=True, exist_ok=True)
        (self.path / "root.hash").write_text(subprocess.run(
            ["openssl", "passwd", "-6", PASSWORD], capture_output=True, text=True, check=True
        ).stdout)  # fmt: skip
        self.mixer("init", "--mix-version", str(FIRST), "--bundles", REPOSITORY / "bundles")
        (self.path / "local-bundles").mkdir(exist_ok=True)
        (self.path / "local-bundles/site").write_text(SITE)
        (self.path / "mixbundles").write_text("".join(f"{name}\n" for name in BUNDLES))
        text = BUILDER.format(url="http://updates.example.org/update", bundles=REPOSITORY / "bundles")
        (self.path / "builder.yaml").write_text(text)

    def build(self) -> None:
        """All four versions, signed, with packs from the first to the second."""
        for version in (FIRST, SECOND, UNHEALTHY, DEAD):
            self.publish(version)

    def publish(self, version: int) -> None:
        """Build one version; they come in their order."""
        if version != FIRST:
            self.mixer("versions", "update", "--mix-version", str(version))
        self._site(_FILES[version])
        if version == DEAD:
            self.mixer("build", "bundles")
            (self.path / f"update/image/{DEAD}/full/usr/lib/systemd/systemd").unlink()
            self.mixer("build", "update")
        else:
            self.mixer("build", "all")
        if version == SECOND:
            self.mixer("build", "delta-packs")

    def _site(self, files: dict[str, str]) -> None:
        top = self.path / "site"
        shutil.rmtree(top, ignore_errors=True)
        for name, text in files.items():
            path = top / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
            if "health.d" in name:
                path.chmod(0o755)
        for path in [top, *top.rglob("*")]:
            os.chown(path, 0, 0)

    def image(self, path: Path, *options: str) -> None:
        """A disk with the first version."""
        self.mixer(
            "build", "image", "--type", "disk", "--version", str(FIRST), "--bundles", INSTALLED, "-o", path, *options
        )
