"""Manifests: what is read, what is refused and where, and what is written."""

from __future__ import annotations

import os
import time
from dataclasses import replace

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from swupd.errors import ExitCode, ManifestError
from swupd.formats import manifest as manifest_module
from swupd.formats.filehash import ZERO_HASH, hash_content
from swupd.formats.manifest import (
    ENTRIES_LIMIT,
    VARIANTS,
    Entry,
    FileType,
    Level,
    Manifest,
    Status,
    is_bundle_name,
    parse,
    serialise,
    sort_key,
)

HASH = "28cb7c6cad23920f344157f48ae353caca34e9a2f5cff934a4fdaaf7509f2062"
OTHER_HASH = "0def1663fd06f61090c6e4f0525302231f3278ea93bc18efe773d6f955c6cffd"
USR_HASH = "6c27df6efcd6fc401ff1bc67c970b83eef115f6473db4fb9d57e5de317eba96e"

EXAMPLE = f"""\
MANIFEST\t30
version:\t20
previous:\t10
filecount:\t9
timestamp:\t1700000000
contentsize:\t42

L...\t{OTHER_HASH}\t10\t/lib
D...\t{USR_HASH}\t10\t/usr
D...\t{USR_HASH}\t10\t/usr/lib
D...\t{USR_HASH}\t10\t/usr/share
F...\t{HASH}\t10\t/usr/share/clear/bundles/os-core
.d..\t{ZERO_HASH}\t20\t/usr/bin/oldtool
.g..\t{ZERO_HASH}\t20\t/usr/lib/kernel/config-1.0
F...\t4a20209d1b28b8624e706d2ee6b17101bdca2792091673fe4f0c6e8d30a29b65\t20\t/usr/lib/os-release
F...\t8fe8a5e925349b38119476ae923fec2101d92ceaf8d107965c3b3643dbf181e3\t20\t/usr/share/defaults/swupd/format
""".encode()

EXAMPLE_MOM = b"""\
MANIFEST\t30
version:\t20
previous:\t10
minversion:\t10
filecount:\t1
timestamp:\t1700000000
contentsize:\t0

M...\t9d7c113ede1ae79874f04c77625c0b309a4c48b3321cf1ccb5f93a530aa1e023\t20\tos-core
"""

HEADER = "MANIFEST\t30\nversion:\t20\nprevious:\t10\nfilecount:\t9\ntimestamp:\t1700000000\ncontentsize:\t42\n"


def read(*lines: str, header: str = HEADER, is_mom: bool = False, levels: frozenset[Level] | None = None) -> Manifest:
    data = os.fsencode(header + "\n" + "".join(f"{line}\n" for line in lines))
    return parse(data, name="editors", is_mom=is_mom, levels=levels or frozenset({Level.SSE}))


def line(flags: str = "F...", file_hash: str = HASH, version: str = "10", name: str = "/usr/bin/vi") -> str:
    return f"{flags}\t{file_hash}\t{version}\t{name}"


def refusal(*lines: str, header: str = HEADER, is_mom: bool = False) -> str:
    with pytest.raises(ManifestError) as caught:
        read(*lines, header=header, is_mom=is_mom)
    assert caught.value.exit_code == ExitCode.MANIFEST
    assert caught.value.hint
    assert "\n" not in str(caught.value)
    return str(caught.value)


def with_header(old: str, new: str) -> str:
    assert old in HEADER
    return HEADER.replace(old, new)


# Whole manifests


def test_the_example_of_the_specification_is_read() -> None:
    read_back = parse(EXAMPLE, name="os-core")
    assert (read_back.format, read_back.version, read_back.previous) == (30, 20, 10)
    assert (read_back.timestamp, read_back.contentsize, read_back.minversion) == (1700000000, 42, 0)
    assert read_back.includes == read_back.also_add == ()
    assert len(read_back.entries) == 9
    assert read_back.entries[0] == Entry.present(FileType.LINK, OTHER_HASH, 10, "/lib")
    assert read_back.entries[5] == Entry.deleted(20, "/usr/bin/oldtool")
    assert read_back.entries[6] == Entry.ghosted(20, "/usr/lib/kernel/config-1.0")


