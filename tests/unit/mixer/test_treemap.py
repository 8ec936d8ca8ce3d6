"""Treemap layout."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixer.treemap import Box, squarified

WHOLE = Box(10.0, 20.0, 300.0, 200.0)
TOLERANCE = 1e-6
"""Units of a box of some hundred units: what rounding may cost."""

weights = st.lists(st.integers(0, 2**70), max_size=60)
wholes = st.builds(Box, *[st.floats(-100, 100)] * 2, *[st.floats(1, 2000)] * 2)


@given(weights, wholes)
def test_the_area_of_each_box_is_its_part_of_the_whole(weights: list[int], whole: Box) -> None:
    boxes = squarified(weights, whole)
    assert len(boxes) == len(weights)
    for weight, box in zip(weights, boxes, strict=True):
        expected = whole.area * (weight / sum(weights)) if weight else 0.0
        assert box.area == pytest.approx(expected, abs=TOLERANCE)


@given(weights, wholes)
def test_no_box_leaves_the_whole(weights: list[int], whole: Box) -> None:
    for box in squarified(weights, whole):
        assert box.width >= 0
        assert box.height >= 0
        assert box.x >= whole.x - TOLERANCE
        assert box.y >= whole.y - TOLERANCE
        assert box.x + box.width <= whole.x + whole.width + TOLERANCE
        assert box.y + box.height <= whole.y + whole.height + TOLERANCE


@given(weights, wholes)
def test_no_two_boxes_overlap(weights: list[int], whole: Box) -> None:
    boxes = squarified(weights, whole)
    for i, one in enumerate(boxes):
        for other in boxes[:i]:
            width = min(one.x + one.width, other.x + other.width) - max(one.x, other.x)
            height = min(one.y + one.height, other.y + other.height) - max(one.y, other.y)
            assert min(width, height) <= TOLERANCE


@given(st.lists(st.integers(0, 10**400), min_size=1, max_size=20))
def test_numbers_beyond_every_float_are_laid_out(weights: list[int]) -> None:
    areas = sum(box.area for box in squarified(weights, WHOLE))
    assert areas == pytest.approx(WHOLE.area if any(weights) else 0.0)


@given(st.lists(st.integers(0, 1000), max_size=20), st.sampled_from([Box(0, 0, 0, 50), Box(0, 0, 50, 0)]))
def test_a_whole_without_area_has_boxes_without_area(weights: list[int], whole: Box) -> None:
    assert [box.area for box in squarified(weights, whole)] == [0.0] * len(weights)


def test_equal_weights_become_squares_where_squares_fit() -> None:
    assert {(round(box.width), round(box.height)) for box in squarified([7] * 6, WHOLE)} == {(100, 100)}


def test_boxes_are_squarer_than_slices() -> None:
    boxes = squarified([6, 6, 4, 3, 2, 2, 1], Box(0, 0, 6, 4))
    assert max(max(box.width / box.height, box.height / box.width) for box in boxes) < 3


def test_the_largest_stands_at_the_top_left_whatever_its_place() -> None:
    assert squarified([1, 50, 3], WHOLE)[1][:2] == (10.0, 20.0)


def test_negative_weights_are_refused() -> None:
    with pytest.raises(ValueError, match="negative"):
        squarified([1, -1], WHOLE)


@given(wholes, st.floats(0, 3000), st.floats(0, 3000))
def test_an_inset_stays_inside(whole: Box, margin: float, top: float) -> None:
    inner = whole.inset(margin, top)
    assert inner.x >= whole.x
    assert inner.y >= whole.y
    assert inner.x + inner.width <= whole.x + whole.width + TOLERANCE
    assert inner.y + inner.height <= whole.y + whole.height + TOLERANCE
    assert min(inner.width, inner.height) >= 0
