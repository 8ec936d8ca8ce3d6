from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from mixer.pairs import pairs
from swupd.formats.manifest import Entry, FileType


def file(name: str, content: str, version: int = 10) -> Entry:
    return Entry.present(FileType.FILE, content[0] * 64, version, name)


def named(old: list[Entry], new: list[Entry], since: int = 10) -> list[tuple[str, str]]:
    """The paths of the pairs; the content of the files above is not looked at."""
    return [(pair.old.name, pair.new.name) for pair in pairs(old, new, since=since)]


def test_a_changed_file_is_made_from_the_old_one_of_its_path() -> None:
    old, new = file("/usr/bin/a", "1"), file("/usr/bin/a", "2", 20)

    assert pairs([old], [new], since=10) == [(old, new)]


def test_only_what_is_newer_and_different_has_a_pair() -> None:
    old = [file("/a", "1"), file("/b", "2", 20), file("/c", "3")]
    new = [file("/a", "1", 20), file("/b", "4", 20), file("/c", "5", 10)]

    assert pairs(old, new, since=20) == []
    assert named(old, new, since=10) == [("/b", "/b")]


def test_only_present_regular_files_are_paired() -> None:
    old = [
        Entry.present(FileType.LINK, "1" * 64, 10, "/link"),
        Entry.present(FileType.DIRECTORY, "2" * 64, 10, "/directory"),
        Entry.deleted(10, "/gone"),
        file("/becomes-link", "3"),
        file("/becomes-nothing", "4"),
    ]
    new = [
        file("/link", "5", 20),
        file("/directory", "6", 20),
        file("/gone", "7", 20),
        Entry.present(FileType.LINK, "8" * 64, 20, "/becomes-link"),
        Entry.ghosted(20, "/becomes-nothing"),
    ]

    assert named(old, new) == []


def test_an_experimental_file_is_a_file() -> None:
    old = Entry.present(FileType.FILE, "1" * 64, 10, "/a", experimental=True)
    new = Entry.present(FileType.FILE, "2" * 64, 20, "/a", experimental=True)

    assert pairs([old], [new], since=10) == [(old, new)]


def test_what_the_system_has_under_another_name_is_taken_from_there() -> None:
    old = [file("/stays", "1"), file("/moves", "2"), file("/changes", "3")]
    new = [file("/stays", "1"), file("/copy", "1", 20), file("/moved", "2", 20), file("/changes", "1", 20)]

    assert named(old, new) == [("/stays", "/changes"), ("/moves", "/moved")]


def test_each_new_content_comes_once() -> None:
    old = [file("/a", "1"), file("/b", "2"), file("/x1", "3"), file("/x2", "4")]
    new = [file("/a", "9", 20), file("/b", "9", 20), file("/c", "9", 20), file("/x3", "9", 20), file("/x4", "9", 20)]

    assert named(old, new) == [("/a", "/a")]


def test_a_path_that_differs_in_numbers_is_the_same_file_in_another_version() -> None:
    old = [
        file("/lib/modules/6.1.0-47-cloud-amd64/kernel/fs/xfs.ko", "1"),
        file("/lib/modules/6.1.0-47-cloud-amd64/kernel/fs/ext4.ko", "2"),
        file("/usr/lib/libdns-9.18.so.12", "3"),
        file("/usr/lib/python3.11/os.py", "4"),
    ]
    new = [
        file("/lib/modules/6.1.0-50-cloud-amd64/kernel/fs/ext4.ko", "5", 20),
        file("/lib/modules/6.1.0-50-cloud-amd64/kernel/fs/xfs.ko", "6", 20),
        file("/usr/lib/libdns-9.20.so.13", "7", 20),
        file("/usr/lib/python3.12/os.py", "8", 20),
    ]

    assert named(old, new) == [
        (old[1].name, new[0].name),
        (old[0].name, new[1].name),
        (old[2].name, new[2].name),
        (old[3].name, new[3].name),
    ]


def test_files_of_one_name_without_numbers_are_paired_in_order() -> None:
    old = [file("/x1", "1"), file("/x2", "2"), file("/x3", "3")]

    assert named(old, [file("/x5", "5", 20), file("/x4", "4", 20)]) == [("/x1", "/x4"), ("/x2", "/x5")]


