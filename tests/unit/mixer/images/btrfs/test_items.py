from __future__ import annotations

from typing import Any

import pytest

from mixer.images.btrfs.items import Item, Subvolume, data_size, in_order, metadata_size
from swupd.formats.manifest import FileType

Image = Any

MIB = 1 << 20
TOP = Item("", FileType.DIRECTORY, 0o755, 0, 0)


def directory(path: str, **fields: Any) -> Item:
    return Item(path, FileType.DIRECTORY, fields.pop("mode", 0o755), 0, 0, **fields)


def file(path: str, size: int = 0, **fields: Any) -> Item:
    return Item(path, FileType.FILE, 0o644, 0, 0, size=size, **{"content": lambda: bytes(size), **fields})


def link(path: str, target: str = "x", **fields: Any) -> Item:
    return Item(path, FileType.LINK, 0o777, 0, 0, target=target, **fields)


def test_directories_come_before_what_is_in_them() -> None:
    items = [link("a/b/c"), directory("a/b"), link("a.b"), TOP, directory("a")]
    assert [item.path for item in in_order(items)] == ["", "a", "a.b", "a/b", "a/b/c"]


@pytest.mark.parametrize(
    ("items", "complaint"),
    [
        ([], "the top level"),
        ([directory("a")], "the top level"),
        ([TOP, link("a"), link("a")], "'a' is there twice"),
        ([TOP, TOP], "'' is there twice"),
        ([TOP, link("a/b")], "'a/b' has no directory"),
        ([TOP, link("a"), link("a/b")], "'a/b' has no directory"),
        ([TOP, link("/a")], "'/a' is no path below"),
        ([TOP, directory("a"), link("a/")], "'a/' is no path below"),
        ([TOP, directory("."), link("./a")], r"'\.' is no path below"),
        ([TOP, link("..")], r"'\.\.' is no path below"),
        ([TOP, link("a\0")], "is no path below"),
        ([TOP, link("ä" * 128)], "is no path below"),
        ([TOP, directory("a", mode=0o40755)], "'a' has bits in its mode that are no permissions: 40755"),
        ([TOP, link("a", "")], "'a' is not complete"),
        ([TOP, link("a", "x" * 4096)], "'a' is not complete"),
        ([TOP, link("a", subvolume=Subvolume())], "'a' is not complete"),
        ([TOP, link("a", content=bytes)], "'a' is not complete"),
        ([TOP, file("a", content=None)], "'a' is not complete"),
        ([TOP, file("a", target="x")], "'a' is not complete"),
        ([TOP, directory("a", content=bytes)], "'a' is not complete"),
        ([TOP, Item("a", FileType.MANIFEST, 0o644, 0, 0)], "'a' is not complete"),
        ([file("")], "the top level"),
    ],
)
def test_items_that_make_no_file_system_are_a_mistake_of_the_caller(items: list[Item], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        in_order(items)


def test_small_content_takes_no_sectors() -> None:
    sizes = (0, 2048, 2049, 4096, 4097)
    assert data_size([TOP, *(file(f"{size}", size) for size in sizes), link("l", "x" * 4000)]) == 4 * 4096


@pytest.mark.parametrize(
    "items",
    [
        pytest.param([link(f"{number}", "x" * 4095) for number in range(1500)], id="long links"),
        pytest.param([file(f"{number}", 2048) for number in range(1500)], id="inline files"),
        pytest.param([file(f"{number}", 2049) for number in range(1500)], id="files of a sector"),
        pytest.param([file(f"{number:0255}") for number in range(1500)], id="long names"),
        pytest.param([directory(f"{number}", subvolume=Subvolume()) for number in range(1500)], id="subvolumes"),
        pytest.param([file("large", 100 * MIB)], id="a large file"),
    ],
)
def test_trees_are_never_larger_than_their_estimate(image: Image, items: list[Item]) -> None:
    items = [TOP, *items]
    image.write(items)
    used = int(image.super_blocks()[0]["bytes_used"]) - data_size(items)
    assert used + 15 * MIB < metadata_size(items)
