"""Guests that really boot, without KVM: what `mixer run-guest` passes in and out, and how guests end.

The images are made by hand of the busybox of this machine and what the builder adds to guest-minimal; the kernel is
that of the shipped mix.
"""

from __future__ import annotations

import hashlib
import json
import os
import pty
import select
import shutil
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mixer import guestfiles
from mixer.images import cpio, dax
from tests.system.bootmix import FIRST, BootMix

MIXER = Path(sys.executable).parent / "mixer"
PROGRAMS = ("qemu-system-x86_64", "busybox", "mkfs.erofs", "mke2fs", "setpriv")
SECONDS = 240
"""For a guest that is up in three seconds on an idle machine."""
MIB = 1 << 20

pytestmark = [
    pytest.mark.system,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root for a share and for the mix"),
    pytest.mark.skipif(not all(map(shutil.which, PROGRAMS)), reason=f"needs {', '.join(PROGRAMS)}"),
]


class Guests:
    """Images of one small root, by type, and a kernel."""

    def __init__(self, path: Path, kernel: Path) -> None:
        self.path = path
        self.kernel = kernel
        self._root = path / "root"
        for name in ("dev", "etc", "home", "mnt", "proc", "root", "run", "sys", "tmp", "usr/bin", "var"):
            (self._root / name).mkdir(parents=True)
        for name in ("bin", "sbin"):
            (self._root / name).symlink_to("usr/bin")
        shutil.copy(str(shutil.which("busybox")), self._root / "usr/bin/busybox")
        guestfiles.ship(self._root, guestfiles.MINIMAL)
        self.erofs = self._image("guest-erofs", self._erofs())
        self.ext4 = self._image("guest-ext4", self._ext4())
        self.dax = self._image("guest-erofs", self._with_header(self.erofs), dax=True)
        self.initrd = self._image("initrd", self._initrd())

    def run(
        self, image: Path, *words: str | Path, options: tuple[str, ...] = (), stdin: bytes = b""
    ) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [*self.argv(image, *options), "--", *words], input=stdin, capture_output=True, check=False, timeout=SECONDS
        )

    def argv(self, image: Path, *options: str) -> list[str | Path]:
        return [MIXER, "run-guest", image, "--kernel", self.kernel, "--no-kvm", *options]

    def output(self, image: Path, *words: str, options: tuple[str, ...] = ()) -> str:
        done = self.run(image, *words, options=options)
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout.decode()

    def _image(self, kind: str, path: Path, *, dax: bool = False) -> Path:
        facts = {"type": kind, "bundles": ["guest-minimal"], "init": "/usr/lib/guest/init", "dax": dax}
        Path(f"{path}.json").write_text(json.dumps(facts))
        return path

    def _erofs(self) -> Path:
        path = self.path / "erofs.img"
        subprocess.run(["mkfs.erofs", "--quiet", "-T0", "-Enoinline_data", path, self._root], check=True)
        os.truncate(path, -(-path.stat().st_size // (2 * MIB)) * 2 * MIB)
        return path

    def _ext4(self) -> Path:
        path = self.path / "ext4.img"
        path.write_bytes(b"")
        os.truncate(path, 16 * MIB)
        subprocess.run(["mke2fs", "-q", "-F", "-t", "ext4", "-b", "4096", "-d", self._root, path], check=True)
        return path

    def _with_header(self, plain: Path) -> Path:
        path = self.path / "dax.img"
        layout = dax.layout([plain.stat().st_size])
        with path.open("w+b") as file:
            file.truncate(layout.size)
            dax.write_header(file, layout)
            file.seek(layout.partitions[0].offset)
            file.write(plain.read_bytes())
        return path

    def _initrd(self) -> Path:
        members = []
        for path in sorted(self._root.rglob("*")):
            name, status = str(path.relative_to(self._root)), path.lstat()
            if stat.S_ISLNK(status.st_mode):
                members.append(cpio.link(name, os.readlink(path)))
            elif stat.S_ISDIR(status.st_mode):
                members.append(cpio.directory(name))
            else:
                members.append(cpio.file(name, path.read_bytes(), stat.S_IMODE(status.st_mode)))
        path = self.path / "initrd.img"
        path.write_bytes(cpio.write([*members, cpio.link("init", "/usr/lib/guest/init")]))
        return path


@pytest.fixture(scope="module")
def guests(boot_mix: BootMix, tmp_path_factory: pytest.TempPathFactory) -> Guests:
    path = tmp_path_factory.mktemp("guests")
    kernel = path / "kernel"
    boot_mix.mixer(
        *("build", "image", "--type", "kernel", "--version", str(FIRST), "--bundles", "kernel", "-o", kernel)
    )
    return Guests(path, kernel)


def test_bytes_and_the_exit_status_pass_unchanged(guests: Guests) -> None:
    data = bytes(range(256)) * 500
    script = 'cat; printf "%s" "$1" >&2; exit 42'
    done = guests.run(guests.erofs, "sh", "-c", script, "sh", "it's $HOME\n\t\x01", stdin=data)
    assert done.returncode == 42
    assert done.stdout == data
    assert done.stderr == b"it's $HOME\n\t\x01"


@pytest.mark.parametrize(
    ("image", "options", "expected"),
    [
        ("erofs", (), ("/dev/pmem0", "erofs", True)),
        ("ext4", (), ("/dev/pmem0", "ext4", True)),
        ("dax", (), ("/dev/pmem0p1", "erofs", True)),
        ("dax", ("--no-dax",), ("/dev/vda1", "erofs", False)),
        ("ext4", ("--machine", "microvm"), ("/dev/vda", "ext4", False)),
    ],
)
def test_the_root_is_the_image(
    guests: Guests, image: str, options: tuple[str, ...], expected: tuple[str, str, bool]
) -> None:
    path: Path = getattr(guests, image)
    before = hashlib.sha256(path.read_bytes()).digest()
    mounts = guests.output(path, "sh", "-c", "echo x >/var/x && echo x >/etc/x && cat /proc/mounts", options=options)
    device, _, system, flags = next(line for line in mounts.splitlines() if line.split()[1] == "/").split()[:4]
    assert (device, system, "dax=always" in flags) == expected
    assert "ro" in flags.split(",")
    assert hashlib.sha256(path.read_bytes()).digest() == before


def test_an_initrd_is_a_root_as_well(guests: Guests) -> None:
    assert "rootfs / rootfs" in guests.output(guests.initrd, "cat", "/proc/mounts")


def test_little_memory_is_used_and_user_space_comes_soon(guests: Guests) -> None:
    seconds, *lines = guests.output(guests.dax, "cat", "/proc/uptime", "/proc/meminfo").splitlines()
    memory = {line.split(":")[0]: int(line.split()[1]) >> 10 for line in lines}
    used = memory["MemTotal"] - memory["MemAvailable"]
    print(f"the command began after {seconds.split()[0]} s; {used} MiB of {memory['MemTotal']} are in use")
    assert used <= 40


def test_input_that_nobody_reads_is_no_matter(guests: Guests) -> None:
    assert guests.run(guests.erofs, "true", stdin=bytes(4 * MIB)).returncode == 0


def test_much_output_arrives_whole(guests: Guests) -> None:
    done = guests.run(guests.erofs, "sh", "-c", "head -c 3000000 /dev/zero; head -c 1000000 /dev/zero >&2")
    assert (len(done.stdout), len(done.stderr)) == (3_000_000, 1_000_000)


def test_a_guest_ends_when_its_time_is_over(guests: Guests) -> None:
    done = guests.run(guests.erofs, "sleep", "1000", options=("--timeout", "8"))
    assert done.returncode == 124
    assert b"within 8 seconds" in done.stderr


def test_where_kvm_does_not_work_the_processor_is_emulated(guests: Guests) -> None:
    script = (
        "import sys; from pathlib import Path;"
        "from mixer.guest.run import Wish, run; from swupd.report import TextReport;"
        "image, kernel = map(Path, sys.argv[1:]);"
        "sys.exit(run(Wish(image, kernel, ['cat'], 'q35', 256 << 20, 1, True, True, None, None), TextReport()))"
    )
    # A device that is none: QEMU refuses it at once.
    hidden = '[ ! -e /dev/kvm ] || mount --bind /dev/null /dev/kvm; exec "$@"'
    argv = ["unshare", "--mount", "sh", "-c", hidden, "sh", sys.executable, "-c", script, guests.erofs, guests.kernel]

    done = subprocess.run(argv, input=b"kept", capture_output=True, check=False, timeout=SECONDS)

    assert (done.returncode, done.stdout) == (0, b"kept")
    assert b"Warning: KVM does not work here" in done.stderr


def test_a_kernel_that_fails_is_told_with_its_last_words(guests: Guests) -> None:
    done = guests.run(guests.erofs, "sh", "-c", "echo c >/proc/sysrq-trigger")
    assert done.returncode == 1
    assert b"ended without an exit status" in done.stderr
    assert b"Kernel panic" in done.stderr


def test_an_image_that_cannot_be_mounted_is_told(guests: Guests, tmp_path: Path) -> None:
    broken = tmp_path / "broken.img"
    broken.write_bytes(bytes(2 * MIB))
    shutil.copy(f"{guests.erofs}.json", f"{broken}.json")
    done = guests.run(broken, "true")
    assert done.returncode == 1
    assert b"GUEST-FAIL: cannot mount /dev/pmem0 as erofs" in done.stderr


@pytest.mark.skipif(not Path("/usr/lib/qemu/virtiofsd").exists(), reason="needs virtiofsd")
def test_a_directory_is_shared_in_both_directions(guests: Guests, tmp_path: Path) -> None:
    (tmp_path / "in").write_text("from the host")
    script = "cat /mnt/in && echo from the guest >/mnt/out"
    assert guests.output(guests.erofs, "sh", "-c", script, options=("--share", str(tmp_path))) == "from the host"
    assert (tmp_path / "out").read_text() == "from the guest\n"


def children(pid: int) -> list[int]:
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(child) for child in found]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_no_machine_outlives_its_mixer(guests: Guests, number: signal.Signals) -> None:
    words = [*guests.argv(guests.erofs), "--", "sh", "-c", "echo up; sleep 1000"]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as mixer:
        assert mixer.stdout is not None
        assert mixer.stdout.readline() == b"up\n"
        machines = children(mixer.pid)
        assert machines
        mixer.send_signal(number)
        status = mixer.wait(30)
    assert status == (130 if number == signal.SIGINT else -number)
    end = time.monotonic() + 30
    while any(Path(f"/proc/{pid}").exists() for pid in machines):
        assert time.monotonic() < end
        time.sleep(0.05)


def test_without_a_command_a_person_gets_a_shell(guests: Guests) -> None:
    words = [os.fspath(word) for word in guests.argv(guests.erofs)]
    pid, terminal = pty.fork()
    if pid == 0:
        os.environ["TERM"] = "vt220"
        os.execv(words[0], words)
    shown = b""

    def expect(text: bytes) -> None:
        nonlocal shown
        end = time.monotonic() + SECONDS
        while text not in shown:
            assert time.monotonic() < end, shown
            if select.select([terminal], [], [], 1)[0]:
                shown += os.read(terminal, 1000)
        shown = shown[shown.index(text) + len(text) :]

    try:
        expect(b"# ")
        os.write(terminal, b"stty size; echo $TERM; tty\n")
        expect(b"24 80\r\nvt220\r\n/dev/hvc0\r\n")
        # Between two commands of a line nobody is in the foreground whom ^C could interrupt:
        # the command itself says when it is.
        os.write(terminal, b"""sh -c 'echo sleep""ing; exec sleep 1000'\n""")
        expect(b"sleeping\r\n")
        os.write(terminal, b"\x03")
        expect(b"# ")
        os.write(terminal, b"exit 5\n")
        expect(b"exit 5")
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 5
    finally:
        os.close(terminal)
