"""Guest images of the shipped mix: mounted and compared, booted with and without DAX, read by the tools of others."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from swupd.formats import filehash
from swupd.formats.manifest import Manifest, parse
from tests.system import machine
from tests.system.bootmix import PROGRAMS, SECOND, BootMix

pytestmark = [
    pytest.mark.system,
    pytest.mark.timeout(1200),
    pytest.mark.skipif(os.geteuid() != 0, reason="file owners are part of an OS: needs root"),
    pytest.mark.skipif(bool(machine.missing_programs()), reason=machine.missing_programs()),
]
USER_SPACE_SECONDS = 3
"""From the start of the processor to the first line of the init, on an idle machine."""
GUEST_BYTES = 12 << 20
GUEST_MEMORY_BYTES = 40 << 20
SHARED_PART = 0.6
"""What a second guest may count for of the image's memory, as a part of what a single one does."""
SLOW = 4
"""How much longer things may take here, where others work beside."""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("guests")


@pytest.fixture(scope="module")
def other_mix(boot_mix: BootMix, place: Path) -> BootMix:
    """What was published, in another place and without any cache."""
    other = BootMix(place / "other-mix")
    shutil.copytree(boot_mix.path, other.path, symlinks=True, ignore=shutil.ignore_patterns("cache", "image", "site"))
    return other


def built(mix: BootMix, place: Path, kind: str, bundles: str, *options: str) -> Path:
    """An image of the second version; made once."""
    target = place / re.sub(r"[^a-z0-9-]+", "-", "-".join((kind, bundles, *options)))
    if not target.exists():
        mix.mixer(
            *("build", "image", "--type", kind, "--bundles", bundles, "--version", str(SECOND)),
            *("-o", target, *options),
        )
    return target


def run_guest(mix: BootMix, image: Path, *command: str, options: tuple[str, ...] = (), status: int = 0) -> str:
    argv = [PROGRAMS / "mixer", "--workspace", mix.path, "run-guest", "--no-kvm", *options, image, "--", *command]
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout


def facts_of(image: Path) -> Any:
    return json.loads(image.with_name(f"{image.name}.json").read_text())


# -- compared with the manifests ---------------------------------------------------------------------------------------


def manifests(mix: BootMix, bundles: list[str]) -> dict[str, str]:
    """Path -> swupd hash of all that is present in these bundles of the second version."""
    www = mix.path / "update/www"
    mom = read_manifest(www / str(SECOND) / "Manifest.MoM", is_mom=True)
    versions = {entry.name: entry.version for entry in mom.entries}
    return {
        entry.name: entry.hash
        for bundle in bundles
        for entry in read_manifest(www / str(versions[bundle]) / f"Manifest.{bundle}").entries
        if entry.is_present
    }


def read_manifest(path: Path, *, is_mom: bool = False) -> Manifest:
    return parse(path.read_bytes(), name=path.name.partition(".")[2], is_mom=is_mom)


def differences(root: Path, expected: Mapping[str, str]) -> list[str]:
    """Paths that are not what the manifests say: a swupd hash covers type, mode, owner, content and link text."""
    found = {entry.name: filehash.hash_path(entry.path) for entry in filehash.walk(str(root)) if entry.name != "/"}
    return sorted(path for path in found.keys() | expected.keys() if found.get(path) != expected.get(path))


@contextmanager
def mounted(image: Path, place: Path, *, offset: int = 0) -> Iterator[Path]:
    point = place / "mounted"
    point.mkdir(exist_ok=True)
    machine.run("mount", "-o", f"ro,loop,offset={offset}", image, point)
    try:
        yield point
    finally:
        machine.run("umount", point)


@pytest.mark.parametrize("system", ["erofs", "ext4"])
@pytest.mark.parametrize("options", [(), ("--dax",)])
def test_a_mounted_image_is_path_by_path_what_the_manifests_say(
    boot_mix: BootMix, place: Path, system: str, options: tuple[str, ...]
) -> None:
    image = built(boot_mix, place, f"guest-{system}", "guest-systemd,editors", *options)

    facts = facts_of(image)
    with mounted(image, place, offset=facts["filesystem_offset"]) as root:
        assert differences(root, manifests(boot_mix, ["os-core", "guest-systemd", "editors"])) == []
        assert {path.lstat().st_mtime for path in root.rglob("*") if not path.is_symlink()} == {version_time(boot_mix)}
    assert image.stat().st_size == facts["bytes"]