def test_the_examples_of_the_specification_are_written_byte_for_byte() -> None:
    assert serialise(parse(EXAMPLE, name="os-core")) == EXAMPLE
    assert serialise(parse(EXAMPLE_MOM, name="MoM", is_mom=True)) == EXAMPLE_MOM


def test_the_example_mom_holds_the_hash_of_the_example_manifest() -> None:
    (bundle,) = parse(EXAMPLE_MOM, name="MoM", is_mom=True).entries
    assert bundle.type is FileType.MANIFEST
    assert bundle.hash == hash_content(0o100644, 0, 0, EXAMPLE)


def test_entries_of_the_example_are_published_in_the_order_of_the_sort_key() -> None:
    entries = parse(EXAMPLE, name="os-core").entries
    shuffled = sorted(entries, key=lambda entry: entry.hash)
    assert tuple(sorted(shuffled, key=sort_key)) == entries


def test_names_are_sorted_by_their_bytes() -> None:
    names = ["/a\udcff", "/a\uffff", "/a\U00010000"]
    entries = [Entry.deleted(10, name) for name in names]
    by_bytes = [b"/a\xef\xbf\xbf", b"/a\xf0\x90\x80\x80", b"/a\xff"]
    assert [os.fsencode(entry.name) for entry in sorted(entries, key=sort_key)] == by_bytes


# Headers


def test_entries_that_the_former_manifest_has_as_well_are_the_same_objects() -> None:
    former = parse(EXAMPLE, name="os-core")
    newer = EXAMPLE.replace(b"\t20\t/usr/bin/oldtool", b"\t30\t/usr/bin/oldtool")
    found = parse(newer, name="os-core", former=former)
    assert found == parse(newer, name="os-core")
    same = [any(entry is other for other in former.entries) for entry in found.entries]
    assert same == [entry.name != "/usr/bin/oldtool" for entry in found.entries]


def test_includes_and_also_adds_are_read_in_their_order() -> None:
    header = HEADER + "includes:\tos-core\nalso-add:\tdocs\nincludes:\tlibs\n"
    assert read(line(), header=header).includes == ("os-core", "libs")
    assert read(line(), header=header).also_add == ("docs",)


def test_unknown_header_keys_are_ignored_and_the_order_does_not_matter() -> None:
    lines = HEADER.splitlines(keepends=True)
    header = "".join([lines[0], "actions:\tupdate\n", "later:\tanything\twith a tab\n", *reversed(lines[1:])])
    assert read(line(), header=header) == read(line())


@pytest.mark.parametrize("key", ["MANIFEST", "version:", "previous:", "filecount:", "timestamp:", "contentsize:"])
def test_a_header_without_a_required_key_is_refused(key: str) -> None:
    header = "".join(text for text in HEADER.splitlines(keepends=True) if not text.startswith(key))
    assert key in refusal(line(), header=header)


@pytest.mark.parametrize(
    ("old", "new", "number"),
    [
        ("MANIFEST\t30", "MANIFEST\t0", 1),
        ("MANIFEST\t30", "MANIFEST\t30x", 1),
        ("MANIFEST\t30", "manifest\t30", 1),
        ("version:\t20", "version:\t0", 2),
        ("version:\t20", "version:\t-20", 2),
        ("version:\t20", "version:\t2147483648", 2),
        ("version:\t20", "version:\t" + "9" * 5000, 2),
        ("version:\t20", "version:\t２０", 2),
        ("version:\t20", "version:\t 20", 2),
        ("version:\t20", "version: 20", 2),
        ("previous:\t10", "previous:\tnone", 3),
        ("filecount:\t9", "filecount:\t0", 4),
        ("filecount:\t9", "filecount:\t4000001", 4),
        ("timestamp:\t1700000000", "timestamp:\t0", 5),
        ("timestamp:\t1700000000", "timestamp:\t999999999999", 5),
        ("contentsize:\t42", "contentsize:\t2000000000001", 6),
        ("contentsize:\t42", "contentsize:\t42\ncontentsize:\t42", 7),
        ("contentsize:\t42", "contentsize:\t42\nMANIFEST\t30", 7),
        ("contentsize:\t42", "contentsize:\t42\nincludes:\tMoM", 7),
        ("contentsize:\t42", "contentsize:\t42\nincludes:\t../x", 7),
        ("contentsize:\t42", "contentsize:\t42\nalso-add:\t", 7),
        ("contentsize:\t42", "contentsize:\t42\nlater:\t" + "x" * 9000, 7),
    ],
)
def test_a_wrong_header_line_is_refused_with_its_number(old: str, new: str, number: int) -> None:
    assert refusal(line(), header=with_header(old, new)).startswith(f"manifest editors, line {number}: ")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("previous:\t10", "previous:\t0"),
        ("filecount:\t9", f"filecount:\t{ENTRIES_LIMIT}"),
        ("contentsize:\t42", "contentsize:\t2000000000000"),
        ("version:\t20", "version:\t2147483647"),
    ],
)
def test_the_largest_and_smallest_values_are_read(old: str, new: str) -> None:
    assert read(line(), header=with_header(old, new)).entries


