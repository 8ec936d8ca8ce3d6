from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Any
from uuid import UUID, uuid5

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mixer.errors import BuildError
from mixer.images import btrfs
from mixer.images.btrfs import Item, Subvolume
from swupd.formats.manifest import FileType

Image = Any

MIB = 1 << 20
FSID = UUID("6e1a2f9c-0d8b-4c53-9a51-2b7f6f0d9a11")
NUMBERS = random.Random(1)
SIZES = (0, 1, 2047, 2048, 2049, 4095, 4096, 4097, 16383, 16384, 16385, 300_000)
SAME_HASH = (("vrsvxkqp", "edknxurb"), ("vatmhdzv", "cwdyrdkp"))
"""Names that btrfs has the same hash for."""
POLYNOMIAL = sum(1 << 32 - bit for bit in range(33) if 0x11EDC6F41 >> bit & 1)
"""Added to any name at any bit, it leaves the CRC-32C as it is."""


def directory(path: str, mode: int = 0o755, *, subvolume: Subvolume | None = None) -> Item:
    return Item(path, FileType.DIRECTORY, mode, 0, 0, subvolume=subvolume)


def file(path: str, content: bytes = b"", mode: int = 0o644, uid: int = 0, gid: int = 0) -> Item:
    return Item(path, FileType.FILE, mode, uid, gid, size=len(content), content=lambda: content)


def link(path: str, target: str) -> Item:
    return Item(path, FileType.LINK, 0o777, 0, 0, target=target)


SYSTEM = [
    directory(""),
    directory("@"),
    directory("@/20", subvolume=Subvolume(read_only=True)),
    directory("@/20/usr"),
    *(file(f"@/20/usr/size-{size}", NUMBERS.randbytes(size)) for size in SIZES),
    *(file(f"@/20/usr/mode-{mode:o}", b"#", mode) for mode in (0o4755, 0o2755, 0o1644, 0o000)),
    file("@/20/usr/owned", b"x", uid=1234, gid=70_000),
    link("@/20/bin", "usr/bin"),
    link("@/20/long", "x" * 4000),
    directory("@state", 0o700, subvolume=Subvolume()),
    directory("@state/etc", 0o700),
    directory("@state/home", subvolume=Subvolume()),
    directory("@state/tmp", 0o1777),
    file("@state/home/file", b"mine" * 1000, uid=1000, gid=1000),
]


def test_a_system_passes_the_check_and_can_be_read(image: Image) -> None:
    image.write(SYSTEM)
    image.check()
    image.holds(SYSTEM)


def test_subvolumes_hang_where_their_paths_say_and_some_are_read_only(image: Image) -> None:
    image.write(SYSTEM)
    roots = image.dump("--tree", "root")
    assert "item 2 key (FS_TREE INODE_REF 6)" in roots
    subvolumes = [part.split("item ")[0] for part in roots.split("key (")[1:] if " ROOT_ITEM 0)" in part.split("\n")[0]]
    flags = {part.split()[0]: "flags 0x1(RDONLY)" in part for part in subvolumes}
    assert {name: flags[name] for name in ("FS_TREE", "256", "257", "258")} == {
        "FS_TREE": False,
        "256": True,
        "257": False,
        "258": False,
    }
    assert "(FS_TREE ROOT_REF 256)" in roots
    assert "(258 ROOT_BACKREF 257)" in roots
    for path in ("", "@/20", "@state", "@state/home"):
        assert str(uuid5(FSID, path.encode().hex())) in roots


def test_the_super_block_and_its_mirror_tell_label_size_and_what_is_used(image: Image) -> None:
    image.write(SYSTEM, 300 * MIB + 1000, label="an os")
    blocks = image.super_blocks()
    assert [block["bytenr"] for block in blocks] == ["65536", str(64 * MIB)]
    for block in blocks:
        assert block["label"] == "an os"
        assert block["fsid"] == str(FSID)
        assert int(block["total_bytes"]) == 300 * MIB
        assert 0 < int(block["bytes_used"]) < 2 * MIB


def test_the_same_items_give_the_same_bytes_in_any_order_and_place(image: Image, tmp_path: Path) -> None:
    image.write(SYSTEM)
    other = tmp_path / "other"
    with other.open("wb") as target:
        target.write(b"partition table")
        shuffled = random.Random(2).sample(SYSTEM, len(SYSTEM))
        btrfs.write(target, 3 * MIB, 256 * MIB, shuffled, label="os", uuid=FSID, time=1_700_000_000)
    assert other.read_bytes()[:15] == b"partition table"
    with other.open("rb") as second, image.path.open("rb") as first:
        second.seek(3 * MIB)
        assert all(first.read(MIB) == second.read(MIB) for _ in range(257))


def test_content_is_asked_for_once_and_in_the_order_of_paths(image: Image) -> None:
    asked: list[str] = []

    def recorded(path: str) -> Item:
        def content() -> bytes:
            asked.append(path)
            return b"x" * 3000

        return Item(path, FileType.FILE, 0o644, 0, 0, size=3000, content=content)

    image.write([recorded("b"), recorded("a/z"), directory("a"), recorded("c"), directory("")])
    assert asked == ["a/z", "b", "c"]


