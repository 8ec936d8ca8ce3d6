"""Whatever goes wrong is one line, a hint and the right exit status, and nothing changed."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest

from swupd.formats import archive
from swupd.formats.manifest import parse

Client = Any
PublishedTree = Any
Fault = Any
SmallDisk = Any

CORE_20 = "4880eeaab1172b803609ce665c26ec25457cc545b50591b908c708e475f3d99f"
"""/usr/bin/core of version 20."""


def fails(client: Client, status: int, *arguments: str) -> str:
    """Run an update that must fail and leave the root alone; the error's line."""
    before = client.snapshot()
    result = client.run("update", *arguments, status=status)
    assert client.snapshot() == before
    errors = [line for line in result.err.splitlines() if line.startswith("Error: ")]
    assert len(errors) == 1, result.err
    assert "\nHint: " in result.err
    return str(errors[0])


def single_files(tree: PublishedTree) -> None:
    """Make every object come on its own."""
    tree.remove("20/pack-*")


def test_a_server_that_does_not_answer_is_16(client: Client) -> None:
    assert "127.0.0.1:1/" in fails(client, 16, "--url", "http://127.0.0.1:1", "--max-retries", "0")


@pytest.mark.parametrize("status", [404, 500])
def test_version_files_that_cannot_be_had_are_16(
    client: Client, tree: PublishedTree, fault: Fault, status: int
) -> None:
    tree.faults["/version/format1/latest"] = fault(status=status)
    assert "version/format1/latest" in fails(client, 16, "--max-retries", "1")
    client.run("check-update", "--url", f"{tree.url}/nowhere", status=16)


def test_a_version_file_with_something_else_in_it_is_16(client: Client, tree: PublishedTree) -> None:
    tree.replace("version/format1/latest", b"<html>")
    assert "version number" in fails(client, 16, "--nosigcheck-latest")


def test_a_version_file_with_a_wrong_signature_is_21(client: Client, tree: PublishedTree) -> None:
    tree.set_latest(30)
    assert "version/format1/latest" in fails(client, 21)


def test_a_manifest_of_the_version_with_a_wrong_signature_is_21(client: Client, tree: PublishedTree) -> None:
    tree.replace("20/Manifest.MoM.sig", tree.read("10/Manifest.MoM.sig"))
    mom = tree.read("20/Manifest.MoM")
    forged = mom.replace(b"7ccc98c0", b"7ccc98c1")
    assert forged != mom
    tree.replace("20/Manifest.MoM.tar", archive.manifest_tar({"Manifest.MoM": forged}, 0))
    assert "signature" in fails(client, 21)


def test_a_certificate_of_somebody_else_is_21(client: Client, tmp_path: Path) -> None:
    from datetime import UTC, datetime, timedelta

    from swupd.formats.signature import make_certificate

    certificate, _ = make_certificate("somebody", 30, datetime.now(UTC) - timedelta(days=1))
    (tmp_path / "other.pem").write_bytes(certificate)
    fails(client, 21, "--certpath", str(tmp_path / "other.pem"))
    assert "cannot read the certificate" in fails(client, 21, "--certpath", "/nonexistent.pem")


@pytest.mark.parametrize("status", [404, 500])
def test_a_manifest_of_the_version_that_cannot_be_had_is_4(
    client: Client, tree: PublishedTree, fault: Fault, status: int
) -> None:
    tree.faults["/20/Manifest.MoM.tar"] = fault(status=status)
    assert "version 20" in fails(client, 4, "--max-retries", "1")


def test_manifests_of_installed_bundles_that_cannot_be_had_are_8(
    client: Client, tree: PublishedTree, fault: Fault
) -> None:
    tree.faults["/10/Manifest.libs.tar"] = fault(status=404)
    assert "libs" in fails(client, 8)


def test_a_bundle_manifest_with_a_wrong_hash_is_14_after_a_second_attempt(client: Client, tree: PublishedTree) -> None:
    tree.remove("20/Manifest-*-delta-*")
    data = tree.read("20/Manifest.libs").replace(b"/usr/lib64/libex.so\n", b"/usr/lib64/libey.so\n")
    parse(data, name="libs")
    tree.replace("20/Manifest.libs.tar", archive.manifest_tar({"Manifest.libs": data}, 0))
    assert "libs" in fails(client, 14)
    assert len(tree.requested("/20/Manifest.libs.tar")) == 2


