"""A machine with a real disk: GPT, EFI system partition and btrfs on a loop device, mounted as our initrd does it.

The fixture `machine_disk` (tests/unit/swupd/conftest.py) gives one with version 10 of a small published stateless OS
(os-core and kernel), running and blessed. Commands are run on it in this process with `--path`:

    def test_something(machine_disk: Any) -> None:
        machine_disk.publish(20, machine_disk.content(20))       # or content(20, kernel="6.2"), and change its bundles
        machine_disk.run("update", "--next-boot")                # out and err have what it printed; status=N
        assert machine_disk.entries() == ["os-10.conf", "os-20+3.conf"]
        assert machine_disk.boot() == "20"                       # what the loader and the initrd do; "10+1" to force
        machine_disk.bless()                                     # what swupd-boot-complete.service does

`root` is the running system, `top()` and `esp()` give the mounted top level and boot partition. A kernel without FAT
gets ext2 for the boot partition, which tells nothing about FAT but all the rest.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from swupd.cli import main
from swupd.formats import bootentry
from swupd.formats.bootentry import ENTRIES, KERNELS, BootEntry
from swupd.fs import Directory
from swupd.nextboot import place, record
from swupd.nextboot.bootentries import BootEntries, sha256_of
from swupd.nextboot.record import Record
from tests.unit.swupd.commands.conftest import Bundle, Commands, Publisher

HAS_FAT = "\tvfat\n" in Path("/proc/filesystems").read_text()
ESP_TYPE = "C12A7328-F81F-11D2-BA4B-00A0C93EC93B"
DISK_MB = 320
MEMORY = Path("/dev/shm")
"""Disks are there, because whatever is unmounted is synced."""
DIRECTORIES = ("dev", "etc", "home", "media", "mnt", "opt", "proc", "root", "run", "srv", "sys", "tmp", "var")
SHARED = ("var", "home", "root", "srv", "opt")
OVERLAY = "index=off,metacopy=off,redirect_dir=off,xino=off,nfs_export=off"
PASSWD = "root:x:0:0::/root:/bin/bash\n"


def stateless(version: int, *, kernel: str = "6.1") -> dict[str, Bundle]:
    """The bundles of a version: os-core, kernel, editors (not installed). All have a file that names the version."""
    release = f'NAME=Test\nPRETTY_NAME="Test OS"\nVERSION_ID={version}\n'
    return {
        "os-core": Bundle(
            {
                "/usr/lib/os-release": release,
                "/usr/bin/core": f"core {version}",
                "/usr/bin/constant": "constant",
                "/usr/sbin/init": "init",
                "/usr/lib/systemd/systemd": "systemd",
                "/usr/lib/kernel/cmdline": f"console=ttyS0 version={version}\n",
                "/usr/share/factory/etc/passwd": PASSWD,
                "/usr/share/factory/etc/group": "root:x:0:\n",
                "/usr/share/factory/etc/issue": f"Test OS {version}\n",
                "/usr/share/factory/etc/hosts": "127.0.0.1 localhost\n",
                "/usr/lib/sysusers.d/00-mix.conf": "g root 0\nu root 0 - /root /bin/bash\n",
                **dict.fromkeys(f"/{name}" for name in DIRECTORIES),
            },
            executable=("/usr/sbin/init", "/usr/bin/core"),
        ),
        "kernel": Bundle(
            {
                f"/boot/vmlinuz-{kernel}": f"kernel {kernel}" + "k" * 200_000,
                f"/boot/initrd-{kernel}": f"initrd {kernel} of {version}" + "i" * 100_000,
                f"/usr/lib/modules/{kernel}/modules.dep": f"modules of {kernel}",
            },
            ["os-core"],
        ),
        "editors": Bundle({"/usr/bin/edit": f"edit {version}"}, ["os-core"]),
    }


class MachineDisk(Commands):
    """One disk, and what runs from it."""

    def __init__(self, directory: Path, image: Path, publisher: Publisher, capsys: pytest.CaptureFixture[str]) -> None:
        root = directory / "machine"
        super().__init__(root, root / "var/lib/swupd", publisher.url, capsys)
        self.publisher = publisher
        self.running = ""
        self.kind, _ = place.BOOT_MOUNT
        self._directory = directory
        self._image = image
        self.device = ""

    # -- the disk

    def make(self, *, esp_mb: int = 40) -> None:
        """A disk with two empty file systems."""
        with self._image.open("wb") as file:
            file.truncate(DISK_MB << 20)
        table = f"label: gpt\nsize={esp_mb}MiB,type={ESP_TYPE},name=ESP\ntype=linux,name=os\n"
        _call("sfdisk", "--quiet", str(self._image), text=table)
        self.device = _call("losetup", "--find", "--show", str(self._image)).strip()
        # The kernel need not know GPT; and a device remembers the partitions of its former file.
        with suppress(subprocess.CalledProcessError):
            _call("partx", "--delete", self.device)
        _call("partx", "--add", self.device)
        if self.kind == "vfat":
            _call("mkfs.vfat", "-F", "32", "-n", "ESP", self.device + "p1")
        else:
            _call(f"mkfs.{self.kind}", "-q", "-m", "0", self.device + "p1")
        # Mixed, as is usual for small ones: a full one gets its room back at once.
        _call("mkfs.btrfs", "-q", "-M", "-m", "single", "-d", "single", "-L", "os", self.btrfs)
        with self.top(), self.esp():
            pass

    def install(self) -> None:
        """Version 10, as the image builder lays it out."""
        import btrfsutil

        with self.top() as top, self.esp() as esp:
            (top / "@").mkdir()
            for name in ("@state", "@state/var", "@state/home", "@/10"):
                btrfsutil.create_subvolume(str(top / name))
            state = top / "@state"
            for name in ("etc/upper", "etc/work", "root", "srv", "opt", "boot/good", "var/lib"):
                (state / name).mkdir(parents=True)
            for name in ("etc", "root"):
                (state / name).chmod(0o700)
            argv = ["os-install", "--path", str(top / "@/10"), "--statedir", str(state / "var/lib/swupd")]
            argv += ["--url", self.publisher.url, "--nosigcheck", "--ignore-time", "--no-scripts"]
            assert main([*argv, "--version", "10", "--bundles", "kernel", "--skip-diskspace-check"]) == 0
            self._capsys.readouterr()
            for directory in (ENTRIES, KERNELS, "EFI/BOOT"):
                (esp / directory).mkdir(parents=True)
            (esp / "loader/loader.conf").write_text("timeout 0\neditor no\n")
            with Directory.open(esp) as partition:
                entries = BootEntries(partition)
                entries.add(self._install_kernel(entries, top / "@/10"))
            btrfsutil.set_subvolume_read_only(str(top / "@/10"), True)
            (state / "boot/good/10").touch()
        assert self.boot() == "10"

    def _install_kernel(self, entries: BootEntries, tree: Path) -> BootEntry:
        kernel, initrd = (next(tree.glob(f"boot/{kind}-*")) for kind in ("vmlinuz", "initrd"))
        names = bootentry.kernel_name(sha256_of(kernel)), bootentry.initrd_name(sha256_of(initrd))
        entries.add_kernel(kernel, names[0])
        entries.add_kernel(initrd, names[1])
        base = (tree / "usr/lib/kernel/cmdline").read_text()
        return BootEntry("10", "Test OS 10", 1, *names, bootentry.kernel_options(self.uuid, "10", base))

    @property
    def btrfs(self) -> str:
        return self.device + "p2"

    @property
    def uuid(self) -> str:
        return _call("blkid", "--probe", "-o", "value", "-s", "UUID", self.btrfs).strip()

    @contextmanager
    def top(self) -> Iterator[Path]:
        """The top level of the btrfs."""
        with self._mounted(self.btrfs, "top", "btrfs", "subvolid=5") as path:
            yield path

    @contextmanager
    def esp(self) -> Iterator[Path]:
        """The boot partition."""
        with self._mounted(self.device + "p1", "esp", *place.BOOT_MOUNT) as path:
            yield path

    @contextmanager
    def _mounted(self, device: str, name: str, kind: str, options: str) -> Iterator[Path]:
        where = self._directory / name
        where.mkdir(exist_ok=True)
        _call("mount", "-t", kind, "-o", options, device, str(where))
        try:
            yield where
        finally:
            _unmount(where)

    def entries(self) -> list[str]:
        """The file names of all entries."""
        with self.esp() as esp:
            return sorted(os.listdir(esp / ENTRIES))

    def entry(self, name: str) -> BootEntry:
        """The entry of a deployment."""
        with self.esp() as esp, Directory.open(esp) as partition:
            return next(entry for entry in BootEntries(partition).read() if entry.name == name)

    def kernels(self) -> list[str]:
        with self.esp() as esp:
            return sorted(os.listdir(esp / KERNELS))

    def deployments(self) -> list[str]:
        """The names of all that lies beside the deployments."""
        with self.top() as top:
            return sorted(os.listdir(top / "@"))

    # -- what firmware, loader and initrd do

    def boot(self, file_name: str = "") -> str:
        """End the running system hard and start what the loader chooses, or the entry `file_name` ("os-10.conf").

        Returns the name of the deployment. The kernel and the subvolume of the entry have to be there, whole.
        """
        self.halt()
        with self.esp() as esp:
            directory = esp / ENTRIES
            with Directory.open(esp) as partition:
                found = BootEntries(partition).read()
            entry = next(e for e in found if not file_name or e.file_name == file_name)
            for kernel in (entry.kernel, entry.initrd):
                assert kernel in bootentry.kernel_names(sha256_of(esp / KERNELS / kernel))
            if entry.tries_left:
                done = f"os-{entry.name}+{entry.tries_left - 1}-{entry.tries_done + 1}.conf"
                (directory / entry.file_name).rename(directory / done)
        subvolume = entry.options.partition("rootflags=subvol=")[2].split()[0]
        self._start(entry.name, subvolume)
        return entry.name

    def _start(self, name: str, subvolume: str) -> None:
        root = self.root
        root.mkdir(exist_ok=True)
        _call("mount", "-t", "btrfs", "-o", f"ro,subvol={subvolume}", self.btrfs, str(root))
        _call("mount", "-t", "tmpfs", "tmpfs", str(root / "run"))
        state = root / "run/state"
        state.mkdir()
        _call("mount", "-t", "btrfs", "-o", "subvol=@state", self.btrfs, str(state))
        layers = f"lowerdir={root}/usr/share/factory/etc,upperdir={state}/etc/upper,workdir={state}/etc/work"
        _call("mount", "-t", "overlay", "-o", f"{layers},{OVERLAY}", "overlay", str(root / "etc"))
        for part in SHARED:
            _call("mount", "--bind", str(state / part), str(root / part))
        _call("mount", "-t", "tmpfs", "tmpfs", str(root / "tmp"))
        (root / "run/swupd").mkdir()
        if not (state / "boot/good" / name).exists():
            (root / "run/swupd/trial").touch()
        self.running = name

    def bless(self) -> None:
        """The running deployment has booted well."""
        with self.esp() as esp, Directory.open(esp) as partition:
            entries = BootEntries(partition)
            entry = next(e for e in entries.read() if e.name == self.running)
            entries.change(entry, entry.good())
        (self.root / "run/state/boot/good" / self.running).touch()
        (self.root / "run/swupd/trial").unlink(missing_ok=True)

    def halt(self) -> None:
        """Unmount all of the running system."""
        while str(self.root) in _points():
            _unmount(self.root)
        self.running = ""

    def remove(self) -> None:
        """Give everything back, whatever a test left."""
        self.halt()
        for name in ("top", "esp"):
            if str(self._directory / name) in _points():
                _unmount(self._directory / name)
        if self.device:
            with suppress(subprocess.CalledProcessError):
                _call("partx", "--delete", self.device)
            _call("losetup", "--detach", self.device)

    # -- the content

    def content(self, version: int, *, kernel: str = "6.1") -> dict[str, Bundle]:
        return stateless(version, kernel=kernel)

    def publish(self, version: int, bundles: Mapping[str, Bundle] | None = None) -> None:
        """Publish a version; without `bundles` the usual one."""
        self.publisher.publish(version, bundles or self.content(version))


@contextmanager
def machine_on_disk(
    directory: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *, esp_mb: int = 40
) -> Iterator[MachineDisk]:
    """Skips where none can be made."""
    if os.geteuid() != 0:
        pytest.skip("a disk needs root")
    pytest.importorskip("btrfsutil")
    monkeypatch.setenv("SWUPD_CONFIG_PATH", "")
    if not HAS_FAT:
        monkeypatch.setattr(place, "BOOT_MOUNT", ("ext2", "noatime"))
    publisher = Publisher(directory / "www")
    publisher.publish(10, stateless(10))
    with ExitStack() as resources:
        memory = resources.enter_context(TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else directory))
        disk = MachineDisk(directory, Path(memory, "disk.img"), publisher, capsys)
        resources.callback(disk.remove)
        try:
            disk.make(esp_mb=esp_mb)
        except (OSError, subprocess.CalledProcessError) as error:
            pytest.skip(f"no disk can be made here: {error} {getattr(error, 'stderr', '')}")
        disk.install()
        yield disk


def recorded(boot_state: Path) -> Record:
    """What is on record about deployments, by the path of the directory of the state that is about boots."""
    with Directory.open(boot_state) as boot:
        return record.read(boot)


def _unmount(where: Path) -> None:
    try:
        _call("umount", "--recursive", str(where))
    except subprocess.CalledProcessError:
        _call("umount", "--recursive", "--lazy", str(where))


def _points() -> set[str]:
    return {line.split(" ")[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()}


def _call(*argv: str, text: str = "") -> str:
    return subprocess.run(argv, input=text, capture_output=True, text=True, check=True).stdout
