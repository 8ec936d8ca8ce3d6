from __future__ import annotations

from uuid import UUID

from crc32c import crc32c
from hypothesis import given
from hypothesis import strategies as st

from mixer.images.btrfs.btree import Tree
from mixer.images.btrfs.format import MAX_ITEM, NODESIZE, Identity, Key, KeyType, TreeItem

IDENTITY = Identity.of(UUID(int=1))
START = 1 << 20


def tree(sizes: list[int]) -> Tree:
    """A tree with items of these sizes; the last given comes first in it."""
    keys = range(len(sizes), 0, -1)
    made = Tree(
        256, [TreeItem(Key(n, KeyType.INODE_ITEM, 0), bytes(size)) for n, size in zip(keys, sizes, strict=True)]
    )
    made.start = START
    return made


def test_a_tree_without_items_is_an_empty_leaf() -> None:
    empty = tree([])
    assert (empty.shape, empty.level, empty.root) == ((1,), 0, START)
    assert [len(block) for _, block in empty.blocks(IDENTITY)] == [NODESIZE]


def test_a_leaf_takes_all_that_fits() -> None:
    assert tree([MAX_ITEM]).shape == (1,)
    assert tree([MAX_ITEM // 2 - 25, MAX_ITEM // 2]).shape == (1,)
    assert tree([MAX_ITEM // 2, MAX_ITEM // 2]).shape == (2, 1)


def test_a_level_is_added_where_a_node_has_too_many_children() -> None:
    assert tree([MAX_ITEM] * 493).shape == (493, 1)
    assert tree([MAX_ITEM] * 494).shape == (494, 2, 1)


@given(sizes=st.lists(st.integers(0, MAX_ITEM), max_size=60))
def test_nodes_lie_one_after_the_other_with_the_root_last(sizes: list[int]) -> None:
    made = tree(sizes)
    blocks = list(made.blocks(IDENTITY))
    assert [bytenr for bytenr, _ in blocks] == [bytenr for bytenr, _ in made.nodes()]
    assert [block[100] for _, block in blocks] == [level for _, level in made.nodes()]
    assert [bytenr for bytenr, _ in blocks] == list(range(START, START + made.size, NODESIZE))
    assert (made.root, made.level) == list(made.nodes())[-1]


@given(sizes=st.lists(st.integers(0, MAX_ITEM), max_size=20))
def test_every_node_has_its_size_and_its_sum(sizes: list[int]) -> None:
    for _, block in tree(sizes).blocks(IDENTITY):
        assert len(block) == NODESIZE
        assert int.from_bytes(block[:4], "little") == crc32c(block[32:])