def test_a_manifest_delta_that_gives_something_else_is_not_used(client: Client, tree: PublishedTree) -> None:
    client.run("diagnose")
    other = tree.read("20/Manifest-docs-delta-from-10")
    tree.replace("20/Manifest-libs-delta-from-10", other)
    tree.flip("20/Manifest-editors-delta-from-10")
    client.run("update")
    client.check(20)


def test_an_object_with_a_wrong_hash_is_fetched_twice_and_then_named(client: Client, tree: PublishedTree) -> None:
    single_files(tree)
    other = tree.read(f"20/files/{CORE_20}.tar")
    data = archive.fullfile(archive.Member(CORE_20, archive.ObjectType.FILE, 0o100755, 0, 0, 4, 0.0), b"evil")
    tree.replace(f"20/files/{CORE_20}.tar", data)
    error = fails(client, 17)
    assert "/usr/bin/core" in error
    assert CORE_20 in error
    assert len(tree.requested(f"/20/files/{CORE_20}.tar")) == 2
    tree.replace(f"20/files/{CORE_20}.tar", other)
    client.run("update")
    client.check(20)


def test_an_object_that_was_wrong_once_is_no_failure(client: Client, tree: PublishedTree, fault: Fault) -> None:
    single_files(tree)
    tree.faults[f"/20/files/{CORE_20}.tar"] = fault(truncate_at=100, times=1)
    client.run("update")
    client.check(20)


@pytest.mark.parametrize("status", [404, 500])
def test_an_object_that_cannot_be_had_is_17(client: Client, tree: PublishedTree, fault: Fault, status: int) -> None:
    single_files(tree)
    tree.faults[f"/20/files/{CORE_20}.tar"] = fault(status=status)
    error = fails(client, 17, "--max-retries", "1")
    assert CORE_20 in error
    assert len(tree.requested(f"/20/files/{CORE_20}.tar")) == (1 if status == 404 else 2)


def test_an_object_that_is_always_truncated_is_17(client: Client, tree: PublishedTree, fault: Fault) -> None:
    single_files(tree)
    tree.faults[f"/20/files/{CORE_20}.tar"] = fault(truncate_at=50)
    assert CORE_20 in fails(client, 17, "--max-retries", "2")


@pytest.mark.parametrize("position", [30, -30])
def test_a_corrupt_pack_is_told_and_replaced_by_single_files(
    client: Client, tree: PublishedTree, position: int
) -> None:
    tree.flip("20/pack-editors-from-10.tar", position)
    result = client.run("update")
    assert "Warning: the pack for editors" in result.err
    client.check(20)


def test_a_pack_with_something_evil_in_it_harms_nobody(client: Client, tree: PublishedTree, tmp_path: Path) -> None:
    import io
    import tarfile

    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as evil:
        link = tarfile.TarInfo("staged/link")
        link.type, link.linkname = tarfile.SYMTYPE, str(tmp_path)
        evil.addfile(link)
        for name in ("staged/link/evil", "../../evil", f"{tmp_path}/evil"):
            member = tarfile.TarInfo(name)
            member.size = 4
            evil.addfile(member, io.BytesIO(b"evil"))
    tree.replace("20/pack-editors-from-10.tar", packed.getvalue())
    client.run("update")
    client.check(20)
    assert not list(tmp_path.rglob("evil"))


def test_a_corrupt_archive_is_17_after_a_second_attempt(client: Client, tree: PublishedTree) -> None:
    single_files(tree)
    tree.replace(f"20/files/{CORE_20}.tar", os.urandom(2000))
    assert CORE_20 in fails(client, 17)
    assert len(tree.requested(f"/20/files/{CORE_20}.tar")) == 2


def test_an_archive_that_grows_without_end_is_refused(client: Client, tree: PublishedTree) -> None:
    import gzip

    single_files(tree)
    header = archive.fullfile(archive.Member(CORE_20, archive.ObjectType.FILE, 0o100755, 0, 0, 4, 0.0), b"evil")
    tree.replace(f"20/files/{CORE_20}.tar", gzip.compress(header + bytes(64 << 20), compresslevel=1))
    assert CORE_20 in fails(client, 17)