def test_the_smallest_image_is_empty_and_has_256_mib(image: Image) -> None:
    assert btrfs.required([directory("")]) == 256 * MIB
    image.write([directory("")])
    image.check()
    image.holds([directory("")])


def test_an_image_of_what_is_required_holds_everything(image: Image) -> None:
    content = bytes(50 * MIB + 1)
    items = [directory(""), *(file(f"{number}", content) for number in range(4))]
    size = btrfs.required(items)
    assert size > 256 * MIB
    image.write(items, size)
    image.check()


def test_an_image_that_is_too_small_is_refused_before_anything_is_read(image: Image) -> None:
    items = [directory(""), Item("large", FileType.FILE, 0o644, 0, 0, size=400 * MIB, content=lambda: 1 // 0)]
    needed = btrfs.required(items) // MIB
    with pytest.raises(BuildError, match=f"of 399 MiB is too small for 2 files: {needed} MiB are needed"):
        image.write(items, 400 * MIB - 1)
    assert image.path.stat().st_size == 0


@pytest.mark.parametrize("size", [2, 4, 5000])
def test_content_of_another_size_than_announced_is_refused(image: Image, size: int) -> None:
    item = Item("a/b", FileType.FILE, 0o644, 0, 0, size=size, content=lambda: b"abc")
    with pytest.raises(BuildError, match=f"a/b: the content has 3 bytes, not the {size} that were announced"):
        image.write([directory(""), directory("a"), item])


def test_a_label_that_is_too_long_is_refused(image: Image) -> None:
    with pytest.raises(ValueError, match="label"):
        image.write([directory("")], label="ö" * 128)


def test_a_large_file_has_several_extents(image: Image) -> None:
    content = bytes(128 * MIB) + NUMBERS.randbytes(5000)
    image.write([directory(""), file("large", content)], 512 * MIB)
    image.check()
    assert image.dump("--tree", "fs").count("extent data disk byte") == 2


def test_trees_of_three_levels_are_sound(image: Image) -> None:
    items = [directory(""), *(link(f"{number:0255}", "x" * 4095) for number in range(1500))]
    image.write(items)
    assert "level 2" in image.dump("--tree", "root").split("FS_TREE ROOT_ITEM 0")[1].split("item ")[0]
    image.check()
    image.holds(items)


def test_names_with_the_same_hash_share_an_item(image: Image) -> None:
    items = [directory(""), *(file(name, name.encode()) for pair in SAME_HASH for name in pair)]
    image.write(items)
    assert image.dump("--tree", "fs").count("DIR_ITEM") == 2
    image.check()
    image.holds(items)


def test_too_many_names_with_the_same_hash_are_refused(image: Image) -> None:
    name = int.from_bytes(b"m" * 250, "little")
    alike = (name ^ POLYNOMIAL << shift for shift in range(8 * 240))
    names = {os.fsdecode(each.to_bytes(250, "little")) for each in alike}
    items = [directory(""), directory("odd"), *(file(f"odd/{each}") for each in names if "/" not in each)]
    with pytest.raises(BuildError, match="odd: btrfs cannot hold so many names"):
        image.write(items)


NAMES = st.binary(min_size=1, max_size=12).map(lambda name: os.fsdecode(name.translate(None, b"/\0"))).filter(
    lambda name: name not in ("", ".", "..")
) | st.sampled_from([name for pair in SAME_HASH for name in pair] + ["n" * 255])
MODES = st.integers(0, 0o7777)
OWNERS = st.integers(0, 2**32 - 2)


@st.composite
def trees(draw: st.DrawFn) -> list[Item]:
    """Any tree: deep, wide, with nested subvolumes, sizes at the limits between ways to store content."""
    above = [""]
    items = {"": directory("")}
    for _ in range(draw(st.integers(0, 40))):
        parent = draw(st.sampled_from(above))
        path = f"{parent}/{draw(NAMES)}".lstrip("/") if parent else draw(NAMES)
        owner = (draw(OWNERS), draw(OWNERS))
        match draw(st.sampled_from(["directory", "subvolume", "file", "file", "link"])):
            case "link":
                target = draw(NAMES) * draw(st.sampled_from([1, 15]))
                item = Item(path, FileType.LINK, 0o777, *owner, target=target)
            case "file":
                content = draw(st.binary(min_size=1, max_size=3)) * draw(st.sampled_from(SIZES))
                content = content[: draw(st.sampled_from(SIZES))]
                item = file(path, content, draw(MODES), *owner)
            case kind:
                subvolume = Subvolume(draw(st.booleans())) if kind == "subvolume" else None
                item = Item(path, FileType.DIRECTORY, draw(MODES), *owner, subvolume=subvolume)
                if path not in items and len(path) < 2000:
                    above.append(path)
        items.setdefault(path, item)
    return list(items.values())


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(items=trees())
def test_any_tree_passes_the_check_and_can_be_read(
    tmp_path_factory: pytest.TempPathFactory, image: Image, items: list[Item]
) -> None:
    image.path = tmp_path_factory.mktemp("any") / "image"
    image.write(items)
    image.check()
    image.holds(items)