def test_the_filecount_is_not_compared() -> None:
    assert len(read(line(), header=with_header("filecount:\t9", "filecount:\t1000")).entries) == 1


def test_too_many_header_lines_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifest_module, "HEADER_LINES_LIMIT", 6)
    assert read(line()).entries
    assert "more than 6 lines" in refusal(line(), header=HEADER + "includes:\tos-core\n")


# Bodies


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"", "incomplete"),
        (b"\n", "no empty line"),
        (b"\n\n", "no entries"),
        (b"MANIFEST\t30\n", "no empty line"),
        (EXAMPLE[:-1], "incomplete"),
        (EXAMPLE[:300], "incomplete"),
        (EXAMPLE[: EXAMPLE.index(b"\n\n") + 2], "no entries"),
        (EXAMPLE + b"\n", "line 17: an empty line"),
        (EXAMPLE.replace(b"/usr\n", b"/usr\n\n"), "line 10: an empty line"),
        (EXAMPLE.replace(b"\n", b"\r\n"), "no empty line"),
    ],
)
def test_a_broken_file_is_refused(data: bytes, what: str) -> None:
    with pytest.raises(ManifestError, match=what):
        parse(data, name="os-core")


@pytest.mark.parametrize(
    "bad",
    [
        "",
        "F...",
        line().replace("\t", " "),
        line(flags="F.."),
        line(flags="F...."),
        line(flags="X..."),
        line(flags="...."),
        line(flags="M...", name="editors"),
        line(flags="F?.."),
        line(flags="F.~."),
        line(flags="F. ."),
        line(file_hash=HASH[1:]),
        line(file_hash=HASH.upper()),
        line(file_hash=ZERO_HASH),
        line(flags=".d.."),
        line(flags=".g.."),
        line(version="0"),
        line(version="-1"),
        line(version="+1"),
        line(version="010"),
        line(version="2147483648"),
        line(version="99999999999"),
        line(version="１"),
        line(name=""),
        line(name="/"),
        line(name="usr/bin"),
        line(name="/usr/"),
        line(name="//usr"),
        line(name="/usr//bin"),
        line(name="/usr/./bin"),
        line(name="/usr/../bin"),
        line(name="/.."),
        line(name="/usr/."),
        line(name="/usr/bin\tx"),
        line(name="/usr/bin\r"),
        line(name="/usr/\0bin"),
        line(name="/usr/\x7fbin"),
        line(name="/" + "x" * 8200),
        line(name="/" + "é" * 4100),
    ],
)
def test_a_wrong_entry_is_refused_with_the_number_of_its_line(bad: str) -> None:
    good = [line(name="/a"), line(name="/b"), line(name="/c")]
    assert refusal(good[0], good[1], bad, good[2]).startswith("manifest editors, line 10: ")


@pytest.mark.parametrize(
    "name", ["/...", "/.hidden", "/..x/y", "/x..", "/a b", "/a;b", "/é\u2028\x85", "/\udcff", "/I"]
)
def test_unusual_names_are_read_as_they_are(name: str) -> None:
    assert read(line(name=name)).entries[0].name == name


def test_a_line_of_the_largest_length_is_read() -> None:
    rest = len(line(name="/"))
    assert read(line(name="/" + "x" * (8191 - rest))).entries
    refusal(line(name="/" + "x" * (8192 - rest)))


