"""Squarified treemaps: a box cut into boxes whose areas are as given numbers (Bruls, Huizing and van Wijk, 2000).

What is guaranteed of the boxes that `squarified` returns, up to the rounding of floating-point numbers:

* They come in the order of the weights, and the area of each is its weight's part of the whole box.
* None leaves the whole box, no two overlap. A weight of zero has a box without area.
* They are as near to squares as cutting row by row makes them; the largest is at the top left.

Equal weights keep their order, so the same input gives the same boxes. Pure.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple


class Box(NamedTuple):
    """A rectangle; y grows downwards."""

    x: float
    y: float
    width: float
    height: float

    @property
    def area(self) -> float:
        return self.width * self.height

    def inset(self, margin: float, top: float) -> Box:
        """What is left within a margin on three sides and one of `top` above; without area if nothing is."""
        return Box(
            self.x + min(margin, self.width / 2),
            self.y + min(top, self.height),
            max(self.width - 2 * margin, 0.0),
            max(self.height - margin - top, 0.0),
        )


def squarified(weights: Sequence[int], whole: Box) -> list[Box]:
    """One box for each weight. Raises ValueError if a weight is negative."""
    if any(weight < 0 for weight in weights):
        raise ValueError("a weight of a treemap is negative")
    boxes = [Box(whole.x, whole.y, 0.0, 0.0)] * len(weights)
    order = sorted((i for i, weight in enumerate(weights) if weight), key=lambda i: -weights[i])
    largest_first = [weights[i] for i in order]
    # The sums are of whole numbers, which are exact however large, and only their ratios are floats.
    left, free, start = sum(weights), whole, 0
    while start < len(order):
        end, row = _row(largest_first, start, left, free)
        for i, box in zip(order[start:end], _cut(free, row / left, largest_first[start:end], row), strict=True):
            boxes[i] = box
        free = _rest(free, row / left)
        left -= row
        start = end
    return boxes


def _row(weights: Sequence[int], start: int, left: int, free: Box) -> tuple[int, int]:
    """Where the row that begins at `start` ends, and the sum of its weights: it grows while its boxes get squarer."""
    short, long = sorted((free.width, free.height))
    row, worst = 0, math.inf
    for end in range(start, len(weights)):
        longer = row + weights[end]
        thickness = long * (longer / left)
        # The first box of the row is the longest one, the last the shortest.
        lengths = (short * (weights[start] / longer), short * (weights[end] / longer))
        aspect = max(lengths[0] / thickness, thickness / lengths[1]) if thickness and lengths[1] else math.inf
        if aspect > worst:
            return end, row
        row, worst = longer, aspect
    return len(weights), row


def _cut(free: Box, part: float, weights: Sequence[int], row: int) -> Iterator[Box]:
    """The boxes of a row, which takes this part of the free box along its longer side."""
    is_column = free.width >= free.height
    before = 0
    for weight in weights:
        start, end = before / row, (before + weight) / row
        before += weight
        if is_column:
            yield Box(free.x, free.y + free.height * start, free.width * part, free.height * (end - start))
        else:
            yield Box(free.x + free.width * start, free.y, free.width * (end - start), free.height * part)


def _rest(free: Box, part: float) -> Box:
    if free.width >= free.height:
        taken = free.width * part
        return Box(free.x + taken, free.y, free.width - taken, free.height)
    taken = free.height * part
    return Box(free.x, free.y + taken, free.width, free.height - taken)