def test_of_several_paths_with_a_new_content_the_one_that_finds_an_old_file_is_taken() -> None:
    old = [file("/x1", "1"), file("/y1", "2")]
    new = [file("/a", "9", 20), file("/x2", "9", 20), file("/x3", "8", 20), file("/y2", "9", 20)]

    assert named(old, new) == [("/x1", "/x2")]


def test_numbers_say_more_than_build_identifiers_and_these_more_than_a_base_name() -> None:
    old = [file("/d/lib-1fa.so", "1"), file("/d/lib-2.so", "2"), file("/lib/systemd/system/x1.service", "3")]
    new = [file("/d/lib-b3.so", "4", 20), file("/d/lib-4.so", "5", 20), file("/usr/lib/systemd/x2.service", "6", 20)]

    assert named(old, new) == [
        ("/d/lib-2.so", "/d/lib-4.so"),
        ("/d/lib-1fa.so", "/d/lib-b3.so"),
        ("/lib/systemd/system/x1.service", "/usr/lib/systemd/x2.service"),
    ]


def test_a_base_name_of_numbers_alone_says_nothing() -> None:
    assert named([file("/x/1.0", "1")], [file("/y/2.0", "2", 20)]) == []


def test_a_file_that_stays_or_serves_as_it_is_is_no_source_of_a_renamed_one() -> None:
    old = [file("/x1", "1"), file("/y1", "2")]
    new = [file("/x1", "1"), file("/x2", "3", 20), file("/z", "2", 20), file("/y2", "4", 20)]

    assert named(old, new) == [("/y1", "/z")]


def test_of_contradicting_manifests_the_newer_one_counts() -> None:
    old = [file("/a", "1", 5), file("/a", "2", 7), file("/a", "3", 6)]

    assert [pair.old.hash for pair in pairs(old, [file("/a", "9", 20)], since=10)] == ["2" * 64]


NAMES = ("/a", "/b1", "/b2", "/b1.3", "/c/x", "/d/x", "/c/fa1", "/c/b2", "/1/2")
ENTRIES = st.lists(
    st.one_of(
        st.builds(
            Entry.present,
            st.sampled_from((FileType.FILE, FileType.FILE, FileType.LINK)),
            st.sampled_from("123456").map(lambda digit: digit * 64),
            st.sampled_from((5, 10, 20)),
            st.sampled_from(NAMES),
            exported=st.booleans(),
        ),
        st.builds(Entry.deleted, st.just(20), st.sampled_from(NAMES)),
    ),
    max_size=12,
)


@given(ENTRIES, ENTRIES, st.randoms(use_true_random=False))
@settings(max_examples=200, deadline=None)
def test_pairs_are_what_they_are_said_to_be(old: list[Entry], new: list[Entry], chance: random.Random) -> None:
    found = pairs(old, new, since=10)

    for source, target in found:
        assert source in old
        assert target in new
        assert source.type is target.type is FileType.FILE
        assert source.is_present
        assert target.is_present
        assert target.version > 10
        assert (source.name, source.hash) != (target.name, target.hash)
    assert len({pair.new.hash for pair in found}) == len(found)
    assert found == sorted(found, key=lambda pair: pair.new.name)

    chance.shuffle(old)
    chance.shuffle(new)
    assert pairs(old, new, since=10) == found


@given(ENTRIES, ENTRIES)
@settings(max_examples=200, deadline=None)
def test_no_changed_path_and_no_content_at_hand_goes_without_a_pair(old: list[Entry], new: list[Entry]) -> None:
    found = {pair.new.hash: pair for pair in pairs(old, new, since=10)}
    before = {e.name: e for e in sorted(old, key=lambda e: (e.version, e.hash)) if e.is_present and e.flags[0] == "F"}
    after = {e.name: e for e in sorted(new, key=lambda e: (e.version, e.hash)) if e.is_present and e.flags[0] == "F"}
    contents = {entry.hash for entry in before.values()}

    for name, entry in after.items():
        if entry.version > 10 and (name not in before or before[name].hash != entry.hash):
            if entry.hash in contents:
                assert found[entry.hash].old.hash == entry.hash
            elif name in before:
                assert entry.hash in found