def test_more_entries_than_the_limit_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifest_module, "ENTRIES_LIMIT", 2)
    assert "more than 2 entries" in refusal(line(name="/a"), line(name="/b"), line(name="/c"))


def test_a_file_larger_than_the_limit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifest_module, "MANIFEST_BYTES_LIMIT", len(EXAMPLE) - 1)
    with pytest.raises(ManifestError, match="more than"):
        parse(EXAMPLE, name="os-core")


def test_old_iterative_lines_are_dropped() -> None:
    assert [entry.name for entry in read(line(flags="I...", name="editors.I.10"), line(name="/a")).entries] == ["/a"]
    assert "no entries" in refusal(line(flags="I...", name="editors.I.10"))


def test_a_message_shows_a_short_piece_of_what_was_wrong() -> None:
    assert len(refusal("\x1b[2J" + "x" * 5000)) < 200
    assert "\x1b" not in refusal("\x1b[2J")


# Flags


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("F..x", "F..x"),
        ("F..r", "F..."),
        ("F..m", "F..."),
        ("F.b.", "F..."),
        ("D.s.", "D..."),
        ("L.C.", "L..."),
        ("Fe..", "Fe.."),
    ],
)
def test_flags_without_a_meaning_read_as_none(flags: str, expected: str) -> None:
    assert read(line(flags=flags)).entries[0].flags == expected


@pytest.mark.parametrize(("flags", "expected"), [("Fd..", ".d.."), (".db.", ".d.."), ("Lg.r", ".g..")])
def test_an_absent_entry_has_no_type(flags: str, expected: str) -> None:
    assert read(line(flags=flags, file_hash=ZERO_HASH)).entries[0].flags == expected


def test_the_properties_of_an_entry_are_its_flags() -> None:
    present = Entry.present(FileType.FILE, HASH, 10, "/x", exported=True)
    assert (present.flags, present.type, present.status) == ("F..x", FileType.FILE, Status.PRESENT)
    assert (present.is_present, present.is_exported, present.is_deleted, present.is_ghosted) == (
        True,
        True,
        False,
        False,
    )
    experimental = Entry.present(FileType.MANIFEST, HASH, 10, "x", experimental=True)
    assert (experimental.flags, experimental.is_experimental, experimental.is_present) == ("Me..", True, True)
    deleted, ghosted = Entry.deleted(10, "/x"), Entry.ghosted(10, "/x")
    assert (deleted.flags, deleted.hash, deleted.is_deleted, deleted.is_present) == (".d..", ZERO_HASH, True, False)
    assert (ghosted.flags, ghosted.hash, ghosted.is_ghosted, ghosted.is_present) == (".g..", ZERO_HASH, True, False)
    assert deleted.type is FileType.NONE


# CPU variants

SSE, AVX2, AVX512, APX = Level
MACHINES = [{SSE}, {SSE, AVX2}, {SSE, AVX2, AVX512}, {SSE, AVX2, AVX512, APX}, {AVX2}]
SETS = {available for _, available in VARIANTS.values()}


def test_the_letters_are_the_builders_enumeration() -> None:
    alphabet = ".acdefghijklmnopqrtu"
    bits = [0, 1, 2, 3, 1, 3, 2, 3, 4, 5, 6, 7, 5, 7, 6, 7, 4, 5, 6, 7]
    levels = [SSE] * 4 + [AVX2] * 2 + [AVX512] * 2 + [SSE] * 4 + [AVX2] * 2 + [AVX512] * 2 + [APX] * 4
    assert list(VARIANTS) == list(alphabet)
    for letter, bit, level in zip(alphabet, bits, levels, strict=True):
        available = frozenset({SSE, *(other for shift, other in enumerate((AVX2, AVX512, APX)) if bit & 1 << shift)})
        assert VARIANTS[letter] == (level, available)


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("available", SETS)
def test_exactly_the_best_variant_for_the_machine_is_kept(machine: set[Level], available: frozenset[Level]) -> None:
    letters = {level: letter for letter, (level, of) in VARIANTS.items() if of == available}
    assert set(letters) == available
    lines = [line(flags=f"F.{letter}.", name="/x") for letter in letters.values()]
    (kept,) = read(*lines, levels=frozenset(machine)).entries
    assert kept.flags[2] == letters[max(available & (machine | {SSE}))]


