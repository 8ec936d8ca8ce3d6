from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from mixer import guestfiles
from mixer.errors import BuildError

BUSYBOX = shutil.which("busybox")
needs_busybox = pytest.mark.skipif(BUSYBOX is None, reason="needs busybox-static")
REPOSITORY = Path(__file__).parents[3]
OSFILES = REPOSITORY / "mixer/osfiles"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    (root / "usr/bin").mkdir(parents=True)
    (root / "bin").symlink_to("usr/bin")
    if BUSYBOX:
        shutil.copy(BUSYBOX, root / "usr/bin/busybox")
    return root


@needs_busybox
def test_every_program_of_busybox_has_a_link_that_leads_to_it(root: Path) -> None:
    names = guestfiles.ship(root, guestfiles.MINIMAL)
    links = [root / name[1:] for name in names if name.startswith(f"{guestfiles.PROGRAMS}/")]
    assert {link.name for link in links} >= {"sh", "ls", "mount", "reboot", "["}
    assert {os.path.realpath(link) for link in links} == {str(root / "usr/bin/busybox")}


@needs_busybox
def test_all_of_the_least_guest_is_in_places_of_its_own(root: Path) -> None:
    names = guestfiles.ship(root, guestfiles.MINIMAL)
    assert [name for name in names if not name.startswith(("/usr/lib/guest/", "/usr/lib/swupd/standalone/"))] == []
    assert (root / "usr/lib/swupd/standalone/guest-minimal").read_bytes() == b""


def test_without_busybox_there_is_no_least_guest(root: Path) -> None:
    (root / "usr/bin/busybox").unlink(missing_ok=True)
    with pytest.raises(BuildError, match="the root has no /bin/busybox") as caught:
        guestfiles.ship(root, guestfiles.MINIMAL)
    assert "busybox-static" in caught.value.hint


def test_a_program_that_is_no_busybox_is_an_error(root: Path) -> None:
    program = root / "usr/bin/busybox"
    program.unlink(missing_ok=True)
    program.write_text("#!/bin/sh\nexit 3\n")
    program.chmod(0o755)
    with pytest.raises(BuildError, match="does not tell which programs it has"):
        guestfiles.ship(root, guestfiles.MINIMAL)


def test_units_of_a_guest_with_systemd_are_not_enabled(root: Path) -> None:
    names = guestfiles.ship(root, guestfiles.SYSTEMD)
    assert names == [
        "/usr/lib/systemd/system/guest-command.service",
        "/usr/lib/systemd/system/guest.target",
    ]


@pytest.mark.parametrize("bundle", sorted(guestfiles.BUNDLES))
def test_the_project_ships_the_bundle(bundle: str) -> None:
    assert f"[TITLE]: {bundle}\n" in (REPOSITORY / "bundles" / bundle).read_text()


@needs_busybox
@pytest.mark.parametrize("script", ["guest-minimal/usr/lib/guest/init", "guest-initrd/init"])
def test_a_shell_reads_the_script(script: str) -> None:
    done = subprocess.run([str(BUSYBOX), "sh", "-n", OSFILES / script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@needs_busybox
def test_every_program_that_the_init_uses_is_one_of_busybox() -> None:
    known = set(subprocess.run([str(BUSYBOX), "--list"], capture_output=True, text=True, check=True).stdout.split())
    text = (OSFILES / "guest-minimal/usr/lib/guest/init").read_text()
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    code = re.sub(r'"[^"]*"', "", "\n".join(lines))
    first = set(re.findall(r"(?:^|\|\| |&& )\s*([a-z]+)\b(?![=()])", code, re.MULTILINE))
    keywords = {"umask", "export", "provide", "for", "done", "do", "if", "then", "else", "fi", "return", "echo"}
    assert first - keywords <= known
    assert first >= {"mount", "grep", "reboot", "sync"}
