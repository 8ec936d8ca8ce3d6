"""The types of option values."""

from __future__ import annotations

from argparse import ArgumentTypeError
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swupd.commands.global_options import size


@pytest.mark.parametrize(
    ("text", "expected"), [("1000", 1000), ("500k", 500_000), ("2M", 2_000_000), ("1g", 10**9), ("3T", 3 * 10**12)]
)
def test_a_size_is_a_number_with_a_unit(text: str, expected: int) -> None:
    assert size(text) == expected


@pytest.mark.parametrize("text", ["", "k", "0", "0M", "-1", "1.5M", "2 M", "2MB", "2kk", "٣k", "9" * 16])
def test_anything_else_is_no_size(text: str) -> None:
    with pytest.raises(ArgumentTypeError, match="is not a size"):
        size(text)


@given(st.text(max_size=20))
def test_any_text_is_a_size_or_refused(text: str) -> None:
    with suppress(ArgumentTypeError):
        assert size(text) > 0