@pytest.mark.parametrize("letter", "vwxyzABDEFZ09!#^*")
def test_variants_of_the_future_are_left_out(letter: str) -> None:
    lines = [line(name="/x"), line(flags=f"F.{letter}.", name="/x")]
    assert [entry.flags for entry in read(*lines).entries] == ["F..."]


# Duplicates


def test_two_present_lines_of_one_name_are_refused() -> None:
    lines = [line(name="/a"), line(name="/b"), line(name="/b", file_hash=OTHER_HASH)]
    assert "line 10: listed twice: '/b'" in refusal(*lines)


def test_a_present_and_a_deleted_line_of_one_name_stand_together() -> None:
    lines = [line(name="/a"), line(flags=".d.r", file_hash=ZERO_HASH, name="/a")]
    assert len(read(*lines).entries) == 2
    refusal(*lines, lines[1])


# The MoM


def test_a_mom_has_bundles() -> None:
    mom = read(line(flags="M...", name="c-basic"), line(flags="Me..", name="libc++"), is_mom=True)
    assert [entry.name for entry in mom.entries] == ["c-basic", "libc++"]
    assert [entry.is_experimental for entry in mom.entries] == [False, True]


@pytest.mark.parametrize(
    "bad",
    [
        line(),
        line(name="vi"),
        line(flags="M..."),
        *(
            line(flags="M...", name=name)
            for name in ("", "MoM", "full", ".", "..", ".x", "-x", "a b", "a/b", "é", "x" * 161)
        ),
    ],
)
def test_a_mom_has_nothing_else(bad: str) -> None:
    assert "line 9" in refusal(line(flags="M...", name="a"), bad, is_mom=True)


def test_a_bundle_that_is_gone_is_not_in_the_mom() -> None:
    lines = [line(flags="M...", name="a"), line(flags="Md..", file_hash=ZERO_HASH, name="b")]
    assert [entry.name for entry in read(*lines, is_mom=True).entries] == ["a"]
    refusal(lines[1], is_mom=True)


def test_a_bundle_is_listed_once() -> None:
    lines = [line(flags="M...", name=name) for name in ("a", "b", "a")]
    assert "line 10: listed twice: 'a'" in refusal(*lines, is_mom=True)


@pytest.mark.parametrize(
    ("name", "expected"),
    [("os-core", True), ("c++_basic.1", True), ("MoM", False), ("full", False), ("..", False), ("a\n", False)],
)
def test_a_bundle_name(name: str, expected: bool) -> None:
    assert is_bundle_name(name) is expected


# Writing

MANIFEST = Manifest(
    format=30,
    version=20,
    previous=10,
    timestamp=1700000000,
    contentsize=3_000_000_000,
    minversion=10,
    includes=("os-core", "libs"),
    also_add=("docs",),
    entries=(Entry.present(FileType.MANIFEST, HASH, 10, "editors", experimental=True),),
)


@pytest.mark.parametrize(
    ("number", "minversion", "also_add", "experimental", "contentsize"),
    [
        (25, False, False, False, 1_999_999_999),
        (26, True, False, False, 3_000_000_000),
        (27, True, False, True, 3_000_000_000),
        (28, True, False, True, 3_000_000_000),
        (29, True, True, True, 3_000_000_000),
        (30, True, True, True, 3_000_000_000),
    ],
)
def test_a_format_has_the_header_lines_that_its_clients_know(
    number: int, minversion: bool, also_add: bool, experimental: bool, contentsize: int
) -> None:
    data = serialise(replace(MANIFEST, format=number))
    assert (b"\nminversion:\t10\nfilecount:\t1\n" in data) is minversion
    assert (b"\nincludes:\tlibs\nalso-add:\tdocs\n\n" in data) is also_add
    assert (b"\nMe..\t" in data) is experimental
    assert f"\ncontentsize:\t{contentsize}\nincludes:\tos-core\n".encode() in data


