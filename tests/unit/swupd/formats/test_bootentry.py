"""The parser of boot entries, their names, and the order in which the loader takes them."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swupd.formats.bootentry import (
    ENTRY_LIMIT,
    BootEntry,
    deployment_of_file,
    free_name,
    initrd_name,
    is_deployment_name,
    is_kernel_file,
    kernel_name,
    kernel_options,
    loader_order,
    parse,
    version_of,
)

KERNEL, INITRD = "vmlinuz-0123456789abcdef", "initrd-fedcba9876543210"
ENTRY = BootEntry("20", "Example OS 20", 7, KERNEL, INITRD, "root=UUID=x rootflags=subvol=@/20 quiet", 3)

names = st.from_regex(r"[1-9][0-9]{0,9}(\.[1-9][0-9]{0,3})?", fullmatch=True)
line = st.text(st.characters(categories=["L", "N", "P", "S"]), min_size=1, max_size=50)
tries = st.one_of(st.just((None, 0)), st.tuples(st.integers(0, 99), st.integers(0, 99)))
entries = st.builds(
    lambda name, title, sequence, options, counter: BootEntry(
        name, title, sequence, KERNEL, INITRD, options, counter[0], counter[1]
    ),
    names,
    line,
    st.integers(0, (1 << 53) - 1),
    line,
    tries,
)


@given(entries)
def test_what_was_written_is_read(entry: BootEntry) -> None:
    assert parse(entry.file_name, entry.text()) == entry
    assert deployment_of_file(entry.file_name) == entry.name


@given(st.one_of(st.just(ENTRY.file_name), st.text()), st.text())
def test_anything_may_be_read(name: str, text: str) -> None:
    entry = parse(name, text)
    assert entry is None or is_deployment_name(entry.name)


@given(st.lists(st.sampled_from(ENTRY.text().splitlines()), max_size=8))
def test_lines_may_come_in_any_order_but_none_may_be_missing(lines: list[str]) -> None:
    needed = {"sort-key", "version", "linux", "initrd"}
    there = {line.partition(" ")[0] for line in lines}
    assert (parse("os-20+3.conf", "\n".join(lines)) is not None) == (needed <= there)


@pytest.mark.parametrize(
    ("name", "counter"),
    [("os-20.conf", (None, 0)), ("os-20+3.conf", (3, 0)), ("os-20+2-1.conf", (2, 1)), ("os-20+0-3.conf", (0, 3))],
)
def test_the_loader_counts_in_the_name(name: str, counter: tuple[int | None, int]) -> None:
    entry = parse(name, ENTRY.text())
    assert entry is not None
    assert (entry.tries_left, entry.tries_done) == counter


@pytest.mark.parametrize(
    "name",
    ["os-0.conf", "os-020.conf", "os-20.conf.part", "os-20+.conf", "os-20+3-.conf", "os-20.0.conf", "os-../20.conf"],
)
def test_other_files_are_no_entries(name: str) -> None:
    assert parse(name, ENTRY.text()) is None
    assert deployment_of_file(name) == ""


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (f"/os/{KERNEL}", f"/os/../{KERNEL}"),
        (f"/os/{KERNEL}", "/EFI/Linux/other.efi"),
        (f"/os/{INITRD}", f"/os/{INITRD}0"),
        ("sort-key swupd", "sort-key debian"),
        ("version 7", "version 7.1"),
        ("version 7", "version -7"),
        ("version 7", f"version {1 << 53}"),
    ],
)
def test_a_wrong_value_makes_it_somebody_elses(old: str, new: str) -> None:
    assert parse(ENTRY.file_name, ENTRY.text().replace(old, new)) is None


def test_a_file_that_is_too_long_is_no_entry() -> None:
    assert parse(ENTRY.file_name, ENTRY.text() + "#" * ENTRY_LIMIT) is None


def test_the_newest_entry_comes_first_and_failed_ones_last() -> None:
    failed = replace(ENTRY, name="40", sequence=9, tries_left=0, tries_done=3)
    aside = replace(ENTRY, name="30", sequence=8, tries_left=0)
    good = replace(ENTRY, name="10", sequence=1).good()
    assert [entry.name for entry in loader_order([aside, good, failed, ENTRY])] == ["20", "10", "40", "30"]


@given(st.lists(entries, unique_by=lambda entry: entry.sequence))
def test_the_order_does_not_depend_on_the_order_in_the_directory(found: list[BootEntry]) -> None:
    assert loader_order(found) == loader_order(reversed(found))
    assert sorted(e.file_name for e in found) == sorted(e.file_name for e in loader_order(found))


def test_states_exclude_each_other() -> None:
    states = [ENTRY, ENTRY.good(), ENTRY.set_aside(), replace(ENTRY, tries_left=0, tries_done=3)]
    told = [[e.is_on_trial, e.is_good, e.is_set_aside, e.is_failed] for e in states]
    assert told == [[i == n for i in range(4)] for n in range(4)]


@given(st.lists(names))
def test_a_free_name_is_free_and_of_its_version(taken: list[str]) -> None:
    name = free_name(20, taken)
    assert name not in taken
    assert version_of(name) == 20
    assert is_deployment_name(name)


def test_a_further_deployment_of_a_version_is_numbered() -> None:
    assert [free_name(20, taken) for taken in ([], ["10"], ["20"], ["20", "20.2"])] == ["20", "20", "20.1", "20.3"]


@given(st.from_regex(r"[0-9a-f]{64}", fullmatch=True))
def test_kernels_are_named_after_their_content(digest: str) -> None:
    for name in (kernel_name(digest), initrd_name(digest)):
        assert digest.startswith(name.partition("-")[2])
        assert is_kernel_file(name)


def test_the_command_line_leads_to_the_deployment() -> None:
    assert kernel_options("u-1", "20.1", " quiet\n panic=1 ") == "root=UUID=u-1 rootflags=subvol=@/20.1 quiet panic=1"
    assert kernel_options("u-1", "20", "") == "root=UUID=u-1 rootflags=subvol=@/20"
