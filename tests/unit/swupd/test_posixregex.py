"""POSIX extended regular expressions mean here what grep takes them for."""

from __future__ import annotations

import re
import subprocess
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swupd.errors import UsageError
from swupd.posixregex import PATTERN_LIMIT, compile_extended

PATHS = ("/usr/bin/edit", "/usr/lib/lib.so.1", "/usr/lib/LIB-9", "/usr/share/a]b", "/usr/share/a\\b", "/usr/share/a[b")


def found(pattern: str, *, ignore_case: bool = False) -> list[str]:
    compiled = compile_extended(pattern, "the term", example="x", ignore_case=ignore_case)
    return [path for path in PATHS if compiled.search(path)]


@pytest.mark.parametrize(
    "pattern",
    [
        r"lib\.so",
        "^/usr/(bin|lib)/",
        "[[:upper:]]+-[[:digit:]]$",
        "[]x]b",
        "a[\\]b",
        "a[[]b",
        "[^[:alnum:]/]",
        "e{1}di?t+$",
        "a[^]]b",
        "[a^/]edit",
        "[+--]9",
    ],
)
def test_an_expression_finds_what_grep_finds(pattern: str) -> None:
    text = "\n".join(PATHS)
    done = subprocess.run(
        ["grep", "-E", "--", pattern], input=text, env={"LC_ALL": "C"}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, "the example finds something"
    assert found(pattern) == done.stdout.splitlines()


def test_case_may_be_ignored() -> None:
    assert found("^/usr/lib/lib", ignore_case=True) == ["/usr/lib/lib.so.1", "/usr/lib/LIB-9"]


@pytest.mark.parametrize("pattern", ["(", "a{2,1}", "[z-a]", "[[:nosuch:]]", "*", "[", "[]a[b", "a{99999999999}"])
def test_what_is_no_expression_is_a_mistake_of_the_user(pattern: str) -> None:
    with pytest.raises(UsageError, match=r"the term .* is not a regular expression") as caught:
        compile_extended(pattern, "the term", example="lib.*")
    assert caught.value.hint == "an example: lib.*"


def test_a_very_long_expression_is_refused() -> None:
    with pytest.raises(UsageError, match=f"longer than the {PATTERN_LIMIT}"):
        compile_extended("a" * (PATTERN_LIMIT + 1), "the term", example="x")


@pytest.mark.filterwarnings("error")
@given(st.text(alphabet="ab[]^-\\:.*+?(){}|$1,[:alpha:]", max_size=20))
def test_any_text_compiles_or_is_refused(pattern: str) -> None:
    with suppress(UsageError):
        assert isinstance(compile_extended(pattern, "the term", example="x"), re.Pattern)


@given(st.text(alphabet="ab/.", max_size=10))
def test_an_escaped_text_finds_itself(text: str) -> None:
    escaped = re.sub(r"([^a-z/])", r"\\\1", text)
    compiled = compile_extended(escaped, "the term", example="x")
    assert compiled.fullmatch(text)
