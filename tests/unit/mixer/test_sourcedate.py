from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixer.errors import BuildError
from mixer.sourcedate import source_date
from swupd.formats.manifest import TIMESTAMP_LIMIT


@given(st.integers(0, TIMESTAMP_LIMIT))
def test_a_time_is_taken_as_it_is(time: int) -> None:
    assert source_date({"SOURCE_DATE_EPOCH": str(time)}) == time


@pytest.mark.parametrize("environ", [{}, {"SOURCE_DATE_EPOCH": ""}])
def test_nothing_said_is_no_time(environ: dict[str, str]) -> None:
    assert source_date(environ) is None


@pytest.mark.parametrize("text", ["yesterday", "-1", "1.5", " 1", "१", str(TIMESTAMP_LIMIT + 1), "9" * 5000])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(BuildError, match=r"SOURCE_DATE_EPOCH is '.+', not a time in seconds since 1970"):
        source_date({"SOURCE_DATE_EPOCH": text})