@pytest.mark.parametrize(
    "entries",
    [
        (),
        (Entry.present(FileType.FILE, HASH, 10, "relative"),),
        (Entry.present(FileType.FILE, HASH, 0, "/x"),),
        (Entry.present(FileType.FILE, ZERO_HASH, 10, "/x"),),
        (Entry.deleted(10, "/a\n/b"),),
        (Entry.deleted(10, "/a"), Entry.deleted(10, "/a")),
        (Entry.deleted(10, f"/a\n.d..\t{ZERO_HASH}\t10\t/b"),),
    ],
)
def test_what_no_client_reads_is_not_written(entries: tuple[Entry, ...]) -> None:
    with pytest.raises(ManifestError, match="manifest editors"):
        serialise(replace(MANIFEST, entries=entries), name="editors")


NAME_BYTES = st.sampled_from([byte for byte in range(32, 256) if byte not in b"/\x7f"])
COMPONENT = st.lists(NAME_BYTES, min_size=1, max_size=12).map(bytes).filter(lambda raw: raw not in {b".", b".."})
PATHS = st.lists(COMPONENT, min_size=1, max_size=4).map(lambda parts: os.fsdecode(b"/" + b"/".join(parts)))
HASHES = st.binary(min_size=32, max_size=32).filter(any).map(bytes.hex)
VERSIONS = st.integers(1, 2**31 - 1)
BUNDLES = st.from_regex(r"[A-Za-z0-9_+][A-Za-z0-9_+.-]{0,20}", fullmatch=True).filter(is_bundle_name)
TYPES = st.sampled_from([FileType.FILE, FileType.DIRECTORY, FileType.LINK])
ENTRIES = st.one_of(
    st.builds(Entry.present, TYPES, HASHES, VERSIONS, PATHS, exported=st.booleans(), experimental=st.booleans()),
    st.builds(Entry.deleted, VERSIONS, PATHS),
    st.builds(Entry.ghosted, VERSIONS, PATHS),
)
MANIFESTS = st.builds(
    Manifest,
    format=st.integers(29, 1000),
    version=VERSIONS,
    previous=st.integers(0, 2**31 - 1),
    timestamp=st.integers(1, 10**11),
    contentsize=st.integers(0, 2 * 10**12),
    minversion=st.integers(0, 2**31 - 1),
    includes=st.lists(BUNDLES, max_size=5).map(tuple),
    also_add=st.lists(BUNDLES, max_size=5).map(tuple),
    entries=st.lists(ENTRIES, min_size=1, max_size=20, unique_by=lambda entry: entry.name).map(tuple),
)


@settings(max_examples=100, deadline=None)
@given(MANIFESTS)
def test_what_is_written_is_read_back_equal(value: Manifest) -> None:
    assert parse(serialise(value), name="x") == value


def parses_or_is_refused(data: bytes) -> None:
    for is_mom in (False, True):
        try:
            parsed = parse(data, name="x", is_mom=is_mom)
        except ManifestError:
            continue
        assert parsed.entries
        again = parse(serialise(parsed), name="x", is_mom=is_mom)
        assert [entry[1:] for entry in again.entries] == [entry[1:] for entry in parsed.entries]


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=500))
@example(b"MANIFEST\t30\n\n\n")
def test_arbitrary_bytes_are_refused_and_nothing_else(data: bytes) -> None:
    parses_or_is_refused(data)


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_a_damaged_manifest_is_read_or_refused_and_nothing_else(data: st.DataObject) -> None:
    original = data.draw(st.sampled_from([EXAMPLE, EXAMPLE_MOM]))
    start = data.draw(st.integers(0, len(original)))
    end = data.draw(st.integers(start, min(len(original), start + 40)))
    parses_or_is_refused(original[:start] + data.draw(st.binary(max_size=20)) + original[end:])


def test_a_large_manifest_is_read_in_time() -> None:
    """450,000 entries in less than two seconds, measured on a tenth and with room for a busy machine."""
    count = 45_000
    lines = [line(file_hash=f"{i + 1:064x}", name=f"/usr/share/doc/package-{i % 900}/{i}.txt") for i in range(count)]
    data = (HEADER + "\n" + "\n".join(lines) + "\n").encode()
    start = time.process_time()
    assert len(parse(data, name="large").entries) == count
    assert time.process_time() - start < 1.0
