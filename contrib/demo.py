"""The whole way once: build two versions of the shipped mix, publish them, install one, update to the other, pull the
plug in the middle of an update, roll back, repair.

Usage: demo.py DIRECTORY (root; about 2.5 GB of space). Everything happens below DIRECTORY and on the loopback address,
through the same commands that a person would type, which are shown as they run. A second run starts from an empty
published tree and an empty system again, but keeps the cache of installed roots and the content store.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).resolve().parent
PROGRAMS = Path(sys.executable).parent
START_SECONDS = 20
"""How long the web server may take to answer."""

FIRST = [
    "os-core",
    "os-core-update",
    "kernel",
    "openssh-server",
    "web-server",
    "editors",
    "admin-tools",
    "legacy-network",
]
INSTALLED = "openssh-server,legacy-network"
BUILDER = """\
# Written by the demo; `mixer init` writes one in which every key is explained.
certificate: Swupd_Root.pem
key: private.pem
content_url: {url}
version_url: {url}
update_bundle: os-core-update
bundles: [{bundles}]
stateless: convert
updater: true
source:
  type: apt
  suites: [{suites}]
  components: [main]
os_release:
  NAME: Example OS
  ID: example
  PRETTY_NAME: Example OS
"""


@dataclass
class Step:
    """A row of the closing table."""

    name: str
    seconds: float
    downloaded: str = ""
    note: str = ""


@dataclass
class Demo:
    directory: Path
    steps: list[Step] = field(default_factory=list)

    @property
    def mix(self) -> Path:
        return self.directory / "mix"

    @property
    def root(self) -> Path:
        return self.directory / "root"

    def mixer(self, *arguments: str, name: str = "", note: str = "") -> None:
        started = time.monotonic()
        run(["mixer", "--workspace", str(self.mix), *arguments])
        if name:
            self.steps.append(Step(name, time.monotonic() - started, note=note))

    @property
    def state(self) -> Path:
        return self.directory / "state"

    def swupd_argv(self, url: str, *arguments: str) -> list[str]:
        options = ["--path", str(self.root), "--statedir", str(self.state), "--url", url]
        return ["swupd", *arguments, *options, "--certpath", str(self.mix / "Swupd_Root.pem"), "--allow-insecure-http"]

    def swupd(self, url: str, *arguments: str, name: str = "", expect: int = 0, note: str = "") -> str:
        started = time.monotonic()
        text = run(self.swupd_argv(url, *arguments), expect=expect)
        if name:
            found = re.search(r"downloaded: (.+?) in \d+ request", text)
            self.steps.append(Step(name, time.monotonic() - started, found[1] if found else "", note))
        return text

    def clear(self) -> None:
        """Forget what an earlier run published and installed; keep what may be used again.

        update/image stays because it holds the time stamps of the versions: the same version with the same stamp is
        the same bytes, which the cache has.
        """
        for path in (self.root, self.state, self.mix / "update/www", self.mix / "local-bundles"):
            shutil.rmtree(path, ignore_errors=True)
        for name in ("mixversion", "mixer.state", "mixbundles", "builder.yaml", "update/image/LAST_VER"):
            (self.mix / name).unlink(missing_ok=True)

    def interrupted_update(self, url: str) -> None:
        """An update that is killed when it has begun to change the system."""
        argv = self.swupd_argv(url, "update")
        print("$", " ".join(argv), "   # killed", flush=True)
        with subprocess.Popen([str(PROGRAMS / argv[0]), *argv[1:]], stdout=subprocess.DEVNULL) as process:
            while process.poll() is None and not (self.state / "journal").exists():
                time.sleep(0.001)
            process.kill()

    def configure(self, url: str, suites: str) -> None:
        (self.mix / "builder.yaml").write_text(BUILDER.format(url=url, bundles=HERE.parent / "bundles", suites=suites))


def say(text: str) -> None:
    print(f"\n== {text}", flush=True)


def run(argv: list[str], expect: int = 0) -> str:
    """Run one of our commands, passing on what it prints line by line; its output."""
    print("$", " ".join(argv), flush=True)
    lines = []
    with subprocess.Popen(
        [str(PROGRAMS / argv[0]), *argv[1:]], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            print("  " + line.rstrip("\n"), flush=True)
            lines.append(line)
    if process.returncode != expect:
        sys.exit(f"demo: failed: {argv[0]} {argv[1]} ended with status {process.returncode}, not {expect}")
    return "".join(lines)


@contextmanager
def serving(mix: Path) -> Iterator[str]:
    """`mixer serve` in a process of its own; its URL."""
    server = subprocess.Popen(
        [str(PROGRAMS / "mixer"), "--workspace", str(mix), "serve", "--port", "0"], stdout=subprocess.PIPE, text=True
    )
    try:
        assert server.stdout is not None
        deadline = time.monotonic() + START_SECONDS
        for line in server.stdout:
            if found := re.search(r"http://127\.0\.0\.1:\d+", line):
                yield found[0]
                break
            if time.monotonic() > deadline:
                break
        else:
            sys.exit("demo: failed: the web server did not start")
    finally:
        server.send_signal(signal.SIGINT)
        server.wait(10)


def size(path: Path) -> int:
    return sum(p.lstat().st_size for p in path.rglob("*") if p.is_file() and not p.is_symlink())


def manifest_files(path: Path) -> int:
    return int(re.search(r"^filecount:\t(\d+)$", path.read_text(errors="replace"), re.MULTILINE)[1])  # type: ignore[index]


def table(demo: Demo) -> None:
    www = demo.mix / "update/www"
    print(f"\n{'version':10}{'bundles':>9}{'files':>9}{'bytes published':>18}")
    for version in ("10", "20"):
        bundles, files = manifest_files(www / version / "Manifest.MoM"), manifest_files(www / version / "Manifest.full")
        print(f"{version:10}{bundles:9}{files:9}{size(www / version):18,}")
    print(f"\n{'step':24}{'seconds':>9}{'downloaded':>14}")
    for step in demo.steps:
        print(f"{step.name:24}{step.seconds:9.1f}{step.downloaded:>14}  {step.note}".rstrip())


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit("usage: demo.py DIRECTORY")
    if os.geteuid() != 0:
        sys.exit("demo: must be run as root (file owners are part of an OS)")
    demo = Demo(Path(sys.argv[1]).resolve())
    started = time.monotonic()
    demo.mix.mkdir(parents=True, exist_ok=True)
    demo.clear()

    say("a workspace with the shipped bundles; version 10 from bookworm main as first released")
    demo.mixer("init", "--mix-version", "10", "--bundles", str(HERE.parent / "bundles"))
    demo.configure("http://updates.example.org/update", "bookworm")
    (demo.mix / "mixbundles").write_text("".join(f"{name}\n" for name in sorted(FIRST)))
    demo.mixer("bundle", "list", "--tree")
    demo.mixer("build", "all", name="build 10", note="bookworm main")

    with serving(demo.mix) as url:
        say(f"installing version 10 from {url}")
        demo.root.mkdir()
        demo.swupd(url, "os-install", "--bundles", INSTALLED, name="os-install 10", note=INSTALLED)
        demo.swupd(url, "bundle-add", "web-server", name="bundle-add", note="web-server")
        demo.swupd(url, "bundle-list")
        demo.swupd(url, "bundle-info", "editors", "--dependencies")
        demo.swupd(url, "search-file", "bin/less")

        say("version 20: security and other updates, one bundle more, one less")
        demo.configure("http://updates.example.org/update", "bookworm, bookworm-updates, bookworm-security")
        demo.mixer("versions", "update", "--mix-version", "20")
        demo.mixer("bundle", "add", "network-tools")
        demo.mixer("bundle", "remove", "legacy-network")
        demo.mixer("build", "all", name="build 20", note="+ updates, security; + network-tools - legacy-network")
        demo.mixer("build", "delta-packs", name="delta packs", note="from 10 to 20")
        demo.mixer("build", "delta-manifests")
        demo.mixer("report", "delta", "--limit", "5")
        demo.mixer("check", "20", name="check 20")

        say("updating the installed system")
        demo.swupd(url, "check-update")
        demo.swupd(url, "update", "--dry-run")
        demo.swupd(url, "update", name="update 10 -> 20")
        demo.swupd(url, "diagnose", name="diagnose", note="clean")

        say("going back, and pulling the plug in the middle of the next update")
        demo.swupd(url, "rollback", name="rollback 20 -> 10")
        demo.swupd(url, "diagnose")
        demo.interrupted_update(url)
        demo.swupd(url, "info")
        demo.swupd(url, "update")
        demo.swupd(url, "diagnose")
        demo.swupd(url, "history")

        say("damaging one file and repairing it")
        damaged = demo.root / "usr/sbin/nginx"
        damaged.write_bytes(damaged.read_bytes()[:-1] + b"!")
        demo.swupd(url, "diagnose", expect=1)
        demo.swupd(url, "repair", name="repair", note="one damaged file")
        demo.swupd(url, "bundle-remove", "web-server", name="bundle-remove", note="web-server")
        demo.swupd(url, "diagnose")
        demo.swupd(url, "info")

    table(demo)
    print(f"\ndemo: ok ({time.monotonic() - started:.0f} s)")


if __name__ == "__main__":
    main()