def version_time(mix: BootMix) -> int:
    return read_manifest(mix.path / f"update/www/{SECOND}/Manifest.MoM", is_mom=True).timestamp


def test_a_directory_and_a_tar_are_what_the_manifests_say(boot_mix: BootMix, place: Path) -> None:
    expected = manifests(boot_mix, ["os-core", "site"])

    assert differences(built(boot_mix, place, "directory", "site"), expected) == []
    unpacked = place / "unpacked"
    unpacked.mkdir()
    machine.run("tar", "-C", unpacked, "-xpf", built(boot_mix, place, "tar", "site", "--compression=zstd"))
    assert differences(unpacked, expected) == []


@pytest.mark.parametrize(
    "words",
    [
        "guest-erofs --dax --verity",
        "guest-ext4 --dax --verity",
        "initrd",
        "tar --compression=gzip",
        "oci-archive --compression=zstd",
        "kernel",
    ],
)
def test_the_same_is_made_twice_byte_for_byte(
    boot_mix: BootMix, other_mix: BootMix, place: Path, tmp_path: Path, words: str
) -> None:
    kind, *options = words.split()
    bundles = "kernel" if kind == "kernel" else "guest-minimal"

    first = built(boot_mix, place, kind, bundles, *options)
    second = built(other_mix, tmp_path, kind, bundles, *options)

    machine.run("diff", "-r", first, second)
    for suffix in (".json", ".spdx.json"):
        machine.run("cmp", f"{first}{suffix}", f"{second}{suffix}")


# -- booted ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("system", ["erofs", "ext4"])
@pytest.mark.parametrize("options", [(), ("--dax",)])
def test_a_guest_maps_its_image_or_reads_it_as_a_disk(
    boot_mix: BootMix, place: Path, system: str, options: tuple[str, ...]
) -> None:
    image = built(boot_mix, place, f"guest-{system}", "guest-minimal", *options)
    before = image.read_bytes()

    table = run_guest(boot_mix, image, "sh", "-c", "cat /proc/mounts; echo; dmesg")
    mounts, _, log = table.partition("\n\n")
    (line,) = [line for line in mounts.splitlines() if line.split()[1] == "/"]
    assert line.startswith(f"/dev/pmem0{'p1' if options else ''} / {system} ro,")
    assert "dax=always" in line
    assert "WARNING" not in log

    (line,) = [
        line
        for line in run_guest(boot_mix, image, "cat", "/proc/mounts", options=("--no-dax",)).splitlines()
        if line.split()[1] == "/"
    ]
    assert line.startswith(f"/dev/vda{'1' if options else ''} / {system} ro,")
    assert "dax" not in line
    assert image.read_bytes() == before


def test_the_least_guest_is_small_and_quick(boot_mix: BootMix, place: Path) -> None:
    image = built(boot_mix, place, "guest-erofs", "guest-minimal")

    told = run_guest(boot_mix, image, "sh", "-c", "cat /proc/uptime; grep -E '^Mem(Total|Available)' /proc/meminfo")
    seconds = float(told.split()[0])
    total, available = (int(number) << 10 for number in re.findall(r"(\d+) kB", told))
    print(f"guest-minimal: {image.stat().st_size} bytes, {seconds} s, {(total - available) >> 20} MiB used")
    assert image.stat().st_size <= GUEST_BYTES
    assert seconds <= USER_SPACE_SECONDS * SLOW
    assert total - available <= GUEST_MEMORY_BYTES


def test_a_guest_with_systemd_runs_a_command(boot_mix: BootMix, place: Path) -> None:
    image = built(boot_mix, place, "guest-erofs", "guest-systemd,editors")

    told = run_guest(
        boot_mix,
        image,
        *("sh", "-c", "cat /proc/1/comm; systemctl --failed --no-legend | wc -l; cat /proc/uptime; free -k"),
        options=("--memory", "512M"),
    ).splitlines()
    print(f"guest-systemd: {image.stat().st_size} bytes, {told[2].split()[0]} s\n" + "\n".join(told[3:]))
    assert told[:2] == ["systemd", "0"]


