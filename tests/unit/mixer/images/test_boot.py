from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest

from mixer.errors import BuildError
from mixer.images import boot
from mixer.images.boot import LOADER, USERS, Boot
from swupd.formats import bootentry

Published = Any

UUID_TEXT = "12345678-1234-5678-1234-567812345678"


def find(published: Published, *bundles: str) -> Boot:
    return boot.find(published.load(*bundles or ("kernel",)), UUID(UUID_TEXT))


def test_the_newest_kernel_is_taken_with_its_initrd(published: Published) -> None:
    found = find(published)

    assert found.kernel == (published.root / "boot/vmlinuz-6.10.0").read_bytes()
    assert found.initrd == (published.root / "boot/initrd-6.10.0").read_bytes()
    assert found.loader == (published.root / LOADER[1:]).read_bytes()


@pytest.mark.parametrize("path", ["/boot/initrd-6.10.0", "/usr/lib/modules/6.10.0"])
def test_a_kernel_without_its_parts_is_passed_over(prepared: Published, path: str) -> None:
    prepared.remove("kernel", path, *(("/usr/lib/modules/6.10.0/modules.dep",) if "modules" in path else ()))
    prepared.build(packs=False)

    assert find(prepared).kernel.startswith(b"older ")


def test_the_entry_is_one_that_the_client_reads(published: Published) -> None:
    found = find(published)

    entry = bootentry.parse(found.entry.file_name, found.entry.text())
    assert entry == found.entry
    assert (entry.name, entry.file_name, entry.sequence) == ("10", "os-10.conf", 1)
    assert entry.is_good
    assert entry.options == f"root=UUID={UUID_TEXT} rootflags=subvol=@/10 quiet console=ttyS0"
    assert {name for name in found.files() if name.startswith("os/")} == {f"os/{entry.kernel}", f"os/{entry.initrd}"}


@pytest.mark.parametrize(
    ("paths", "what"),
    [
        (("/boot/vmlinuz-6.9.0", "/boot/vmlinuz-6.10.0"), r"kernel \(/boot/vmlinuz-\)"),
        (("/boot/initrd-6.9.0", "/boot/initrd-6.10.0"), r"initrd \(/boot/initrd-6\.10\.0\)"),
        (
            [f"/usr/lib/modules{path}" for v in ("6.9.0", "6.10.0") for path in (f"/{v}", f"/{v}/modules.dep")],
            r"modules \(/usr/lib/modules/6\.10\.0\)",
        ),
        ((LOADER,), r"boot loader \(/usr/lib/systemd/boot/efi/systemd-bootx64\.efi\)"),
    ],
)
def test_what_is_missing_is_named(prepared: Published, paths: tuple[str, ...], what: str) -> None:
    prepared.remove("kernel", *paths)
    prepared.build(packs=False)

    with pytest.raises(BuildError, match=f"the bundles kernel, os-core have no {what}") as caught:
        find(prepared)

    assert caught.value.hint.startswith("no bundle of this version has it")


def test_a_version_that_is_not_stateless_is_refused(prepared: Published) -> None:
    prepared.remove("os-core", USERS)
    prepared.build(packs=False)

    with pytest.raises(BuildError, match=r"have no users \(/usr/share/factory/etc/passwd\)") as caught:
        find(prepared)

    assert "stateless: convert" in caught.value.hint


def test_the_bundle_that_has_what_is_missing_is_in_the_hint(published: Published) -> None:
    with pytest.raises(BuildError, match="the bundles editor, os-core have no kernel") as caught:
        find(published, "editor")

    assert caught.value.hint == "bundle kernel has it: give --bundles kernel,…"


@pytest.mark.parametrize("line", ["x" * 2048, "quiet \x07"])
def test_a_command_line_that_no_kernel_takes_is_refused(prepared: Published, line: str) -> None:
    (prepared.root / "usr/lib/kernel/cmdline").write_text(line)
    prepared.build(packs=False)

    with pytest.raises(BuildError, match="/usr/lib/kernel/cmdline of version 10 is not a line of text"):
        find(prepared)


def test_comments_are_no_part_of_the_command_line(prepared: Published) -> None:
    (prepared.root / "usr/lib/kernel/cmdline").write_text("# the console\nconsole=ttyS0\n  # and so on\nquiet\n")
    prepared.build(packs=False)

    assert find(prepared).entry.options.endswith(" rootflags=subvol=@/10 console=ttyS0 quiet")


def test_a_version_without_command_line_gets_none(prepared: Published) -> None:
    prepared.remove("os-core", "/usr/lib/kernel/cmdline")
    prepared.build(packs=False)

    assert find(prepared).entry.options == f"root=UUID={UUID_TEXT} rootflags=subvol=@/10"


@pytest.mark.parametrize(
    ("os_release", "title"),
    [
        ("ID=test\n", "Version 10"),
        ("PRETTY_NAME=\n", "Version 10"),
        ("PRETTY_NAME=Plain\n", "Plain"),
        ("PRETTY_NAME='Two words'\n", "Two words"),
        ("PRETTY_NAME='not closed\n", "Version 10"),
        (f"PRETTY_NAME={'x' * 500}\n", "x" * 100),
    ],
)
def test_the_title_is_the_name_of_the_version(prepared: Published, os_release: str, title: str) -> None:
    (prepared.root / "usr/lib/os-release").write_text(os_release)
    prepared.build(packs=False)

    assert find(prepared).entry.title == title
