"""A tree of sorted items in nodes, made in one go from the bottom up.

Leaves are filled in order, each with all that fits, and so are the nodes above them. The nodes of a tree lie one after
the other: leaves first, the root last. How many there are follows from the sizes of the items alone, so that a tree can
be given its place while it is not yet final what its items say.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise

from mixer.images.btrfs.format import (
    ITEM_SIZE,
    LEAF_DATA_SIZE,
    NODE_POINTERS,
    NODESIZE,
    Identity,
    Key,
    TreeItem,
    inner_node,
    leaf,
)


class Tree:
    """Items in any order, each key once, none larger than MAX_ITEM."""

    def __init__(self, objectid: int, items: Iterable[TreeItem]) -> None:
        self.objectid = objectid
        self.items = sorted(items)
        self.start = 0
        """The bytenr of the first node; whoever places the tree sets it."""
        self._leaves = list(_leaves(self.items))
        self.shape = tuple(_shape(len(self._leaves)))
        """How many nodes each level has, leaves first."""

    @property
    def level(self) -> int:
        return len(self.shape) - 1

    @property
    def size(self) -> int:
        return sum(self.shape) * NODESIZE

    @property
    def root(self) -> int:
        """The bytenr of the root."""
        return self.start + self.size - NODESIZE

    def nodes(self) -> Iterator[tuple[int, int]]:
        """Bytenr and level of each node."""
        bytenr = self.start
        for level, count in enumerate(self.shape):
            for _ in range(count):
                yield bytenr, level
                bytenr += NODESIZE

    def blocks(self, identity: Identity) -> Iterator[tuple[int, bytes]]:
        """Bytenr and bytes of each node."""
        bytenr = self.start
        children: list[tuple[Key, int]] = []
        for first, end in self._leaves:
            items = self.items[first:end]
            yield bytenr, leaf(identity, bytenr, self.objectid, items)
            children += [(item.key, bytenr) for item in items[:1]]
            bytenr += NODESIZE
        for level in range(1, len(self.shape)):
            parents = []
            for start in range(0, len(children), NODE_POINTERS):
                below = children[start : start + NODE_POINTERS]
                yield bytenr, inner_node(identity, bytenr, self.objectid, level, below)
                parents.append((below[0][0], bytenr))
                bytenr += NODESIZE
            children = parents


def _leaves(items: Sequence[TreeItem]) -> Iterator[tuple[int, int]]:
    """The first item of each leaf and the one behind its last; a tree without items has one empty leaf."""
    ends = [0]
    used = 0
    for index, item in enumerate(items):
        size = ITEM_SIZE + len(item.data)
        used += size
        if used > LEAF_DATA_SIZE:
            ends.append(index)
            used = size
    return pairwise([*ends, len(items)])


def _shape(count: int) -> Iterator[int]:
    yield count
    while count > 1:
        count = -(-count // NODE_POINTERS)
        yield count