def test_another_running_swupd_is_9(client: Client, tree: PublishedTree, fault: Fault) -> None:
    go = threading.Event()
    tree.faults["/20/Manifest.MoM.tar"] = fault(stall=go)
    first = client.start("update")
    try:
        while not tree.requested("/20/Manifest.MoM.tar"):
            assert first.poll() is None
        result = client.run("bundle-add", "games", status=9)
        assert f"Error: another swupd is running as process {first.pid}" in result.err
        assert client.run("bundle-list", "--quiet").lines, "reading needs no lock"
    finally:
        go.set()
        output, _ = first.communicate(timeout=30)
    assert first.returncode == 0, output
    client.run("bundle-add", "games")


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_update_that_is_ended_by_a_signal_changes_nothing_and_the_next_run_goes_on(
    client: Client, tree: PublishedTree, fault: Fault, number: int, status: int
) -> None:
    before = client.snapshot()
    go = threading.Event()
    path = f"/20/files/{CORE_20}.tar"
    single_files(tree)
    tree.faults[path] = fault(stall=go)
    first = client.start("update")
    while not tree.requested(path):
        assert first.poll() is None
    first.send_signal(number)
    output, _ = first.communicate(timeout=30)
    go.set()
    assert first.returncode == status, output
    assert b"Error: interrupted" in output
    assert client.snapshot() == before
    client.run("update")
    client.check(20)


@pytest.fixture
def ordinary_user() -> list[str]:
    """Runs a program as nobody; it may read whatever root may, because the interpreter may lie in root's home."""
    if shutil.which("setpriv") is None:
        pytest.skip("setpriv is not installed")
    identity = ["--reuid=65534", "--regid=65534", "--clear-groups"]
    return ["setpriv", *identity, "--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]


def test_commands_that_need_root_say_so_with_1(client: Client, ordinary_user: list[str]) -> None:
    for argv in ("update", "bundle-add games", "diagnose", "os-install"):
        result = client.run(*argv.split(), status=1, prefix=ordinary_user)
        assert "Error: this command must be run as root\nHint: " in result.err


def test_commands_that_only_read_need_no_root(client: Client, ordinary_user: list[str]) -> None:
    for argv in ("bundle-list", "check-update"):
        client.run(*argv.split(), prefix=ordinary_user)


def test_a_full_disk_while_staging_is_25_and_the_next_run_goes_on(client: Client, small_disk: SmallDisk) -> None:
    disk = small_disk(2_000_000)
    cache = disk / "cache"
    client.run("diagnose", "--cachedir", cache)
    fill(disk, 8192)
    assert "is full" in fails(client, 25, "--cachedir", str(cache))
    (disk / "ballast").unlink()
    client.run("update", "--cachedir", cache)
    client.check(20)


def test_a_full_disk_of_the_root_is_25_and_nothing_changed(client: Client, small_disk: SmallDisk) -> None:
    disk = small_disk(4_000_000)
    subprocess.run(["cp", "-a", str(client.root), str(disk)], check=True)
    client.root = disk / "root"
    fill(disk, 8192)
    assert "too little room" in fails(client, 25)
    assert "no space" in fails(client, 25, "--skip-diskspace-check")
    assert not list(client.root.rglob(".update.*"))
    (disk / "ballast").unlink()
    client.run("update")
    client.check(20)


def fill(disk: Path, left: int) -> None:
    """Leave so many bytes free."""
    status = os.statvfs(disk)
    (disk / "ballast").write_bytes(bytes(status.f_bavail * status.f_frsize - left))


def test_a_version_that_is_unknown_is_20(client: Client) -> None:
    (client.root / "usr/lib/os-release").unlink()
    assert "VERSION_ID" in fails(client, 20)


def test_http_without_permission_is_15(client: Client) -> None:
    argv = [argument for argument in client.argv("update") if argument != "--allow-insecure-http"]
    done = subprocess.run(argv, env=client.environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 15
    assert "--allow-insecure-http" in done.stderr


def test_a_system_without_urls_is_15(client: Client) -> None:
    for name in ("versionurl", "contenturl"):
        (client.root / "usr/share/defaults/swupd" / name).unlink()
    argv = client.argv("update")
    position = argv.index("--url")
    del argv[position : position + 2]
    done = subprocess.run(argv, env=client.environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 15
    assert "the version URL is not known" in done.stderr
