from __future__ import annotations

import os
from collections.abc import Iterator

import pytest


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """Where to read, and where to write."""
    ends = os.pipe()
    yield ends
    for end in ends:
        os.close(end)
