"""`mixer build image`."""

from __future__ import annotations

import json
import os
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from mixer.cli import main
from mixer.commands.image import TYPES
from mixer.workspace import Workspace

BOOT = {
    "boot/vmlinuz-1": "kernel",
    "boot/initrd-1": "initrd",
    "usr/lib/modules/1/modules.dep": "",
    "usr/sbin/init": "init",
    "usr/share/factory/etc/passwd": "root:x:0:0::/root:/bin/sh\n",
    "usr/lib/systemd/boot/efi/systemd-bootx64.efi": "loader",
}


@pytest.fixture
def bootable(prepared: Workspace, certificate: tuple[bytes, bytes], capsys: pytest.CaptureFixture[str]) -> Workspace:
    """A published version with the bundles os-core, kernel and os-core-update."""
    for name, pem in zip(("Swupd_Root.pem", "private.pem"), certificate, strict=True):
        (prepared.path / name).write_bytes(pem)
    version = prepared.path.parent / "roots/10"
    for path, content in BOOT.items():
        (version / "full" / path).parent.mkdir(parents=True, exist_ok=True)
        (version / "full" / path).write_text(content)
    for bundle, paths in (("kernel", BOOT), ("os-core-update", ())):
        marker = f"usr/share/clear/bundles/{bundle}"
        (version / "full" / marker).touch()
        listed = {f"/{path}": False for path in (marker, *paths)}
        (version / f"{bundle}-info").write_text(json.dumps({"Name": bundle, "Files": listed}))
    core = json.loads((version / "os-core-info").read_text())
    directories = {f"/{path.relative_to(version / 'full')}" for path in (version / "full").rglob("*") if path.is_dir()}
    core["Files"] |= dict.fromkeys(directories, False)
    (version / "os-core-info").write_text(json.dumps(core))
    (version / "groups.ini").write_text("[os-core]\n[kernel]\n[os-core-update]\n")
    assert main(["--quiet", "--workspace", str(prepared.path), "build", "update", "--workers", "1"]) == 0
    capsys.readouterr()
    return prepared


def image(workspace: Workspace, *arguments: str, kind: str = "disk", bundles: str = "kernel,os-core-update") -> int:
    argv = ["--workspace", str(workspace.path), "build", "image", "--type", kind, "--bundles", bundles]
    return main([*argv, *arguments])


def data(path: Path) -> list[tuple[int, bytes]]:
    """What a sparse file has besides holes, and where. Blocks of zeros are no content."""
    found = []
    with path.open("rb") as file:
        end = 0
        with suppress(OSError):
            while True:
                start = os.lseek(file.fileno(), end, os.SEEK_DATA)
                end = os.lseek(file.fileno(), start, os.SEEK_HOLE)
                for offset in range(start, end, 4096):
                    block = os.pread(file.fileno(), 4096, offset)
                    found += [(offset, block)] if block.strip(b"\0") else []
    return found


