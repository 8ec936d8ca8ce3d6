from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swupd.errors import UpdateIndexError
from swupd.formats import updateindex
from swupd.formats.manifest import VERSION_LIMIT
from swupd.formats.updateindex import (
    INDEX_BYTES_LIMIT,
    SIZE_LIMIT,
    BundleCost,
    PackFile,
    Update,
    UpdateIndex,
    parse,
    serialise,
)

SHA = "0123456789abcdef" * 4
INDEX = UpdateIndex(
    20,
    (
        Update(5, None, {"os-core": BundleCost(5, None, 700)}),
        Update(10, PackFile(1234, SHA), {"os-core": BundleCost(10, 500, 600), "new": BundleCost(0, None, 0)}),
    ),
)
sizes = st.integers(0, SIZE_LIMIT)
names = st.from_regex(r"[a-z0-9][a-z0-9.+_-]{0,20}", fullmatch=True).filter(lambda name: name not in {"full", "MoM"})


@st.composite
def indexes(draw: st.DrawFn) -> UpdateIndex:
    version = draw(st.integers(2, VERSION_LIMIT))
    updates = []
    for from_version in sorted(draw(st.sets(st.integers(1, version - 1), max_size=3))):
        costs = st.builds(BundleCost, st.integers(0, from_version), st.none() | sizes, sizes)
        pack = draw(st.none() | st.builds(PackFile, sizes, st.from_regex(r"[0-9a-f]{64}", fullmatch=True)))
        updates.append(Update(from_version, pack, draw(st.dictionaries(names, costs, max_size=3))))
    return UpdateIndex(version, tuple(updates))


@given(indexes())
def test_an_index_is_read_as_it_was_written(index: UpdateIndex) -> None:
    assert parse(serialise(index)) == index


def test_the_same_index_gives_the_same_bytes() -> None:
    turned = UpdateIndex(20, (Update(10, PackFile(1234, SHA), dict(reversed(INDEX.updates[1].bundles.items()))),))
    assert serialise(turned) == serialise(UpdateIndex(20, (INDEX.updates[1],)))
    assert serialise(UpdateIndex(20, INDEX.updates[::-1])) == serialise(INDEX)
    assert serialise(INDEX).endswith(b"}\n")


def test_the_update_from_a_version_is_found() -> None:
    assert INDEX.update_from(10) is INDEX.updates[1]
    assert INDEX.update_from(11) is None


def raw() -> Any:
    return json.loads(serialise(INDEX))


def dumped(value: object) -> bytes:
    return json.dumps(value).encode()


def test_keys_that_nobody_knows_are_skipped() -> None:
    value = raw()
    value["later"] = value["updates"][1]["later"] = value["updates"][1]["bundles"]["os-core"]["later"] = [1]
    assert parse(dumped(value)) == INDEX


@pytest.mark.parametrize("number", [0, 2, "1", None, True, 1.0])
def test_another_format_is_refused(number: object) -> None:
    with pytest.raises(UpdateIndexError, match="the format"):
        parse(dumped(raw() | {"format": number}))


NUMBERS = [
    ("version",),
    ("updates", 1, "from"),
    ("updates", 1, "pack", "bytes"),
    ("updates", 1, "bundles", "os-core", "from"),
    ("updates", 1, "bundles", "os-core", "pack"),
    ("updates", 1, "bundles", "os-core", "fullfiles"),
]


def with_value(path: tuple[Any, ...], value: object) -> bytes:
    top = raw()
    place = top
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return dumped(top)


@pytest.mark.parametrize("path", NUMBERS)
@pytest.mark.parametrize("value", [-1, SIZE_LIMIT + 1, 10**30, 1.5, "7", True, [], {}])
def test_a_number_that_is_none_or_too_large_is_refused(path: tuple[Any, ...], value: object) -> None:
    with pytest.raises(UpdateIndexError, match="is not a number from"):
        parse(with_value(path, value))


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("updates", 1, "from"), 20, "not a number from 1 to 19"),
        (("updates", 0, "from"), 10, "two updates"),
        (("updates", 1, "bundles", "os-core", "from"), 11, "not a number from 0 to 10"),
        (("updates", 1, "pack", "sha256"), SHA[:-1], "no checksum"),
        (("updates", 1, "pack", "sha256"), SHA.upper(), "no checksum"),
        (("updates", 1, "pack", "sha256"), 5, "no checksum"),
        (("updates", 1, "pack"), [], "no 'sha256'"),
        (("updates", 1, "bundles", "../x"), {}, "no bundle may be called"),
        (("updates", 1, "bundles", "full"), {}, "no bundle may be called"),
        (("updates", 1, "bundles", "x"), {}, "no 'pack' for bundle x"),
        (("updates", 1, "bundles", "x"), 5, "no 'pack' for bundle x"),
        (("updates", 1, "bundles"), [], "no bundles in the update from 10"),
        (("updates", 1), None, "no 'from'"),
        (("updates",), {}, "not a list"),
    ],
)
def test_what_is_not_as_described_is_refused(path: tuple[Any, ...], value: object, message: str) -> None:
    with pytest.raises(UpdateIndexError, match=message):
        parse(with_value(path, value))


@pytest.mark.parametrize("key", ["format", "version", "updates"])
def test_a_missing_key_is_refused(key: str) -> None:
    value = raw()
    del value[key]
    with pytest.raises(UpdateIndexError, match=f"no '{key}'"):
        parse(dumped(value))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"null",
        b"[]",
        b"{",
        b"\xff\xfe",
        b"\xff",
        b"[" * 100_000,
        b'{"format": 1, "version": ' + b"9" * 10_000 + b"}",
    ],
)
def test_what_is_not_the_json_of_an_index_is_refused(data: bytes) -> None:
    with pytest.raises(UpdateIndexError):
        parse(data)


def test_an_index_beyond_the_limit_is_refused_unread() -> None:
    with pytest.raises(UpdateIndexError, match="more than the"):
        parse(serialise(INDEX) + b" " * INDEX_BYTES_LIMIT)


@given(st.binary(max_size=100))
def test_noise_never_raises_anything_else(data: bytes) -> None:
    with suppress(UpdateIndexError):
        parse(data)


keys = st.sampled_from(["format", "version", "updates", "from", "pack", "bundles", "bytes", "sha256", "fullfiles"])
values = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 30) | st.floats() | st.text(max_size=5) | st.just(SHA),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(keys | st.text(max_size=3), inner, max_size=4),
)


@given(values, st.sampled_from([(), ("updates",), ("updates", 1), *NUMBERS]))
def test_no_json_raises_anything_else(value: object, path: tuple[Any, ...]) -> None:
    with suppress(UpdateIndexError):
        parse(with_value(path, value) if path else dumped(value))


def test_the_format_is_the_one_of_the_page() -> None:
    assert updateindex.FORMAT == 1
    assert raw()["updates"][1] == {
        "from": 10,
        "pack": {"bytes": 1234, "sha256": SHA},
        "bundles": {
            "os-core": {"from": 10, "pack": 500, "fullfiles": 600},
            "new": {"from": 0, "pack": None, "fullfiles": 0},
        },
    }
