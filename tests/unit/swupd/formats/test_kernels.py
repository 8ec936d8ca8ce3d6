"""The rules by which a kernel is chosen, and what it is told."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swupd.formats.bootentry import MAX_TRIES
from swupd.formats.kernels import OPTIONS_LIMIT, Kernel, is_boot_file, newest_first, options, tries


def test_numbers_in_releases_are_compared_as_numbers() -> None:
    names = ["vmlinuz-6.1.0-9-cloud-amd64", "vmlinuz-6.1.0-10-cloud-amd64", "vmlinuz-5.10", "initrd-7.0", "vmlinuz"]
    assert [kernel.release for kernel in newest_first(names)] == ["6.1.0-10-cloud-amd64", "6.1.0-9-cloud-amd64", "5.10"]


@pytest.mark.parametrize("release", ["", "../6.1", "6.1/x", "-6.1", "6 1", "6.1\n", "x" * 300])
def test_what_cannot_be_a_release_is_no_kernel(release: str) -> None:
    assert newest_first([f"vmlinuz-{release}"]) == []


@given(st.lists(st.text()))
def test_any_names_can_be_sorted(releases: list[str]) -> None:
    found = newest_first(f"vmlinuz-{release}" for release in releases)
    assert {kernel.release for kernel in found} <= set(releases)
    assert all("/" not in kernel.release for kernel in found)


def test_the_parts_of_a_kernel_are_known_by_its_release() -> None:
    kernel = Kernel("6.1")
    assert kernel.files == ("boot/vmlinuz-6.1", "boot/initrd-6.1")
    assert kernel.modules == "usr/lib/modules/6.1"


def test_kernels_and_initrds_are_known_by_their_names() -> None:
    names = ["/boot/vmlinuz-6.1", "/boot/initrd-6.1", "/boot/config-6.1", "/usr/boot/vmlinuz-6.1"]
    assert [is_boot_file(name) for name in names] == [True, True, False, False]


def test_comments_are_not_told_to_the_kernel() -> None:
    text = "# mine\nquiet\n  # panic=1\n console=ttyS0 root#1\n"
    assert options("u", "20", text) == "root=UUID=u rootflags=subvol=@/20 quiet console=ttyS0 root#1"


@pytest.mark.parametrize("text", ["x" * 3000, "a\0b", "a\x1b[31m"])
def test_what_no_kernel_would_take_is_refused(text: str) -> None:
    assert options("u", "20", text) is None


@given(st.text())
def test_a_command_line_is_one_line_that_a_kernel_takes(text: str) -> None:
    found = options("u", "20", text)
    assert found is None or (found.isprintable() and len(found) <= OPTIONS_LIMIT)


@pytest.mark.parametrize(
    ("text", "expected"), [("2\n", 2), ("0", 1), ("1000", 99), ("many", 3), ("", 3), (" 5 times", 5), ("9" * 30, 3)]
)
def test_tries_are_a_sane_number(text: str, expected: int) -> None:
    assert tries(text) == expected


@given(st.text())
def test_any_text_says_how_many_tries(text: str) -> None:
    assert 1 <= tries(text) <= MAX_TRIES