def test_a_disk_is_made_and_summed_up(bootable: Workspace, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "disk.img"

    assert image(bootable, "-o", str(target), "--size", "700M") == 0

    told = capsys.readouterr()
    assert told.err == ""
    assert f"image           {target}  734.0 MB, " in told.out
    assert "version         10" in told.out
    assert "3 bundles" in told.out
    assert target.stat().st_size == 700 << 20
    assert json.loads((tmp_path / "disk.img.json").read_text())["bundles"] == ["kernel", "os-core", "os-core-update"]


def test_a_relative_name_is_below_the_current_directory(
    bootable: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    assert image(bootable, "-o", "disk.img") == 0

    assert (tmp_path / "disk.img").stat().st_size == 4 << 30


def test_an_image_that_cannot_update_itself_is_announced(
    bootable: Workspace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert image(bootable, "-o", str(tmp_path / "disk.img"), bundles="kernel") == 0

    assert "without the bundle os-core-update the image does not have what it needs" in capsys.readouterr().err


def test_without_a_kernel_there_is_one_line_and_no_image(
    bootable: Workspace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert image(bootable, "-o", str(tmp_path / "disk.img"), bundles="os-core-update") == 1

    told = capsys.readouterr().err.splitlines()
    assert told[0] == "Error: the bundles os-core, os-core-update have no kernel (/boot/vmlinuz-)"
    assert "bundle kernel has it" in told[1]
    assert not list(tmp_path.glob("disk.img*"))


@pytest.mark.parametrize("size", ["", "8", "8k", "0G", "-1G", "8GB", "999999999T"])
def test_a_size_that_is_none_is_refused(
    bootable: Workspace, tmp_path: Path, capsys: pytest.CaptureFixture[str], size: str
) -> None:
    assert image(bootable, "-o", str(tmp_path / "disk.img"), f"--size={size}") == 1

    assert f"--size {size!r} is not a size" in capsys.readouterr().err


def test_the_time_is_that_of_the_environment_or_of_the_version(
    bootable: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, time in (("version", ""), ("again", ""), ("other", "1600000000")):
        monkeypatch.setenv("SOURCE_DATE_EPOCH", time)
        assert image(bootable, "-o", str(tmp_path / name), "--size", "700M") == 0

    version, again, other = (data(tmp_path / name) for name in ("version", "again", "other"))
    assert version == again
    assert version != other


def test_a_time_that_is_none_is_refused(
    bootable: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "yesterday")

    assert image(bootable, "-o", str(tmp_path / "disk.img")) == 1

    assert "SOURCE_DATE_EPOCH is 'yesterday', not a time in seconds" in capsys.readouterr().err


def test_a_mix_without_signatures_says_so(
    bootable: Workspace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (bootable.www / "10/Manifest.MoM.sig").unlink()

    assert image(bootable, "-o", str(tmp_path / "disk.img")) == 1
    assert "/10/Manifest.MoM is not signed" in capsys.readouterr().err
    assert image(bootable, "-o", str(tmp_path / "disk.img"), "--no-signing") == 0


def test_a_type_that_is_none_shows_the_help(bootable: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["build", "image", "--type", "floppy", "-o", "disk.img"])

    assert "invalid choice: 'floppy'" in capsys.readouterr().err


def test_the_store_is_filled_again_from_what_was_published(bootable: Workspace, tmp_path: Path) -> None:
    assert image(bootable, "-o", str(tmp_path / "first"), "--size", "700M") == 0
    shutil.rmtree(bootable.cache)

    assert image(bootable, "-o", str(tmp_path / "second"), "--size", "700M") == 0

    assert data(tmp_path / "first") == data(tmp_path / "second")


# -- the other types ---------------------------------------------------------------------------------------------------

SIMPLE_TYPES = sorted(TYPES.keys() - {"disk", "kernel"})


@pytest.mark.parametrize("kind", SIMPLE_TYPES)
def test_each_type_is_made_and_summed_up_with_its_facts_and_bill_of_materials(
    bootable: Workspace, tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    target = tmp_path / "image"

    assert image(bootable, "-o", str(target), kind=kind, bundles="kernel") == 0

    told = capsys.readouterr()
    assert told.err == ""
    assert str(target) in told.out
    facts = json.loads((tmp_path / "image.json").read_text())
    assert (facts["type"], facts["version"], facts["bundles"]) == (kind, 10, ["kernel", "os-core"])
    assert json.loads((tmp_path / "image.spdx.json").read_text())["spdxVersion"] == "SPDX-2.3"


@pytest.mark.parametrize("kind", SIMPLE_TYPES)
def test_each_type_is_the_same_when_it_is_made_again(bootable: Workspace, tmp_path: Path, kind: str) -> None:
    for place in ("one", "other"):
        (tmp_path / place).mkdir()
        assert image(bootable, "-o", str(tmp_path / place / "image"), kind=kind, bundles="kernel") == 0
        shutil.rmtree(bootable.cache)

    one, other = (
        {str(path.relative_to(tmp_path / place)): describe(path) for path in sorted((tmp_path / place).rglob("*"))}
        for place in ("one", "other")
    )
    assert one == other


def describe(path: Path) -> tuple[int, int, int, bytes | str]:
    status = path.lstat()
    if path.is_symlink():
        return status.st_mode, status.st_uid, status.st_gid, os.readlink(path)
    return status.st_mode, status.st_uid, status.st_gid, path.read_bytes() if path.is_file() else b""


@pytest.mark.parametrize(
    "case",
    [
        ("guest-erofs", "--size=8G", "disk"),
        ("disk", "--dax", "guest-erofs, guest-ext4"),
        ("tar", "--env=A=b", "oci, oci-archive"),
        ("initrd", "--compression=zstd", "oci, oci-archive, tar"),
    ],
)
def test_an_option_of_another_type_is_refused(
    bootable: Workspace, tmp_path: Path, capsys: pytest.CaptureFixture[str], case: tuple[str, str, str]
) -> None:
    kind, option, types = case
    assert image(bootable, "-o", str(tmp_path / "image"), option, kind=kind) == 1

    name = option.partition("=")[0]
    assert capsys.readouterr().err == f"Error: an image of the type {kind} has no {name}\nHint: it is for {types}\n"
    assert not list(tmp_path.glob("image*"))


def test_layers_that_are_not_compressed_are_refused(
    bootable: Workspace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert image(bootable, "-o", str(tmp_path / "image"), "--compression=none", kind="oci") == 1

    assert capsys.readouterr().err.startswith("Error: the layers of a container image are always compressed\nHint: ")
    assert not list(tmp_path.glob("image*"))


def test_what_a_container_runs_is_said_in_words_or_json(bootable: Workspace, tmp_path: Path) -> None:
    options = ["--entrypoint", "init --serve", "--cmd", '["a b", "c"]', "--env", "A=b=c", "--label", "team=web"]
    options += ["--workdir", "/srv", "--user", "1000", "--name", "web"]

    assert image(bootable, "-o", str(tmp_path / "image"), *options, kind="oci", bundles="kernel") == 0

    configurations = [
        found["config"]
        for path in (tmp_path / "image/blobs/sha256").iterdir()
        if (found := read_json(path)) is not None and "rootfs" in found
    ]
    assert len(configurations) == 1
    found = configurations[0]
    assert (found["Entrypoint"], found["Cmd"]) == (["init", "--serve"], ["a b", "c"])
    assert "A=b=c" in found["Env"]
    assert (found["Labels"]["team"], found["Labels"]["org.swupd.bundles"]) == ("web", "kernel,os-core")
    assert (found["WorkingDir"], found["User"]) == ("/srv", "1000")


def read_json(path: Path) -> dict[str, Any] | None:
    try:
        value: dict[str, Any] = json.loads(path.read_bytes())
    except ValueError:
        return None
    return value


@pytest.mark.parametrize("option", ["--entrypoint='unbalanced", "--cmd=[1]", "--cmd=[", "--env=novalue", "--label=x"])
def test_what_a_container_cannot_run_shows_the_help(
    bootable: Workspace, tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str
) -> None:
    with pytest.raises(SystemExit):
        image(bootable, "-o", str(tmp_path / "image"), option, kind="oci")

    assert f"argument {option.partition('=')[0]}" in capsys.readouterr().err


def test_a_bundle_that_is_none_is_one_line(
    bootable: Workspace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert image(bootable, "-o", str(tmp_path / "image"), kind="guest-erofs", bundles="kernle") == 1

    assert capsys.readouterr().err == "Error: version 10 has no bundle 'kernle'\nHint: did you mean kernel?\n"
    assert not list(tmp_path.glob("image*"))
