"""YAML with lines: types, complaints and caps."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixer.errors import ConfigError
from mixer.located import MAX_DEPTH, MAX_FILE_BYTES, MAX_NODES, Node, Origin, decode, parse_yaml, read_text

ORIGIN = Origin("file.yaml", ConfigError)


def parse(text: str) -> Node:
    return parse_yaml(text, ORIGIN)


def refused(text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        parse(text)
    return str(caught.value)


def test_a_value_has_the_line_of_its_key() -> None:
    keys = parse("a: 1\n\nb:\n  - x\n  - y\n").section(("a", "b"))
    assert keys["a"].line == 1
    assert keys["b"].line == 3
    assert keys["b"].texts() == [("x", 4), ("y", 5)]


@pytest.mark.parametrize("written", ["no", "1.0", "2024", "1e3", "0x10", "2024-01-01", "true"])
def test_a_scalar_keeps_the_text_that_was_written(written: str) -> None:
    assert parse(f"a: {written}").section(("a",))["a"].text() == written


def test_a_key_without_a_value_counts_as_absent() -> None:
    assert parse("a:\nb: 1\n").section(("a", "b")).keys() == {"b"}


def test_an_empty_document_is_an_empty_mapping() -> None:
    assert parse("# nothing\n").section(("a",)) == {}


def test_an_unknown_key_is_refused_with_its_line_and_the_nearest_known_one() -> None:
    with pytest.raises(ConfigError) as caught:
        parse("a: 1\nsuits: []\n").section(("a", "suites"))
    assert str(caught.value) == "file.yaml: line 2: unknown key suits"
    assert caught.value.hint == "did you mean suites?"


def test_an_unknown_key_without_a_value_is_refused_too() -> None:
    with pytest.raises(ConfigError, match="unknown key typo"):
        parse("typo:\n").section(("a",))


def test_a_key_given_twice_is_refused() -> None:
    assert refused("a: 1\nb: 2\na: 3\n") == "file.yaml: line 3: a is given twice (before in line 1)"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: &x 1\nb: 2\n", "line 1: anchors"),
        ("a: 1\nb: *a\n", "line 2: anchors"),
        ("a: !!python/object:os.system 1\n", "line 1: tags"),
        ("a: [1\nb: 2\n", "line 2: not YAML"),
        ("a: 1\n---\nb: 2\n", "line 2: not YAML"),
        ("? [a, b]\n: 1\n", "line 1: a key must be a plain word"),
    ],
)
def test_what_is_no_plain_tree_is_refused_with_its_line(text: str, message: str) -> None:
    assert message in refused(text)


def test_too_deep_nesting_is_refused() -> None:
    parse("[" * MAX_DEPTH + "]" * MAX_DEPTH)
    assert "nested deeper" in refused("[" * 100_000)


def test_too_many_values_are_refused() -> None:
    assert "more than" in refused("[" + "1," * MAX_NODES + "]")


@pytest.mark.parametrize("written", ["1.5", "'4'", "x", "0x10", "1_000", "010", "1:30", "true", "[1]", "+4"])
def test_a_whole_number_is_written_in_plain_decimal(written: str) -> None:
    with pytest.raises(ConfigError, match="a must be a whole number"):
        parse(f"a: {written}").section(("a",))["a"].integer(-100, 10_000)


def test_a_number_out_of_range_is_refused() -> None:
    with pytest.raises(ConfigError, match="a is 7; it must be between 0 and 6"):
        parse("a: 7").section(("a",))["a"].integer(0, 6)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("a: [x]", "a must be a string, not a list"), ("a: {x: 1}", "a must be a string, not a mapping")],
)
def test_a_collection_is_no_string(text: str, expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        parse(text).section(("a",))["a"].text()


def test_a_string_is_no_list_and_no_mapping() -> None:
    node = parse("a: x").section(("a",))["a"]
    with pytest.raises(ConfigError, match="a must be a list, not x"):
        node.items()
    with pytest.raises(ConfigError, match=r"a must be a mapping \(key: value\), not x"):
        node.mapping()


def test_an_item_without_a_value_is_refused() -> None:
    with pytest.raises(ConfigError, match="an item of a must be a string, not nothing"):
        parse("a:\n  - x\n  -\n").section(("a",))["a"].texts()


def test_a_choice_must_be_known() -> None:
    with pytest.raises(ConfigError) as caught:
        parse("a: tre").section(("a",))["a"].choice(("apt", "tree"))
    assert caught.value.hint == "did you mean tree?"


def test_bytes_that_are_no_text_are_refused_with_their_line() -> None:
    with pytest.raises(ConfigError, match="line 2: this is not UTF-8 text"):
        decode(b"a: 1\nb: \xff\n", ORIGIN)


def test_a_control_character_is_refused_with_its_line() -> None:
    with pytest.raises(ConfigError, match="line 3: a control character"):
        decode(b"a: 1\n\tb\r\nc: \x00\n", ORIGIN)


def test_line_ends_of_other_systems_are_taken() -> None:
    assert decode(b"\xef\xbb\xbfa\r\nb\n", ORIGIN) == "a\nb\n"


def test_a_file_over_the_cap_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "large"
    path.write_bytes(b"#" * (MAX_FILE_BYTES + 1))
    with pytest.raises(ConfigError, match="larger than"):
        read_text(path, ORIGIN)


@settings(max_examples=100, deadline=None)
@given(st.one_of(st.text(), st.text(alphabet="ab:-[]{},&*!#'\"\n \t?|>%@`")))
def test_any_text_gives_a_tree_or_one_clear_error(text: str) -> None:
    message = ""
    try:
        parse_yaml(decode(text.encode("utf-8", "replace"), ORIGIN), ORIGIN)
    except ConfigError as error:
        message = str(error)
    assert "\n" not in message
