"""Plain tables."""

from __future__ import annotations

from mixer.table import table


def test_columns_are_as_wide_as_their_widest_cell() -> None:
    assert table([("name", "x", "note"), ("os-core", "", ""), ("a", "yes", "b")]) == (
        "name     x    note\nos-core\na        yes  b"
    )