def test_two_guests_share_the_memory_of_their_image(boot_mix: BootMix, place: Path) -> None:
    image = built(boot_mix, place, "guest-erofs", "guest-systemd,editors")
    # Reads every byte, so that all of the image is mapped, and stays until its input ends.
    reading = "find / -xdev -type f -exec cat {} + | wc -c; echo ready; cat"

    def start() -> subprocess.Popen[str]:
        argv = [PROGRAMS / "mixer", "--workspace", boot_mix.path, "run-guest", "--no-kvm", "--memory", "512M", image]
        guest = subprocess.Popen(
            [*argv, "--", "sh", "-c", reading], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert guest.stdout is not None
        for line in guest.stdout:
            if line == "ready\n":
                return guest
        raise AssertionError("the guest has ended")

    guests = [start()]
    try:
        (alone,) = shares(image)
        guests.append(start())
        first, second = shares(image)
    finally:
        for guest in guests:
            guest.communicate(timeout=120)
    print(f"PSS of the image: {alone} kB alone, {first} kB and {second} kB as one of two")
    assert alone > 100_000
    assert max(first, second) <= SHARED_PART * alone


def shares(image: Path) -> list[int]:
    """For each process that has the image mapped: its proportional share, in kB."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            maps = (process / "smaps").read_text()
        except OSError:
            continue
        regions = re.findall(rf"{re.escape(str(image))}\n(?:.*\n)*?Pss: +(\d+) kB", maps)
        if regions:
            found.append(sum(map(int, regions)))
    return found


# -- containers --------------------------------------------------------------------------------------------------------


def needs(program: str) -> None:
    if not shutil.which(program):
        pytest.skip(f"needs {program}")


def test_others_read_the_layout_and_unpack_it(boot_mix: BootMix, place: Path, tmp_path: Path) -> None:
    needs("skopeo")
    needs("umoci")
    layout = built(boot_mix, place, "oci", "site", "--entrypoint=/bin/sh")

    told = json.loads(machine.run("skopeo", "inspect", f"oci:{layout}:{SECOND}"))
    assert told["Labels"]["org.swupd.bundles"] == "os-core,site"
    assert len(told["Layers"]) == 3
    machine.run("umoci", "unpack", "--image", f"{layout}:{SECOND}", tmp_path / "bundle")
    assert differences(tmp_path / "bundle/rootfs", manifests(boot_mix, ["os-core", "site"])) == []


def contained(runtime: str, root: Path, script: str) -> subprocess.CompletedProcess[str]:
    """Run a script in a root that has a /bin/sh."""
    if runtime == "runc":
        machine.run("runc", "spec", "--bundle", root.parent)
        configuration = root.parent / "config.json"
        raw = json.loads(configuration.read_text())
        raw["process"] |= {"args": ["/bin/sh", "-c", script], "terminal": False}
        raw["root"] = {"path": str(root)}
        configuration.write_text(json.dumps(raw))
        argv = ["runc", "--root", root.parent / "state", "run", "--bundle", root.parent, f"test-{os.getpid()}"]
    else:
        argv = ["systemd-nspawn", "--quiet", "--register=no", "--keep-unit", "-D", root, "/bin/sh", "-c", script]
    return subprocess.run(
        list(map(str, argv)), stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )  # fmt: skip


@pytest.mark.parametrize("runtime", ["systemd-nspawn", "runc"])
def test_a_container_runs(boot_mix: BootMix, place: Path, tmp_path: Path, runtime: str) -> None:
    needs(runtime)
    needs("umoci")
    # Whether containers can run here at all is tried with this machine's busybox.
    probe = tmp_path / "probe/root"
    for name in ("bin", "dev", "etc", "proc", "sys", "tmp", "usr"):
        (probe / name).mkdir(parents=True)
    (probe / "usr/lib").mkdir()
    (probe / "usr/lib/os-release").write_text("ID=probe\n")
    shutil.copy(str(shutil.which("busybox")), probe / "bin/sh")
    tried = contained(runtime, probe, "exit 7")
    if tried.returncode != 7:
        pytest.skip(f"{runtime} cannot run containers here: {tried.stderr.strip().splitlines()[-1:]}")

    layout = built(boot_mix, place, "oci", "site", "--entrypoint=/bin/sh")
    machine.run("umoci", "unpack", "--image", f"{layout}:{SECOND}", tmp_path / "bundle")
    (tmp_path / "bundle/config.json").unlink()
    script = "cat /usr/share/clear/version; echo; tail -n 1 /usr/share/site/page; exit 7"
    done = contained(runtime, tmp_path / "bundle/rootfs", script)

    assert done.returncode == 7, done.stderr
    assert done.stdout.split() == [str(SECOND), "twenty"]


def test_podman_runs_the_layout(boot_mix: BootMix, place: Path, request: pytest.FixtureRequest) -> None:
    needs("podman")
    layout = built(boot_mix, place, "oci", "site", "--entrypoint=/bin/sh")
    # It takes no long names.
    short = Path(tempfile.mkdtemp(prefix="podman-"))
    request.addfinalizer(lambda: shutil.rmtree(short))
    argv = ["podman", "--root", short / "storage", "--runroot", short / "run", "--cgroup-manager=cgroupfs"]
    argv += ["--storage-driver=vfs", "run", "--rm", "--network=host", f"oci:{layout}:{SECOND}", "-c", "exit 7"]
    done = subprocess.run(list(map(str, argv)), stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if "not permitted" in done.stderr:
        pytest.skip(f"podman cannot run containers here: {done.stderr.strip().splitlines()[-1:]}")
    assert done.returncode == 7, done.stderr


# -- bills of materials, differences, mistakes -------------------------------------------------------------------------


def test_the_bill_of_materials_is_valid_and_knows_packages_and_licences(boot_mix: BootMix, place: Path) -> None:
    from spdx_tools.spdx.parser.parse_anything import parse_file
    from spdx_tools.spdx.validation.document_validator import validate_full_spdx_document

    image = built(boot_mix, place, "guest-erofs", "guest-minimal")
    document = parse_file(f"{image}.spdx.json")

    assert validate_full_spdx_document(document) == []
    (busybox,) = [package for package in document.packages if package.name == "busybox-static"]
    assert busybox.version
    whole = json.loads(Path(f"{built(boot_mix, place, 'tar', 'site', '--compression=zstd')}.spdx.json").read_text())
    (dash,) = [package for package in whole["packages"] if package["name"] == "dash"]
    assert "BSD-3-Clause" in dash["licenseDeclared"].split(" AND ")
    assert dash["externalRefs"][0]["referenceLocator"].startswith("pkg:deb/debian/dash@")


def test_what_changed_between_two_images_is_told_by_bundle_and_package(boot_mix: BootMix, place: Path) -> None:
    new = built(boot_mix, place, "tar", "site", "--compression=zstd")
    old = place / "old.tar"
    boot_mix.mixer("build", "image", "--type", "tar", "--bundles", "site", "--version", "10", "-o", old)

    told = json.loads(boot_mix.mixer("diff-image", "--json", old, new))
    changed = {bundle["name"] for bundle in told["bundles"]}
    assert changed == {"os-core", "site"}
    assert "site" in boot_mix.mixer("diff-image", old, new)


def test_an_image_on_a_full_disk_is_one_line_and_nothing(boot_mix: BootMix, tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    machine.run("mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", small)
    try:
        for kind in ("guest-erofs", "guest-ext4", "initrd", "tar", "oci", "oci-archive", "directory"):
            argv = [PROGRAMS / "mixer", "--workspace", boot_mix.path, "build", "image", "--type", kind]
            done = subprocess.run(
                [*argv, "--bundles", "guest-systemd", "-o", small / "image"],
                capture_output=True, text=True, check=False,
            )  # fmt: skip
            assert done.returncode == 1
            error, hint = done.stderr.splitlines()
            assert error.startswith(f"Error: cannot write {small}/image: No space left on device"), kind
            assert hint == "Hint: free some space, or write it to another file system"
            assert list(small.iterdir()) == [], kind
    finally:
        machine.run("umount", small)
